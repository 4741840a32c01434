"""Splits of the broker's nodes: while one is known, organizations that chose so get no acknowledgements.

During a split every node goes on, and what crosses it is lost although its publisher was told that it arrived. The edge
cannot carry it across; it can keep from saying that it arrived.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from audit.kinds import CloseCause
from cloudsignal.edge.broker.status import ClusterView
from cloudsignal.edge.session.organization import Organization
from cloudsignal.edge.session.register import Register

CERTAIN = 2.0
"""Seconds that nodes must be seen split before publishes are refused: those that join or leave need a moment."""

FRESH = 15.0
"""Seconds for which a split that was seen counts when nothing more is heard; then publishes are accepted again."""


class Splits:
    """Has organizations that chose so refuse publishes while the status pages show a split."""

    def __init__(
        self, organizations: Mapping[str, Organization], sessions: Register, pump: Callable[[str], None]
    ) -> None:
        self._organizations = organizations
        self._sessions = sessions
        self._pump = pump
        self._since = self._seen = 0.0
        """Times of the first and last sight of the split, on the monotonic clock; 0 for never."""
        self._acting = False
        """Whether an organization may be refusing."""
        self._view: ClusterView | None = None

    def _note(self, view: ClusterView) -> None:
        """Take what all status pages say together, once for each reading. Pages that say nothing take nothing back."""
        if view is self._view:
            return
        self._view = view
        if view.split:
            self._seen = time.monotonic()
            self._since = self._since or self._seen
        elif view.state != "unknown":
            self._since = self._seen = 0.0

    @property
    def known(self) -> bool:
        """Whether the nodes are known to be split."""
        if not self._since:
            return False
        if time.monotonic() - self._seen > FRESH:
            self._since = self._seen = 0.0
            return False
        return self._seen - self._since >= CERTAIN

    def turn(self, view: ClusterView) -> None:
        """Let organizations begin and cease to refuse publishes, by the last reading. Called about once a second."""
        self._note(view)
        known = self.known
        if not known and not self._acting:
            return
        self._acting = known
        for org in self._organizations.values():
            refusing = known and org.active.refuse_while_split
            if org.refusing and not refusing:
                self._over(org)
            org.refusing = refusing

    def _over(self, org: Organization) -> None:
        """Have clients of MQTT 3.1.1 send again what was not acknowledged: they do so on a new connection only."""
        for session in self._sessions.of(org):
            if session.unanswered and session.live:
                session.end(CloseCause.SPLIT_OVER)
                self._pump(session.id)
