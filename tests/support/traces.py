"""What a change leaves behind in an organization: audit events and tasks for the worker."""

from __future__ import annotations

from audit.access import AuditQuery, search
from audit.models import Event
from cloudsignal.models import OutboxRow
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access


def events(access: Access, kind: str = "") -> tuple[Event, ...]:
    """The organization's audit events, newest first; of one kind when it is given."""
    return tuple(search(access, AuditQuery(kind=kind)).events)


def tasks(org_id: str) -> list[str]:
    """The tasks that wait in the organization's outbox, in order."""
    with org_scope(org_id):
        return list(OutboxRow.objects.order_by("id").values_list("task", flat=True))
