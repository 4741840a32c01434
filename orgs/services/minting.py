"""Minting many credentials at once, at the speed of the database.

In batches: each is one transaction (identities, secrets, audit, outbox) and, after its commit, one pipeline to Redis.
While the database works on one batch, the next is made and the one before is brought to Redis aside. New usernames go
this way; one that exists already goes through :func:`~orgs.services.credentials.issue_credential`, which keeps what it
has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
from django.db import connection, transaction
from redis.exceptions import RedisError

from audit import kinds
from cloudsignal import ids, outbox
from cloudsignal.keyring import pepper
from cloudsignal.models import OutboxRow
from cloudsignal.redis import State, client, write_states
from cloudsignal.wire import keys
from cloudsignal.wire.audit import uuid7
from cloudsignal.wire.change import Change
from cloudsignal.wire.credential import Credential, Secret, mint_secret, seal_credential, secret_mac
from orgs.access import Access
from orgs.permissions import Permission
from orgs.services.credentials import Issued, issue_credential
from orgs.services.push import KEPT_AFTER_EXPIRY
from orgs.services.roster import Entry
from orgs.tenancy import org_scope, platform_scope

logger = logging.getLogger(__name__)

BATCH = 1_000

_TABLE = """
CREATE TEMP TABLE IF NOT EXISTS minting (
    username text, static boolean, claims jsonb, note text, token_id text, mac bytea, hint text,
    expires_at timestamptz, event uuid, after jsonb
) ON COMMIT DELETE ROWS
"""
_COLUMNS = "username, static, claims, note, token_id, mac, hint, expires_at, event, after"
_TYPES = ["text", "bool", "jsonb", "text", "text", "bytea", "text", "timestamptz", "uuid", "jsonb"]
_STORE = """
WITH made AS (
    INSERT INTO orgs_mqttidentity (org_id, username, static, provider, external_id, email, claims, note, revision,
                                   revised_at, created_at, created_by)
    SELECT %(org)s, username, static, '', '', '', claims, note, 1, %(now)s, %(now)s, %(actor)s FROM minting
    ON CONFLICT (org_id, username) DO NOTHING RETURNING id, username
), secrets AS (
    INSERT INTO orgs_credential (org_id, identity_id, token_id, mac, hint, issued_at, expires_at, refreshed_from,
                                 created_by)
    SELECT %(org)s, made.id, token_id, mac, hint, %(now)s, expires_at, '', %(actor)s
    FROM minting JOIN made USING (username)
), events AS (
    INSERT INTO audit_event (ts, id, org_id, kind, node, session, username, client_id, ip, port, transport,
                             mqtt_version, tls_version, tls_cipher, reason, action, topic, qos, retain, size, rule,
                             policy_digest, count, actor, target, after)
    SELECT %(now)s, event, %(org)s, %(kind)s, '', '', username, '', %(ip)s, 0, '', '', '', '', '', '', '', -1, false,
           0, '', '', 1, %(actor)s, 'credential:' || token_id, after
    FROM minting JOIN made USING (username)
)
SELECT username FROM made
"""


@dataclass(frozen=True, slots=True)
class Minted:
    """One credential that was made, and the line of the file it was made for."""

    line: int
    issued: Issued


@dataclass(frozen=True, slots=True)
class _Prepared:
    entry: Entry
    issued: Issued
    mac: bytes
    record: bytes
    event: UUID


@dataclass(frozen=True, slots=True)
class _Stored:
    """A batch that is committed and on its way to Redis."""

    prepared: Sequence[_Prepared]
    made: set[str]
    row: OutboxRow
    pushed: Future[None]


def mint(
    access: Access, entries: Sequence[Entry], *, progress: Callable[[int, int], None] | None = None
) -> Iterator[Minted]:
    """Make a credential for every entry and yield each once it works at the edges.

    ``progress`` is told how many of how many are done. A batch that is interrupted is either made whole or not at all;
    whoever iterates no further stops the work. Raises what ``issue_credential`` does for usernames that exist.
    """
    access.require(Permission.CREDENTIALS_MANAGE)
    batches = [entries[start : start + BATCH] for start in range(0, len(entries), BATCH)]
    done = 0
    with ThreadPoolExecutor(2, thread_name_prefix="mint") as aside:
        coming = aside.submit(_prepare, access.org_id, batches[0]) if batches else None
        leaving: _Stored | None = None
        for following in [*batches[1:], None, None]:
            arrived = coming.result() if coming else None
            coming = aside.submit(_prepare, access.org_id, following) if following else None
            stored = _store(access, arrived, aside) if arrived else None
            if leaving:
                yield from _settle(access, leaving)
                done += len(leaving.prepared)
                if progress:
                    progress(done, len(entries))
            leaving = stored


def push_batch(org_id: str, usernames: Iterable[str]) -> None:
    """What a worker does when the process that minted a batch died before Redis had it."""
    from orgs.services.push import push_credential

    for username in usernames:
        push_credential(client(), org_id, username)


def _prepare(org: str, entries: Sequence[Entry]) -> list[_Prepared]:
    """Secrets, hashes and sealed records. Touches neither database nor Redis."""
    key, now = pepper(), datetime.now(UTC).replace(microsecond=0)
    return [_one(org, key, now, entry) for entry in entries]


def _one(org: str, key: bytes, now: datetime, entry: Entry) -> _Prepared:
    username = entry.username or ids.local_username()
    expires_at = None if entry.static else now + timedelta(seconds=entry.ttl)
    until = int(expires_at.timestamp()) if expires_at else 0
    secret, token_id = mint_secret(key, org), ids.token_id(org)
    mac = secret_mac(key, org=org, username=username, secret=secret, expires_at=until)
    record = Credential(org, username, 1, (Secret(token_id, mac, until),), entry.claims)
    issued = Issued(f"{username}@{org}", username, secret, token_id, now, expires_at, "", "")
    return _Prepared(entry, issued, mac, seal_credential(record, key), UUID(uuid7()))


def _store(access: Access, prepared: Sequence[_Prepared], aside: ThreadPoolExecutor) -> _Stored:
    """One transaction: the rows, and an outbox row that a worker acts on if this process dies before Redis has them."""
    now = datetime.now(UTC)
    with org_scope(access.org_id):
        made = _insert(access, prepared, now)
        fresh = [each for each in prepared if each.issued.local in made]
        payload = {"org": access.org_id, "usernames": " ".join(each.issued.local for each in fresh)}
        row = OutboxRow.objects.create(
            org_id=access.org_id, task="orgs.tasks.push_batch", key=prepared[0].issued.token_id, payload=payload,
            available_at=now + outbox.LEASE,
        )  # fmt: skip
    return _Stored(prepared, made, row, aside.submit(_push, access.org_id, fresh, now))


def _settle(access: Access, stored: _Stored) -> Iterator[Minted]:
    """Wait until Redis has a batch, then hand it out."""
    try:
        stored.pushed.result()
    except RedisError as error:
        logger.warning("minting: Redis is away, a worker pushes: %s", type(error).__name__)
    else:
        with platform_scope():
            OutboxRow.objects.filter(pk=stored.row.pk).delete()
    for each in stored.prepared:
        fresh = each.issued.local in stored.made
        yield Minted(each.entry.line, each.issued if fresh else _again(access, each.entry))


def _insert(access: Access, prepared: Sequence[_Prepared], now: datetime) -> set[str]:
    """Write the rows; returns the usernames that were new. Row-level security forbids COPY into its tables."""
    values = {"org": access.org_id, "actor": access.actor, "ip": access.ip or None, "now": now}
    with connection.cursor() as cursor:
        cursor.execute(_TABLE)
        with cursor.copy(f"COPY minting ({_COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(_TYPES)
            for each in prepared:
                copy.write_row(_row(each))
        cursor.execute(_STORE, {**values, "kind": kinds.CREDENTIAL_ISSUED})
        return {str(row[0]) for row in cursor.fetchall()}


def _row(each: _Prepared) -> tuple[object, ...]:
    from psycopg.types.json import Jsonb

    issued, entry = each.issued, each.entry
    after = {
        "token_id": issued.token_id,
        "expires_at": issued.expires_at.isoformat() if issued.expires_at else None,
        "static": issued.static,
        "hint": issued.password[-4:],
        "claims": sorted(entry.claims),
    }
    claims, kept = Jsonb(dict(entry.claims), msgspec.json.encode), Jsonb(after, msgspec.json.encode)
    return (
        issued.local, entry.static, claims, entry.note, issued.token_id, each.mac, issued.password[-4:],
        issued.expires_at, each.event, kept,
    )  # fmt: skip


def _push(org: str, fresh: Sequence[_Prepared], now: datetime) -> None:
    at = now.timestamp()
    states = [
        State(
            keys.credential(org, each.issued.local),
            1,
            each.record,
            Change(kind="credential", org=org, username=each.issued.local, committed_at=at),
            _forget_at(each.issued),
        )
        for each in fresh
    ]
    write_states(client(), states)


def _forget_at(issued: Issued) -> int | None:
    return int((issued.expires_at + KEPT_AFTER_EXPIRY).timestamp()) if issued.expires_at else None


def _again(access: Access, entry: Entry) -> Issued:
    """A further secret for a username that exists."""
    with transaction.atomic():
        return issue_credential(
            access, username=entry.username, ttl=entry.ttl, static=entry.static, note=entry.note, claims=entry.claims
        )
