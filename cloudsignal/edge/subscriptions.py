"""What a session is subscribed to: asked for, granted, judged anew, and remembered with a session the broker keeps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from cloudsignal.edge.codec import ProtocolError, Reason, Unsubscribe, encode_unsubscribe, suback, unsuback
from cloudsignal.edge.codec.connect import check_topic_filter
from cloudsignal.edge.codec.primitives import checked_text, malformed
from cloudsignal.edge.mount import MountError

if TYPE_CHECKING:
    from cloudsignal.edge.session import Session

PENDING_MAX = 256
"""SUBSCRIBE and UNSUBSCRIBE packets the broker has not answered yet."""


Item = TypeVar("Item")
Pending = dict[int, list[Item]]
"""What the broker has not answered yet, by packet identifier, oldest first."""


class Memory(Protocol):
    """Where the filters of stored sessions are kept (``stored.Stored``), so that the next connection knows them."""

    def added(self, session: Session, topic_filter: bytes) -> None:
        """The broker holds this subscription."""

    def removed(self, session: Session, filters: Iterable[bytes]) -> None:
        """The broker holds these no longer."""

    def emptied(self, session: Session) -> None:
        """The broker has begun a new session."""


@dataclass(slots=True)
class Asked:
    """One filter of a SUBSCRIBE on its way to the broker, or of a live subscription."""

    topic_filter: bytes
    """As the client names it."""
    options: int
    """The options byte as forwarded (MQTT 5 s3.8.3.1)."""
    rule: str = ""
    refusal: int | None = None
    """The edge's own refusal; ``None`` when the broker is asked."""


class Subscriptions:
    """The subscriptions of one session."""

    __slots__ = ("_asked", "_coming", "_doubted", "_leaving", "_own", "_session", "live", "memory")

    def __init__(self, session: Session) -> None:
        self._session = session
        self.live: dict[bytes, Asked] = {}
        self.memory: Memory | None = None
        self._asked: Pending[list[Asked]] = {}
        self._coming: set[bytes] = set()
        """Filters the broker is being asked for, other than live ones: they count against the quota already."""
        self._leaving: Pending[list[bytes]] = {}
        self._own: Pending[list[bytes]] = {}
        """UNSUBSCRIBE packets of the edge, which the client knows nothing of."""
        self._doubted = False
        """A policy came while the broker was being asked: what it grants is judged once more."""

    # --- what the client asks ------------------------------------------------------------------------------------

    def reserve(self, topic_filter: bytes, room: int) -> bool:
        """Whether this filter fits among ``room``; if so, it takes its place."""
        if topic_filter in self.live or topic_filter in self._coming:
            return True
        if len(self.live) + len(self._coming) >= room:
            return False
        self._coming.add(topic_filter)
        return True

    def ask(self, packet_id: int, asked: list[Asked]) -> None:
        """A SUBSCRIBE goes upstream."""
        _wait_for(self._asked, packet_id, asked)

    def leave(self, packet_id: int, filters: list[bytes]) -> None:
        """An UNSUBSCRIBE goes upstream."""
        _wait_for(self._leaving, packet_id, filters)

    # --- what the broker answers ---------------------------------------------------------------------------------

    def suback(self, packet_id: int, codes: list[int]) -> None:
        """Put the broker's codes back among the edge's own refusals."""
        session = self._session
        asked = _answered(self._asked, packet_id)
        if asked is None or sum(one.refusal is None for one in asked) != len(codes):
            raise malformed("a SUBACK answers nothing that was asked")
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
        session.answer(suback(packet_id, answers, session.version))
        if self._doubted and not self._asked:
            self._doubted = False
            self.rejudge()

    def unsuback(self, packet_id: int, codes: list[int]) -> None:
        """Pass the answer on, unless the edge had asked."""
        session = self._session
        own = _answered(self._own, packet_id)
        if own is not None:
            self._remembered_no_longer(own)
            return
        filters = _answered(self._leaving, packet_id)
        if filters is None:
            raise malformed("an UNSUBACK answers nothing that was asked")
        for number, topic_filter in enumerate(filters):
            known = self.live.pop(topic_filter, None) is not None
            # A resumed session may hold what the edge does not know of; MQTT 5 says whether it did (0x11: it did not).
            if known or (number < len(codes) and codes[number] == 0):
                session.unsubscribed(topic_filter)
        self._remembered_no_longer(filters)
        session.to_client.append(unsuback(packet_id, codes, session.version))

    def _granted(self, one: Asked, code: int) -> None:
        session = self._session
        if self.memory is not None and session.session_expiry and one.topic_filter not in self.live:
            self.memory.added(session, one.topic_filter)
        self.live[one.topic_filter] = one
        session.subscribed(one, code)

    def _remembered_no_longer(self, filters: list[bytes]) -> None:
        gone = [topic_filter for topic_filter in filters if topic_filter not in self.live]
        if self.memory is not None and self._session.session_expiry and gone:
            self.memory.removed(self._session, gone)

    # --- what changes --------------------------------------------------------------------------------------------

    def resume(self, remembered: Iterable[bytes]) -> None:
        """The broker goes on with a stored session: take up its subscriptions and judge them by what is in force.

        What was remembered is a hint. Too little, and deliveries are still judged one by one; too much, and a
        subscription is ended that does not exist.
        """
        for topic_filter in remembered:
            try:
                check_topic_filter(checked_text(topic_filter))
                self._session.mount.filter(topic_filter)
            except (ProtocolError, MountError):
                continue
            self.live[topic_filter] = Asked(topic_filter, 0)
        self.rejudge()

    def start(self) -> None:
        """The broker has begun a new session: what was remembered of an earlier one is void."""
        if self.memory is not None and self._session.session_expiry:
            self.memory.emptied(self._session)

    def rejudge(self) -> None:
        """End what is no longer granted."""
        session = self._session
        self._doubted = bool(self._asked)
        lost: list[bytes] = []
        for topic_filter in list(self.live):
            decision = session.judge.subscribe(topic_filter)
            if not decision.allowed:
                session.denied("subscribe", topic_filter, decision)
                del self.live[topic_filter]
                lost.append(topic_filter)
        if not lost:
            return
        packet_id = next(i for i in range(65_535, 0, -1) if i not in self._leaving and i not in self._own)
        self._own[packet_id] = [lost]
        mounted = [session.mount.filter(topic_filter) for topic_filter in lost]
        session.to_broker.append(encode_unsubscribe(Unsubscribe(packet_id, mounted), session.version))


def _wait_for(pending: Pending[Item], packet_id: int, item: Item) -> None:
    """Note what is asked under ``packet_id``.

    MQTT 5 s2.2.1 wants an identifier that is not in use. Brokers do not insist, and answer in the order they were
    asked in; so does the edge.
    """
    if sum(map(len, pending.values())) >= PENDING_MAX:
        raise ProtocolError(Reason.QUOTA_EXCEEDED, "too many unanswered packets")
    pending.setdefault(packet_id, []).append(item)


def _answered(pending: Pending[Item], packet_id: int) -> Item | None:
    """The oldest that was asked under ``packet_id``."""
    items = pending.get(packet_id)
    if not items:
        return None
    item = items.pop(0)
    if not items:
        del pending[packet_id]
    return item
