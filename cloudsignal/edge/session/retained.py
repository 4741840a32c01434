"""Quota of retained messages: their number and size per organization, shared by all edges through Redis.

Redis keeps the ledger, one hash per organization: topic -> size, time, username, end; never a payload. An edge checks
a PUBLISH by what Redis said last plus what it has let in since, so no client waits for Redis. An edge hears the total
with every write of its own: one edge alone never goes beyond the quota, and of several each may, by what it lets in
before it has heard, a quarter of the quota at most (:data:`SHARE`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import TYPE_CHECKING, Any

from cloudsignal.edge.redis import Command, Store
from cloudsignal.wire import keys
from cloudsignal.wire.bundle import Quotas
from cloudsignal.wire.retained import TOPIC_BYTES, RetainedEntry

if TYPE_CHECKING:
    from asyncio import Future

SHARE = 4
"""Part of a quota that an edge may use before it hears from Redis again."""

SHARE_MESSAGES = 100
"""Retained messages that an edge may accept before it hears from Redis again, at least."""

KNOWN_MAX = 4_096
"""Topics whose size is remembered per organization, about 100 bytes each."""

WAITING_MAX = 2_000
"""Topics of an organization that wait to be written to Redis: what an edge holds while Redis is unavailable."""

ASKED_MAX = 100
"""Topics of an organization that Redis is asked about at a time."""

TOGETHER = 250
"""Topics in one run of the script."""

GATHER, AGAIN = 0.02, 1.0
"""Seconds a change may wait for others, and until a write that failed is tried again."""

NOTE = """
local function size_of(value) return value and tonumber(string.match(value, '^%d+')) or 0 end
local grown, new = 0, 0
local function drop(topic)
  local held = redis.call('HGET', KEYS[1], topic)
  if not held then return false end
  grown = grown - size_of(held)
  redis.call('HDEL', KEYS[1], topic)
  redis.call('ZREM', KEYS[3], topic)
  return true
end
for _, topic in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', ARGV[1], 'LIMIT', 0, 500)) do drop(topic) end
for i = 2, #ARGV, 3 do
  local topic, value, ends = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  if not drop(topic) and value ~= '' then new = new + 1 end
  if value ~= '' then
    redis.call('HSET', KEYS[1], topic, value)
    grown = grown + size_of(value)
    if ends ~= '0' then redis.call('ZADD', KEYS[3], ends, topic) end
  end
end
return {redis.call('HLEN', KEYS[1]), redis.call('INCRBY', KEYS[2], grown), new}
"""
"""Write to the ledger: ``now``, then ``topic, value or nothing, end or 0`` each.

Returns how many messages there are, their bytes, and how many of those written are new.
"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A limit that a message reached, and the text for the client."""

    limit: str
    text: str


@dataclass(slots=True)
class Change:
    """A change of one topic that is to be written to Redis."""

    entry: RetainedEntry | None = None
    new: int = 0
    """Messages by which the ledger may grow."""
    more: int = 0
    """Bytes by which it may grow."""


class Retained:
    """An edge's knowledge of an organization's retained messages."""

    __slots__ = (
        "_asked",
        "_coming",
        "_flying",
        "_known",
        "_waiting",
        "bytes",
        "count",
        "doubtful",
        "org",
        "reserved",
        "wake",
    )

    def __init__(self, org: str) -> None:
        self.org = org
        self.count = self.bytes = 0
        """Totals in Redis's last answer."""
        self.reserved = 0
        """Bytes of the retained wills of live sessions here: the broker publishes them without asking."""
        self.doubtful = False
        """Something was not written down: the ledger is to be compared with the broker."""
        self.wake: Callable[[Retained], None] | None = None
        self._known: OrderedDict[bytes, int] = OrderedDict()
        self._waiting: dict[bytes, Change] = {}
        self._asked: dict[bytes, bytes] = {}
        self._coming = [0, 0]
        """Accepted messages and bytes that are not written to Redis yet."""
        self._flying = [0, 0]
        """Accepted messages and bytes on their way to Redis."""

    # --- what clients do -----------------------------------------------------------------------------------------

    def refuses(self, topic: bytes, size: int, quotas: Quotas) -> Refusal | None:
        """The limit that a retained message of ``size`` bytes would exceed; ``None`` when it fits or deletes one."""
        if len(topic) > TOPIC_BYTES:
            return Refusal("retained_topic_bytes", f"the topic of a retained message may have {TOPIC_BYTES} bytes")
        if topic not in self._waiting and len(self._waiting) >= WAITING_MAX:
            return Refusal("retained_unwritten", "retained messages cannot be counted right now; try again later")
        known = self._known.get(_mark(topic))
        full = self._too_many(quotas) if known is None else None
        if full is None and size > (known or 0):
            full = self._too_large(size - (known or 0), quotas)
        if full is not None and known is None and len(self._asked) < ASKED_MAX:
            # It may be there already: written through another edge, or too long ago to be remembered.
            self._asked[topic] = _mark(topic)
            self._woken()
        return full

    def _too_many(self, quotas: Quotas) -> Refusal | None:
        limit, coming = quotas.retained_messages, self._coming[0] + self._flying[0]
        if limit and self.count + coming >= limit:
            return Refusal("retained_messages", f"the organization has {limit} retained messages, its quota")
        if limit and coming >= max(limit // SHARE, SHARE_MESSAGES):
            return Refusal("retained_messages", "too many new retained messages at once; try again")
        return None

    def _too_large(self, more: int, quotas: Quotas) -> Refusal | None:
        limit, coming = quotas.retained_bytes, self._coming[1] + self._flying[1]
        if limit and self.bytes + self.reserved + coming + more > limit:
            return Refusal("retained_bytes", f"retained messages would exceed the organization's {limit} bytes")
        if limit and coming and coming + more > max(limit // SHARE, quotas.packet_bytes):
            return Refusal("retained_bytes", "too many bytes of new retained messages at once; try again")
        return None

    def note(self, topic: bytes, entry: RetainedEntry | None) -> None:
        """Note a retained message on its way to the broker; ``None`` deletes the one on this topic."""
        if len(topic) > TOPIC_BYTES:
            return  # none was let in
        mark = _mark(topic)
        if topic not in self._waiting and len(self._waiting) >= WAITING_MAX:
            self.doubtful = True
            return
        known = self._known.pop(mark, None)
        change = self._waiting.setdefault(topic, Change())
        change.entry = entry
        if entry is not None:
            new, more = int(known is None), max(entry.size - (known or 0), 0)
            change.new, change.more = change.new + new, change.more + more
            self._coming = [self._coming[0] + new, self._coming[1] + more]
            self._know(mark, entry.size)
        self._woken()

    def _woken(self) -> None:
        if self.wake is not None:
            self.wake(self)

    def _know(self, mark: bytes, size: int) -> None:
        self._known[mark] = size
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    # --- what Redis is told --------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether there is nothing to write to Redis and nothing to ask."""
        return not (self._waiting or self._asked)

    def take(self) -> tuple[dict[bytes, Change], dict[bytes, bytes]]:
        """Changes to be written now, and topics to be asked about, with their marks."""
        changes = {topic: self._waiting.pop(topic) for topic in list(islice(self._waiting, TOGETHER))}
        self._flying = [sum(one.new for one in changes.values()), sum(one.more for one in changes.values())]
        self._coming = [a - b for a, b in zip(self._coming, self._flying, strict=True)]
        asked, self._asked = self._asked, {}
        return changes, asked

    def settled(self, count: int, total: int, new: int) -> None:
        """Forget changes that Redis has written."""
        self.count, self.bytes = count, total
        if new > self._flying[0]:
            self.forget()  # what was taken to be there had been taken away through another edge
        self._flying = [0, 0]

    def failed(self, changes: Mapping[bytes, Change]) -> None:
        """Queue changes again that Redis has not written; newer changes of a topic win."""
        for topic, later in self._waiting.items():
            if (earlier := changes.get(topic)) is not None:
                later.new, later.more = later.new + earlier.new, later.more + earlier.more
        self._waiting = {**changes, **self._waiting}
        self._coming = [a + b for a, b in zip(self._coming, self._flying, strict=True)]
        self._flying = [0, 0]

    def learned(self, mark: bytes, size: int) -> None:
        """Note the size of an existing message, from Redis."""
        self._know(mark, size)

    def forget(self) -> None:
        """Retained messages were deleted, but by no client: forget every remembered size."""
        self._known.clear()


class Ledger:
    """Writes what organizations retain to Redis, and asks it for the totals."""

    def __init__(self, store: Store, *, now: Callable[[], float], recount: Callable[[str], None]) -> None:
        self._store = store
        self._now = now
        self._recount = recount
        self._attached: dict[str, Retained] = {}
        self._dirty: dict[str, Retained] = {}
        self._under_way: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    def attach(self, retained: Retained) -> None:
        """Begin to keep the ledger of an organization, with its first client."""
        if retained.wake is None:
            retained.wake = self._wake
            self._attached[retained.org] = retained
            self._load(retained)

    def detach(self, org: str) -> None:
        """Stop keeping the ledger of a deleted organization."""
        retained = self._attached.pop(org, None)
        self._dirty.pop(org, None)
        if retained is not None:
            retained.wake = None

    def again(self) -> None:
        """Load every ledger from Redis again: Redis is back, perhaps emptied."""
        for retained in self._attached.values():
            self._load(retained)
            self._wake(retained)

    def cleared(self, org: str) -> None:
        """Retained messages of an organization were taken away."""
        if org in self._attached:
            self._attached[org].forget()
            self.counted(org)

    def counted(self, org: str) -> None:
        """The ledger of an organization was compared with the broker."""
        if org in self._attached:
            self._load(self._attached[org])

    def _load(self, retained: Retained) -> None:
        org = retained.org
        asked = [
            self._store.ask(("GET", keys.retained_counted(org))),
            self._store.ask(("EVAL", NOTE, 3, *_keys(org), int(self._now()))),
        ]

        def answered(_: Future[Any]) -> None:
            if any(one.exception() for one in asked):
                return
            retained.count, retained.bytes, _ = asked[1].result()
            if retained.doubtful:
                retained.doubtful = False
                self._store.send(("DEL", keys.retained_counted(org)))  # or nobody would count it anew
                self._recount(org)
            elif asked[0].result() is None:
                self._recount(org)

        asked[1].add_done_callback(answered)

    def _wake(self, retained: Retained, after: float = GATHER) -> None:
        self._dirty[retained.org] = retained
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(after, self._flush)

    def _flush(self) -> None:
        self._timer = None
        dirty, self._dirty = self._dirty, {}
        for org, retained in dirty.items():
            if org not in self._under_way:
                self._write(retained)

    def _write(self, retained: Retained) -> None:
        changes, asked = retained.take()
        if not changes and not asked:
            return
        org, store = retained.org, self._store
        self._under_way.add(org)
        question = store.ask(("HMGET", keys.retained(org), *asked)) if asked else None
        entries = [(topic, change.entry) for topic, change in changes.items()]
        written = store.ask(note_command(org, entries, int(self._now())))

        def answered(_: Future[Any]) -> None:
            self._under_way.discard(org)
            if written.exception():
                retained.failed(changes)
                self._wake(retained, AGAIN)
                return
            retained.settled(*written.result())
            if question is not None and not question.exception():
                for mark, value in zip(asked.values(), question.result(), strict=True):
                    if value is not None:
                        retained.learned(mark, RetainedEntry.read(value).size)
            if not retained.idle:
                self._wake(retained, 0.0)

        written.add_done_callback(answered)


def note_command(org: str, changes: Sequence[tuple[bytes, RetainedEntry | None]], now: int) -> Command:
    """The command that writes ``changes`` (topic, entry or ``None``) to the ledger; its reply is count and bytes."""
    values: list[bytes | int] = [now]
    for topic, entry in changes:
        values += [topic, entry.written(), entry.ends] if entry is not None else [topic, b"", 0]
    return ("EVAL", NOTE, 3, *_keys(org), *values)


def _keys(org: str) -> tuple[str, str, str]:
    return keys.retained(org), keys.retained_bytes(org), keys.retained_ends(org)


def _mark(topic: bytes) -> bytes:
    return blake2b(topic, digest_size=16).digest()
