"""Deletion of an organization: disconnect its clients at once, purge its data after a grace period.

Until the end an owner can restore it, and take its data along. What remains afterwards is one event in the platform's
own audit. The rows go by a function of the database's owner, which only the role of ``DATABASE_DELETE_URL`` may call.
It keeps a list of its own of when it noticed each deletion, and checks the grace period by that: the application's role
can mark an organization, and neither erase it nor put that time back.
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import cast

import psycopg
from django.conf import settings
from django.utils import timezone
from redis import Redis

from audit import kinds
from audit.services.record import record
from cloudsignal import outbox
from cloudsignal.errors import Conflict, Invalid, quoted
from cloudsignal.redis import State, write_state
from cloudsignal.secrets.keyring import signing_key
from cloudsignal.task_names import FORGET_ORGANIZATION
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from cloudsignal.wire import keys
from cloudsignal.wire.bundle import LAST_REVISION, Bundle, sign_bundle
from cloudsignal.wire.change import Change
from cloudsignal.wire.order import ERASE_SECONDS, Order
from orgs.access.grants import Access
from orgs.actors import PLATFORM
from orgs.broker.orders import give_order
from orgs.models import Organization
from orgs.permissions import Permission
from orgs.publishing import publish_organization

logger = logging.getLogger(__name__)

GRACE = timedelta(days=7)
"""Grace period; the database function of migration 0014 has the same value."""
BATCH = 500
"""Keys deleted from Redis per command."""


def delete_organization(access: Access, *, confirm: str) -> Organization:
    """Schedule the deletion: every client is disconnected now, all data is deleted after the grace period.

    ``confirm`` is the organization's name, typed by the person. Raises :class:`Invalid` and :class:`Conflict`.
    """
    access.require(Permission.ORG_DELETE)
    with org_scope(access.org_id):
        org = Organization.objects.select_for_update().get(pk=access.org_id)
        if confirm.strip() != org.name:
            raise Invalid("not_confirmed", f"Type the name of the organization, {quoted(org.name)}.", field="confirm")
        if org.status == Organization.Status.DELETING:
            raise Conflict("deleting_already", "The deletion of this organization is already scheduled.")
        before = {"status": str(org.status)}
        org.status, org.delete_after = Organization.Status.DELETING, timezone.now() + GRACE
        publish_organization(org, "status", "delete_after")
        after = {"status": str(org.status), "delete_after": org.delete_after.isoformat()}
        record(access, kinds.ORG_DELETED, target=f"org:{org.pk}", before=before, after=after)
    return org


def restore_organization(access: Access) -> Organization:
    """Cancel the deletion: clients can connect again unless an operator has suspended the organization. For owners."""
    access.require(Permission.ORG_DELETE)
    with org_scope(access.org_id):
        org = Organization.objects.select_for_update().get(pk=access.org_id)
        if org.status != Organization.Status.DELETING:
            raise Conflict("not_deleting", "No deletion of this organization is scheduled.")
        suspended = org.suspended_at is not None
        org.status = Organization.Status.SUSPENDED if suspended else Organization.Status.ACTIVE
        org.delete_after = None
        publish_organization(org, "status", "delete_after")
        after = {"status": str(org.status)}
        record(access, kinds.ORG_RESUMED, target=f"org:{org.pk}", before={"status": "deleting"}, after=after)
    return org


def purge_due() -> int:
    """Delete every organization whose grace period has ended; returns how many. Safe to run twice and to interrupt:
    what is deleted and not written down yet is written down by the next run, and what is left on Redis goes by the
    outbox. For the worker, which alone has the connection."""
    if not settings.DATABASE_DELETE_URL:
        logger.warning("DATABASE_DELETE_URL is not set: deleted organizations stay in the database")
        return 0
    with psycopg.connect(settings.DATABASE_DELETE_URL, autocommit=True, connect_timeout=5) as deleting:
        deleting.execute("SELECT notice_deletions()")
        noticed = deleting.execute(
            "SELECT organization FROM orgs_deletion WHERE deleted_at IS NULL ORDER BY noticed_at"
        )
        for (org_id,) in noticed.fetchall():
            deleting.execute("SELECT delete_organization(%s)", [org_id])  # false when it is not due
        deleted = deleting.execute(
            "SELECT organization, name FROM orgs_deletion WHERE deleted_at IS NOT NULL"
        ).fetchall()
        for org_id, name in deleted:
            _record_deleted(org_id, name)
            deleting.execute("DELETE FROM orgs_deletion WHERE organization = %s", [org_id])
    return len(deleted)


def _record_deleted(org_id: str, name: str) -> None:
    """Record the deletion in the platform's audit log, and enqueue the cleanup of Redis."""
    with platform_scope():
        before = {"id": org_id, "name": name}
        record(PLATFORM, kinds.ORG_DELETED, target=f"org:{org_id}", before=before, after={"deleted": True})
        outbox.enqueue(FORGET_ORGANIZATION, org="", key=org_id, payload={"org": org_id}, immediate=True)


def forget_organization(redis: Redis, org_id: str) -> None:
    """Delete the data of a deleted organization from Redis, and have the edges delete theirs and the broker's.

    A signed last word stands in the place of its bundle, so that edges that are away now forget it when they come back;
    what the broker holds is erased by one of them, which then removes what Redis knew of that. Safe to run twice. An
    organization that exists is left alone.
    """
    with platform_scope():
        if Organization.objects.filter(pk=org_id).exists():
            logger.error("an organization that exists was to be forgotten: %s", org_id)
            return
    names = [keys.live(org_id).encode(), *redis.scan_iter(match=keys.credential(org_id, "*"), count=1000)]
    for start in range(0, len(names), BATCH):
        redis.delete(*names[start : start + BATCH])
    _forget_changes(redis, org_id)
    now = timezone.now().timestamp()
    give_order(redis, Order("erase", org_id, issued_at=now, ends_at=now + ERASE_SECONDS))
    last = Bundle(
        org=org_id, revision=LAST_REVISION, digest="", policy=b"", status="deleted", issued_at=now
    )  # fmt: skip
    write_state(
        redis,
        State(
            key=keys.bundle(org_id),
            revision=LAST_REVISION,
            record=sign_bundle(last, signing_key()),
            change=Change(kind="bundle", org=org_id, committed_at=now),
            expires_at=int(now + ERASE_SECONDS),
        ),
    )


def _forget_changes(redis: Redis, org_id: str) -> None:
    """Delete the organization's entries from the change stream: they contain usernames."""
    after = "-"
    while entries := cast("list[tuple[bytes, dict[bytes, bytes]]]", redis.xrange(keys.CHANGES, min=after, count=1_000)):
        gone = [entry for entry, fields in entries if org_id.encode() in fields.get(keys.FIELD.encode(), b"")]
        if gone:
            redis.xdel(keys.CHANGES, *gone)
        after = f"({entries[-1][0].decode()}"
