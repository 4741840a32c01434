"""The outbox: work that must follow a commit, written in the transaction of the change.

``enqueue`` adds a row. On commit, and every two seconds by beat, ``drain`` leases the rows that are due, hands them to
Celery outside any transaction, and deletes them; a sender that dies leaves a lease that runs out, so a row is sent at
least once. Tasks read the present state and write it under a compare-revision script: running twice, late or out of
order changes nothing. Rows with the same task and key that wait together are sent once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from django.db import transaction
from django.db.models import Count, F, Min
from django.utils import timezone
from django.utils.module_loading import import_string
from redis.exceptions import RedisError

from cloudsignal.models import DoneTask, OutboxRow
from cloudsignal.queue import AGE_MAX
from cloudsignal.redis import fast_client
from cloudsignal.tenancy.scopes import platform_scope

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=15)
"""How long a sender may take before its rows are sent by another."""
BACKOFF_MAX = 60.0
"""Seconds between attempts, at most."""
BATCH = 200


@dataclass(frozen=True, slots=True)
class Depth:
    """The backlog of the outbox: rows, and the age of the oldest in seconds."""

    rows: int
    oldest: float


def enqueue(
    task: str, *, org: str, key: str, payload: Mapping[str, str] | None = None, immediate: bool = False
) -> None:
    """Ask for ``task`` to run after the current transaction commits. Must be called inside one.

    ``immediate`` runs it in this process right after the commit, so that the person's answer comes after
    the work is done; when that fails (Redis is slow or unavailable) the row stays and a worker does it.
    """
    row = defer(task, org=org, key=key, payload=payload)
    follow = partial(_run_now, row, task, dict(payload or {})) if immediate else _drain_now
    transaction.on_commit(follow, robust=True)


def defer(
    task: str, *, org: str, key: str, payload: Mapping[str, str] | None = None, wait: timedelta = timedelta()
) -> int:
    """Leave ``task`` to the sweep, within two seconds after ``wait``; returns the row, for :func:`withdraw`.

    Must be called inside a transaction.
    """
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("an outbox row belongs into the transaction of the change it follows")
    available_at = timezone.now() + wait
    row = OutboxRow.objects.create(
        org_id=org, task=task, key=key, payload=dict(payload or {}), available_at=available_at
    )
    return int(row.pk)


def withdraw(rows: Sequence[int]) -> int:
    """Delete rows whose sending has not begun; returns how many."""
    deleted, _ = OutboxRow.objects.filter(pk__in=rows, attempts=0).delete()
    return deleted


def drain() -> int:
    """Send what is due to Celery; returns how many rows were sent. Never raises because the broker is unavailable."""
    rows = _lease()
    sent: list[int] = []
    failed: dict[int, str] = {}
    groups: dict[tuple[str, str], list[OutboxRow]] = {}
    for row in rows:
        groups.setdefault((row.task, row.key), []).append(row)
    for (task, _), same in groups.items():
        ids = [row.pk for row in same]
        if failed:
            failed.update(dict.fromkeys(ids, "the broker was unavailable"))
            continue
        try:
            _send(task, same[-1].payload)
        except Exception as error:
            logger.warning("outbox: %s could not be sent: %s", task, type(error).__name__, extra={"task": task})
            failed.update(dict.fromkeys(ids, f"{type(error).__name__}: {error}"[:200]))
        else:
            sent.extend(ids)
    _settle(sent, failed, rows)
    return len(sent)


def depth() -> Depth:
    """The backlog of the outbox, for metrics and readiness."""
    with platform_scope():
        found = OutboxRow.objects.aggregate(rows=Count("id"), oldest=Min("created_at"))
    oldest = (timezone.now() - found["oldest"]).total_seconds() if found["oldest"] else 0.0
    return Depth(rows=found["rows"], oldest=oldest)


def once(message: str | None, work: Callable[[], bool]) -> bool:
    """Do ``work`` for a message of the queue unless that was done; False when there was nothing to do.

    For tasks whose second run would be noticed. Redis can hand a message out again, to workers that run at this moment
    as well; it is noted after the work, because a worker that dies has perhaps not done it.
    """
    if message and DoneTask.objects.filter(pk=message).exists():
        return False
    done = work()
    if message:
        DoneTask.objects.bulk_create([DoneTask(pk=message)], ignore_conflicts=True)
    return done


def forget_done() -> None:
    """Delete records of finished tasks whose messages the queue would refuse as too old."""
    DoneTask.objects.filter(at__lt=timezone.now() - timedelta(seconds=2 * AGE_MAX)).delete()


def _drain_now() -> None:
    """Drain right after a commit, unless Redis does not answer quickly: the request must not wait for it.

    Celery's producer would retry for seconds. The rows stay, and the sweep sends them.
    """
    try:
        fast_client().ping()
    except (RedisError, OSError) as error:
        logger.warning("outbox: left to the sweep, the broker does not answer: %s", type(error).__name__)
        return
    drain()


def _lease() -> list[OutboxRow]:
    now = timezone.now()
    with platform_scope():
        due = OutboxRow.objects.select_for_update(skip_locked=True).filter(available_at__lte=now)
        rows = list(due.order_by("id")[:BATCH])
        OutboxRow.objects.filter(pk__in=[row.pk for row in rows]).update(
            available_at=now + LEASE, attempts=F("attempts") + 1
        )
    return rows


def _settle(sent: list[int], failed: dict[int, str], rows: list[OutboxRow]) -> None:
    if not rows:
        return
    now = timezone.now()
    attempts = {row.pk: row.attempts for row in rows}
    with platform_scope():
        OutboxRow.objects.filter(pk__in=sent).delete()
        for pk, error in failed.items():
            wait = timedelta(seconds=min(2.0 ** min(attempts[pk], 10), BACKOFF_MAX))
            OutboxRow.objects.filter(pk=pk).update(available_at=now + wait, last_error=error)


def _run_now(pk: int, task: str, payload: dict[str, str]) -> None:
    try:
        import_string(task).run(**payload)
    except Exception as error:
        logger.warning("outbox: %s did not finish at once: %s", task, type(error).__name__, extra={"task": task})
        _drain_now()
        return
    with platform_scope():
        OutboxRow.objects.filter(pk=pk).delete()


def _send(task: str, payload: dict[str, str]) -> None:
    from cloudsignal.celery import app

    app.send_task(task, kwargs=payload, retry=False, ignore_result=True)
