"""Limits per address: how many connections, and how often sign-in may fail.

Many people share one address (NAT). So failures shut out nobody but who cannot be told from the one that fails: the
same organization behind the same address. Nothing of it concerns live sessions, or keeps a connection from coming in.
"""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass, field

WINDOW = 60.0
"""Seconds over which failed sign-ins are counted."""

REFUSED_AT = 4
"""Times the failures that slow an address down, at which its sign-ins to that organization are refused."""

ADDRESSES_MAX = 100_000
"""Addresses remembered; beyond it those whose window is over are dropped first."""


@dataclass(slots=True)
class _Address:
    connections: int = 0
    window_ends: float = 0.0
    failures: int = 0
    by_org: dict[str, int] = field(default_factory=dict)
    """Failures by organization; by ``""`` those that named none there is, and bytes that are no CONNECT."""


class Limits:
    """Counts by address; an IPv6 host has a whole /64 at its disposal, so that is what counts as one."""

    def __init__(self, *, connections: int, failures: int) -> None:
        self._connections = connections
        self._failures = failures
        self._addresses: dict[str, _Address] = {}

    def admit(self, ip: str) -> bool:
        """Count a new connection; ``False`` when the address has too many."""
        entry = self._entry(ip)
        if entry.connections >= self._connections:
            return False
        entry.connections += 1
        return True

    def release(self, ip: str) -> None:
        """A counted connection is gone."""
        key = _key(ip)
        entry = self._addresses.get(key)
        if entry is not None:
            entry.connections -= 1
            if entry.connections <= 0 and not entry.failures:
                del self._addresses[key]

    def failed(self, ip: str, org: str) -> None:
        """Count a failed sign-in to ``org``, which is empty when it names none that this node knows."""
        entry = self._entry(ip)
        now = time.monotonic()
        if now >= entry.window_ends:
            entry.failures, entry.window_ends, entry.by_org = 0, now + WINDOW, {}
        entry.failures += 1
        entry.by_org[org] = entry.by_org.get(org, 0) + 1

    def slowed(self, ip: str) -> bool:
        """Whether answers to failed sign-ins of the address are held back longer."""
        entry = self._failing(ip)
        return entry is not None and entry.failures >= self._failures

    def refused(self, ip: str, org: str) -> bool:
        """Whether sign-ins of the address to ``org`` have failed so often that no more are looked at in this window."""
        entry = self._failing(ip)
        return entry is not None and entry.by_org.get(org, 0) >= REFUSED_AT * self._failures

    def shut_out(self, ip: str) -> bool:
        """Whether sign-ins of the address are refused, be it to one organization: few handshakes at a time, then."""
        entry = self._failing(ip)
        return entry is not None and any(count >= REFUSED_AT * self._failures for count in entry.by_org.values())

    def _failing(self, ip: str) -> _Address | None:
        entry = self._addresses.get(_key(ip))
        return entry if entry is not None and time.monotonic() < entry.window_ends else None

    def _entry(self, ip: str) -> _Address:
        key = _key(ip)
        entry = self._addresses.get(key)
        if entry is None:
            if len(self._addresses) >= ADDRESSES_MAX:
                now = time.monotonic()
                idle = [k for k, e in self._addresses.items() if e.connections <= 0 and now >= e.window_ends]
                for name in idle or [next(iter(self._addresses))]:
                    del self._addresses[name]
            entry = self._addresses[key] = _Address()
        return entry


def _key(ip: str) -> str:
    if ":" not in ip:
        return ip
    try:
        address = ipaddress.IPv6Address(ip.partition("%")[0])
    except ValueError:
        return ip
    return str(address.ipv4_mapped or ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
