"""Celery tasks about credentials. Each is safe to run twice, late, or out of order."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.utils import timezone
from redis.exceptions import RedisError

from cloudsignal.redis import fast_client
from orgs.services import push
from orgs.services.cleanup import delete_expired


@shared_task(
    name="orgs.tasks.push_credential", autoretry_for=(RedisError,), max_retries=8, retry_backoff=1, retry_backoff_max=30
)
def push_credential(org: str, username: str) -> bool:
    """Write the present record of one username to Redis."""
    return push.push_credential(fast_client(), org, username)


@shared_task(name="orgs.tasks.expire_credentials")
def expire_credentials() -> int:
    """Delete credentials that expired a month ago; the audit keeps what happened with them."""
    return delete_expired(before=timezone.now() - timedelta(days=30))
