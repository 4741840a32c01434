"""The keys of the control plane, from the environment, for the processes that need them."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloudsignal.config import Environment
from cloudsignal.wire import sealed


@cache
def pepper() -> bytes:
    """The 32 bytes that key the hash of MQTT secrets; raises :class:`cloudsignal.config.ConfigError` when unset."""
    return Environment().key("CLOUDSIGNAL_PEPPER")


@cache
def node_key() -> bytes:
    """The key with which edges seal their reports and events: given to ingest, derived where the pepper is known."""
    environment = Environment()
    if environment.text("CLOUDSIGNAL_NODE_KEY", ""):
        return environment.key("CLOUDSIGNAL_NODE_KEY")
    return sealed.node_key(pepper())


@cache
def signing_key() -> Ed25519PrivateKey:
    """The key that signs bundles (workers only); raises :class:`cloudsignal.config.ConfigError` when unset."""
    return Ed25519PrivateKey.from_private_bytes(Environment().key("CLOUDSIGNAL_SIGNING_KEY"))


@cache
def log_key() -> Ed25519PrivateKey:
    """The key that signs the audit's checkpoints (workers only); never the one that signs bundles."""
    return Ed25519PrivateKey.from_private_bytes(Environment().key("CLOUDSIGNAL_LOG_KEY"))


@cache
def previous_log_key() -> Ed25519PrivateKey | None:
    """The key that :func:`log_key` takes the place of: both sign the first checkpoint after the change."""
    environment = Environment()
    if not environment.text("CLOUDSIGNAL_LOG_KEY_PREVIOUS", ""):
        return None
    return Ed25519PrivateKey.from_private_bytes(environment.key("CLOUDSIGNAL_LOG_KEY_PREVIOUS"))
