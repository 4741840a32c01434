"""Open sessions: those with a ``connect`` event and no end yet. Belongs to the platform, not to a tenant."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class OpenSession(models.Model):
    """One open session, inserted with its ``connect`` event and deleted with its end, in the transaction of the event.

    From these rows ingest ends the sessions of a node that never came back (:mod:`audit.ingest.lost`).
    """

    session = models.CharField(max_length=64, primary_key=True, db_collation="C")
    node = models.CharField(max_length=128)
    incarnation = models.CharField(max_length=36)
    org = models.CharField(max_length=16)
    """The session's organization. Not ``org_id``: the table belongs to the platform, and holds no more than ids."""
    ts = models.DateTimeField()
    """Time of the session's ``connect``, with ``org`` and ``event`` its key; for one that has ended, of the note."""
    event = models.UUIDField(null=True)
    ended = models.BooleanField(default=False)
    """Whether the session's end was stored before its ``connect``, or ``lost``."""
    lost = models.BooleanField(default=False)
    """The control plane has ended it. An end that arrives late is no second one."""

    class Meta:
        indexes: ClassVar = [models.Index(fields=["node", "incarnation"], name="audit_open_session_node")]

    def __str__(self) -> str:
        return f"{self.session} on {self.node}"
