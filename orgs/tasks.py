"""Celery tasks about credentials. Each is safe to run twice, late, or out of order."""

from __future__ import annotations

import json
import logging
import time

from celery import Task, shared_task
from django.db import InterfaceError, OperationalError
from django.utils import timezone
from redis.exceptions import RedisError

from acl.services.reconcile import reconcile_bundles
from audit.kinds import CloseCause
from cloudsignal import outbox, task_names
from cloudsignal.redis import announce, client, fast_client
from cloudsignal.wire.change import Change
from orgs.broker import orders
from orgs.credentials import bulk, cleanup, push
from orgs.credentials.reconcile import mend, reconcile_credentials
from orgs.organizations import deletion
from orgs.people import invitations
from orgs.sso import login

logger = logging.getLogger(__name__)

AWAY = (RedisError, OperationalError, InterfaceError)
"""Errors of Redis and PostgreSQL being unavailable, on which a task is retried."""


@shared_task(name=task_names.PUSH_CREDENTIAL, autoretry_for=AWAY, max_retries=8, retry_backoff=1, retry_backoff_max=30)
def push_credential(org: str, username: str) -> bool:
    """Write the present record of one username to Redis."""
    return push.push_credential(fast_client(), org, username) or push.catch_up(fast_client(), org, username)


@shared_task(name=task_names.CLOSE_SESSION, autoretry_for=AWAY, max_retries=3, retry_backoff=1, retry_backoff_max=5)
def close_session(org: str, session: str) -> None:
    """Ask the edges to close one live session."""
    change = Change(kind="close", org=org, session=session, cause=CloseCause.KICKED, committed_at=time.time())
    announce(fast_client(), change)


@shared_task(
    name=task_names.DISCARD_SESSIONS, autoretry_for=AWAY, max_retries=8, retry_backoff=1, soft_time_limit=60,
    time_limit=70,
)  # fmt: skip
def discard_sessions(org: str, usernames: str, issued_at: str) -> int:
    """Order an edge to discard the stored sessions of revoked usernames, which are separated by spaces."""
    return orders.discard_sessions_of(client(), org, usernames.split(), issued_at=float(issued_at))


@shared_task(
    name=task_names.RELEASE_SESSION, autoretry_for=AWAY, max_retries=8, retry_backoff=1, soft_time_limit=60,
    time_limit=70,
)  # fmt: skip
def release_session(org: str, client_id: str, issued_at: str) -> None:
    """Order an edge to discard one stored session."""
    orders.discard_sessions(client(), org, [client_id], issued_at=float(issued_at))


@shared_task(
    name=task_names.CLEAR_RETAINED, autoretry_for=AWAY, max_retries=8, retry_backoff=1, soft_time_limit=60,
    time_limit=70,
)  # fmt: skip
def clear_retained(org: str, topics: str, username: str) -> int:
    """Order an edge to clear retained messages: on ``topics`` (a JSON list), or of ``username`` (``*``: all)."""
    return orders.clear_retained(client(), org, json.loads(topics), username=username)


@shared_task(name=task_names.EXPIRE_CREDENTIALS)
def expire_credentials() -> int:
    """Delete credentials that expired a week ago; the audit keeps what happened with them."""
    return cleanup.delete_expired(before=timezone.now() - push.KEPT_AFTER_EXPIRY)


@shared_task(
    name=task_names.SEND_INVITATION, bind=True, autoretry_for=(OSError,), max_retries=8, retry_backoff=5,
    retry_backoff_max=600,
)  # fmt: skip
def send_invitation(self: Task[..., bool], org: str, invitation: str) -> bool:
    """Send the email of an invitation."""
    return outbox.once(self.request.id, lambda: invitations.send_invitation(org, invitation))


@shared_task(
    name=task_names.SEND_LINKED, bind=True, autoretry_for=(OSError,), max_retries=8, retry_backoff=5,
    retry_backoff_max=600,
)  # fmt: skip
def send_linked(self: Task[..., bool], org: str, sign_on: str, user: str) -> bool:
    """Send the email that says that an account was linked to an SSO connection."""
    return outbox.once(self.request.id, lambda: login.send_linked(org, sign_on, int(user)))


@shared_task(name=task_names.CLEAR_SESSIONS, soft_time_limit=120, time_limit=130)
def clear_sessions() -> None:
    """Delete expired browser sessions, and records of completed tasks that cannot be redelivered."""
    cleanup.clear_sessions()
    outbox.forget_done()


@shared_task(
    name=task_names.FORGET_ORGANIZATION, autoretry_for=AWAY, max_retries=8, retry_backoff=1, soft_time_limit=120,
    time_limit=130,
)  # fmt: skip
def forget_organization(org: str) -> None:
    """Delete the data of a deleted organization from Redis."""
    deletion.forget_organization(client(), org)


@shared_task(name=task_names.PURGE_ORGANIZATIONS, soft_time_limit=600, time_limit=660)
def purge_organizations() -> int:
    """Delete organizations whose grace period has ended."""
    return deletion.purge_due()


@shared_task(
    name=task_names.ABANDON_BATCH, autoretry_for=AWAY, max_retries=8, retry_backoff=1, soft_time_limit=120,
    time_limit=130,
)  # fmt: skip
def abandon_batch(org: str, tokens: str) -> int:
    """Revoke credentials that were issued but not delivered: token IDs, separated by spaces."""
    return bulk.abandon(org, tokens.split())


@shared_task(
    name=task_names.PUSH_BATCH, autoretry_for=AWAY, max_retries=8, retry_backoff=1, soft_time_limit=60,
    time_limit=70,
)  # fmt: skip
def push_batch(org: str, usernames: str) -> int:
    """Write the records of usernames that were issued or revoked together, separated by spaces, to Redis."""
    return push.push_batch(fast_client(), org, usernames.split())


@shared_task(name=task_names.RECONCILE, soft_time_limit=120, time_limit=150)
def reconcile() -> int:
    """Push what Redis lacks or has old; returns how many records were pushed."""
    redis = client()
    mend(redis)
    pushed = reconcile_bundles(redis) + reconcile_credentials(redis)
    if pushed:
        logger.info("reconcile: records were missing or old on Redis", extra={"count": pushed})
    return pushed
