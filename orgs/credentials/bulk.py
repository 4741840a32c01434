"""Bulk issue of credentials, at the speed of the database.

In batches: each is one transaction (identities, secrets, audit, outbox) and, after its commit, one pipeline to Redis.
While the database works on one batch, the next is made and the one before is brought to Redis aside. A username that
exists gets a further secret the way a single credential is issued, which keeps what it has.

Secrets are nowhere but in the process that issued them, so a batch that is committed and not yet handed out would be
lost with it. Each transaction therefore leaves a claim: an outbox row by which a worker revokes the batch. It is taken
away once the batch has been handed out. What nobody was shown works for nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import chain

import msgspec
from django.db import connection
from redis.exceptions import RedisError

from audit import kinds
from audit.services.record import AuditedChange, record_many
from cloudsignal import ids, outbox
from cloudsignal.errors import Conflict, DomainError
from cloudsignal.redis import State, client, write_states
from cloudsignal.secrets.keyring import pepper
from cloudsignal.task_names import ABANDON_BATCH, PUSH_BATCH
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from cloudsignal.wire import keys
from cloudsignal.wire.change import Change
from cloudsignal.wire.credential import Credential, Secret, make_secret, seal_credential, secret_mac
from orgs.access.acting_key import hold_acting_key
from orgs.access.grants import Access
from orgs.credentials.csv_file import Entry
from orgs.credentials.issuing import Issued, issue_credential, issued_facts, revoke_credential
from orgs.credentials.push import KEPT_AFTER_EXPIRY
from orgs.models import MqttIdentity, Organization
from orgs.permissions import Permission

logger = logging.getLogger(__name__)

BATCH = 1_000
CLAIM = timedelta(seconds=60)
"""How long a batch may wait for delivery to the caller before a worker revokes it."""

_TABLE = """
CREATE TEMP TABLE IF NOT EXISTS bulk_lines (
    username text, static boolean, claims text, note text, token_id text, mac bytea, hint text,
    expires_at timestamptz
) ON COMMIT DELETE ROWS
"""
_COLUMNS = "username, static, claims, note, token_id, mac, hint, expires_at"
_TYPES = ["text", "bool", "text", "text", "text", "bytea", "text", "timestamptz"]
_STORE = """
WITH made AS (
    INSERT INTO orgs_mqttidentity (org_id, username, static, provider, external_id, email, claims, note, revision,
                                   revised_at, created_at, created_by)
    SELECT %(org)s, username, static, '', '', '', claims::jsonb, note, 1, %(now)s, %(now)s, %(actor)s FROM bulk_lines
    ORDER BY username ON CONFLICT (org_id, username) DO NOTHING RETURNING id, username
), secrets AS (
    INSERT INTO orgs_credential (org_id, identity_id, token_id, mac, hint, issued_at, expires_at, refreshed_from,
                                 created_by)
    SELECT %(org)s, made.id, token_id, mac, hint, %(now)s, expires_at, '', %(actor)s
    FROM bulk_lines JOIN made USING (username)
)
SELECT username FROM made
"""


@dataclass(frozen=True, slots=True)
class IssuedLine:
    """An issued credential, and its line of the file."""

    line: int
    issued: Issued


@dataclass(frozen=True, slots=True)
class Skipped:
    """A line without a credential, and the reason in a sentence."""

    line: int
    username: str
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of consecutive lines. ``done`` of ``total`` lines are processed."""

    issued: tuple[IssuedLine, ...]
    skipped: tuple[Skipped, ...]
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class _Prepared:
    entry: Entry
    issued: Issued
    record: bytes
    row: tuple[object, ...]
    """The row for the temporary table."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """A committed batch whose push to Redis is running."""

    issued: tuple[IssuedLine, ...]
    skipped: tuple[Skipped, ...]
    fresh: Sequence[str]
    claim: int
    pushed: Future[None]


def issue_all(access: Access, entries: Sequence[Entry]) -> Batch:
    """Issue a credential for every entry, all or none: on failure those issued so far are revoked.

    Raises :class:`Conflict` when it took so long that a worker has begun to revoke them.
    """
    batches = list(issue_in_batches(access, entries, hold=True))
    return Batch(
        tuple(chain.from_iterable(batch.issued for batch in batches)),
        tuple(chain.from_iterable(batch.skipped for batch in batches)),
        len(entries),
        len(entries),
    )


def issue_in_batches(access: Access, entries: Sequence[Entry], *, hold: bool = False) -> Iterator[Batch]:
    """Issue a credential for every entry and yield batches, each once it is active at the edges.

    A batch counts as handed out when its taker comes back for the next one (with ``hold``, when all are taken). Whoever
    iterates no further, or dies, leaves the last batches to be revoked by a worker within :data:`CLAIM`. Raises
    :class:`Conflict` when the taker was slower than that.
    """
    access.require(Permission.CREDENTIALS_MANAGE)
    batches = [entries[start : start + BATCH] for start in range(0, len(entries), BATCH)]
    done, claims = 0, list[int]()
    with ThreadPoolExecutor(2, thread_name_prefix="issue") as aside:
        coming = aside.submit(_prepare, access.org_id, batches[0]) if batches else None
        leaving: _Stored | None = None
        for following in [*batches[1:], None, None]:
            arrived = coming.result() if coming else None
            coming = aside.submit(_prepare, access.org_id, following) if following else None
            stored = _store(access, arrived, aside) if arrived else None
            if leaving:
                _arrive(access, leaving)
                done += len(leaving.issued) + len(leaving.skipped)
                claims.append(leaving.claim)
                yield Batch(leaving.issued, leaving.skipped, done, len(entries))
                if not hold:
                    _release(claims)
                    claims = []
            leaving = stored
    _release(claims)


def abandon(org_id: str, tokens: Iterable[str]) -> int:
    """Revoke credentials that were issued but not delivered; returns their number. For the worker."""
    with org_scope(org_id):
        org = Organization.objects.filter(pk=org_id).first()
    if org is None:
        return 0
    access = Access(org, None, None, frozenset({Permission.CREDENTIALS_MANAGE}), "system")
    return sum(revoke_credential(access, token).revoked_at is not None for token in tokens)


def _prepare(org: str, entries: Sequence[Entry]) -> list[_Prepared]:
    """Generate passwords, hashes and sealed records, without database and Redis."""
    key, now = pepper(), datetime.now(UTC).replace(microsecond=0)
    return [_one(org, key, now, entry) for entry in entries]


def _one(org: str, key: bytes, now: datetime, entry: Entry) -> _Prepared:
    username = entry.username or ids.local_username()
    expires_at = None if entry.static else now + timedelta(seconds=entry.ttl)
    until = int(expires_at.timestamp()) if expires_at else 0
    secret, token_id = make_secret(key, org), ids.token_id(org)
    mac = secret_mac(key, org=org, username=username, secret=secret, expires_at=until)
    record = Credential(org, username, 1, (Secret(token_id, mac, until),), entry.claims)
    issued = Issued(f"{username}@{org}", username, secret, token_id, now, expires_at, "", "")
    return _Prepared(entry, issued, seal_credential(record, key), _row(entry, issued, mac))


def _store(access: Access, prepared: Sequence[_Prepared], aside: ThreadPoolExecutor) -> _Stored:
    """Store a batch and its claim (the delayed task that would revoke it) in one transaction."""
    now = datetime.now(UTC)
    with org_scope(access.org_id):
        hold_acting_key(access)
        made = _insert(access, prepared, now)
        fresh = [each for each in prepared if each.issued.local in made]
        record_many(access, kinds.CREDENTIAL_ISSUED, [_change(each) for each in fresh])
        known = {each.entry.username: each.entry for each in prepared if each.issued.local not in made}
        further, skipped = _further(access, known)
        issued = [*(IssuedLine(each.entry.line, each.issued) for each in fresh), *further]
        claim = outbox.defer(
            ABANDON_BATCH, org=access.org_id, key=prepared[0].issued.token_id, wait=CLAIM,
            payload={"org": access.org_id, "tokens": " ".join(one.issued.token_id for one in issued)},
        )  # fmt: skip
    if further:
        issued.sort(key=lambda one: one.line)
    pushed = aside.submit(_push, access.org_id, fresh, now)
    return _Stored(tuple(issued), tuple(skipped), [each.issued.local for each in fresh], claim, pushed)


def _further(access: Access, known: dict[str, Entry]) -> tuple[list[IssuedLine], list[Skipped]]:
    """Issue credentials for existing usernames, locked in the order of their IDs, as everywhere."""
    lines, skipped = list[IssuedLine](), list[Skipped]()
    if not known:
        return lines, skipped
    names = MqttIdentity.objects.filter(org=access.org, username__in=list(known)).order_by("pk")
    for name in names.values_list("username", flat=True):
        entry = known[name]
        try:
            issued = issue_credential(
                access, username=name, ttl=entry.ttl, static=entry.static, note=entry.note, claims=entry.claims
            )
        except DomainError as error:
            skipped.append(Skipped(entry.line, name, error.message))
        else:
            lines.append(IssuedLine(entry.line, issued))
    return lines, sorted(skipped, key=lambda one: one.line)


def _arrive(access: Access, stored: _Stored) -> None:
    """Wait until Redis has a batch; while it is unavailable, leave the push to a worker."""
    try:
        stored.pushed.result()
    except RedisError as error:
        logger.warning("issuing: Redis is unavailable, a worker pushes: %s", type(error).__name__)
        with org_scope(access.org_id):
            outbox.defer(
                PUSH_BATCH, org=access.org_id, key=f"push {stored.claim}",
                payload={"org": access.org_id, "usernames": " ".join(stored.fresh)},
            )  # fmt: skip


def _release(claims: Sequence[int]) -> None:
    """Withdraw the claims of delivered batches.

    If a worker has begun one (``attempts``), all are kept and a worker revokes every batch.
    """
    if not claims:
        return
    with platform_scope():
        if outbox.withdraw(claims) != len(claims):
            raise Conflict(
                "minting_too_slow",
                f"Issuing the credentials took longer than {CLAIM.seconds} s, so they were revoked; try again.",
            )


def _insert(access: Access, prepared: Sequence[_Prepared], now: datetime) -> set[str]:
    """Insert the rows by a temporary table, as row-level security forbids COPY; returns the new usernames."""
    with connection.cursor() as cursor:
        cursor.execute(_TABLE)
        with cursor.copy(f"COPY bulk_lines ({_COLUMNS}) FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(_TYPES)
            for each in prepared:
                copy.write_row(each.row)
        cursor.execute(_STORE, {"org": access.org_id, "actor": access.actor, "now": now})
        return {str(row[0]) for row in cursor.fetchall()}


def _row(entry: Entry, issued: Issued, mac: bytes) -> tuple[object, ...]:
    return (
        issued.local, entry.static, _json(entry.claims), entry.note, issued.token_id, mac, issued.password[-4:],
        issued.expires_at,
    )  # fmt: skip


def _change(each: _Prepared) -> AuditedChange:
    issued = each.issued
    return AuditedChange(f"credential:{issued.token_id}", issued.local, after=issued_facts(issued, each.entry.claims))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


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
