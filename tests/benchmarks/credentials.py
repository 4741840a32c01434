"""How fast credentials are checked and issued: ``make bench-credentials`` prints one JSON object.

``verify_vs_argon2``: checks of a secret per second, as a multiple of Argon2id with OWASP's parameters (m=19 MiB, t=2,
p=1), in the same process. ``bulk_mint_ratio``: bulk issuing (CSV to credentials that work at the edge) against the
bare floor of the same run, which leaves the same rows and the same records behind: make, hash and seal as many secrets,
COPY the rows into tables with the same columns, indexes and foreign keys, and pipeline the sealed records with their
expiry to Redis, batch after batch. The floor has no CSV, no checks, no row-level security, no audit, no claim, no
revisions and no change stream. Both run in turn, each first in every other round; the ratio is the median of the
rounds. ``growth``: time of the last batches of the longest file in a new organization against that of the first; 1 when
a row costs the same however many there are. ``single_mint_per_s``: one credential after the other.

Everything runs on an embedded PostgreSQL and Valkey of its own. ``QUICK=1`` makes it short and rough.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.support.databases import Databases

if TYPE_CHECKING:
    from orgs.access.grants import Access

QUICK = os.environ.get("QUICK") == "1"
RECORDS = 4_000 if QUICK else 10_000
ROUNDS = 5 if QUICK else 9
SECONDS = 0.3 if QUICK else 1.5
SINGLE = 150 if QUICK else 600
BATCH = 1_000

_ORG_KEY = "ALTER TABLE {table} ADD FOREIGN KEY (org_id) REFERENCES orgs_organization DEFERRABLE INITIALLY DEFERRED"
_IDENTITY_KEY = (
    "ALTER TABLE floor_credential ADD FOREIGN KEY (org_id, identity_id) REFERENCES floor_identity (org_id, id)"
)
_FLOOR = "CREATE TABLE {new} (LIKE {old} INCLUDING DEFAULTS INCLUDING INDEXES INCLUDING IDENTITY)"


def main() -> None:
    """Measure and print."""
    databases = Databases()
    databases.export()
    try:
        with _django(databases):
            print(json.dumps(measure(databases)))
    finally:
        databases.stop()


def measure(databases: Databases) -> dict[str, Any]:
    """All figures of one run."""
    from tests.support.world import organization

    access = organization("Benchmark")
    hmac_per_s, argon2_per_s = verify_per_s(), argon2_per_s_()
    growth = slowdown()
    _floor_tables(databases)
    bulk(access, 500)  # warm-up: connections, scripts, plans
    floor(databases, access.org_id, 500)
    pairs = [_pair(databases, access, ours_first=bool(number % 2)) for number in range(ROUNDS)]
    return {
        "verify_vs_argon2": round(hmac_per_s / argon2_per_s),
        "bulk_mint_ratio": round(statistics.median(ours / bare for bare, ours in pairs), 3),
        "single_mint_per_s": round(single(access)),
        "growth": growth,
        "verify_per_s": round(hmac_per_s),
        "argon2id_per_s": round(argon2_per_s, 1),
        "bulk_mint_per_s": round(statistics.median(ours for _, ours in pairs)),
        "bulk_floor_per_s": round(statistics.median(bare for bare, _ in pairs)),
        "records": RECORDS,
        "rounds": ROUNDS,
        "quick": QUICK,
    }


def _pair(databases: Databases, access: Access, *, ours_first: bool) -> tuple[float, float]:
    """One round: the floor and ours, in either order."""
    if ours_first:
        ours = bulk(access, RECORDS)
        return floor(databases, access.org_id, RECORDS), ours
    return floor(databases, access.org_id, RECORDS), bulk(access, RECORDS)


def verify_per_s() -> float:
    """Checks of a secret against its keyed hash per second, as the edge does it."""
    from hmac import compare_digest

    from cloudsignal.secrets.keyring import pepper
    from cloudsignal.wire.credential import make_secret, secret_mac

    key, org = pepper(), "org_abcdefghijkl"
    secret = make_secret(key, org)
    mac = secret_mac(key, org=org, username="device", secret=secret, expires_at=1_900_000_000)

    def once() -> None:
        given = secret_mac(key, org=org, username="device", secret=secret, expires_at=1_900_000_000)
        if not compare_digest(mac, given):
            raise AssertionError("the secret does not verify")

    return _rate(once)


def argon2_per_s_() -> float:
    """Verifications of a password per second with OWASP's Argon2id parameters."""
    from argon2 import PasswordHasher

    hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
    stored = hasher.hash("correct horse battery staple")
    return _rate(lambda: hasher.verify(stored, "correct horse battery staple"))


def bulk(access: Access, records: int) -> float:
    """Credentials per second by the service, from the text of a CSV file to secrets that work."""
    from orgs.credentials.bulk import issue_all
    from orgs.credentials.csv_file import read_roster

    stamp = f"{time.monotonic_ns():x}"
    text = "username,ttl\n" + "".join(f"d{stamp}-{number},3600\n" for number in range(records))
    began = time.perf_counter()
    made = len(issue_all(access, read_roster(text)).issued)
    seconds = time.perf_counter() - began
    if made != records:
        raise AssertionError(f"{made} of {records} were made")
    return records / seconds


def floor(databases: Databases, org: str, records: int) -> float:
    """Records per second of the bare work."""
    from cloudsignal.secrets.keyring import pepper

    key, redis, stamp = pepper(), databases.redis(), f"{time.monotonic_ns():x}"
    with databases.admin() as admin:
        began = time.perf_counter()
        for start in range(0, records, BATCH):
            made = [_bare(key, org, f"f{stamp}-{n}") for n in range(start, min(start + BATCH, records))]
            _copy_both(admin, org, made)
            with redis.pipeline(transaction=False) as pipeline:
                for one in made:
                    pipeline.hset(f"floor:{org}:{one.username}", mapping={"rev": 1, "b": one.record})
                    pipeline.expireat(f"floor:{org}:{one.username}", one.forget_at)
                pipeline.execute()
        seconds = time.perf_counter() - began
    return records / seconds


@dataclass(frozen=True, slots=True)
class _Bare:
    """One secret of the floor."""

    username: str
    token_id: str
    mac: bytes
    hint: str
    issued_at: datetime
    expires_at: datetime
    forget_at: int
    record: bytes


def _bare(key: bytes, org: str, username: str) -> _Bare:
    from cloudsignal import ids
    from cloudsignal.wire.credential import Credential, Secret, make_secret, seal_credential, secret_mac

    now = datetime.now(UTC).replace(microsecond=0)
    ends = now + timedelta(hours=1)
    until = int(ends.timestamp())
    secret, token_id = make_secret(key, org), ids.token_id(org)
    mac = secret_mac(key, org=org, username=username, secret=secret, expires_at=until)
    record = seal_credential(Credential(org, username, 1, (Secret(token_id, mac, until),)), key)
    return _Bare(username, token_id, mac, secret[-4:], now, ends, until + 7 * 86_400, record)


def _copy_both(admin: Any, org: str, made: list[_Bare]) -> None:
    """The rows of identities and secrets, in one transaction."""
    with admin.transaction(), admin.cursor() as cursor:
        cursor.execute("SELECT nextval('orgs_mqttidentity_id_seq') FROM generate_series(1, %s)", [len(made)])
        ids = [int(row[0]) for row in cursor.fetchall()]
        people = [
            (pk, org, one.username, False, "", "", "", "{}", "", 1, one.issued_at, one.issued_at, ACTOR)
            for pk, one in zip(ids, made, strict=True)
        ]
        _copy(cursor, "floor_identity", _IDENTITY, people)
        rows = [
            (org, pk, one.token_id, one.mac, one.hint, one.issued_at, one.expires_at, "", ACTOR)
            for pk, one in zip(ids, made, strict=True)
        ]
        _copy(cursor, "floor_credential", _CREDENTIAL, rows)


def slowdown() -> float:
    """Seconds of the last batch against those of the second, of the longest file in a new organization."""
    from orgs.credentials.bulk import issue_in_batches
    from orgs.credentials.csv_file import ROWS_MAX, read_roster
    from tests.support.world import organization

    access, took, began = organization("Growing"), list[float](), time.perf_counter()
    text = "username\n" + "".join(f"grow-{number}\n" for number in range(ROWS_MAX))
    for _ in issue_in_batches(access, read_roster(text)):
        took.append(time.perf_counter() - began)
        began = time.perf_counter()
    return round(statistics.median(took[-3:-1]) / statistics.median(took[1:4]), 2)


def single(access: Access) -> float:
    """Credentials per second, one call after the other."""
    from orgs.credentials.issuing import issue_credential

    stamp = f"{time.monotonic_ns():x}"
    began = time.perf_counter()
    for number in range(SINGLE):
        issue_credential(access, username=f"s{stamp}-{number}")
    return SINGLE / (time.perf_counter() - began)


ACTOR = "user:benchmark@example.com"
_IDENTITY = {
    "id": "int8", "org_id": "text", "username": "text", "static": "bool", "provider": "text", "external_id": "text",
    "email": "text", "claims": "jsonb", "note": "text", "revision": "int8", "revised_at": "timestamptz",
    "created_at": "timestamptz", "created_by": "text",
}  # fmt: skip
_CREDENTIAL = {
    "org_id": "text", "identity_id": "int8", "token_id": "text", "mac": "bytea", "hint": "text",
    "issued_at": "timestamptz", "expires_at": "timestamptz", "refreshed_from": "text", "created_by": "text",
}  # fmt: skip


def _copy(cursor: Any, table: str, columns: dict[str, str], rows: list[tuple[Any, ...]]) -> None:
    with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(list(columns.values()))
        for row in rows:
            copy.write_row(row)


def _floor_tables(databases: Databases) -> None:
    """Tables with the same columns, indexes and foreign keys."""
    with databases.admin() as admin:
        for new, old in (("floor_identity", "orgs_mqttidentity"), ("floor_credential", "orgs_credential")):
            admin.execute(_FLOOR.format(new=new, old=old))
            admin.execute(_ORG_KEY.format(table=new))
        admin.execute(_IDENTITY_KEY)


def _rate(call: Callable[[], object]) -> float:
    """Calls per second over :data:`SECONDS`."""
    call()
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < SECONDS:
        call()
        done += 1
    return done / spent


@contextmanager
def _django(databases: Databases) -> Iterator[None]:
    import django
    from django.core.management import call_command
    from django.db import connections

    databases.start()
    django.setup()
    import logging

    logging.disable(logging.INFO)
    call_command("migrate", database="owner", verbosity=0, interactive=False)
    connections["owner"].close()
    try:
        yield
    finally:
        for connection in connections.all():
            connection.close()
            close_pool = getattr(connection, "close_pool", None)
            if close_pool:
                close_pool()


if __name__ == "__main__":
    main()
