"""Every environment variable CloudSignal reads, in one place: web, worker, edge and CLI share it.

A wrong value raises :class:`ConfigError` whose message names the variable, what is wrong with it and what to write.
``cloudsignal up`` makes the secrets at first start and hands each process only what it needs.
"""

from __future__ import annotations

import binascii
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cloudsignal.errors import quoted

BROKERS_MAX = 32
"""Addresses of broker nodes, at most: as written, and after names have been resolved."""

MQTTS_PORT = 8883

KEEP_ALIVE = 30
"""Seconds of keep-alive towards the broker when nothing else is written."""

KEEP_ALIVE_LEAST, KEEP_ALIVE_MOST = 3, 600


class ConfigError(ValueError):
    """An environment variable is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Variable:
    """One environment variable: its name, which processes read it, and what it is for (``cloudsignal doctor``)."""

    name: str
    read_by: str
    purpose: str
    secret: bool = False


VARIABLES: tuple[Variable, ...] = (
    Variable("CLOUDSIGNAL_DATA", "all", "folder for databases, secrets, journals and logs"),
    Variable("CLOUDSIGNAL_PUBLIC_URL", "web, worker", "where people reach the dashboard: https://signal.example.com"),
    Variable("CLOUDSIGNAL_MQTT_HOST", "web", "the host name that clients connect to, as shown to people"),
    Variable("CLOUDSIGNAL_MQTT_PORT", "web", "the mqtts port as shown to people (8883)"),
    Variable("CLOUDSIGNAL_WSS_PORT", "web", "the wss port as shown to people (443, or 8443 in the demo)"),
    Variable("CLOUDSIGNAL_SECRET_KEY", "web, worker", "Django's secret key", secret=True),
    Variable(
        "CLOUDSIGNAL_PEPPER", "web, worker, edge", "32 bytes in hex; keys the hash of MQTT passwords", secret=True
    ),
    Variable(
        "CLOUDSIGNAL_NODE_KEY",
        "ingest",
        "32 bytes in hex, made from the pepper; verifies what edges say",
        secret=True,
    ),
    Variable("CLOUDSIGNAL_SIGNING_KEY", "worker", "Ed25519 seed, 32 bytes in hex; signs bundles", secret=True),
    Variable(
        "CLOUDSIGNAL_LOG_KEY", "worker", "Ed25519 seed, 32 bytes in hex; signs the audit's checkpoints", secret=True
    ),
    Variable(
        "CLOUDSIGNAL_LOG_KEY_PREVIOUS",
        "worker",
        "the log key before this one, while it is being changed; signs once more",
        secret=True,
    ),
    Variable("CLOUDSIGNAL_WITNESSES", "worker", "file that lists witnesses of the audit log, a URL and its key a line"),
    Variable("CLOUDSIGNAL_VERIFY_KEY", "edge", "Ed25519 public key, 32 bytes in hex; verifies bundles"),
    Variable("CLOUDSIGNAL_DEBUG", "web", "1 shows error pages with details; never in production"),
    Variable("CLOUDSIGNAL_EMAIL_URL", "web, worker", "mail: smtps://user:password@host", secret=True),
    Variable(
        "CLOUDSIGNAL_EMAIL_BACKEND", "web, worker", "any Django email backend by its dotted path, instead of SMTP"
    ),
    Variable("CLOUDSIGNAL_TRUSTED_PROXIES", "web", "networks (CIDR, with commas) whose X-Forwarded-For is trusted"),
    Variable("CLOUDSIGNAL_PROVIDER_NETWORKS", "web", "private networks (CIDR) that identity providers may stand in"),
    Variable("CLOUDSIGNAL_DEMO", "web", "1 marks the running system as a demo on every page"),
    Variable("DATABASE_URL", "web, worker, ingest", "PostgreSQL 15 or newer, as the application role", secret=True),
    Variable("DATABASE_OWNER_URL", "migrations", "the same database as the role that owns the tables", secret=True),
    Variable(
        "DATABASE_DELETE_URL",
        "worker",
        "the same database as the role that deletes organizations for good",
        secret=True,
    ),
    Variable(
        "DATABASE_INGEST_URL",
        "ingest",
        "the same database as the role that appends to the audit; without it ingest is slower",
        secret=True,
    ),
    Variable("REDIS_URL", "web, worker, ingest, edge", "Redis 6.2 or newer, or Valkey", secret=True),
    Variable(
        "MQTT_UPSTREAM_URL",
        "edge",
        "the broker: unix:///path, or mqtts://host:8883, its nodes with commas",
        secret=True,
    ),
    Variable("EDGE_NODE", "edge", "name of this edge process, unique in its cluster"),
    Variable("EDGE_MQTTS", "edge", "address of the mqtts listener (0.0.0.0:8883)"),
    Variable("EDGE_WSS", "edge", "address of the wss listener, or off (0.0.0.0:8443)"),
    Variable("EDGE_PLAINTEXT", "edge", "address of a plaintext listener; loopback or private only; off by default"),
    Variable("EDGE_METRICS", "edge", "address of the metrics listener; loopback or private only; off by default"),
    Variable("EDGE_TLS_CERT", "edge", "certificate chain, PEM"),
    Variable("EDGE_TLS_KEY", "edge", "private key, PEM"),
    Variable("EDGE_PROXY", "edge", "address for a TLS terminator that speaks PROXY v2; loopback or private; off"),
    Variable("EDGE_LOGIN_FAILURES", "edge", "failed sign-ins of one address a minute before it is slowed down (120)"),
    Variable("EDGE_ADDRESS_CONNECTIONS", "edge", "connections of one address at a time (20000)"),
    Variable("EDGE_TOPIC_LEVELS", "web, edge", "levels a topic or filter may have, 1 to 128 (128)"),
    Variable("EDGE_JOURNAL_MB", "edge", "audit events kept on disk while Redis is unavailable, in MiB (256)"),
    Variable("EDGE_TLS_ORGS", "edge", "folder with per-organization ORG.crt and ORG.key, chosen by SNI"),
)


@dataclass(frozen=True, slots=True)
class Address:
    """A TCP address to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """The broker: a unix socket (``path``), or TLS to the nodes of one cluster (``hosts``)."""

    path: str = ""
    hosts: tuple[Address, ...] = ()
    """Names and addresses as written; a name may stand for several nodes."""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    password: str = ""
    keep_alive: int = KEEP_ALIVE
    """Seconds within which edge and broker notice that the other is gone."""
    status: str = ""
    """URL of each broker node's status pages, over HTTP; ``{host}`` stands for its host. Empty when not asked."""


class Environment:
    """Typed access to a mapping of environment variables (``os.environ`` unless given)."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self._values = os.environ if values is None else values

    def text(self, name: str, default: str | None = None) -> str:
        """The value, stripped; the default when unset or empty. Without a default a missing one is an error."""
        value = self._values.get(name, "").strip()
        if value:
            return value
        if default is None:
            raise ConfigError(f"{name} is not set; it is needed here ({_purpose(name)})")
        return default

    def flag(self, name: str) -> bool:
        """``1``, ``true``, ``yes``, ``on`` or ``0``, ``false``, ``no``, ``off`` (the default)."""
        value = self.text(name, "0").lower()
        if value in {"1", "true", "yes", "on"}:
            return True
        if value in {"0", "false", "no", "off"}:
            return False
        raise ConfigError(f"{name} is {quoted(value)}; write 1 or 0")

    def number(self, name: str, default: int, *, low: int, high: int) -> int:
        """A whole number within ``low..high``."""
        value = self.text(name, str(default))
        try:
            number = int(value)
        except ValueError:
            raise ConfigError(f"{name} is {quoted(value)}; write a whole number from {low} to {high}") from None
        if not low <= number <= high:
            raise ConfigError(f"{name} is {number}; it must lie between {low} and {high}")
        return number

    def key(self, name: str) -> bytes:
        """32 bytes written as 64 hex digits."""
        value = self.text(name)
        try:
            key = binascii.unhexlify(value)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != 32:
            raise ConfigError(f"{name} must be 32 bytes written as 64 hex digits")
        return key

    def path(self, name: str, default: str | None = None) -> Path:
        """A path; ``~`` is expanded."""
        path = Path(self.text(name, default))
        try:
            return path.expanduser()
        except RuntimeError:
            raise ConfigError(f"{name} is {quoted(path)}, and there is no such user") from None

    def address(self, name: str, default: str, *, private: bool = False) -> Address | None:
        """``host:port`` or ``off``. With ``private``, only a loopback or private host is accepted.

        The rule behind ``private`` is one of the three defaults that nothing softens: a listener without TLS never
        gets a public address, and neither does ``0.0.0.0``, which would include one.
        """
        value = self.text(name, default)
        if value.lower() == "off":
            return None
        host, _, port = value.rpartition(":")
        host = host.strip("[]")
        if not host or not (port.isascii() and port.isdigit()) or not 0 <= int(port) <= 65535:
            raise ConfigError(f"{name} is {quoted(value)}; write host:port, for example 127.0.0.1:8883, or off")
        if private and not _is_private(host):
            raise ConfigError(
                f"{name} is {quoted(value)}; without TLS only a loopback or private address is allowed "
                "(such as 127.0.0.1 or 10.0.0.5), and never 0.0.0.0"
            )
        return Address(host, int(port))

    def origin(self, name: str, default: str | None = None) -> str:
        """``https://host`` or ``http://host``, with a port or without, and nothing after it."""
        value = self.text(name, default).rstrip("/")
        try:
            parts = urlsplit(value)
            named = bool(parts.hostname) and parts.port != 0
        except ValueError:
            named = False
        if not named or value not in {f"{scheme}://{parts.netloc}" for scheme in ("https", "http")} or "@" in value:
            raise ConfigError(f"{name} is {quoted(value)}; write https:// or http:// and a host, no more")
        return value

    def upstream(self, name: str = "MQTT_UPSTREAM_URL") -> Upstream:
        """``unix:///path/to.sock`` or ``mqtts://[:password@]host[:port][,host[:port]...][?option=value&...]``.

        Options are ``ca``, ``cert`` and ``key`` (files), ``keepalive`` (seconds) and ``status`` (a URL).
        """
        value = self.text(name)
        scheme, _, rest = value.partition("://")
        place, _, query = rest.partition("?")
        options = {key: unquote(text) for key, _, text in (pair.partition("=") for pair in query.split("&") if pair)}
        unknown = sorted(set(options) - {"ca", "cert", "key", "keepalive", "status"})
        if unknown:
            raise ConfigError(
                f"{name}: unknown option {quoted(unknown[0])}; known are ca, cert, key, keepalive and status"
            )
        keep_alive, status = _keep_alive(name, options), options.get("status", "")
        if status and not status.startswith("http://"):  # the certificate of an address would have to name it
            raise ConfigError(f"{name}: status is {quoted(status)}; write http://{{host}}:8888, it is read without TLS")
        if scheme == "unix" and place.startswith("/"):
            return Upstream(path=unquote(place), keep_alive=keep_alive, status=status)
        login, _, listed = place.rpartition("@")
        if scheme != "mqtts" or not listed:
            raise ConfigError(
                f"{name} must be unix:///path/to/broker.sock or mqtts://host:8883; "
                "a broker without TLS is reachable over a unix socket only"
            )
        return Upstream(
            hosts=_brokers(name, listed.removesuffix("/")),
            ca_file=options.get("ca", ""),
            cert_file=options.get("cert", ""),
            key_file=options.get("key", ""),
            password=unquote(login.partition(":")[2]),
            keep_alive=keep_alive,
            status=status,
        )


def _keep_alive(name: str, options: Mapping[str, str]) -> int:
    value = options.get("keepalive", str(KEEP_ALIVE))
    if value.isascii() and value.isdigit() and KEEP_ALIVE_LEAST <= int(value) <= KEEP_ALIVE_MOST:
        return int(value)
    raise ConfigError(
        f"{name}: keepalive is {quoted(value)}; write seconds from {KEEP_ALIVE_LEAST} to {KEEP_ALIVE_MOST}"
    )


def _brokers(name: str, listed: str) -> tuple[Address, ...]:
    """The broker nodes of ``a:8883,b,[::1]:8884``, each once."""
    found = tuple(dict.fromkeys(_broker(name, text) for text in listed.split(",")))
    if len(found) > BROKERS_MAX:
        raise ConfigError(f"{name} names {len(found)} brokers; at most {BROKERS_MAX} are possible")
    return found


def _broker(name: str, text: str) -> Address:
    match = _BROKER.fullmatch(text)
    if match is None or (match["six"] and not _is_ip(match["six"])):
        raise ConfigError(f"{name}: {quoted(text)} is no address; write host:8883 or [::1]:8883, several with commas")
    port = int(match["port"] or MQTTS_PORT)
    if not 1 <= port <= 65535:
        raise ConfigError(f"{name}: the port of {quoted(text)} is not a number from 1 to 65535")
    return Address((match["six"] or match["host"]).lower(), port)


_BROKER = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<host>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_private(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return (address.is_loopback or address.is_private) and not address.is_unspecified


def _purpose(name: str) -> str:
    return next((variable.purpose for variable in VARIABLES if variable.name == name), "see docs/operations.md")
