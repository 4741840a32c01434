"""Settings of one edge process: the environment, read and checked once at start."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from acl.policy.engine.topics import MAX_LEVELS
from cloudsignal.config import Address, ConfigError, Environment, Upstream

NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
"""The form of an edge's name."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Configuration of one edge process."""

    node: str
    data: Path
    """The folder of this node: journal, bundles, revisions."""
    redis_url: str
    upstream: Upstream
    pepper: bytes
    verify_key: Ed25519PublicKey
    certificate: Path
    key: Path
    organization_certificates: Path | None
    mqtts: Address | None
    wss: Address | None
    plaintext: Address | None
    proxy: Address | None
    metrics: Address | None
    login_failures: int = 120
    address_connections: int = 20_000
    topic_levels: int = MAX_LEVELS
    """Levels of a topic or filter, at most; the broker takes two more, and two for ``$share/GROUP/``."""
    journal_bytes: int = 256 * 1024 * 1024
    failure_floor: float = 0.25
    """Seconds every answer to a failed sign-in takes, at least."""


def read_settings(env: Environment) -> Settings:
    """Read the environment; raises :class:`ConfigError` that names the variable and what to write."""
    node = env.text("EDGE_NODE")
    if not NODE.fullmatch(node):
        raise ConfigError(f"EDGE_NODE is {node!r}; write letters, digits, '.', '_' and '-', at most 63")
    try:
        verify_key = Ed25519PublicKey.from_public_bytes(env.key("CLOUDSIGNAL_VERIFY_KEY"))
    except ValueError as error:
        raise ConfigError(f"CLOUDSIGNAL_VERIFY_KEY is not an Ed25519 public key: {error}") from error
    certificate, key = env.path("EDGE_TLS_CERT"), env.path("EDGE_TLS_KEY")
    for name, path in (("EDGE_TLS_CERT", certificate), ("EDGE_TLS_KEY", key)):
        if not path.is_file():
            raise ConfigError(f"{name} names {path}, which is not a file")
    mqtts = env.address("EDGE_MQTTS", "0.0.0.0:8883")
    wss = env.address("EDGE_WSS", "0.0.0.0:8443")
    plaintext = env.address("EDGE_PLAINTEXT", "off", private=True)
    proxy = env.address("EDGE_PROXY", "off", private=True)
    if not (mqtts or wss or plaintext or proxy):
        raise ConfigError("EDGE_MQTTS, EDGE_WSS, EDGE_PLAINTEXT and EDGE_PROXY are all off; nobody could connect")
    folder = env.text("EDGE_TLS_ORGS", "off")
    return Settings(
        node=node,
        data=env.path("CLOUDSIGNAL_DATA") / "edge" / node,
        redis_url=env.text("REDIS_URL"),
        upstream=env.upstream(),
        pepper=env.key("CLOUDSIGNAL_PEPPER"),
        verify_key=verify_key,
        certificate=certificate,
        key=key,
        organization_certificates=None if folder == "off" else Path(folder).expanduser(),
        mqtts=mqtts,
        wss=wss,
        plaintext=plaintext,
        proxy=proxy,
        metrics=env.address("EDGE_METRICS", "off", private=True),
        login_failures=env.number("EDGE_LOGIN_FAILURES", 120, low=1, high=1_000_000),
        address_connections=env.number("EDGE_ADDRESS_CONNECTIONS", 20_000, low=1, high=10_000_000),
        topic_levels=env.number("EDGE_TOPIC_LEVELS", MAX_LEVELS, low=1, high=MAX_LEVELS),
        journal_bytes=env.number("EDGE_JOURNAL_MB", 256, low=1, high=1_000_000) * 1024 * 1024,
    )
