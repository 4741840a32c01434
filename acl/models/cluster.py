"""Broker clusters and the edge nodes in front of them. They belong to the platform, not to a tenant."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone

DEFAULT_CLUSTER = "default"
"""The cluster of new organizations; nodes that announce themselves join it."""


class Cluster(models.Model):
    """A broker cluster."""

    name = models.CharField(max_length=63, unique=True)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.name


class Node(models.Model):
    """One edge process. It registers itself by its first heartbeat and is never deleted, only retired."""

    cluster = models.ForeignKey(Cluster, on_delete=models.PROTECT, related_name="nodes")
    name = models.CharField(max_length=128, unique=True)
    address = models.CharField(max_length=255, blank=True)
    incarnation = models.CharField(max_length=36, blank=True)
    online = models.BooleanField(default=True)
    sessions = models.PositiveIntegerField(default=0)
    sequence = models.BigIntegerField(default=0)
    """Audit events written by this incarnation, as its last heartbeat says."""
    counters = models.JSONField(default=dict, blank=True)
    brokers = models.JSONField(default=list, db_default=models.Value([], models.JSONField()), blank=True)
    """Each broker node as this edge last found it; read through :mod:`acl.brokers`."""
    registered_at = models.DateTimeField(default=timezone.now)
    started_at = models.DateTimeField(null=True, blank=True)
    last_seen = models.DateTimeField(null=True, blank=True)
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name
