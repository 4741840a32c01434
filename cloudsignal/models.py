"""Platform tables: the outbox, and tasks that must not be done twice."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils import timezone


class OutboxRow(models.Model):
    """A task that must run after a commit, written in the transaction of the change.

    ``org_id`` is empty for the platform's own. ``available_at`` lies ahead while somebody is sending a row; when
    the sender dies it is sent again.
    """

    org_id = models.CharField(max_length=16, blank=True)
    task = models.CharField(max_length=100)
    key = models.CharField(max_length=200)
    payload = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)
    available_at = models.DateTimeField(default=timezone.now)
    attempts = models.PositiveIntegerField(default=0)
    last_error = models.CharField(max_length=200, blank=True)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["available_at", "id"], name="cloudsignal_outbox_due")]

    def __str__(self) -> str:
        return f"{self.task} {self.key}"


class DoneTask(models.Model):
    """A finished task whose message may be delivered again, where a second run would be noticed (an email)."""

    id = models.CharField(primary_key=True, max_length=36)
    """The id of its message, which is under the queue's seal."""
    at = models.DateTimeField(default=timezone.now, db_index=True)

    def __str__(self) -> str:
        return self.id
