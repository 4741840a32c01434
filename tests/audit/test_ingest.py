"""From the stream into the table: once each, the whole of it, and nothing in the way of the rest."""

from __future__ import annotations

import dataclasses
import threading
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta

import pytest
from django.conf import settings
from django.db import OperationalError, ProgrammingError, connection, transaction
from django.db.backends.utils import CursorWrapper
from redis import Redis

from audit.ingest.consumer import Ingest
from audit.ingest.insert import insert, stage
from audit.ingest.packed import END, SIGNATURE
from audit.ingest.rows import ID, TS, row_of
from audit.ingest.streams import GROUP, dead
from audit.management.commands.ingest import AclNodes
from audit.models import Event, Journal
from audit.services import partitions
from cloudsignal.ids import PLATFORM_ORG
from cloudsignal.secrets.keyring import node_key, pepper
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from cloudsignal.wire import keys, sealed
from cloudsignal.wire.audit import AuditBatch, AuditEvent, encode_batch, uuid7
from cloudsignal.wire.codec import encode
from cloudsignal.wire.report import BundleReport
from cloudsignal.wire.sealed import Kind, seal_record
from orgs.models import Organization
from tests.support.audit_events import INCARNATION, NODE, STRANGE, event, keep, make_org, now, put
from tests.support.databases import Databases

pytestmark = pytest.mark.django_db


def stored() -> list[Event]:
    with platform_scope():
        return list(Event.objects.order_by("ts", "id"))


def test_an_event_arrives_with_every_field(redis: Redis, ingest: Ingest, org: Organization) -> None:
    sent = event(
        org,
        node=NODE,
        session="0193a6a0-0000-7000-8000-00000000000a",
        username="sensor",
        client_id="c-1",
        ip="2001:db8::1",
        port=51_234,
        transport="mqtts",
        mqtt_version="5",
        tls_version="TLSv1.3",
        tls_cipher="TLS_AES_256_GCM_SHA384",
        reason="no_rule",
        action="publish",
        topic="plant/ä/温度",
        qos=1,
        retain=True,
        size=312,
        rule="none",
        policy_digest="sha256:" + "0" * 64,
        count=3,
        details={"seconds": 1.5, "clean": True, "holes": "a/#"},
    )
    put(redis, sent)
    ingest.round(block=0)
    [row] = stored()
    assert (row.ts - now()).total_seconds() == pytest.approx(0, abs=30)
    assert str(row.id) == sent.id
    assert row.org_id == org.pk
    same = [field.name for field in dataclasses.fields(AuditEvent) if field.name not in {"id", "ts", "org", "repeats"}]
    assert {name: getattr(row, name) for name in same} == {name: getattr(sent, name) for name in same}


def test_what_is_stored_is_acknowledged_and_deleted(redis: Redis, ingest: Ingest, org: Organization) -> None:
    put(redis, *(event(org) for _ in range(250)))
    assert ingest.round(block=0) == 3
    assert len(stored()) == 250
    assert redis.xlen(keys.AUDIT) == 0
    assert redis.xpending(keys.AUDIT, GROUP)["pending"] == 0


def test_delivered_again_nothing_is_doubled(redis: Redis, ingest: Ingest, org: Organization) -> None:
    sent = [event(org) for _ in range(120)]
    for _ in range(3):
        put(redis, *sent)
        ingest.round(block=0)
    assert len(stored()) == 120
    assert ingest.counters.events == 120
    assert ingest.counters.repeated == 240


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one after the other"])
@pytest.mark.parametrize("counts", [(1, 7, 4), (7, 4, 1), (1, 4, 7)])
def test_copies_of_an_older_edge_with_higher_counts_are_further_rows_with_the_difference(
    redis: Redis, ingest: Ingest, org: Organization, counts: tuple[int, ...], together: bool
) -> None:
    first = event(org)
    for _ in range(2):
        for count in counts:
            put(redis, dataclasses.replace(first, count=count))
            if not together:
                ingest.round(block=0)
    ingest.round(block=0)
    rows = stored()
    assert sum(row.count for row in rows) == 7
    assert {str(row.repeats) for row in rows if str(row.id) != first.id} <= {first.id}
    assert {row.kind for row in rows} == {"acl_denied"}
    assert ingest.counters.events == 1


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one after the other"])
def test_of_an_id_that_repeats_with_other_content_the_first_stays_and_the_second_is_a_critical_event(
    redis: Redis, ingest: Ingest, org: Organization, together: bool
) -> None:
    first = event(org, topic="as it was", count=2)
    for _ in range(2):
        put(redis, first)
        if not together:
            ingest.round(block=0)
        put(redis, dataclasses.replace(first, topic="made up", username="somebody", count=9))
        ingest.round(block=0)
    kept, critical = sorted(stored(), key=lambda row: row.kind)
    assert (kept.topic, kept.count, str(kept.id)) == ("as it was", 2, first.id)
    assert (critical.kind, critical.reason, critical.org_id) == ("critical", "id_repeated", org.pk)
    assert (critical.details or {})["event"] == first.id
    assert (critical.details or {})["differs_in"] == "username, topic"


@pytest.mark.parametrize("order", ["ABAB", "ABB", "ABCBC", "BAAB"])
def test_an_id_that_repeats_several_times_in_one_batch_holds_nothing_up(
    redis: Redis, ingest: Ingest, org: Organization, order: str
) -> None:
    first = event(org)
    for name in order:
        put(redis, dataclasses.replace(first, topic=name))
    other = event(org)
    put(redis, other)
    ingest.round(block=0)
    rows = stored()
    assert {row.topic for row in rows if str(row.id) == first.id} == {order[0]}
    assert len([row for row in rows if row.kind == "critical"]) == len(set(order)) - 1
    assert len(rows) == len(set(order)) + 1
    assert str(other.id) in {str(row.id) for row in rows}


def test_one_id_in_two_organizations_that_do_not_exist_holds_nothing_up(redis: Redis, ingest: Ingest) -> None:
    first = event("org_aaaaaaaaaaaa")
    put(redis, first, dataclasses.replace(first, org="org_bbbbbbbbbbbb"), event("org_cccccccccccc"))
    for _ in range(2):
        ingest.round(block=0)
        kept = [row for row in stored() if row.kind != "critical"]
        [critical] = [row for row in stored() if row.kind == "critical"]
        assert {str((row.details or {})["org"]) for row in kept} == {"org_aaaaaaaaaaaa", "org_cccccccccccc"}
        assert (critical.org_id, critical.reason) == (PLATFORM_ORG, "id_repeated")
        assert (critical.details or {})["differs_in"] == "details"
        put(redis, first, dataclasses.replace(first, org="org_bbbbbbbbbbbb"))


def test_rows_of_one_key_are_inserted_once_with_one_leaf(org: Organization) -> None:
    one = row_of(event(org, topic="first"))
    again = row_of(event(org, topic="second"))
    again = (one[TS], one[ID], *again[2:])
    with platform_scope(), connection.cursor() as cursor:
        before = _leaves(cursor)
        assert insert(cursor, [one, again, one]) == [one]
        assert _leaves(cursor) == before + 1
    assert [row.topic for row in stored()] == ["first"]


def test_rows_that_vanish_on_their_way_are_an_error_and_not_tried_for_ever(org: Organization) -> None:
    with platform_scope(), connection.cursor() as cursor:
        stage(cursor, [SIGNATURE, END])
        cursor.execute("CREATE FUNCTION pg_temp.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
        cursor.execute(
            "CREATE TRIGGER n BEFORE INSERT ON audit_incoming FOR EACH ROW EXECUTE FUNCTION pg_temp.nothing()"
        )
        before = _leaves(cursor)
        with pytest.raises(OperationalError, match="1 audit rows could not be inserted"):
            insert(cursor, [row_of(event(org))])
        assert _leaves(cursor) == before
    assert stored() == []


def _leaves(cursor: CursorWrapper) -> int:
    cursor.execute("SELECT coalesce(sum(length(entries)), 0) / 32 FROM audit_log_queue")
    return int(cursor.fetchone()[0])


def test_an_unfinished_batch_of_a_dead_consumer_is_taken_over(redis: Redis, ingest: Ingest, org: Organization) -> None:
    ingest.round(block=0)
    put(redis, event(org))
    redis.xreadgroup(GROUP, "dead", {keys.AUDIT: ">"})
    assert stored() == []
    ingest._streams._claimed_at = 0.0  # it looks for such entries every two seconds
    time.sleep(0.02)
    ingest.round(block=0)
    assert len(stored()) == 1
    assert redis.xlen(keys.AUDIT) == 0


def test_a_consumer_that_comes_back_begins_with_what_it_held(redis: Redis, ingest: Ingest, org: Organization) -> None:
    ingest.round(block=0)
    put(redis, event(org))
    redis.xreadgroup(GROUP, "test", {keys.AUDIT: ">"})
    Ingest(redis, ingest._nodes, name="test", claim_idle=3600).round(block=0)
    assert len(stored()) == 1


def test_a_stream_that_was_deleted_is_joined_again(redis: Redis, ingest: Ingest, org: Organization) -> None:
    ingest.round(block=0)
    redis.flushall()
    with pytest.raises(Exception, match="NOGROUP"):
        ingest.round(block=0)
    ingest._streams.again()
    put(redis, event(org))
    ingest.round(block=0)
    assert len(stored()) == 1


# --- whose event it is ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "org_nosuchorgzzz", "org_UPPER", "x" * 70_000, "org_\0"])
def test_an_unknown_organization_goes_to_the_platforms_log(
    redis: Redis, ingest: Ingest, org: Organization, name: str
) -> None:
    put(redis, event(name), event(org))
    ingest.round(block=0)
    with platform_scope():
        [row] = Event.objects.filter(org_id="platform")
    assert (row.details or {}).get("org", "") == name[:64].replace("\0", "\ufffd")
    with org_scope(org.pk):
        assert Event.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_organization_that_is_deleted_meanwhile_leaves_no_event_behind(databases: Databases) -> None:
    """Its row would belong to nobody: no tenant could see it, and no second deletion would find it."""
    org = make_org()
    late = threading.Thread(target=lambda: (keep([event(org, topic="late")]), connection.close()))
    waits = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'cloudsignal_app' AND wait_event_type = 'Lock'"
    with databases.admin() as watching, databases.admin() as admin:
        admin.execute("UPDATE orgs_organization SET status = 'deleting', delete_after = now() WHERE id = %s", [org.pk])
        admin.execute(
            "INSERT INTO orgs_deletion (organization, name, noticed_at) VALUES (%s, 'x', now() - interval '7 days')",
            [org.pk],
        )
        with admin.transaction():
            admin.execute("SET LOCAL cloudsignal.platform = 'on'")
            assert admin.execute("SELECT delete_organization(%s)", [org.pk]).fetchone() == (True,)
            late.start()
            until = time.monotonic() + 20
            while late.is_alive() and watching.execute(waits).fetchone() == (0,) and time.monotonic() < until:
                time.sleep(0.01)
        late.join(20)
    assert [(row.org_id, row.topic, (row.details or {})["org"]) for row in stored()] == [("platform", "late", org.pk)]


def test_a_tenant_sees_its_own_events_only(redis: Redis, ingest: Ingest, org: Organization) -> None:
    other = make_org("Other")
    put(redis, event(org, topic="mine"), event(other, topic="theirs"), event("", topic="nobody's"))
    ingest.round(block=0)
    with org_scope(org.pk):
        assert [row.topic for row in Event.objects.all()] == ["mine"]
    assert Event.objects.count() == 0, "outside every scope there is nothing to see"


def test_the_application_may_neither_change_nor_delete_an_event(
    redis: Redis, ingest: Ingest, org: Organization
) -> None:
    put(redis, event(org))
    ingest.round(block=0)
    with connection.cursor() as cursor:
        cursor.execute("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit_event'::regclass")
        tables = ["audit_event", *(name for (name,) in cursor.fetchall())]
        cursor.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'audit_event'::regclass AND attnum > 0 "
            "AND (has_column_privilege('audit_event', attname, 'UPDATE')"
            " OR has_column_privilege('audit_event', attname, 'REFERENCES'))"
        )
        assert cursor.fetchall() == [], "not one column"
    assert len(tables) > 3
    changes = ("DELETE FROM {}", "UPDATE {} SET topic = 'x'", "UPDATE {} SET count = 0", "TRUNCATE {}")
    for statement in [change.format(table) for change in changes for table in tables]:
        with (
            pytest.raises(ProgrammingError, match="permission denied"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)


# --- what is wrong --------------------------------------------------------------------------------------------------

MALFORMED = {
    "no MessagePack": b"\xc1\xff",
    "empty": b"",
    "a number": encode(7),
    "another version": encode(AuditBatch(node=NODE, incarnation="", events=[], v=9)),
    "cut short": encode_batch(AuditBatch(NODE, INCARNATION, [AuditEvent(id=str(uuid.uuid4()), ts=1, kind="connect")]))[
        :-3
    ],
    "wrong types": encode({"node": 1, "incarnation": [], "events": "x", "v": 1}),
    "deeply nested": b"\x91" * 100_000 + b"\x00",
    "no UTF-8": b"\x81\xa4node\xa2\xff\xfe",
}


@pytest.mark.parametrize("blob", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_entry_is_put_aside_and_holds_nothing_up(
    redis: Redis, ingest: Ingest, org: Organization, blob: bytes
) -> None:
    put(redis, event(org))
    blob = seal_record(Kind.AUDIT, blob, node_key())
    name = redis.xadd(keys.AUDIT, {keys.FIELD: blob}).decode()  # type: ignore[union-attr]
    put(redis, event(org))
    ingest.round(block=0)
    assert redis.xlen(keys.AUDIT) == 0
    [(_, letter)] = redis.xrange(dead(keys.AUDIT))  # type: ignore[misc]
    assert (letter[b"id"].decode(), letter[b"b"]) == (name, blob)
    assert letter[b"reason"]
    with platform_scope():
        [note] = Event.objects.filter(org_id="platform")
        assert Event.objects.filter(org_id=org.pk).count() == 2
    assert note.kind == "audit.unreadable"
    assert note.details["entry"] == name


FORGED = AuditBatch(NODE, INCARNATION, [AuditEvent(id=uuid7(), ts=int(time.time() * 1e6), kind="connect", org="")])


@pytest.mark.parametrize(
    "blob",
    [
        encode_batch(FORGED),
        encode_batch(FORGED) + bytes(32),
        seal_record(Kind.AUDIT, encode_batch(FORGED), b"somebody else's key"),
        seal_record(Kind.REPORT, encode_batch(FORGED), sealed.node_key(pepper())),
        seal_record(Kind.AUDIT, encode_batch(FORGED), pepper()),
    ],
    ids=["no seal", "an empty seal", "another key", "another kind", "the pepper itself"],
)
def test_events_that_no_edge_has_sealed_are_put_aside_and_told(redis: Redis, ingest: Ingest, blob: bytes) -> None:
    Redis.from_url(settings.REDIS_URL).xadd(keys.AUDIT, {keys.FIELD: blob})  # somebody else's client
    ingest.round(block=0)
    [note] = stored()
    assert (note.kind, note.details["error"]) == ("audit.unreadable", "no edge has sealed it")
    assert redis.xlen(dead(keys.AUDIT)) == 1


def test_an_entry_without_a_record_is_put_aside(redis: Redis, ingest: Ingest, org: Organization) -> None:
    redis.xadd(keys.AUDIT, {"other": b"x"})
    ingest.round(block=0)
    assert [row.kind for row in stored()] == ["audit.unreadable"]
    assert redis.xlen(keys.AUDIT) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "not-a-uuid"},
        {"kind": "org.deleted"},
        {"kind": "audit.gap"},
        {"kind": "broker_lost"},
        {"kind": "A b"},
        {"kind": ""},
        {"kind": "x" * 41},
    ],
    ids=str,
)
def test_an_event_that_no_edge_may_write_is_put_aside_and_its_batch_is_stored(
    redis: Redis, ingest: Ingest, org: Organization, changes: dict[str, str]
) -> None:
    put(redis, event(org), dataclasses.replace(event(org), **changes), event(org))  # type: ignore[arg-type]
    ingest.round(block=0)
    with platform_scope():
        assert {row.kind for row in Event.objects.filter(org_id=org.pk)} == {"acl_denied"}
        assert Event.objects.filter(org_id=org.pk).count() == 2
        assert [row.kind for row in Event.objects.filter(org_id="platform")] == ["audit.unreadable"]
    assert redis.xlen(dead(keys.AUDIT)) == 1


def test_a_kind_of_a_newer_edge_is_kept(redis: Redis, ingest: Ingest, org: Organization) -> None:
    put(redis, event(org, kind="quota_warning"))
    ingest.round(block=0)
    assert [row.kind for row in stored()] == ["quota_warning"]


def test_the_same_malformed_entry_is_told_once(redis: Redis, ingest: Ingest, org: Organization) -> None:
    """A process killed between the commit and the acknowledgement reads it again."""
    redis.xadd(keys.AUDIT, {keys.FIELD: b"\xc1"}, id="1700000000000-1")
    ingest.round(block=0)
    redis.flushall()
    ingest._streams.again()
    redis.xadd(keys.AUDIT, {keys.FIELD: b"\xc1"}, id="1700000000000-1")
    ingest.round(block=0)
    assert len(stored()) == 1


def test_what_is_put_aside_is_bounded(redis: Redis, ingest: Ingest, org: Organization) -> None:
    redis.xadd(keys.AUDIT, {keys.FIELD: b"\xc1" * 3_000_000})
    pipeline = redis.pipeline()
    for _ in range(1_500):
        pipeline.xadd(keys.AUDIT, {keys.FIELD: b"\xc1"})
    pipeline.execute()
    while ingest.round(block=0):
        pass
    assert redis.xlen(dead(keys.AUDIT)) <= 1_200  # type: ignore[operator]
    assert redis.memory_usage(dead(keys.AUDIT), samples=0) < 2_500_000  # type: ignore[operator]


# --- what goes wrong beside it ----------------------------------------------------------------------------------------


class Broken(AclNodes):
    """Nobody can be told anything."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error: Exception | None = error
        self.told = 0

    def report(self, reports: Sequence[BundleReport]) -> None:
        if self.error:
            raise self.error
        self.told += len(reports)


REPORT = BundleReport("edge-1", "org_aaaaaaaaaaaa", 1, "", "dep_1", "enforcing", "", 1_700_000_000.0)


@pytest.mark.django_db(transaction=True)
def test_reports_that_must_wait_do_not_hold_up_events(redis: Redis, org: Organization) -> None:
    """Somebody holds a lock: the report stays in hand until it can be applied, events are stored meanwhile."""
    nodes = Broken(OperationalError("canceling statement due to lock timeout"))
    ingest = Ingest(redis, nodes, name="test")
    redis.xadd(keys.REPORTS, {keys.FIELD: seal_record(Kind.REPORT, encode(REPORT), node_key())})
    for number in range(3):
        put(redis, event(org))
        ingest.round(block=0)
        assert len(stored()) == number + 1
    assert redis.xlen(keys.REPORTS) == 1
    nodes.error = None
    ingest._reports_at = 0.0
    ingest.round(block=0)
    assert nodes.told == 1
    assert (redis.xlen(keys.REPORTS), redis.xlen(dead(keys.REPORTS))) == (0, 0)


@pytest.mark.django_db(transaction=True)
def test_a_report_in_hand_survives_its_consumer(redis: Redis, org: Organization) -> None:
    redis.xadd(keys.REPORTS, {keys.FIELD: seal_record(Kind.REPORT, encode(REPORT), node_key())})
    Ingest(redis, Broken(OperationalError("away")), name="test").round(block=0)
    nodes = Broken(OperationalError("away"))
    nodes.error = None
    Ingest(redis, nodes, name="test").round(block=0)
    assert nodes.told == 1


@pytest.mark.django_db(transaction=True)
def test_a_report_in_hand_does_not_keep_new_events_out_after_a_restart(redis: Redis, org: Organization) -> None:
    away = Broken(OperationalError("away"))
    redis.xadd(keys.REPORTS, {keys.FIELD: seal_record(Kind.REPORT, encode(REPORT), node_key())})
    Ingest(redis, away, name="test").round(block=0)
    put(redis, event(org))
    again = Ingest(redis, away, name="test", claim_idle=3600)
    for _ in range(3):
        again.round(block=0)
    assert len(stored()) == 1


def test_a_mistake_in_our_own_code_is_waited_out(redis: Redis, org: Organization) -> None:
    """What nobody foresaw stops neither the process nor the events."""
    ingest = Ingest(redis, Broken(RuntimeError("a bug")), name="test")
    redis.xadd(keys.REPORTS, {keys.FIELD: seal_record(Kind.REPORT, encode(REPORT), node_key())})
    put(redis, event(org))
    rounds = 0
    stop = threading.Event()

    def alive() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 3:
            stop.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("audit.ingest.consumer.connections.close_all", lambda: None)  # the test's transaction must live
        ingest.run(stop, alive)
    assert rounds == 3
    assert len(stored()) == 1
    assert redis.xlen(keys.REPORTS) == 1


# --- huge and strange values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("values", STRANGE.values(), ids=STRANGE)
def test_nothing_a_client_sends_keeps_an_event_out(
    redis: Redis, ingest: Ingest, org: Organization, values: dict[str, object]
) -> None:
    sent = event(org, **values)
    put(redis, sent)
    ingest.round(block=0)
    with org_scope(org.pk):
        [row] = Event.objects.all()
    assert str(row.id) == sent.id
    assert redis.xlen(dead(keys.AUDIT)) == 0
    for name in ("topic", "client_id", "username"):
        assert len(getattr(row, name).encode()) <= 2_000


def test_a_text_that_was_cut_says_how_long_it_was(redis: Redis, ingest: Ingest, org: Organization) -> None:
    put(redis, event(org, topic="ä" * 3_000, reason="r" * 80))
    ingest.round(block=0)
    [row] = stored()
    assert row.topic == "ä" * 1_000
    assert row.details == {"topic_bytes": 6_000, "reason": "r" * 80}


@pytest.mark.parametrize("ts", [0, -1, 1, 2**62, -(2**63), 2**63 - 1, 253_402_300_800_000_000])
def test_an_absurd_time_goes_to_the_default_partition(redis: Redis, ingest: Ingest, org: Organization, ts: int) -> None:
    put(redis, dataclasses.replace(event(org), ts=ts), event(org))
    ingest.round(block=0)
    assert len(stored()) == 2
    [odd] = [row for row in stored() if abs(row.ts - now()) > timedelta(days=365)]
    assert partition_of(ts=odd.ts) == "audit_event_default"
    assert (odd.details or {}).get("ts") == (None if ts in {0, 1} else str(ts))


@pytest.mark.parametrize("days", [0, -1, -20, 1])
def test_a_day_near_today_gets_a_partition(redis: Redis, ingest: Ingest, org: Organization, days: int) -> None:
    at = now() + timedelta(days=days)
    put(redis, event(org, at=at))
    ingest.round(block=0)
    [row] = stored()
    assert partition_of(ts=row.ts) == f"audit_event_{at:%Y%m%d}"


def test_a_far_day_gets_no_partition_until_somebody_makes_it(redis: Redis, ingest: Ingest, org: Organization) -> None:
    at = now() - timedelta(days=60)
    put(redis, event(org, at=at))
    ingest.round(block=0)
    [row] = stored()
    assert partition_of(ts=row.ts) == "audit_event_default"
    assert partitions.ensure([at.date()]) == 1
    assert partition_of(ts=row.ts) == f"audit_event_{at:%Y%m%d}"


def partition_of(*, ts: object) -> str:
    with platform_scope(), connection.cursor() as cursor:
        cursor.execute("SELECT tableoid::regclass::text FROM audit_event WHERE ts = %s", [ts])
        return str(cursor.fetchone()[0])


# --- counting -------------------------------------------------------------------------------------------------------


def test_distinct_events_of_a_run_are_counted_in_the_transaction_that_stores_them(
    redis: Redis, ingest: Ingest, org: Organization
) -> None:
    sent = [event(org) for _ in range(30)]
    put(redis, *sent)
    put(redis, *sent[:10])
    ingest.round(block=0)
    put(redis, *(dataclasses.replace(one, count=2) for one in sent))
    put(redis, event(org), incarnation="another")
    ingest.round(block=0)
    assert {row.incarnation: row.stored for row in Journal.objects.all()} == {INCARNATION: 30, "another": 1}
