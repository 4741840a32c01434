"""Subscriptions of a session: requested, granted, checked again on changes, and kept with a stored session.

One rule for whatever takes a right away (a deploy, claims, a rule that expires, or any of them while a stored session
had no connection): the subscription is ended at the broker and *withheld*. Whatever grants it again brings it back, as
the client had asked for it: MQTT cannot tell a client that a subscription has ended, so it would never ask again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, TypeVar

from audit.kinds import NO_RULE
from cloudsignal.edge.codec import (
    Kind,
    Properties,
    Property,
    ProtocolError,
    Reason,
    Subscribe,
    Subscription,
    Unsubscribe,
    encode_subscribe,
    encode_unsubscribe,
    suback,
    unsuback,
)
from cloudsignal.edge.codec.connect import check_topic_filter
from cloudsignal.edge.codec.primitives import checked_text, malformed
from cloudsignal.edge.session.context import Asked, Context
from cloudsignal.edge.session.mountpoint import MountError
from cloudsignal.edge.session.refusals import refused_by_broker

PENDING_MAX = 256
"""Unanswered SUBSCRIBE packets of a session, and as many UNSUBSCRIBE packets, at most."""

PENDING_BYTES = 256 * 1024
"""Bytes of filters in unanswered packets, from which on no further packet is accepted."""

SHORT = 256
"""Bytes of a filter. As long as all filters of a session have this length by the average, any number the quota allows
fits."""

FILTERS_BYTES = 64 * 1024
"""Bytes that the filters of a session may always have together."""

TOGETHER = 100
"""Filters in one packet that the edge sends by itself: below the broker's packet limit however long they are."""

Item = TypeVar("Item")
Pending = dict[int, list[Item]]
"""Requests that the broker has not answered, by packet identifier, oldest first."""


class SubscriptionStore(Protocol):
    """Storage of the filters of stored sessions (``stored_sessions.Stored``), for the next connection."""

    def added(self, session: Context, one: Asked, *, withheld: bool, held: int) -> None:
        """Store a subscription, one of ``held``, that the broker holds or that is withheld."""

    def removed(self, session: Context, filters: Iterable[bytes]) -> None:
        """Delete filters that the broker no longer holds."""

    def emptied(self, session: Context) -> None:
        """Delete every filter: the broker has begun a new session."""


class Subscriptions:
    """The subscriptions of one session."""

    __slots__ = (
        "_asked",
        "_coming",
        "_doubted",
        "_leaving",
        "_own",
        "_pending_bytes",
        "_restoring",
        "_session",
        "live",
        "memory",
        "withheld",
    )

    def __init__(self, session: Context) -> None:
        self._session = session
        self.live: dict[bytes, Asked] = {}
        self.withheld: dict[bytes, Asked] = {}
        """Subscriptions that were ended because they are no longer granted; restored when they are again."""
        self.memory: SubscriptionStore | None = None
        self._asked: Pending[list[Asked]] = {}
        self._coming: set[bytes] = set()
        """Requested filters that are not live yet; they count against the quota already."""
        self._leaving: Pending[list[bytes]] = {}
        self._own: Pending[list[bytes]] = {}
        """UNSUBSCRIBE packets that the edge sent by itself."""
        self._restoring: Pending[list[Asked]] = {}
        """SUBSCRIBE packets that the edge sent by itself, for withheld subscriptions that are granted again."""
        self._pending_bytes = 0
        """Bytes of filters in unanswered packets."""
        self._doubted = False
        """Whether the policy changed while the broker was asked, so that its answers are checked again."""

    # --- what the client asks ------------------------------------------------------------------------------------

    def reserve(self, topic_filter: bytes, room: int) -> bool:
        """Reserve a place for a filter in the quota ``room``; ``False`` when it is full."""
        if topic_filter in self.live or topic_filter in self._coming or topic_filter in self.withheld:
            return True
        if len(self.live) + len(self._coming) + len(self.withheld) >= room:
            return False
        if len(topic_filter) > SHORT:
            held = sum(sum(map(len, filters)) for filters in (self.live, self._coming, self.withheld))
            if held + len(topic_filter) > max(FILTERS_BYTES, room * SHORT):
                return False
        self._coming.add(topic_filter)
        return True

    def ask(self, packet_id: int, asked: list[Asked], properties: Properties) -> None:
        """Note a SUBSCRIBE that goes upstream."""
        identifier = properties.number(Property.SUBSCRIPTION_ID, 0)
        for one in asked:
            one.identifier = identifier
            if one.refusal is not None:
                one.topic_filter = b""  # only its answer is waited with
            elif self.withheld.pop(one.topic_filter, None) is not None:
                self._coming.add(one.topic_filter)  # what was asked for before need not be brought back
        self._wait_for(self._asked, packet_id, asked, sum(len(one.topic_filter) for one in asked))

    def refused(self, topic_filter: bytes) -> None:
        """Note a refused filter: the client knows of it, so it is not restored later."""
        if self.withheld.pop(topic_filter, None) is not None:
            self._remembered_no_longer([topic_filter])

    def leave(self, packet_id: int, filters: list[bytes]) -> None:
        """Note an UNSUBSCRIBE that goes upstream."""
        self._wait_for(self._leaving, packet_id, filters, sum(map(len, filters)))

    def _wait_for(self, pending: Pending[Item], packet_id: int, item: Item, size: int) -> None:
        """Note what is asked under ``packet_id``.

        MQTT 5 s2.2.1 wants an identifier that is not in use. Brokers do not insist, and answer in the order they were
        asked in; so does the edge.
        """
        if sum(map(len, pending.values())) >= PENDING_MAX or self._pending_bytes > PENDING_BYTES:
            raise ProtocolError(Reason.QUOTA_EXCEEDED, "too many unanswered packets")
        self._pending_bytes += size
        pending.setdefault(packet_id, []).append(item)

    # --- what the broker answers ---------------------------------------------------------------------------------

    def suback(self, packet_id: int, codes: list[int]) -> None:
        """Handle a SUBACK: merge the broker's codes with the edge's refusals."""
        session = self._session
        restored = _answered(self._restoring, packet_id)
        if restored is not None:
            self._restored(restored, codes)
            return
        asked = _answered(self._asked, packet_id)
        if asked is None or sum(one.refusal is None for one in asked) != len(codes):
            raise malformed("a SUBACK answers nothing that was asked")
        self._pending_bytes -= sum(len(one.topic_filter) for one in asked)
        answers: list[int] = []
        granted = iter(codes)
        for one in asked:
            if one.refusal is not None:
                answers.append(one.refusal)
                continue
            code = next(granted)
            answers.append(code)
            self._coming.discard(one.topic_filter)
            if code <= 2:
                self._granted(one, code)
            else:
                self._remembered_no_longer([one.topic_filter])
                refused_by_broker(session, Kind.SUBACK, code, one.topic_filter)
        session.answer(suback(packet_id, answers, session.version))
        self._settle_doubt()

    def _restored(self, asked: list[Asked], codes: list[int]) -> None:
        if len(asked) != len(codes):
            raise malformed("a SUBACK answers nothing that was asked")
        for one, code in zip(asked, codes, strict=True):
            self._coming.discard(one.topic_filter)
            if code <= 2:
                self._granted(one, code)
            else:
                self.withheld[one.topic_filter] = one
                refused_by_broker(self._session, Kind.SUBACK, code, one.topic_filter)
        self._settle_doubt()

    def _settle_doubt(self) -> None:
        if self._doubted and not self._asked and not self._restoring:
            self.rejudge()

    def unsuback(self, packet_id: int, codes: list[int]) -> None:
        """Handle an UNSUBACK: pass it on, unless the edge sent the UNSUBSCRIBE."""
        session = self._session
        own = _answered(self._own, packet_id)
        if own is not None:
            self._refused_to_end(own, codes)
            return
        filters = _answered(self._leaving, packet_id)
        if filters is None:
            raise malformed("an UNSUBACK answers nothing that was asked")
        self._pending_bytes -= sum(map(len, filters))
        refused = self._refused_to_end(filters, codes)
        for number, topic_filter in enumerate(filters):
            if topic_filter in refused:
                continue
            known = self.live.pop(topic_filter, None) is not None
            self.withheld.pop(topic_filter, None)
            # A resumed session may hold what the edge does not know of; MQTT 5 says whether it did (0x11: it did not).
            if known or (number < len(codes) and codes[number] == 0):
                session.unsubscribed(topic_filter)
        self._remembered_no_longer(filters)
        session.to_client.append(unsuback(packet_id, codes, session.version))

    def _refused_to_end(self, filters: list[bytes], codes: list[int]) -> set[bytes]:
        """Record which subscriptions the broker refused to end: it still has them, and their deliveries are checked."""
        refused = {one: code for one, code in zip(filters, codes, strict=False) if code >= Reason.UNSPECIFIED}
        for topic_filter, code in refused.items():
            refused_by_broker(self._session, Kind.UNSUBACK, code, topic_filter)
        return set(refused)

    def _granted(self, one: Asked, code: int) -> None:
        session = self._session
        old = self.live.get(one.topic_filter)
        self.live[one.topic_filter] = one
        self.withheld.pop(one.topic_filter, None)
        if old is None or (old.wanted, old.identifier) != (one.wanted, one.identifier):
            self._remember(one, withheld=False)
        session.subscribed(one.topic_filter, one.rule, code)

    def _remember(self, one: Asked, *, withheld: bool) -> None:
        if self.memory is not None and self._session.session_expiry:
            held = len(self.live) + len(self.withheld)
            self.memory.added(self._session, one, withheld=withheld, held=held)

    def _remembered_no_longer(self, filters: list[bytes]) -> None:
        gone = [topic_filter for topic_filter in filters if topic_filter not in self.live]
        if self.memory is not None and self._session.session_expiry and gone:
            self.memory.removed(self._session, gone)

    # --- what changes --------------------------------------------------------------------------------------------

    def resume(self, remembered: Iterable[tuple[Asked, bool]]) -> None:
        """The broker resumes a stored session: load its subscriptions and check them by the active policy.

        What was remembered, each with whether it was withheld, is a hint. Too little, and deliveries are still checked
        one by one; too much, and a subscription is ended that does not exist, or one begins that the policy grants.
        """
        for one, withheld in remembered:
            try:
                check_topic_filter(checked_text(one.topic_filter))
                self._session.mount.filter(one.topic_filter)
            except (ProtocolError, MountError):
                continue
            if self._session.version != 5:
                one.wanted, one.identifier = one.wanted & 3, 0
            one.options = one.wanted
            (self.withheld if withheld else self.live)[one.topic_filter] = one
        self.rejudge()

    def start(self) -> None:
        """The broker has begun a new session: forget the subscriptions of an earlier one."""
        if self.memory is not None and self._session.session_expiry:
            self.memory.emptied(self._session)

    def rejudge(self) -> None:
        """End subscriptions that are no longer granted; restore withheld ones that are granted again."""
        self._doubted = bool(self._asked or self._restoring)
        back = self._granted_again()
        lost = self._lost()
        for start in range(0, len(lost), TOGETHER):
            self._end_at_broker(lost[start : start + TOGETHER])
        for identifier in dict.fromkeys(one.identifier for one in back):
            alike = [one for one in back if one.identifier == identifier]
            for start in range(0, len(alike), TOGETHER):
                self._ask_again(identifier, alike[start : start + TOGETHER])

    def _lost(self) -> list[bytes]:
        session = self._session
        lost: list[bytes] = []
        for topic_filter in list(self.live):
            decision = session.authorizer.subscribe(topic_filter)
            if not decision.allowed:
                session.denied("subscribe", topic_filter, decision)
                one = self.withheld[topic_filter] = self.live.pop(topic_filter)
                self._remember(one, withheld=True)
                lost.append(topic_filter)
        return lost

    def _granted_again(self) -> list[Asked]:
        back: list[Asked] = []
        leaving = {topic_filter for asked in self._leaving.values() for filters in asked for topic_filter in filters}
        for one in list(self.withheld.values()):
            if one.topic_filter in leaving:
                continue
            decision = self._session.authorizer.subscribe(one.topic_filter)
            if decision.allowed:
                one.options = one.wanted & ~3 | min(one.wanted & 3, decision.qos)
                one.rule = decision.rule or NO_RULE
                back.append(one)
        return back

    def _end_at_broker(self, filters: list[bytes]) -> None:
        session, packet_id = self._session, self._free_id()
        self._own[packet_id] = [filters]
        mounted = [session.mount.filter(topic_filter) for topic_filter in filters]
        session.to_broker.append(encode_unsubscribe(Unsubscribe(packet_id, mounted), session.version))

    def _ask_again(self, identifier: int, asked: list[Asked]) -> None:
        session, packet_id = self._session, self._free_id()
        for one in asked:
            del self.withheld[one.topic_filter]
            self._coming.add(one.topic_filter)
        self._restoring[packet_id] = [asked]
        entries = [Subscription(session.mount.filter(one.topic_filter), one.options) for one in asked]
        properties = Properties([(Property.SUBSCRIPTION_ID, identifier)] if identifier else [])
        session.to_broker.append(encode_subscribe(Subscribe(packet_id, entries, properties), session.version))

    def _free_id(self) -> int:
        """A packet identifier that waits for no answer; the client's own, which may come later, are answered after."""
        used = (self._asked, self._leaving, self._own, self._restoring)
        return next(i for i in range(65_535, 0, -1) if not any(i in pending for pending in used))


def _answered(pending: Pending[Item], packet_id: int) -> Item | None:
    """Remove and return the oldest request under ``packet_id``."""
    items = pending.get(packet_id)
    if not items:
        return None
    item = items.pop(0)
    if not items:
        del pending[packet_id]
    return item
