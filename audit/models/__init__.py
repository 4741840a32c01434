"""Models of the audit log."""

from audit.models.event import Event
from audit.models.journal import Journal
from audit.models.open_session import OpenSession

__all__ = ["Event", "Journal", "OpenSession"]
