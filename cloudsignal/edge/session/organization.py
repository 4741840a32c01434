"""One organization at this edge: its active policy, and the quotas its sessions share."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from acl.policy import CompiledPolicy
from cloudsignal.edge.session.memo import ORGANIZATION_BYTES, UNFINISHED_BYTES, UNREAD_BYTES, Purse
from cloudsignal.edge.session.mountpoint import Mount
from cloudsignal.edge.session.retained import Retained
from cloudsignal.wire.bundle import Quotas

FILTERS_FLOOR = 1_000
"""Filters clients may ask for a minute, however low the quota of messages is."""


BLOCKS_BYTES = 524_288
"""Bytes of property blocks remembered, before and after, of the messages delivered last."""


REST = 2.0 / 65_536 / 1_000
"""Seconds between the turns of an organization for each byte of a long topic that goes to the broker: two milliseconds
for 64 KiB. The broker compares all of it for every subscriber, and everybody else's message waits for that."""

REST_MAX = 0.01
"""Seconds until its next turn, at most."""


@dataclass(frozen=True, slots=True, eq=False)
class ActivePolicy:
    """The active bundle of an organization. It is replaced as a whole, so that no packet meets half of a change."""

    revision: int
    digest: str
    policy: CompiledPolicy
    quotas: Quotas
    suspended: bool
    issued_at: float
    refuse_while_split: bool = False
    """No publish is acknowledged while broker nodes are known to be split."""


@dataclass(slots=True, eq=False)
class Organization:
    """An organization as this edge process enforces it."""

    id: str
    mount: Mount
    active: ActivePolicy
    retained: Retained = field(init=False)
    refusing: bool = False
    """Broker nodes are split, and the organization wants no acknowledgement of what may be lost."""
    waiting: deque[Callable[[], None]] = field(default_factory=deque)
    """Sessions with more work than one turn may do (:mod:`cloudsignal.edge.transport.turns`), first come first."""
    rests_until: float = 0.0
    """Time (of ``perf_counter``) before which those that wait get no turn."""
    remembered: Purse = field(default_factory=lambda: Purse(ORGANIZATION_BYTES))
    """Bytes of topics that its sessions remember."""
    unfinished: Purse = field(default_factory=lambda: Purse(UNFINISHED_BYTES))
    """Packets of its clients that are not complete."""
    unread: Purse = field(default_factory=lambda: Purse(UNREAD_BYTES))
    """Bytes that its slow clients have not read."""
    _blocks: dict[bytes, bytes] = field(default_factory=dict)
    _blocks_bytes: int = 0
    _minute: int = 0
    _spent: int = 0
    _asked: int = 0

    def __post_init__(self) -> None:
        self.retained = Retained(self.id)

    def block(self, mounted: bytes) -> bytes | None:
        """A property block of a delivery as clients see it, if it was worked out already, perhaps for another one."""
        return self._blocks.get(mounted)

    def keep_block(self, mounted: bytes, unmounted: bytes) -> None:
        """Remember a block, so that one message to many subscribers is worked out once."""
        size = len(mounted) + len(unmounted)
        if self._blocks_bytes + size > BLOCKS_BYTES:
            self._blocks.clear()
            self._blocks_bytes = 0
        if size <= BLOCKS_BYTES:
            self._blocks[mounted] = unmounted
            self._blocks_bytes += size

    def rest(self, size: int) -> None:
        """A topic of ``size`` bytes, which is long, goes to the broker: the next turn comes so much later."""
        now = time.perf_counter()
        self.rests_until = min(max(self.rests_until, now) + size * REST, now + REST_MAX)

    def over_quota(self, now: float, coming: int = 0) -> bool:
        """Whether this minute's messages (``now`` is seconds since the epoch) are used up, after ``coming`` more."""
        limit = self.active.quotas.messages_per_minute
        if not limit:
            return False
        self._turn(now)
        return self._spent + coming >= limit

    def spend(self, messages: int) -> None:
        """Count messages of clients against this minute."""
        self._spent += messages

    def ask(self, now: float) -> bool:
        """Count a filter of a SUBSCRIBE; ``False`` when this minute's are used up.

        As many as messages, and counted apart from them: each is checked and may be an event, so that a client that
        asks without end would keep everybody else waiting and fill the audit.
        """
        limit = self.active.quotas.messages_per_minute
        if not limit:
            return True
        self._turn(now)
        self._asked += 1
        return self._asked <= max(limit, FILTERS_FLOOR)

    def _turn(self, now: float) -> None:
        minute = int(now) // 60
        if minute != self._minute:
            self._minute, self._spent, self._asked = minute, 0, 0
