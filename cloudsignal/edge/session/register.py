"""The signed-in sessions of this process, by organization and by client ID."""

from __future__ import annotations

from collections.abc import Iterator

from cloudsignal.edge.session.machine import Session
from cloudsignal.edge.session.organization import Organization


class Register:
    """Signed-in sessions by organization, and the session that holds each client ID."""

    def __init__(self) -> None:
        self._sessions: dict[Organization, dict[str, Session]] = {}
        """By session id."""
        self._holders: dict[Organization, dict[str, Session]] = {}
        """The newest session of each client ID."""

    def __iter__(self) -> Iterator[Session]:
        """Iterate over every session; sessions may be added and removed meanwhile."""
        for sessions in list(self._sessions.values()):
            yield from list(sessions.values())

    def of(self, org: Organization) -> list[Session]:
        """The sessions of an organization."""
        return list(self._sessions.get(org, {}).values())

    def holder(self, org: Organization, client_id: str) -> Session | None:
        """The newest session with this client ID."""
        return self._holders.get(org, {}).get(client_id)

    def full(self, org: Organization, client_id: str, username: str) -> bool:
        """Whether the quota of connections is used up; a takeover of the client's own earlier session needs no room."""
        limit = org.active.quotas.connections
        if not limit or len(self._sessions.get(org, {})) < limit:
            return False
        held = self.holder(org, client_id)
        return held is None or held.ended or held.username != username

    def add(self, session: Session) -> None:
        """Add a signed-in session: from now on changes of its organization and identity reach it."""
        self._sessions.setdefault(session.org, {})[session.id] = session
        held = self.holder(session.org, session.client_id)
        session.before = held if held is None or held.live else held.before
        self._holders.setdefault(session.org, {})[session.client_id] = session

    def remove(self, session: Session) -> bool:
        """Remove a session whose connection is closed; ``False`` when it was never added.

        The client ID goes back to the session that was being taken over, when that one is still live.
        """
        org = session.org
        if self._sessions.get(org, {}).pop(session.id, None) is None:
            return False
        if self.holder(org, session.client_id) is session:
            del self._holders[org][session.client_id]
            if session.before is not None and session.before.live:
                self._holders[org][session.client_id] = session.before
        for kept in (self._sessions, self._holders):
            if not kept.get(org, True):
                del kept[org]
        return True
