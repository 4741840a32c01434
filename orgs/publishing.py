"""Publishing a changed organization to the edges: its next revision now, its bundle after the commit."""

from __future__ import annotations

from cloudsignal import outbox
from cloudsignal.task_names import PUSH_BUNDLE
from orgs.models import Organization


def publish_organization(org: Organization, *changed: str) -> None:
    """Save the fields ``changed`` of a locked organization with its next revision; enqueue the push of its bundle."""
    next_revision(org, *changed)
    outbox.enqueue(PUSH_BUNDLE, org=org.pk, key=org.pk, payload={"org": org.pk})


def next_revision(org: Organization, *changed: str) -> None:
    """Save the fields ``changed`` with the next revision; the caller pushes the bundle itself."""
    org.bump()
    org.save(update_fields=[*changed, "revision", "revised_at"])


def push_again(org: Organization) -> None:
    """Enqueue another push of the present bundle, by the sweep: ingest neither signs nor sends tasks."""
    outbox.defer(PUSH_BUNDLE, org=org.pk, key=org.pk, payload={"org": org.pk})
