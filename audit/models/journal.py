"""Progress of each node's audit journal: how many events have arrived. Belongs to the platform, not to a tenant."""

from __future__ import annotations

from django.db import models


class Journal(models.Model):
    """The events that arrived from one run of an edge process, counted in the transaction that stores them."""

    pk = models.CompositePrimaryKey("node", "incarnation")
    node = models.CharField(max_length=128)
    incarnation = models.CharField(max_length=36)
    stored = models.BigIntegerField(default=0)
    """Distinct events stored."""
    lost = models.BigIntegerField(default=0)
    """Events that were recorded and never arrived, as far as the platform's log has been told."""
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()
    """When the last of them was stored."""

    def __str__(self) -> str:
        return f"{self.stored} events of {self.node}"
