"""Who calls the API: a program by its key, or a person by the session of the dashboard."""

from __future__ import annotations

from typing import Any

from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.request import Request

from cloudsignal.addresses import network_of
from cloudsignal.errors import Unauthenticated
from cloudsignal.limits import take
from orgs.access.api_keys import AuthenticatedKey, use_api_key


class ApiKeyAuthentication(BaseAuthentication):
    """``Authorization: Bearer sk_...``. Wrong keys are counted by network: guessing gets slow, nobody is locked out."""

    def authenticate(self, request: Request) -> tuple[Any, AuthenticatedKey] | None:
        """No person, but a key and the access it gives; None without an Authorization header."""
        secret = bearer(request)
        if secret is None:
            return None
        return None, checked_key(secret, ip=address_of(request))

    def authenticate_header(self, request: Request) -> str:
        """The challenge of a 401."""
        return 'Bearer realm="CloudSignal"'


class PersonAuthentication(SessionAuthentication):
    """The dashboard's session cookie, with its CSRF check for everything that changes something."""


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
    """The key, or :class:`Unauthenticated`; after many wrong ones from ``ip``, :class:`Limit`."""
    try:
        return use_api_key(secret, ip=ip)
    except Unauthenticated:
        take("wrong_keys", network_of(ip))
        raise


def address_of(request: Request) -> str:
    """The caller's address."""
    return str(request.META.get("REMOTE_ADDR") or "")


def network_of_caller(request: Request) -> str:
    """What limits count by where nobody is known: whoever has one IPv6 address has a network full of them."""
    return network_of(address_of(request))
