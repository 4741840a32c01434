"""Find a visitor's address behind reverse proxies, from the headers of trusted proxies only."""

from __future__ import annotations

import ipaddress
from functools import cache


def visitor(peer: str, forwarded: str, trusted: str) -> str:
    """The first address in ``forwarded`` (``X-Forwarded-For``), from the right, that is not a trusted proxy.

    ``trusted`` are networks, with commas. When ``peer``, which the connection comes from, is in none of them, the
    header is ignored: anybody can send it, and rate limits, allow lists and the audit go by the address.
    """
    if forwarded and _in(peer, trusted):
        hops = [hop.strip() for hop in forwarded.split(",")]
        found = next((hop for hop in reversed(hops) if not _in(hop, trusted)), peer)
        if (address := _address(found)) is not None:
            return str(address)
    return str(_address(peer) or peer)


def _in(text: str, trusted: str) -> bool:
    address = _address(text)
    return address is not None and any(address in network for network in _networks(trusted))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address  # as listeners for both protocols name IPv4 peers


@cache
def _networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())
