"""How much of what a node says it has recorded has arrived. Belongs to the platform, not to a tenant."""

from __future__ import annotations

from django.db import models


class Journal(models.Model):
    """The events of one run of an edge process. Counted in the transaction that stores them, so it is exact."""

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
