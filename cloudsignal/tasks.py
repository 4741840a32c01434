"""Platform tasks that beat starts: sweep the outbox."""

from __future__ import annotations

from celery import shared_task

from cloudsignal import outbox, task_names


@shared_task(name=task_names.SWEEP_OUTBOX)
def sweep_outbox() -> int:
    """Send the due rows of the outbox; returns how many were sent."""
    return outbox.drain()
