"""How fast credentials are checked and minted: ``make bench-credentials`` prints one JSON object.

``verify_vs_argon2``: checks of a secret per second, as a multiple of Argon2id with OWASP's parameters (m=19 MiB, t=2,
p=1), in the same process. ``bulk_mint_ratio``: the bulk mint (CSV to credentials that work at the edge: checks, sealed
records, audit, outbox, change stream) against the bare floor of the same run: make and hash the same number of secrets,
COPY their rows into the same tables without row-level security (same columns, indexes and foreign keys; no audit), and
pipeline the same sealed records to Redis. ``single_mint_per_s``: one credential after the other.

Everything runs on an embedded PostgreSQL and Valkey of its own. ``QUICK=1`` makes it short and rough.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tests.stack.databases import Databases

if TYPE_CHECKING:
    from orgs.access import Access

QUICK = os.environ.get("QUICK") == "1"
RECORDS = 4_000 if QUICK else 10_000
ROUNDS = 3 if QUICK else 7
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
            print(json.dumps(measure(databases), indent=2))
    finally:
        databases.stop()


def measure(databases: Databases) -> dict[str, Any]:
    """All figures of one run."""
    from tests.world import organization

    access = organization("Benchmark")
    hmac_per_s, argon2_per_s = verify_per_s(), argon2_per_s_()
    _floor_tables(databases)
    bulk(access, 500)  # warm-up: connections, scripts, plans
    floor(databases, access.org_id, 500)
    pairs = [(floor(databases, access.org_id, RECORDS), bulk(access, RECORDS)) for _ in range(ROUNDS)]
    return {
        "verify_vs_argon2": round(hmac_per_s / argon2_per_s),
        "bulk_mint_ratio": round(statistics.median(ours / bare for bare, ours in pairs), 3),
        "single_mint_per_s": round(single(access)),
        "verify_per_s": round(hmac_per_s),
        "argon2id_per_s": round(argon2_per_s, 1),
        "bulk_mint_per_s": round(statistics.median(ours for _, ours in pairs)),
        "bulk_floor_per_s": round(statistics.median(bare for bare, _ in pairs)),
        "records": RECORDS,
        "rounds": ROUNDS,
        "quick": QUICK,
    }


def verify_per_s() -> float:
    """Checks of a secret against its keyed hash per second, as the edge does it."""
    from hmac import compare_digest

    from cloudsignal.keyring import pepper
    from cloudsignal.wire.credential import mint_secret, secret_mac

    key, org = pepper(), "org_abcdefghijkl"
    secret = mint_secret(key, org)
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
    from orgs.services.minting import mint
    from orgs.services.roster import read_roster

    stamp = f"{time.monotonic_ns():x}"
    text = "username,ttl\n" + "".join(f"d{stamp}-{number},3600\n" for number in range(records))
    began = time.perf_counter()
    made = len(mint(access, read_roster(text)).minted)
    seconds = time.perf_counter() - began
    if made != records:
        raise AssertionError(f"{made} of {records} were made")
    return records / seconds


def floor(databases: Databases, org: str, records: int) -> float:
    """Records per second of the bare work: make and hash secrets, COPY, pipelined HSET."""
    from cloudsignal.keyring import pepper
    from cloudsignal.wire.credential import Credential, Secret, mint_secret, seal_credential, secret_mac

    key, now = pepper(), datetime.now(UTC)
    until, stamp = now + timedelta(hours=1), f"{time.monotonic_ns():x}"
    sealed = [
        seal_credential(Credential(org, f"f{stamp}-{n}", 1, (Secret(f"tok_{n}", bytes(32), 1),)), key)
        for n in range(records)
    ]
    redis = databases.redis()
    with databases.admin() as admin:
        began = time.perf_counter()
        for start in range(0, records, BATCH):
            part = range(start, min(start + BATCH, records))
            secrets = [mint_secret(key, org) for _ in part]
            macs = [
                secret_mac(key, org=org, username=f"f{stamp}-{n}", secret=secret, expires_at=1_900_000_000)
                for n, secret in zip(part, secrets, strict=True)
            ]
            with admin.transaction(), admin.cursor() as cursor:
                cursor.execute("SELECT nextval('orgs_mqttidentity_id_seq') FROM generate_series(1, %s)", [len(part)])
                ids = [int(row[0]) for row in cursor.fetchall()]
                people = [(pk, org, f"f{stamp}-{n}", now) for pk, n in zip(ids, part, strict=True)]
                _copy(cursor, "floor_identity", _IDENTITY, people)
                rows = [
                    (org, pk, f"tok_{stamp}_{n}", mac, secret[-4:], now, until)
                    for pk, n, mac, secret in zip(ids, part, macs, secrets, strict=True)
                ]
                _copy(cursor, "floor_credential", _CREDENTIAL, rows)
            with redis.pipeline(transaction=False) as pipeline:
                for n in part:
                    pipeline.hset(f"floor:{stamp}-{n}", mapping={"rev": 1, "b": sealed[n]})
                pipeline.execute()
        seconds = time.perf_counter() - began
    return records / seconds


def single(access: Access) -> float:
    """Credentials per second, one call after the other."""
    from orgs.services.credentials import issue_credential

    stamp = f"{time.monotonic_ns():x}"
    began = time.perf_counter()
    for number in range(SINGLE):
        issue_credential(access, username=f"s{stamp}-{number}")
    return SINGLE / (time.perf_counter() - began)


_IDENTITY = {"id": "int8", "org_id": "text", "username": "text", "created_at": "timestamptz"}
_CREDENTIAL = {
    "org_id": "text", "identity_id": "int8", "token_id": "text", "mac": "bytea", "hint": "text",
    "issued_at": "timestamptz", "expires_at": "timestamptz",
}  # fmt: skip


def _copy(cursor: Any, table: str, columns: dict[str, str], rows: list[tuple[Any, ...]]) -> None:
    with cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.set_types(list(columns.values()))
        for row in rows:
            copy.write_row(row)


def _floor_tables(databases: Databases) -> None:
    """Tables with the same columns and indexes; what the floor leaves out gets a default."""
    empty = {
        "floor_identity": ("provider", "external_id", "email", "note", "created_by"),
        "floor_credential": ("refreshed_from", "created_by"),
    }
    with databases.admin() as admin:
        for new, old in (("floor_identity", "orgs_mqttidentity"), ("floor_credential", "orgs_credential")):
            admin.execute(_FLOOR.format(new=new, old=old))
            for column in empty[new]:
                admin.execute(f"ALTER TABLE {new} ALTER {column} SET DEFAULT ''")
        admin.execute(_ORG_KEY.format(table="floor_identity"))
        admin.execute(_ORG_KEY.format(table="floor_credential"))
        admin.execute(_IDENTITY_KEY)
        for column, value in {"static": "false", "claims": "'{}'", "revision": "1", "revised_at": "now()"}.items():
            admin.execute(f"ALTER TABLE floor_identity ALTER {column} SET DEFAULT {value}")


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
