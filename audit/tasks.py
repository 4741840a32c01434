"""Celery tasks of the audit table."""

from __future__ import annotations

from celery import shared_task

from audit.services import partitions


@shared_task(name="audit.tasks.ensure_partitions", soft_time_limit=900, time_limit=960)
def ensure_partitions() -> int:
    """Make the partitions of the coming days and seal those of past ones."""
    made = partitions.ensure_ahead()
    partitions.seal_past()
    return made
