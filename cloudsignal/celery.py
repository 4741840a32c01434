"""The Celery application: workers push desired state, expire and reconcile; beat tells them when.

Redelivery: a worker that dies loses nothing, its tasks run again. kombu sweeps for them only every
``unacked_restore_interval * unacked_restore_throttle`` seconds, which is 100 unless told otherwise.
"""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.beat import Scheduler
from celery.signals import heartbeat_sent, setup_logging, worker_init, worker_ready

from cloudsignal import task_names
from cloudsignal.queue import PREFIX, QUEUE, repair
from cloudsignal.startup import require

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "cloudsignal.settings")
# Django's checks are of the code, and load every page and the API, which neither a worker nor beat ever serves: half of
# the time that they took to start. `make check` runs them.
os.environ.setdefault("CELERY_SKIP_CHECKS", "1")
require("CLOUDSIGNAL_SECRET_KEY", "DATABASE_URL", "REDIS_URL")

app = Celery("cloudsignal", broker=os.environ["REDIS_URL"])
app.conf.update(
    task_default_queue=QUEUE,
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_soft_time_limit=20,
    task_time_limit=25,
    worker_prefetch_multiplier=4,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    # Commands to workers travel over Redis without any proof of who sent them.
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
    broker_connection_timeout=3,
    broker_transport_options={
        "visibility_timeout": 30,
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 1,
        "global_keyprefix": PREFIX,
        "socket_connect_timeout": 3,
        "socket_timeout": 10,
        "socket_keepalive": True,
    },
    beat_scheduler="cloudsignal.celery:AliveScheduler",
    beat_max_loop_interval=2,
    beat_schedule={
        "sweep-outbox": {"task": task_names.SWEEP_OUTBOX, "schedule": 2.0, "options": {"expires": 4}},
        "reconcile": {"task": task_names.RECONCILE, "schedule": 10.0, "options": {"expires": 10}},
        "ensure-partitions": {"task": task_names.ENSURE_PARTITIONS, "schedule": 600.0, "options": {"expires": 300}},
        "grow-log": {"task": task_names.GROW_LOG, "schedule": 5.0, "options": {"expires": 5}},
        "witness-log": {"task": task_names.WITNESS_LOG, "schedule": 10.0, "options": {"expires": 10}},
        "expire-credentials": {"task": task_names.EXPIRE_CREDENTIALS, "schedule": 300.0, "options": {"expires": 200}},
        "purge-organizations": {
            "task": task_names.PURGE_ORGANIZATIONS,
            "schedule": 600.0,
            "options": {"expires": 500},
        },
        "clear-sessions": {"task": task_names.CLEAR_SESSIONS, "schedule": 3600.0, "options": {"expires": 3000}},
        "note-missing-nodes": {"task": task_names.NOTE_MISSING_NODES, "schedule": 5.0, "options": {"expires": 5}},
    },
)
app.autodiscover_tasks(["cloudsignal", "orgs", "acl", "audit"])


class AliveScheduler(Scheduler):
    """Beat's scheduler without a state file: every entry is an interval, so there is nothing to remember."""

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send the tasks that are due, and touch the alive file of beat."""
        from cloudsignal.health.alive import touch

        touch("beat")
        return float(super().tick(*args, **kwargs))


@setup_logging.connect
def _keep_django_logging(**_: Any) -> None:
    """Connecting this signal stops Celery from configuring logging; Django's settings have done it."""


@worker_init.connect
def _repair_queue(**_: Any) -> None:
    """Repair the queue before a worker starts, so that damaged keys do not end it."""
    from cloudsignal.redis import client

    repair(client())


@worker_ready.connect
def _reconcile_at_start(**_: Any) -> None:
    """Reconcile once at the start: tasks of a killed worker are redelivered only after half a minute."""
    app.send_task(task_names.RECONCILE, expires=30)
    app.send_task(task_names.ENSURE_PARTITIONS, expires=300)


@worker_ready.connect
@heartbeat_sent.connect
def _worker_alive(**_: Any) -> None:
    from cloudsignal.health.alive import touch

    touch("worker")
