"""The ledger of retained messages on Redis: for each topic the size, time and username.

Written by edges, read by pages. It carries no seal: nothing is granted on its account but room in a quota.
"""

from __future__ import annotations

from dataclasses import dataclass

TOPIC_BYTES = 1_024
"""Longest topic of a retained message: Redis must not hold what a client makes arbitrarily large."""


@dataclass(frozen=True, slots=True)
class RetainedEntry:
    """One retained message in the ledger, without its payload."""

    size: int
    """Bytes of the PUBLISH packet."""
    at: int
    """When it was published, seconds since the epoch; 0 when that is not known."""
    ends: int = 0
    """When the broker drops it (message expiry), seconds since the epoch; 0 for never."""
    username: str = ""
    """The local username that published it; empty when that is not known."""

    def written(self) -> bytes:
        """The value under the topic."""
        return f"{self.size} {self.at} {self.ends} {self.username}".encode()

    @classmethod
    def read(cls, value: bytes) -> RetainedEntry:
        """The entry in ``value``; whoever can write to Redis may have put in something else, which reads as zeros."""
        size, at, ends, username = [*value.decode("utf-8", "replace").split(" ", 3), "", "", "", ""][:4]
        return cls(_number(size), _number(at), _number(ends), username[:256])


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
