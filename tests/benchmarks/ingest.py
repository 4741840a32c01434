"""How fast audit events get from the stream into PostgreSQL, as a ratio to a raw COPY in the same run.

``python -m tests.benchmarks.ingest [EVENTS] [ROUNDS]``; medians of the rounds. The yardstick is a superuser's binary
COPY of rows that were encoded beforehand, into the same partitioned table; ingest decodes, checks, removes duplicates,
counts and acknowledges besides. PostgreSQL runs with the settings of the tests (no fsync); compare ratios, not rates.
Seen on two quiet cores: 60,000 events a second, 0.19 to 0.25 of it; redelivered 0.20 to 0.28.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import psycopg
from redis import Redis

from tests.support.databases import Databases

PER_ENTRY = 50


def main(count: int = 50_000, rounds: int = 3) -> None:
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
    """Each round: raw COPY, ingest of fresh events, ingest of the same again, each into a table that was emptied."""
    from audit.services import partitions

    partitions.ensure_ahead()
    rates: dict[str, list[float]] = {"raw COPY": [], "ingest": [], "ingest, all redelivered": []}
    for _ in range(rounds):
        sent = encoded(count)
        with databases.admin() as admin:
            admin.execute("TRUNCATE audit_event")
            ingest(databases.redis(), sent)
            data = dumped(admin)
            admin.execute("TRUNCATE audit_event")
            rates["raw COPY"].append(rate(count, lambda data=data, admin=admin: loaded(admin, data)))  # type: ignore[misc]
            admin.execute("TRUNCATE audit_event")
        for name in ("ingest", "ingest, all redelivered"):
            put(databases.redis(), sent)
            rates[name].append(rate(count, lambda: drain(databases.redis())))
    yardstick = statistics.median(rates["raw COPY"])
    for name, found in rates.items():
        median = statistics.median(found)
        print(f"{name:26} {median:10,.0f} events/s   {median / yardstick:5.2f} of raw COPY")


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
    from audit.ingest.consumer import Ingest
    from audit.management.commands.ingest import AclNodes

    consumer = Ingest(redis, AclNodes(), name="benchmark")
    while consumer.round(block=0):
        pass


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
