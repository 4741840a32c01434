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
