"""Clear retained messages and discard stored sessions of an organization; an edge carries it out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256

from django.utils import timezone

from audit import kinds
from audit.services.record import record
from cloudsignal import outbox
from cloudsignal.errors import Conflict, Invalid, NotFound, quoted
from cloudsignal.task_names import CLEAR_RETAINED, RELEASE_SESSION
from cloudsignal.tenancy.scopes import org_scope
from cloudsignal.wire.order import NAMES_MAX
from cloudsignal.wire.retained import TOPIC_BYTES
from orgs.access.grants import Access
from orgs.broker.reads import StoredSession, stored_of
from orgs.permissions import Permission


def clear_retained(access: Access, *, topics: Sequence[str] = (), username: str = "", everything: bool = False) -> None:
    """Clear retained messages: those on ``topics``, or all that ``username`` published, or all.

    It is done within a moment, or when an edge is back. For owners and operators. Raises :class:`Invalid`.
    """
    access.require(Permission.RETAINED_CLEAR)
    if sum((bool(topics), bool(username), everything)) != 1:
        raise Invalid("say_which", "Give topics, or a username, or everything=true.", field="topics")
    if len(topics) > NAMES_MAX:
        raise Invalid("too_many_topics", f"Clear at most {NAMES_MAX} topics at a time.", field="topics")
    for topic in topics:
        if not 0 < len(topic.encode("utf-8", "replace")) <= TOPIC_BYTES or any(one in topic for one in "+#\0"):
            raise Invalid("bad_topic", f"{quoted(topic[:80])} is not a topic of a retained message.", field="topics")
    local = username.removesuffix(f"@{access.org_id}")
    whose = "*" if everything else local
    what = {"topics": list(topics[:50]), "count": len(topics)} if topics else {"username": whose}
    with org_scope(access.org_id):
        record(access, kinds.RETAINED_CLEARED, target=f"org:{access.org_id}", username=local, after=what)
        outbox.enqueue(
            CLEAR_RETAINED,
            org=access.org_id,
            key=f"{access.org_id}/{timezone.now().timestamp()}",
            payload={
                "org": access.org_id,
                "topics": json.dumps(list(topics)),
                "username": whose,
            },
        )


def release_session(access: Access, client_id: str) -> StoredSession:
    """Discard a stored session with its queued messages, which releases its client ID. Returns the session.

    Raises :class:`NotFound` when none is stored and :class:`Conflict` when its client is connected.
    """
    access.require(Permission.SESSIONS_CLOSE)
    found = next((row for row in stored_of(access.org_id, find=client_id).rows if row.client_id == client_id), None)
    if found is None:
        raise NotFound("The stored session")
    if found.connected:
        raise Conflict("session_live", "The client is connected: close its live session first, or revoke its username.")
    with org_scope(access.org_id):
        after = {"client_id": client_id}
        record(access, kinds.SESSION_RELEASED, target=f"org:{access.org_id}", username=found.username, after=after)
        outbox.enqueue(
            RELEASE_SESSION,
            org=access.org_id,
            key=f"{access.org_id}/{sha256(client_id.encode('utf-8', 'replace')).hexdigest()}",  # they may be long
            payload={
                "org": access.org_id, "client_id": client_id, "issued_at": str(timezone.now().timestamp()),
            },
        )  # fmt: skip
    return found
