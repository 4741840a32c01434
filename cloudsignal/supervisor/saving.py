"""Schedule when the embedded broker saves its store to disk: the larger the store, the rarer.

Mosquitto rewrites its whole store in its one thread, 4 to 6 ms for a MiB where this was measured (17 MiB 0.1 s,
131 MiB 0.6 s, 257 MiB 1.6 s), and every client of every organization waits. Organizations' quotas bound what is stored;
the interval bounds which part of the time goes into saving: about one hundredth. A kill loses what came since.
"""

from __future__ import annotations

SHORTEST = 5.0
"""Seconds between two saves of a small store."""

SECONDS_PER_MIB = 0.5
"""A save takes about 5 ms for a MiB: a hundred times that lies between two."""

LONGEST = 600.0
"""Seconds after which even a huge store is saved."""


def interval(size: int) -> float:
    """Seconds between two saves of a store of ``size`` bytes."""
    return min(max(SHORTEST, size / 2**20 * SECONDS_PER_MIB), LONGEST)
