"""Celery tasks about bundles and nodes. Each is safe to run twice, late, or out of order."""

from __future__ import annotations

from celery import shared_task
from django.db import InterfaceError, OperationalError
from redis.exceptions import RedisError

from acl.services import nodes, push
from cloudsignal import task_names
from cloudsignal.redis import client

AWAY = (RedisError, OperationalError, InterfaceError)
"""Redis or PostgreSQL is away: the task runs again in a moment."""


@shared_task(name=task_names.PUSH_BUNDLE, autoretry_for=AWAY, max_retries=8, retry_backoff=1, retry_backoff_max=30)
def push_bundle(org: str) -> int:
    """Write the organization's present bundle to Redis; returns its revision, 0 when the organization is gone."""
    pushed = push.push_bundle(client(), org)
    if pushed is not None and not pushed.written:
        push.catch_up(client(), org)
    return pushed.revision if pushed else 0


@shared_task(name=task_names.NOTE_MISSING_NODES)
def note_missing_nodes() -> int:
    """Mark the nodes offline that have sent no heartbeat for a while; returns how many."""
    return nodes.note_missing()
