"""Platform tasks that beat starts: sweep the outbox, bring back what Redis lost."""

from __future__ import annotations

from celery import shared_task

from cloudsignal import outbox, task_names
from cloudsignal.reconcile import reconcile as run_reconcile


@shared_task(name=task_names.SWEEP_OUTBOX)
def sweep_outbox() -> int:
    """Send what waits in the outbox; returns how many rows were sent."""
    return outbox.drain()


@shared_task(name=task_names.RECONCILE, soft_time_limit=120, time_limit=150)
def reconcile() -> int:
    """Push what Redis lacks or has old; returns how many records were pushed."""
    return run_reconcile()
