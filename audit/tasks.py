"""Celery tasks of the audit table. Each is safe to run twice or beside itself."""

from __future__ import annotations

from celery import shared_task

from audit.services import partitions
from cloudsignal import task_names


@shared_task(name=task_names.ENSURE_PARTITIONS, soft_time_limit=900, time_limit=960)
def ensure_partitions() -> int:
    """Make the partitions of the coming days, then seal those of past ones; returns how many were made or sealed."""
    return partitions.ensure_ahead() + partitions.seal_past()
