"""Edge nodes: registering by their first heartbeat, and noting that one has gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from django.utils import timezone

from acl.models import Cluster, Node
from acl.models.cluster import DEFAULT_CLUSTER
from audit import kinds
from audit.services.record import record
from cloudsignal.wire.report import HEARTBEAT_SECONDS, Heartbeat
from orgs.services.actors import PLATFORM
from orgs.tenancy import platform_scope

MISSING_AFTER = timedelta(seconds=3 * HEARTBEAT_SECONDS)


def note_heartbeat(beat: Heartbeat) -> Node:
    """Store what a node says of itself. An unknown one joins the default cluster, and the platform's log says so."""
    seen = {
        "address": beat.address[:255],
        "incarnation": beat.incarnation[:36],
        "online": True,
        "sessions": max(0, beat.sessions),
        "sequence": beat.sequence,
        "counters": beat.counters,
        "started_at": datetime.fromtimestamp(beat.started_at, UTC),
        "last_seen": timezone.now(),  # our clock, which is the one that ``note_missing`` compares with
    }
    with platform_scope():
        node = known(beat.node)
        Node.objects.filter(pk=node.pk, retired_at=None).update(**seen)
    return node


def known(name: str) -> Node:
    """The node of this name, registered if it is new. Needs the platform's scope."""
    node = Node.objects.filter(name=name).first()
    if node is not None:
        return node
    cluster = Cluster.objects.get(name=DEFAULT_CLUSTER)
    node, made = Node.objects.get_or_create(name=name[:128], defaults={"cluster": cluster})
    if made:
        record(PLATFORM, kinds.NODE_REGISTERED, target=f"node:{node.name}", after={"cluster": cluster.name})
    return node


def note_missing() -> int:
    """Mark online nodes whose heartbeats have stopped as offline; returns how many."""
    limit = timezone.now() - MISSING_AFTER
    with platform_scope():
        return Node.objects.filter(online=True, last_seen__lt=limit).update(online=False)
