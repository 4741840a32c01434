"""Normalize addresses for comparison: email addresses without letter case, IP addresses as networks."""

from __future__ import annotations

import ipaddress


def fold_address(email: str) -> str:
    """Normalize an email address: only A to Z become lowercase, because what Unicode folds together
    (\u00df and ss, the long s and s) are mailboxes of different people."""
    return "".join(letter.lower() if letter.isascii() else letter for letter in email)


def network_of(ip: str) -> str:
    """The network of an IP address: an IPv4 address itself, the /64 of an IPv6 address."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return ip
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(address.ipv4_mapped or ipaddress.ip_network(f"{address}/64", strict=False))
