"""Having the edges told of a change to an organization: its next revision, and its bundle after the commit."""

from __future__ import annotations

from cloudsignal import outbox
from cloudsignal.task_names import PUSH_BUNDLE
from orgs.models import Organization


def publish_organization(org: Organization, *changed: str) -> None:
    """Save the fields ``changed`` of a locked organization with its next revision, and have its bundle pushed."""
    next_revision(org, *changed)
    outbox.enqueue(PUSH_BUNDLE, org=org.pk, key=org.pk, payload={"org": org.pk})


def next_revision(org: Organization, *changed: str) -> None:
    """The same for a caller that pushes the bundle itself."""
    org.bump()
    org.save(update_fields=[*changed, "revision", "revised_at"])


def push_again(org: Organization) -> None:
    """Have the present bundle pushed once more. Left to the sweep: ingest neither signs nor sends tasks."""
    outbox.defer(PUSH_BUNDLE, org=org.pk, key=org.pk, payload={"org": org.pk})
