"""``manage.py ingest`` as a process: killed at random, started side by side, with its databases coming and going."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from django.db import connection
from redis import Redis

from audit.ingest.streams import GROUP
from audit.log.tree import consistency_proof
from audit.log.verifier import check_consistency, commitment, root_of_tiles
from audit.models import Event
from audit.services.commitments import row_bytes
from audit.transparency import growing, tables
from cloudsignal.health import alive
from cloudsignal.secrets.keyring import node_key
from cloudsignal.tenancy.scopes import platform_scope
from cloudsignal.wire import keys
from cloudsignal.wire.audit import AuditEvent
from orgs.models import Organization
from tests.support.audit_events import event, make_org, now, put
from tests.support.databases import Databases

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180), pytest.mark.processes]

PROJECT = Path(__file__).resolve().parent.parent.parent


class Program:
    """One ``manage.py ingest``."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.log = folder / f"ingest-{time.monotonic_ns()}.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDSIGNAL_")}
        environment |= {
            "CLOUDSIGNAL_DATA": os.environ["CLOUDSIGNAL_DATA"],
            "CLOUDSIGNAL_NODE_KEY": node_key().hex(),
        }
        environment.pop("DATABASE_OWNER_URL")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "ingest", *options], cwd=PROJECT, env=environment, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """SIGKILL: no chance to finish anything."""
        self.process.kill()
        self.process.wait(30)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.terminate()
        return self.process.wait(30)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts ingest processes; those that still run at the end are killed."""
    started: list[Program] = []

    def make(*options: str) -> Program:
        started.append(Program(tmp_path, *options))
        return started[-1]

    yield make
    for program in started:
        if program.process.poll() is None:
            program.kill()


@pytest.fixture
def org(transactional_db: None) -> Organization:
    return make_org()


def wait_for(condition: Callable[[], object], *, seconds: float, what: str) -> float:
    """Poll; returns how long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{what} did not come about within {seconds} s"
        time.sleep(0.01)
    return time.monotonic() - began


def count() -> int:
    with platform_scope():
        return Event.objects.count()


def drained(redis: Redis) -> bool:
    return redis.xlen(keys.AUDIT) == 0


def counts() -> dict[str, int]:
    with platform_scope():
        rows = list(Event.objects.values_list("id", "repeats", "count"))
    assert len({name for name, _, _ in rows}) == len(rows), "an event is stored twice"
    found: Counter[str] = Counter()
    for name, first, number in rows:
        found[str(first or name)] += number
    return found


class Producer(threading.Thread):
    """Adds events like an edge: batches at a steady rate, now and then one sent twice or with a higher count."""

    def __init__(self, redis: Redis, org: Organization, *, seed: int) -> None:
        super().__init__(daemon=True)
        self._redis, self._org, self._random = redis, org, random.Random(seed)
        self._done = threading.Event()
        self.sent: dict[str, int] = {}

    def run(self) -> None:
        while not self._done.wait(0.01):
            batch = [event(self._org, topic=f"t/{number}") for number in range(self._random.randint(1, 60))]
            self._add(batch)
            chance = self._random.random()
            if chance < 0.1:
                self._add(batch)
            elif chance < 0.3:
                self._add([replace(one, count=self._random.randint(1, 9)) for one in batch])

    def _add(self, batch: list[AuditEvent]) -> None:
        put(self._redis, *batch)
        for one in batch:
            self.sent[one.id] = max(one.count, self.sent.get(one.id, 0))

    def finish(self) -> None:
        self._done.set()
        self.join()


GROWER = """
import django
django.setup()
from audit.transparency.growing import grow
while True:
    grow()
"""


def grower() -> subprocess.Popen[bytes]:
    """A worker that does nothing but grow the transparency logs."""
    return subprocess.Popen([sys.executable, "-c", GROWER], cwd=PROJECT, stderr=subprocess.DEVNULL)


def checked_logs(org: Organization) -> int:
    """Check that every row is a leaf once and every checkpoint continues the one before; returns the checkpoints."""
    growing.grow()
    with platform_scope(), connection.cursor() as cursor:
        rows = list(Event.objects.filter(org_id=org.pk))
        places = tables.indexes_of_leaves(org.pk, [row.log_leaf or 0 for row in rows])
        entries = tables.read_entries(org.pk, 0, len(rows) + 1)
        assert sorted(places.values()) == list(range(len(rows)))
        assert len(entries) == 32 * len(rows)
        for row in rows:
            entry = commitment(bytes(row.salt or b""), row_bytes(vars(row)))
            assert entries[32 * places[row.log_leaf or 0] :][:32] == entry
        cursor.execute("SELECT size, root FROM audit_log_checkpoint WHERE org_id = %s ORDER BY size", [org.pk])
        heads = [(int(size), bytes(root)) for size, root in cursor.fetchall()]
        tile = tables.LogReader(org.pk).tile
        for (old, old_root), (new, root) in pairwise(heads):
            check_consistency(old, old_root, new, root, consistency_proof(tile, old, new))
        assert heads[-1] == (len(rows), root_of_tiles(tile, len(rows)))
    return len(heads)


def test_killed_again_and_again_nothing_is_lost_or_doubled(
    redis: Redis, org: Organization, start: Callable[..., Program]
) -> None:
    """Two processes, and one that grows the logs; every round one is killed at a random moment and started again."""
    producer = Producer(redis, org, seed=7)
    chance = random.Random(11)
    options = ("--claim-idle", "1")
    running = [start("--name", "a", *options), start("--name", "b", *options)]
    wait_for(lambda: redis.exists(keys.AUDIT), seconds=60, what="the first ingest")
    producer.start()
    rounds, growth = 0, grower()
    until = time.monotonic() + 20
    while rounds < 10 or (rounds < 14 and time.monotonic() < until):
        before = count()
        wait_for(lambda before=before: count() > before, seconds=60, what="progress")  # type: ignore[misc]
        time.sleep(chance.random() * 0.2)
        place = rounds % 2
        running[place].kill()
        # Another name each time: what the dead one held must be taken over, nobody comes back for it.
        running[place] = start("--name", f"r{rounds}", *options)
        rounds += 1
        if rounds % 4 == 0:
            growth.kill()
            growth.wait()
            growth = grower()
    growth.kill()
    growth.wait()
    producer.finish()
    wait_for(lambda: drained(redis), seconds=60, what="an empty stream")
    assert rounds >= 10
    assert counts() == producer.sent
    assert redis.xpending(keys.AUDIT, GROUP)["pending"] == 0
    assert [program.stop() for program in running] == [0, 0]
    assert checked_logs(org) > 1


def test_an_event_becomes_visible_by_itself(redis: Redis, org: Organization, start: Callable[..., Program]) -> None:
    start()
    wait_for(lambda: redis.exists(keys.AUDIT), seconds=60, what="ingest")
    for number in range(20):
        put(redis, event(org))
        wait_for(lambda number=number: count() > number, seconds=60, what="the event")  # type: ignore[misc]


def test_it_waits_for_postgresql_and_goes_on(
    databases: Databases, redis: Redis, org: Organization, start: Callable[..., Program]
) -> None:
    """Its connections are cut and new ones refused for a while, with a batch in hand."""
    program = start()
    wait_for(lambda: redis.exists(keys.AUDIT), seconds=60, what="ingest")
    put(redis, event(org))
    wait_for(lambda: count() == 1, seconds=60, what="the first event")
    with databases.admin() as admin:
        admin.execute("ALTER ROLE cloudsignal_app CONNECTION LIMIT 0")
        try:
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'cloudsignal_app'")
            sent = [event(org) for _ in range(300)]
            put(redis, *sent)
            time.sleep(1.5)
            assert program.process.poll() is None
        finally:
            admin.execute("ALTER ROLE cloudsignal_app CONNECTION LIMIT -1")
            # This process's own pool was cut off too and would pause before it asks again.
            connection.close()
            connection.close_pool()  # type: ignore[attr-defined]
        wait_for(lambda: drained(redis), seconds=60, what="an empty stream")
        [number] = admin.execute("SELECT count(*) FROM audit_event").fetchone() or [0]
    assert number == 301


def test_it_waits_for_redis_and_goes_on(redis: Redis, org: Organization, start: Callable[..., Program]) -> None:
    """Redis breaks every connection, is paused, and is emptied: the group is made again."""
    program = start()
    wait_for(lambda: redis.exists(keys.AUDIT), seconds=60, what="ingest")
    for _ in range(5):
        redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        put(redis, event(org))
        time.sleep(0.05)
    wait_for(lambda: count() == 5, seconds=60, what="five events")
    redis.flushall()
    wait_for(lambda: redis.exists(keys.AUDIT), seconds=60, what="the group")
    put(redis, event(org))
    wait_for(lambda: count() == 6, seconds=60, what="the sixth")
    assert program.process.poll() is None
    assert program.stop() == 0


def test_nothing_it_reads_ends_it_and_sigterm_does(
    redis: Redis, org: Organization, start: Callable[..., Program]
) -> None:
    program = start()
    wait_for(lambda: redis.exists(keys.AUDIT), seconds=60, what="ingest")
    redis.xadd(keys.AUDIT, {keys.FIELD: os.urandom(64)})
    redis.xadd(keys.REPORTS, {keys.FIELD: os.urandom(64)})
    redis.set(keys.node("x"), os.urandom(64))
    put(redis, event(org, at=now()))
    wait_for(lambda: count() == 3, seconds=60, what="an event and two notes")
    assert program.process.poll() is None
    assert program.stop() == 0
    assert not [line for line in program.log.read_text().splitlines() if json.loads(line)["level"] == "critical"]


def test_it_says_that_it_is_alive(redis: Redis, org: Organization, start: Callable[..., Program]) -> None:
    """Again and again, also while there is nothing to do."""
    alive.path("ingest").unlink(missing_ok=True)
    start()
    wait_for(alive.path("ingest").exists, seconds=60, what="the alive file")
    first = alive.path("ingest").stat().st_mtime_ns
    wait_for(lambda: alive.path("ingest").stat().st_mtime_ns > first, seconds=60, what="another touch")
