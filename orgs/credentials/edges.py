"""Publishing changed identities to the edges, and discarding their stored sessions."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import F
from django.utils import timezone

from cloudsignal import outbox
from cloudsignal.task_names import DISCARD_SESSIONS, PUSH_BATCH, PUSH_CREDENTIAL
from orgs.models import MqttIdentity


def tell_edges(identity: MqttIdentity) -> None:
    """Save a locked identity with its next revision and publish it to the edges."""
    identity.revision += 1
    identity.revised_at = timezone.now()
    identity.save()
    outbox.enqueue(
        PUSH_CREDENTIAL,
        org=identity.org_id,
        key=f"{identity.org_id}/{identity.username}",
        payload={"org": identity.org_id, "username": identity.username},
        immediate=True,
    )


def tell_edges_of_many(identities: Sequence[MqttIdentity]) -> None:
    """Publish many locked identities of one organization with one write and one push."""
    org_id = identities[0].org_id
    MqttIdentity.objects.filter(org=org_id, pk__in=[identity.pk for identity in identities]).update(
        revision=F("revision") + 1, revised_at=timezone.now()
    )
    outbox.enqueue(
        PUSH_BATCH,
        org=org_id,
        key=f"{org_id}/{identities[0].username} and {len(identities) - 1} more",
        payload={"org": org_id, "usernames": " ".join(identity.username for identity in identities)},
        immediate=True,
    )


def discard_sessions(identities: Sequence[MqttIdentity]) -> None:
    """Discard the stored sessions of revoked identities of one organization, with their queued messages.

    Their client IDs are free for a replacement, and a client with the old password has no session to resume.
    """
    org_id = identities[0].org_id
    outbox.enqueue(
        DISCARD_SESSIONS,
        org=org_id,
        key=f"{org_id}/{identities[0].username} and {len(identities) - 1} more",
        payload={
            "org": org_id,
            "usernames": " ".join(identity.username for identity in identities),
            "issued_at": str(timezone.now().timestamp()),
        },
    )
