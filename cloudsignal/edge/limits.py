"""Limits per address: how many connections, and how often sign-in may fail."""

from __future__ import annotations

import ipaddress
import time
from dataclasses import dataclass

WINDOW = 60.0
"""Seconds over which failed sign-ins are counted."""

ADDRESSES_MAX = 100_000
"""Addresses remembered; beyond it those whose window is over are dropped first."""


@dataclass(slots=True)
class _Address:
    connections: int = 0
    failures: int = 0
    window_ends: float = 0.0


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

    def failed(self, ip: str) -> None:
        """Count a failed sign-in."""
        entry = self._entry(ip)
        now = time.monotonic()
        if now >= entry.window_ends:
            entry.failures, entry.window_ends = 0, now + WINDOW
        entry.failures += 1

    def refused(self, ip: str) -> bool:
        """Whether the address has failed so often that it is not even listened to for the rest of the window."""
        return self._count(ip) >= 4 * self._failures

    def slowed(self, ip: str) -> bool:
        """Whether answers to failed sign-ins of the address are held back longer."""
        return self._count(ip) >= self._failures

    def _count(self, ip: str) -> int:
        entry = self._addresses.get(_key(ip))
        return entry.failures if entry is not None and time.monotonic() < entry.window_ends else 0

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
