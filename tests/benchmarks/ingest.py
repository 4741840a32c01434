"""How fast audit events get from the stream into PostgreSQL, as a ratio to a raw COPY in the same round.

``python -m tests.benchmarks.ingest [EVENTS] [ROUNDS]``; medians of the rounds. The yardstick is a superuser's binary
COPY of rows that were encoded beforehand, into the same partitioned table; ingest decodes, checks, removes duplicates,
counts, commits to each row in the log and acknowledges besides; ``ratio_without_log`` is without the hashes and the
queue of the log, which no installation can turn off. PostgreSQL runs with the settings of the tests (no fsync); compare
ratios, not rates.
``QUICK=1`` measures 20,000 events in three rounds.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from unittest import mock

import psycopg
from redis import Redis

from tests.support.databases import Databases

PER_ENTRY = 50
COUNT, ROUNDS = (20_000, 3) if os.environ.get("QUICK") else (50_000, 7)


def main(count: int = COUNT, rounds: int = ROUNDS) -> None:
    """Measure and print."""
    databases = Databases()
    databases.export()
    import django

    django.setup()
    from django.core.management import call_command
    from django.db import connections

    databases.start()
    try:
        call_command("migrate", database="owner", verbosity=0, interactive=False)
        measure(databases, count, rounds)
    finally:
        for connection in connections.all():
            connection.close()
            if hasattr(connection, "close_pool"):
                connection.close_pool()
        databases.stop()


def measure(databases: Databases, count: int, rounds: int) -> None:
    """Each round: raw COPY, ingest without the log, ingest of fresh events, and of the same again.

    The table is emptied before each but the last.
    """
    from audit.services import partitions

    partitions.ensure_ahead()
    rates: dict[str, list[float]] = {"raw": [], "unlogged": [], "fresh": [], "again": []}
    for _ in range(rounds):
        sent = encoded(count)
        with databases.admin() as admin:
            admin.execute("TRUNCATE audit_event")
            ingest(databases.redis(), sent)
            data = dumped(admin)
            admin.execute("TRUNCATE audit_event")
            rates["raw"].append(rate(count, lambda data=data, admin=admin: loaded(admin, data)))  # type: ignore[misc]
            admin.execute("TRUNCATE audit_event")
        put(databases.redis(), sent)
        with mock.patch("audit.ingest.append.ReservedLeaves", NoLeaves):
            rates["unlogged"].append(rate(count, lambda: drain(databases.redis())))
        with databases.admin() as admin:
            admin.execute("TRUNCATE audit_event")
        for name in ("fresh", "again"):
            put(databases.redis(), sent)
            rates[name].append(rate(count, lambda: drain(databases.redis())))
    report(rates)


def report(rates: dict[str, list[float]]) -> None:
    """One line of JSON: ratios are medians of the rounds, each to the raw COPY or the fresh events of its own round."""
    ratios = [fresh / raw for fresh, raw in zip(rates["fresh"], rates["raw"], strict=True)]
    again = [second / first for second, first in zip(rates["again"], rates["fresh"], strict=True)]
    unlogged = [without / raw for without, raw in zip(rates["unlogged"], rates["raw"], strict=True)]
    found = {
        "ratio": round(statistics.median(ratios), 2),
        "ratio_rounds": [round(ratio, 2) for ratio in ratios],
        "ratio_without_log": round(statistics.median(unlogged), 2),
        "redelivery_ratio": round(statistics.median(again), 2),
        "events_per_s": round(statistics.median(rates["fresh"])),
        "raw_rows_per_s": round(statistics.median(rates["raw"])),
    }
    print(json.dumps(found))


class NoLeaves:
    """Takes the place of ``ReservedLeaves``: no hash, and nothing in the queue."""

    def __init__(self, cursor: object, sizes: object) -> None:
        """Reserve nothing."""

    def add(self, org: str, data: bytes) -> tuple[int, bytes]:
        """The same for all."""
        return 0, bytes(16)

    def queue(self) -> None:
        """Queue nothing."""


def rate(count: int, work: Callable[[], None]) -> float:
    """Events per second."""
    began = time.perf_counter()
    work()
    return count / (time.perf_counter() - began)


def encoded(count: int) -> list[bytes]:
    """Entries of :data:`PER_ENTRY` events, as an edge writes them."""
    from cloudsignal.secrets.keyring import node_key
    from cloudsignal.wire.audit import AuditBatch, encode_batch
    from cloudsignal.wire.sealed import Kind, seal_record
    from tests.support.audit_events import event, make_org

    orgs = [make_org(f"org {number}") for number in range(20)]
    events = [
        event(
            orgs[number % 20],
            session="0193a6a0-0000-7000-8000-00000000000a",
            username=f"sensor-{number % 500}",
            client_id=f"client-{number % 500}",
            ip=f"198.51.100.{number % 250}",
            port=40_000,
            transport="mqtts",
            mqtt_version="5",
            tls_version="TLSv1.3",
            tls_cipher="TLS_AES_256_GCM_SHA384",
            action="publish",
            topic=f"plant/{number % 997}/line/{number % 13}/temperature",
            qos=1,
            size=212,
            rule="none",
            policy_digest="sha256:" + "0" * 64,
        )
        for number in range(count)
    ]
    return [
        seal_record(
            Kind.AUDIT, encode_batch(AuditBatch("edge-1", "run-1", events[start : start + PER_ENTRY])), node_key()
        )
        for start in range(0, count, PER_ENTRY)
    ]


def put(redis: Redis, entries: list[bytes]) -> None:
    """Fill the stream."""
    from cloudsignal.wire import keys

    pipeline = redis.pipeline(transaction=False)
    for entry in entries:
        pipeline.xadd(keys.AUDIT, {keys.FIELD: entry})
    pipeline.execute()


def ingest(redis: Redis, entries: list[bytes]) -> None:
    """Fill the stream and empty it."""
    put(redis, entries)
    drain(redis)


def drain(redis: Redis) -> None:
    """One consumer, until nothing is left."""
    from django.conf import settings

    from audit.ingest.append import Append
    from audit.ingest.consumer import Ingest
    from audit.management.commands.ingest import AclNodes

    append = Append(settings.DATABASE_INGEST_URL)
    consumer = Ingest(redis, AclNodes(), name="benchmark", append=append)
    while consumer.round(block=0):
        pass
    append.close()


def dumped(admin: psycopg.Connection) -> bytes:
    """Every row, as binary COPY data."""
    with admin.cursor().copy("COPY (SELECT * FROM audit_event) TO STDOUT (FORMAT BINARY)") as copy:
        return b"".join(bytes(chunk) for chunk in copy)


def loaded(admin: psycopg.Connection, data: bytes) -> None:
    """Write them back in one COPY."""
    with admin.cursor().copy("COPY audit_event FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(data)


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
