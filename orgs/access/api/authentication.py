"""Authentication of API requests: an API key, or the session of a person on the dashboard."""

from __future__ import annotations

from typing import Any

from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.request import Request

from cloudsignal.addresses import network_of
from cloudsignal.errors import Unauthenticated
from cloudsignal.limits import take
from orgs.access.api_keys import AuthenticatedKey, use_api_key


class ApiKeyAuthentication(BaseAuthentication):
    """Authenticate ``Authorization: Bearer sk_...``. Wrong keys are rate-limited by network; no key is locked."""

    def authenticate(self, request: Request) -> tuple[Any, AuthenticatedKey] | None:
        """Return the API key and its access, without a user; None without an Authorization header."""
        secret = bearer(request)
        if secret is None:
            return None
        return None, checked_key(secret, ip=address_of(request))

    def authenticate_header(self, request: Request) -> str:
        """The WWW-Authenticate challenge of a 401."""
        return 'Bearer realm="CloudSignal"'


class PersonAuthentication(SessionAuthentication):
    """Authenticate the dashboard's session cookie, with a CSRF check of unsafe methods."""


def bearer(request: Request) -> str | None:
    """The bearer token (RFC 6750 s2.1); None when there is no Authorization header. Raises :class:`Unauthenticated`."""
    header = request.headers.get("Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("unauthorized", "Send the API key as `Authorization: Bearer sk_...`.")
    return token.strip()


def checked_key(secret: str, *, ip: str) -> AuthenticatedKey:
    """Authenticate an API key; raises :class:`Unauthenticated`, or :class:`Limit` after many wrong keys from ``ip``."""
    try:
        return use_api_key(secret, ip=ip)
    except Unauthenticated:
        take("wrong_keys", network_of(ip))
        raise


def address_of(request: Request) -> str:
    """The caller's IP address."""
    return str(request.META.get("REMOTE_ADDR") or "")


def network_of_caller(request: Request) -> str:
    """The key of rate limits for anonymous callers: the IPv4 address, or the /64 network of an IPv6 address."""
    return network_of(address_of(request))
