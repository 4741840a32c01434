"""Celery tasks of the audit table. Each is safe to run twice or beside itself."""

from __future__ import annotations

from celery import shared_task

from audit.services import partitions
from audit.transparency import growing, witnesses
from cloudsignal import task_names


@shared_task(name=task_names.ENSURE_PARTITIONS, soft_time_limit=900, time_limit=960)
def ensure_partitions() -> int:
    """Make the partitions of the coming days, then seal those of past ones; returns how many were made or sealed."""
    return partitions.ensure_ahead() + partitions.seal_past()


@shared_task(name=task_names.GROW_LOG, soft_time_limit=120, time_limit=150)
def grow_log() -> int:
    """Place queued leaves in the transparency logs and sign checkpoints; returns how many checkpoints."""
    return growing.grow()


@shared_task(name=task_names.WITNESS_LOG, soft_time_limit=60, time_limit=90)
def witness_log() -> int:
    """Have the newest checkpoint of the platform's log cosigned; returns by how many witnesses."""
    return witnesses.submit_to_all()
