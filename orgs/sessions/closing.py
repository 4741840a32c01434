"""Closing of a live session by a member or API key."""

from __future__ import annotations

from audit import kinds
from audit.services.record import record
from cloudsignal import outbox
from cloudsignal.errors import NotFound
from cloudsignal.task_names import CLOSE_SESSION
from cloudsignal.tenancy.scopes import org_scope
from cloudsignal.wire.report import LiveSession
from orgs.access.grants import Access
from orgs.permissions import Permission
from orgs.sessions.reads import sessions_of


def close_session(access: Access, session_id: str) -> LiveSession:
    """Ask the edge that holds the session to close it; the client may sign in again. Returns the session.

    Raises :class:`NotFound` when the organization has no such session and ``Unavailable`` when Redis does not answer.
    """
    access.require(Permission.SESSIONS_CLOSE)
    found = next((session for session in sessions_of(access.org_id) if session.session == session_id), None)
    if found is None:
        raise NotFound("The session")
    with org_scope(access.org_id):
        record(
            access,
            kinds.SESSION_KICKED,
            target=f"session:{found.session}",
            username=found.username,
            after={"client_id": found.client_id, "node": found.node, "ip": found.ip},
        )
        outbox.enqueue(
            CLOSE_SESSION,
            org=access.org_id,
            key=f"{access.org_id}/{found.session}",
            payload={"org": access.org_id, "session": found.session},
            immediate=True,
        )
    return found
