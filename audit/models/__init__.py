"""What happened."""

from audit.models.event import Event
from audit.models.journal import Journal

__all__ = ["Event", "Journal"]
