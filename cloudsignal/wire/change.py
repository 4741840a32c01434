"""An entry of the change stream: it tells edges which record to read again.

The edge re-reads the signed bundle or the sealed credential that the entry names: an invented entry costs a look-up and
grants nothing. One of the kind ``close`` is taken at its word: who can write to Redis can close sessions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

VERSION = 1


@dataclass(frozen=True, slots=True)
class Change:
    """A record of ``org`` has a newer state on Redis."""

    kind: Literal["bundle", "credential", "close"]
    """``close`` asks for one live session to be closed (``session``, with ``cause``)."""
    org: str
    username: str = ""
    session: str = ""
    cause: str = ""
    committed_at: float = 0.0
    """Seconds since the epoch, UTC: when the change was committed, for measuring how long it took to bite."""
    v: int = VERSION
