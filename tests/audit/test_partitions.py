"""Days of the audit table: made ahead, closed to everybody but their parent, indexed when they are over."""

from __future__ import annotations

import secrets
import threading
from datetime import UTC, date, datetime, time, timedelta
from time import monotonic, sleep

import pytest
from django.db import ProgrammingError, connection, transaction
from redis import Redis

from audit.ingest.consumer import Ingest
from audit.ingest.streams import dead
from audit.management.commands.ingest import AclNodes
from audit.models import Event
from audit.services import partitions
from audit.tasks import ensure_partitions
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from cloudsignal.wire import keys
from orgs.models import Organization
from tests.support.audit_events import event, keep, now, put
from tests.support.databases import Databases

pytestmark = pytest.mark.django_db

INDEXES = {"client_id", "ip", "kind", "reason", "topic", "username"}


def name(day: date) -> str:
    return f"audit_event_{day:%Y%m%d}"


def there(day: date) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [f"public.{name(day)}"])
        return bool(cursor.fetchone()[0])


def indexes(day: date) -> set[str]:
    """What a sealed partition has beyond an open one."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexname FROM pg_indexes WHERE tablename = %s", [name(day)])
        found = {row[0].removeprefix(name(day) + "_") for row in cursor.fetchall()}
    return found & INDEXES


def today() -> date:
    return now().date()


def noon(day: date) -> datetime:
    return datetime.combine(day, time(12), UTC)


def test_the_coming_days_are_made_once() -> None:
    partitions.ensure_ahead()
    assert all(there(today() + timedelta(days=days)) for days in range(4))
    assert partitions.ensure_ahead() == 0


def test_days_out_of_reach_get_none() -> None:
    far = [today() - timedelta(days=500), today() + timedelta(days=30), date(1970, 1, 1), date(9999, 12, 31)]
    assert partitions.ensure(far) == 0
    assert not any(there(day) for day in far)


def test_the_database_refuses_a_far_day_by_itself() -> None:
    with pytest.raises(Exception, match="too far"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT audit_ensure_partition(%s)", [date(2000, 1, 1)])


def test_a_partition_is_closed_to_the_application(org: Organization) -> None:
    day = today() - timedelta(days=12)
    partitions.ensure([day])
    keep([event(org, at=noon(day))])
    for statement in (
        "SELECT 1 FROM {}",
        "DELETE FROM {}",
        "DROP TABLE {}",
        "ALTER TABLE {} DISABLE ROW LEVEL SECURITY",
    ):
        with pytest.raises(ProgrammingError), transaction.atomic(), platform_scope(), connection.cursor() as cursor:
            cursor.execute(statement.format(name(day)))


def test_a_partition_has_forced_row_level_security_of_its_own() -> None:
    day = today() - timedelta(days=12)
    partitions.ensure([day])
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relrowsecurity, relforcerowsecurity, "
            "(SELECT count(*) FROM pg_policy WHERE polrelid = pg_class.oid) FROM pg_class WHERE relname = %s",
            [name(day)],
        )
        assert cursor.fetchone() == (True, True, 1)


def test_rows_that_came_before_their_partition_move_into_it(org: Organization) -> None:
    day = today() - timedelta(days=90)
    sent = [event(org, at=noon(day)) for _ in range(20)]
    keep(sent)
    assert partitions.ensure([day]) == 1
    keep(sent)
    with org_scope(org.pk):
        assert Event.objects.count() == 20


def test_a_finished_day_is_sealed_once() -> None:
    day = today() - timedelta(days=4)
    partitions.ensure([day])
    assert indexes(day) == set()
    assert partitions.seal_past() >= 1
    assert indexes(day) == INDEXES
    assert partitions.seal_past() == 0


@pytest.mark.parametrize(("hour", "sealed"), [(0, False), (1, False), (2, True), (23, True)])
def test_yesterday_is_left_alone_until_its_late_events_are_in(hour: int, sealed: bool) -> None:
    yesterday = today() - timedelta(days=1)
    partitions.ensure([yesterday])
    partitions.seal_past(datetime.combine(today(), time(hour, 30), UTC))
    assert indexes(yesterday) == (INDEXES if sealed else set())


def test_today_is_never_sealed() -> None:
    partitions.ensure_ahead()
    partitions.seal_past(now() + timedelta(days=3))
    assert indexes(today()) == set()


def test_the_largest_values_can_be_indexed(org: Organization) -> None:
    """An index row holds 2,704 bytes: one long random topic would otherwise keep its day unsealed for good."""
    day = today() - timedelta(days=4)
    partitions.ensure([day])
    text = secrets.token_hex(40_000)
    keep([event(org, at=noon(day), topic=text, client_id=text, username=text, reason=text)])
    partitions.seal_past()
    assert indexes(day) == INDEXES


def test_a_sealed_day_still_takes_a_late_event(org: Organization) -> None:
    day = today() - timedelta(days=4)
    partitions.ensure([day])
    partitions.seal_past()
    keep([event(org, at=noon(day))])
    with org_scope(org.pk):
        assert Event.objects.count() == 1


def test_only_one_process_seals(databases: Databases) -> None:
    day = today() - timedelta(days=4)
    partitions.ensure([day])
    with databases.admin() as other:
        other.execute("SELECT pg_advisory_lock(%s)", [partitions._SEAL_LOCK])
        assert partitions.seal_past() == 0
        assert indexes(day) == set()
        other.execute("SELECT pg_advisory_unlock(%s)", [partitions._SEAL_LOCK])
    assert partitions.seal_past() >= 1


def test_the_task_does_both() -> None:
    day = today() - timedelta(days=5)
    partitions.ensure([day])
    assert ensure_partitions() >= 1
    assert there(today() + timedelta(days=3))
    assert indexes(day) == INDEXES


@pytest.mark.django_db(transaction=True)
def test_partitions_are_made_while_events_arrive_and_none_is_lost(redis: Redis, org: Organization) -> None:
    """A row on its way to the default partition is refused when its own is made meanwhile: ingest tries again."""
    days = [today() - timedelta(days=offset) for offset in range(200, 208)]
    stop = threading.Event()

    def consume(number: int) -> None:
        try:
            Ingest(redis, AclNodes(), name=f"consumer-{number}").run(stop, lambda: None)
        finally:
            connection.close()

    threads = [threading.Thread(target=consume, args=[number]) for number in range(3)]
    for thread in threads:
        thread.start()
    sent = 0
    for day in days:
        for _ in range(4):
            put(redis, *(event(org, at=noon(one)) for one in days for _ in range(3)))
            sent += 3 * len(days)
        partitions.ensure([day])
    until = monotonic() + 20
    while redis.xlen(keys.AUDIT) and monotonic() < until:
        sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert redis.xlen(dead(keys.AUDIT)) == 0
    with org_scope(org.pk):
        assert Event.objects.count() == sent
