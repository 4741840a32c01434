"""The visitor's address behind a reverse proxy: believed from those that are trusted, from nobody else."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from functools import cache

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase


class TrustedProxies:
    """Sets ``REMOTE_ADDR`` to the first address in ``X-Forwarded-For``, from the right, that is not a trusted proxy.

    Without ``CLOUDSIGNAL_TRUSTED_PROXIES`` the header is ignored: anybody can send it, and rate limits, allow lists and
    the audit go by the address.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        """Pass the request on with its true address."""
        peer = str(request.META.get("REMOTE_ADDR") or "")
        forwarded = str(request.META.get("HTTP_X_FORWARDED_FOR") or "")
        if forwarded and _trusted(peer):
            hops = [hop.strip() for hop in forwarded.split(",")]
            found = next((hop for hop in reversed(hops) if not _trusted(hop)), peer)
            if (address := _address(found)) is not None:
                request.META["REMOTE_ADDR"] = str(address)
        request.META.pop("HTTP_X_FORWARDED_FOR", None)
        return self.get_response(request)


def _trusted(text: str) -> bool:
    address = _address(text)
    return address is not None and any(address in network for network in _networks(settings.TRUSTED_PROXIES))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address  # as listeners for both protocols name IPv4 peers


@cache
def _networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())
