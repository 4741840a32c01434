"""The one table of audit events: from the edge and from administrative changes, partitioned by day.

Append-only: the roles of the application may insert and read, and nothing else. Repetitions of a folded denial are rows
of their own. There is no column a payload could be put in.
"""

from __future__ import annotations

import uuid
from typing import ClassVar

from django.db import models
from django.db.models import Q

from cloudsignal.ids import PLATFORM_ORG


class Event(models.Model):
    """One audit event. Field meanings are those of :class:`cloudsignal.wire.audit.AuditEvent`."""

    pk = models.CompositePrimaryKey("org_id", "ts", "id")
    ts = models.DateTimeField()
    id = models.UUIDField(default=uuid.uuid4)
    org_id = models.CharField(max_length=16, default=PLATFORM_ORG)
    """The organization; ``platform`` for what belongs to none, the platform's own log."""
    kind = models.CharField(max_length=40, db_collation="C")
    node = models.CharField(max_length=128, blank=True)
    session = models.CharField(max_length=64, blank=True)
    username = models.TextField(blank=True, db_collation="C")
    client_id = models.TextField(blank=True, db_collation="C")
    ip = models.GenericIPAddressField(null=True)
    port = models.IntegerField(default=0)
    transport = models.CharField(max_length=16, blank=True)
    mqtt_version = models.CharField(max_length=16, blank=True)
    tls_version = models.CharField(max_length=16, blank=True)
    tls_cipher = models.CharField(max_length=64, blank=True)
    reason = models.CharField(max_length=64, blank=True, db_collation="C")
    action = models.CharField(max_length=16, blank=True)
    topic = models.TextField(blank=True, db_collation="C")
    qos = models.SmallIntegerField(default=-1)
    retain = models.BooleanField(default=False)
    size = models.BigIntegerField(default=0)
    rule = models.CharField(max_length=64, blank=True)
    policy_digest = models.CharField(max_length=71, blank=True)
    count = models.BigIntegerField(default=1)
    actor = models.CharField(max_length=320, blank=True)
    """Who made an administrative change: ``user:EMAIL``, ``key:sk_...x7m4``, ``operator:EMAIL`` or ``system``."""
    target = models.CharField(max_length=320, blank=True)
    """What was changed, e.g. ``credential:tok_...``."""
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    details = models.JSONField(null=True)
    repeats = models.UUIDField(null=True)
    """The event of this organization that this one, and the further ones it counts, repeat within a minute."""
    log_leaf = models.BigIntegerField(null=True)
    """Number of the row's leaf in the organization's transparency log; None: recorded before there was a log."""
    salt = models.BinaryField(null=True)
    """16 random bytes that the row's leaf commits to; None like ``log_leaf``."""

    repeated = 0
    """Occurrences in the rows that repeat this one; a search that shows them as one line adds them up here."""

    class Meta:
        indexes: ClassVar = [
            models.Index(fields=["org_id", "repeats"], name="audit_event_repeats", condition=Q(repeats__isnull=False))
        ]

    def __str__(self) -> str:
        return f"{self.kind} at {self.ts.isoformat()}"

    @property
    def total(self) -> int:
        """Occurrences in this row and in those that were added up."""
        return self.count + self.repeated
