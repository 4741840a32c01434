"""The public keys of identity providers (RFC 7517): fetched when needed, kept a while, looked for again on rotation.

Kept per process and by URL. A key id that is not among the kept ones makes us look at once, and so does a signature
that does not verify: the key may have been replaced under its id. What is invented must not hammer a provider, so it is
asked :data:`LOOKS` times at once at most, then every :data:`LOOK_EVERY` seconds; whoever uses that up keeps the keys
fresh for everybody. One that did not answer is left alone for :data:`AGAIN_SECONDS`, and meanwhile keys that were seen
within :data:`STALE_SECONDS` go on working.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWKError
from jwt.exceptions import InvalidKeyError

from cloudsignal.errors import quoted
from cloudsignal.fetch import FetchError, get_json, slot

FRESH_SECONDS = 600.0
LOOKS = 5
LOOK_EVERY = 10.0
AGAIN_SECONDS = 30.0
STALE_SECONDS = 24 * 3600.0
SOURCES_MAX = 1_000
RSA_BITS_MIN = 2048


class KeyMissingError(Exception):
    """No usable key; the message gives the reason."""


class KeysUnavailableError(KeyMissingError):
    """The provider's keys could not be fetched."""


@dataclass(slots=True)
class _Source:
    """The cached keys of one URL."""

    documents: list[dict[str, Any]] = field(default_factory=list)
    fetched_at: float = 0.0
    tried_at: float = 0.0
    error: str = ""
    owed: float = 0.0
    """When every look so far is paid for, at :data:`LOOK_EVERY` seconds each."""
    lock: Lock = field(default_factory=Lock)


@dataclass(frozen=True, slots=True)
class Configuration:
    """The OpenID configuration of an issuer; missing values are empty."""

    jwks_uri: str
    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str
    takes_secret_in_form: bool
    """Whether the issuer supports ``client_secret_post``; the default is ``client_secret_basic``."""


_sources: dict[str, _Source] = {}
_configurations: dict[str, tuple[Configuration | None, str, float]] = {}
"""Cache by issuer: its configuration or the error, and when it was fetched."""


def find_key(url: str, *, kid: str | None, algorithm: str, again: bool = False) -> PyJWK:
    """The key for a token's header; ``algorithm`` is one the provider is pinned to. ``again``: the kept one has not
    verified, so look whether there is another under its id.

    Raises :class:`KeyMissingError` when there is none, :class:`KeysUnavailableError` when they cannot be fetched.
    """
    source = _source(url)
    now = time.monotonic()
    document = _pick(source.documents, kid)
    if document is None or again or now - source.fetched_at >= FRESH_SECONDS:
        try:
            with slot():
                _look(source, url, now, wait=document is None or again)
        except FetchError as error:
            if document is None:
                raise KeysUnavailableError(f"The provider's keys could not be fetched: {error}") from None
        document = _pick(source.documents, kid)
    if source.documents and now - source.fetched_at > STALE_SECONDS:
        document = None
    if document is None:
        if source.error:
            raise KeysUnavailableError(f"The provider's keys could not be fetched: {source.error}")
        raise KeyMissingError(
            f"The provider has no key {quoted(kid[:64])}." if kid else "The token does not name its key."
        )
    return _usable(document, algorithm)


def jwks_url_of(issuer: str) -> str:
    """Discover the JWKS URL of an issuer (OpenID Connect Discovery s4); raises :class:`KeysUnavailableError`."""
    return configuration_of(issuer).jwks_uri


def configuration_of(issuer: str) -> Configuration:
    """Discover the configuration of an issuer (OpenID Connect Discovery s4); raises :class:`KeysUnavailableError`."""
    now = time.monotonic()
    found, problem, at = _configurations.get(issuer, (None, "", 0.0))
    if not at or now - at > (AGAIN_SECONDS if problem else FRESH_SECONDS):
        try:
            with slot():
                found, problem = _discover(issuer)
        except FetchError as error:
            raise KeysUnavailableError(f"The issuer could not be asked for its keys: {error}") from None
        if len(_configurations) >= SOURCES_MAX:
            _configurations.clear()
        _configurations[issuer] = (found, problem, now)
    if found is None:
        raise KeysUnavailableError(problem)
    return found


def _discover(issuer: str) -> tuple[Configuration | None, str]:
    try:
        document = get_json(issuer.rstrip("/") + "/.well-known/openid-configuration")
    except FetchError as error:
        return None, f"The issuer could not be asked for its keys: {error}"
    if not isinstance(document, dict) or document.get("issuer") != issuer or not _text(document, "jwks_uri"):
        return None, "The issuer's configuration names another issuer, or no keys."
    methods = document.get("token_endpoint_auth_methods_supported")
    return Configuration(
        jwks_uri=_text(document, "jwks_uri"),
        authorization_endpoint=_text(document, "authorization_endpoint"),
        token_endpoint=_text(document, "token_endpoint"),
        userinfo_endpoint=_text(document, "userinfo_endpoint"),
        takes_secret_in_form=isinstance(methods, list) and "client_secret_post" in methods,
    ), ""


def _text(document: Mapping[str, Any], name: str) -> str:
    found = document.get(name)
    return found if isinstance(found, str) else ""


def forget() -> None:
    """Clear the caches."""
    _sources.clear()
    _configurations.clear()


def _source(url: str) -> _Source:
    if len(_sources) >= SOURCES_MAX and url not in _sources:
        _sources.clear()
    return _sources.setdefault(url, _Source())


def _look(source: _Source, url: str, now: float, *, wait: bool) -> None:
    """Fetch the keys, rate-limited; with ``wait``, wait for a fetch that runs already and use its result."""
    if not source.lock.acquire(blocking=wait):
        return
    try:
        unanswered = bool(source.error) and now - source.tried_at < AGAIN_SECONDS
        if source.fetched_at <= now and not unanswered and _affords(source, now):
            _fetch(source, url)
    finally:
        source.lock.release()


def _affords(source: _Source, now: float) -> bool:
    owed = max(source.owed, now) + LOOK_EVERY
    if owed - LOOKS * LOOK_EVERY > now:
        return False
    source.owed = owed
    return True


def _fetch(source: _Source, url: str) -> None:
    source.tried_at = time.monotonic()
    try:
        document = get_json(url)
    except FetchError as error:
        source.error = str(error)
        return
    keys = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(keys, list):
        source.error = "the response contains no list of keys."
        return
    source.documents = [key for key in keys if isinstance(key, dict) and _may_verify(key)]
    source.fetched_at, source.error = time.monotonic(), ""


def _may_verify(key: dict[str, Any]) -> bool:
    """Whether a JWK is a public signature key; a symmetric key in a public document is refused."""
    return key.get("kty") in {"RSA", "EC", "OKP"} and key.get("use", "sig") == "sig" and "d" not in key


def _pick(documents: list[dict[str, Any]], kid: str | None) -> dict[str, Any] | None:
    if kid is None:
        return documents[0] if len(documents) == 1 else None
    return next((key for key in documents if key.get("kid") == kid), None)


def _usable(document: dict[str, Any], algorithm: str) -> PyJWK:
    if document.get("alg", algorithm) != algorithm:
        raise KeyMissingError(f"The provider's key is for {document['alg']}, the token is signed with {algorithm}.")
    try:
        key = PyJWK(document, algorithm)
    except (PyJWKError, InvalidKeyError, ValueError, TypeError, KeyError):
        raise KeyMissingError(f"The provider's key is not one for {algorithm}.") from None
    if isinstance(key.key, RSAPublicKey) and key.key.key_size < RSA_BITS_MIN:
        raise KeyMissingError(f"The provider's key has fewer than {RSA_BITS_MIN} bits.")
    return key
