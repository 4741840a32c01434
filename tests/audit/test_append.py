"""Ingest by its own role: one COPY, duplicates sorted out, nothing but appending, and no waiting for a day's seal."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from time import sleep as pause

import psycopg
import pytest
from django.conf import settings
from django.db import connection
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis

from audit.ingest.append import Append, Load
from audit.ingest.consumer import LATE_MAX, Ingest
from audit.ingest.packed import Packer, pack_row, values_of
from audit.ingest.rows import ORG, row_of
from audit.ingest.streams import GROUP, READ_MAX, dead
from audit.kinds import KINDS, Source
from audit.management.commands.ingest import AclNodes
from audit.models import Event, Journal, OpenSession
from audit.services import partitions
from audit.services.commitments import RUN, row_bytes
from cloudsignal.ids import PLATFORM_ORG
from cloudsignal.secrets.keyring import node_key
from cloudsignal.tenancy.scopes import platform_scope
from cloudsignal.wire import keys
from cloudsignal.wire.audit import AuditBatch, AuditEvent, decode_batch, encode_batch, read_batch, uuid7
from cloudsignal.wire.codec import WireError
from cloudsignal.wire.sealed import Kind, seal_record
from orgs.models import Organization
from tests.support.audit_events import INCARNATION, STRANGE, event, make_org, now, put
from tests.support.databases import Databases

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def org(transactional_db: None) -> Organization:
    return make_org()


@pytest.fixture
def ingest(redis: Redis) -> Iterator[Ingest]:
    """A consumer in this process that appends by its own role."""
    append = Append(settings.DATABASE_INGEST_URL)
    yield Ingest(redis, AclNodes(), name="test", claim_idle=0.01, append=append)
    append.close()


def stored() -> list[Event]:
    with platform_scope():
        return list(Event.objects.order_by("ts", "id"))


# --- packing ----------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=False)
@pytest.mark.parametrize("values", STRANGE.values(), ids=STRANGE)
def test_the_packer_makes_the_bytes_of_the_row_of_strange_values_too(values: dict[str, object]) -> None:
    packer = Packer()
    for org in ("", "org_aaaaaaaaaaaa", "org_UPPER"):
        for more in ({}, {"topic": "a", "rule": "r", "qos": 1, "retain": True, "size": 3, "details": {"a": 1.5}}):
            one = event(org, **{**more, **values})  # type: ignore[arg-type]
            for _ in range(2):
                row = row_of(one, node="n")
                assert packer.pack(one, node="n") == (pack_row(row), row[ORG], row_bytes(values_of(row)))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


NODE_KINDS = [kind.name for kind in KINDS.values() if kind.source is Source.NODE]
EVENTS = st.builds(
    AuditEvent,
    id=st.uuids().map(str) | st.uuids().map(lambda name: name.hex) | TEXTS, ts=st.integers(-(2**62), 2**62),
    kind=st.sampled_from(["acl_denied", "connect", "org.created", "newer", "no kind", *NODE_KINDS]),
    org=st.just("") | st.just("org_aaaaaaaaaaaa") | TEXTS, node=TEXTS, session=TEXTS, username=TEXTS, client_id=TEXTS,
    ip=st.ip_addresses().map(str) | TEXTS, port=st.integers(-1, 70_000), transport=TEXTS, reason=TEXTS, topic=TEXTS,
    qos=st.integers(-2, 3), count=st.integers(-1, 2**64 - 1), repeats=st.just("") | st.uuids().map(str),
)  # fmt: skip


@pytest.mark.django_db(transaction=False)
@given(one=EVENTS)
def test_packing_an_event_and_packing_its_row_are_the_same(one: AuditEvent) -> None:
    packer = Packer()
    try:
        row = row_of(one, node="n")
    except WireError:
        with pytest.raises(WireError):
            packer.pack(one, node="n")
    else:
        for _ in range(2):
            assert packer.pack(one, node="n") == (pack_row(row), row[ORG], row_bytes(values_of(row)))


@pytest.mark.django_db(transaction=False)
def test_a_batch_that_is_read_fast_has_every_field() -> None:
    sent = AuditBatch("n", "i", [event("org_aaaaaaaaaaaa", details={"a": 1}, repeats=uuid7()), event("")])
    fast, slow = read_batch(encode_batch(sent)), decode_batch(encode_batch(sent))
    assert (fast.node, fast.incarnation) == (slow.node, slow.incarnation)
    for one, other in zip(fast.events, slow.events, strict=True):
        assert {f.name: getattr(one, f.name) for f in dataclasses.fields(AuditEvent)} == dataclasses.asdict(other)
    for wrong in (encode_batch(dataclasses.replace(sent, v=2)), b"\xc1", encode_batch(sent)[:-1]):
        with pytest.raises(WireError) as by_the_slow:
            decode_batch(wrong)
        with pytest.raises(WireError, match=re.escape(str(by_the_slow.value))):
            read_batch(wrong)


# --- storing ----------------------------------------------------------------------------------------------------------


def test_what_is_appended_is_what_the_slow_way_stores(redis: Redis, ingest: Ingest, org: Organization) -> None:
    sent = [
        event(org, username="u", ip="2001:db8::1", topic="plant/ä/温度", qos=1, retain=True, size=312, rule="none"),
        event(org, kind="connect", session="s1"), event(org, kind="disconnect", session="s1", details={"seconds": 1.5}),
        event(org, kind="connect", session="s2"), event("", kind="tls_failed", ip="192.0.2.1"),
        event(org, repeats=uuid7(), count=7), event(org, at=now() - timedelta(days=1)),
    ]  # fmt: skip
    fields = [field.name for field in Event._meta.concrete_fields if field.name not in {"log_leaf", "salt"}]
    found = []
    for consumer in (ingest, Ingest(redis, AclNodes(), name="slow")):
        with platform_scope():
            OpenSession.objects.all().delete()
        put(redis, *sent)
        consumer.round(block=0)
        found.append(([{name: getattr(row, name) for name in fields} for row in stored()],
                      {row.incarnation: row.stored for row in Journal.objects.all()}))  # fmt: skip
    assert found[0] == found[1]
    assert found[0][1] == {INCARNATION: 7}
    assert all(row.log_leaf is not None and len(bytes(row.salt or b"")) == 16 for row in stored())
    assert len({(row.org_id, row.log_leaf) for row in stored()}) == 7
    assert redis.xlen(keys.AUDIT) == 0
    assert redis.xpending(keys.AUDIT, GROUP)["pending"] == 0


def test_appended_again_or_in_part_nothing_is_doubled(redis: Redis, ingest: Ingest, org: Organization) -> None:
    sent = [event(org) for _ in range(120)]
    for found in (sent[:100], sent[:100], sent[:100], sent, sent[100:], [*sent[:5], *sent[:5]]):
        put(redis, *found)
        ingest.round(block=0)
    assert sorted(str(row.id) for row in stored()) == sorted(one.id for one in sent)
    assert (ingest.counters.events, ingest.counters.repeated) == (120, 330)
    assert {row.incarnation: row.stored for row in Journal.objects.all()} == {INCARNATION: 120}


def test_appended_with_other_content_or_a_higher_count_the_first_stays(
    redis: Redis, ingest: Ingest, org: Organization
) -> None:
    first, second = event(org, topic="a"), event(org, topic="b")
    put(redis, first, second)
    ingest.round(block=0)
    for _ in range(2):
        put(redis, dataclasses.replace(first, topic="made up"), dataclasses.replace(second, count=5))
        ingest.round(block=0)
    rows = stored()
    assert sorted((row.kind, row.topic, row.count) for row in rows) == [
        ("acl_denied", "a", 1), ("acl_denied", "b", 1), ("acl_denied", "b", 4), ("critical", "", 1),
    ]  # fmt: skip


@pytest.mark.parametrize("values", STRANGE.values(), ids=STRANGE)
def test_strange_events_are_appended_beside_ordinary_ones(
    redis: Redis, ingest: Ingest, org: Organization, values: dict[str, object]
) -> None:
    put(redis, event(org), event(org, **values), event("org_nosuchorgzzz"))  # type: ignore[arg-type]
    ingest.round(block=0)
    assert sorted(row.org_id for row in stored()) == [org.pk, org.pk, "platform"]
    assert redis.xlen(dead(keys.AUDIT)) == 0


def test_what_cannot_be_stored_is_quarantined_and_the_rest_appended(
    redis: Redis, ingest: Ingest, org: Organization
) -> None:
    put(redis, event(org), dataclasses.replace(event(org), id="no id"), event(org, kind="org.created"))
    redis.xadd(keys.AUDIT, {keys.FIELD: b"\xc1"})
    put(redis, event(org))
    ingest.round(block=0)
    assert sorted(row.kind for row in stored()) == ["acl_denied", "acl_denied", "audit.unreadable", "audit.unreadable"]
    assert redis.xlen(dead(keys.AUDIT)) == 2
    assert redis.xlen(keys.AUDIT) == 0


def test_an_event_of_a_day_that_is_being_sealed_waits_and_nothing_behind_it_does(
    redis: Redis, ingest: Ingest, org: Organization, databases: Databases
) -> None:
    day = now().date() - timedelta(days=4)
    partitions.ensure([day])
    late = event(org, at=datetime.combine(day, time(12), UTC), topic="late")
    with databases.admin() as sealing, sealing.transaction():
        sealing.execute("SELECT pg_advisory_xact_lock(%s, %s)", [partitions.SEAL_DAY, (day - date(1970, 1, 1)).days])
        sealing.execute(f"LOCK TABLE audit_event_{day:%Y%m%d} IN SHARE MODE")
        put(redis, event(org, topic="before"), late)
        for number in range(3):
            put(redis, event(org, topic=f"behind {number}"))
            ingest.round(block=0)
        assert sorted(row.topic for row in stored()) == ["behind 0", "behind 1", "behind 2"]
        assert redis.xlen(keys.AUDIT) == 1, "its entry is not forgotten"
    ingest._late_at = 0.0
    ingest.round(block=0)
    assert {row.topic for row in stored()} == {"before", "late", "behind 0", "behind 1", "behind 2"}
    assert redis.xlen(keys.AUDIT) == 0


def test_of_many_late_events_some_stay_in_the_stream_and_none_is_forgotten(
    redis: Redis, ingest: Ingest, org: Organization, databases: Databases
) -> None:
    day = now().date() - timedelta(days=4)
    partitions.ensure([day])
    number = LATE_MAX + 3 * READ_MAX
    with databases.admin() as sealing, sealing.transaction():
        sealing.execute("SELECT pg_advisory_xact_lock(%s, %s)", [partitions.SEAL_DAY, (day - date(1970, 1, 1)).days])
        for at in range(number):
            put(redis, event(org, at=datetime.combine(day, time(12, at // 60 % 60, at % 60), UTC)))
        put(redis, event(org, topic="behind"))
        for _ in range(3 * number // READ_MAX):
            ingest._streams._claimed_at = 0.0  # it looks every two seconds for what is pending too long
            pause(0.01)
            ingest.round(block=0)
        assert [row.topic for row in stored()] == ["behind"]
        assert len(ingest._late) == LATE_MAX
        assert redis.xlen(keys.AUDIT) == number
        ingest._late_at = 0.0
        assert len(ingest._late_again()) == READ_MAX
    for _ in range(3 * number // READ_MAX):
        ingest._late_at = ingest._streams._claimed_at = 0.0
        ingest.round(block=0)
    assert len(stored()) == number + 1
    assert redis.xlen(keys.AUDIT) == 0


def test_late_events_are_tried_again_while_others_of_a_sealed_day_keep_coming(
    redis: Redis, ingest: Ingest, org: Organization, databases: Databases
) -> None:
    day = now().date() - timedelta(days=4)
    partitions.ensure([day])
    with databases.admin() as sealing, sealing.transaction():
        sealing.execute("SELECT pg_advisory_xact_lock(%s, %s)", [partitions.SEAL_DAY, (day - date(1970, 1, 1)).days])
        for due in (0.0, 10.0**9):
            ingest._late_at = due
            put(redis, event(org, at=datetime.combine(day, time(12), UTC)))
            ingest.round(block=0)
        assert ingest._late_at == due, "another late event did not move it"


@pytest.mark.parametrize("back", [partitions.SEAL_BACK, partitions.SEAL_BACK + 3, 5_000])
def test_only_a_day_that_may_still_be_sealed_is_locked(
    redis: Redis, ingest: Ingest, org: Organization, databases: Databases, back: int
) -> None:
    day = now().date() - timedelta(days=back)
    with databases.admin() as sealing, sealing.transaction():
        sealing.execute("SELECT pg_advisory_xact_lock(%s, %s)", [partitions.SEAL_DAY, (day - date(1970, 1, 1)).days])
        put(redis, event(org, at=datetime.combine(day, time(12), UTC)))
        ingest.round(block=0)
        assert len(stored()) == (0 if back == partitions.SEAL_BACK else 1)


def test_each_row_of_a_large_load_has_its_own_leaf_in_the_queue(ingest: Ingest, org: Organization) -> None:
    """More rows of one organization than a run holds, others between them, and an empty batch."""
    assert ingest._append
    sent = [event("" if number % 50 == 0 else org, topic=f"t/{number}") for number in range(RUN + 800)]
    load = Load()
    for start in range(0, len(sent), 99):
        load.add(AuditBatch("n", INCARNATION, sent[start : start + 99]))
        load.add(AuditBatch("n", INCARNATION, []))
    assert ingest._append.store(load, list) == len(sent)
    with platform_scope(), connection.cursor() as cursor:
        cursor.execute("SELECT org_id, run, entries FROM audit_log_queue")
        queue = {(name, run): bytes(entries) for name, run, entries in cursor.fetchall()}
        cursor.execute("SELECT id, log_leaf, salt FROM audit_event")
        leaves = {str(name): (leaf, bytes(salt)) for name, leaf, salt in cursor.fetchall()}
    assert sum(map(len, queue.values())) == len(sent) * 32
    assert len({salt for _, salt in leaves.values()}) == len(sent)
    assert sorted(name for name, _ in queue) == sorted([org.pk, org.pk, PLATFORM_ORG])
    for one in sent:
        row, (leaf, salt) = row_of(one, node="n"), leaves[one.id]
        run, place = divmod(leaf, RUN)
        entry = queue[row[ORG], run * RUN][place * 32 : place * 32 + 32]
        assert entry == sha256(salt + row_bytes(values_of(row))).digest()


def test_a_batch_without_events_is_acknowledged(redis: Redis, ingest: Ingest, org: Organization) -> None:
    batch = encode_batch(AuditBatch("n", INCARNATION, []))
    redis.xadd(keys.AUDIT, {keys.FIELD: seal_record(Kind.AUDIT, batch, node_key())})
    assert ingest.round(block=0) == 1
    assert (stored(), redis.xlen(keys.AUDIT), redis.xlen(dead(keys.AUDIT))) == ([], 0, 0)


# --- the role ---------------------------------------------------------------------------------------------------------


def test_the_role_can_append_to_the_audit_and_do_nothing_else(org: Organization) -> None:
    partitions.ensure_ahead()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')"
        )
        tables = {str(name) for (name,) in cursor.fetchall()}
    notes = {"audit_journal", "audit_opensession"}
    with psycopg.connect(settings.DATABASE_INGEST_URL, autocommit=True) as ingest:
        for table in sorted(tables):
            may = {
                right
                for right in ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
                if (ingest.execute("SELECT has_table_privilege(%s, %s)", [table, right]).fetchone() or [None])[0]
            }
            if table in {"audit_event", "audit_log_queue"}:
                assert may == {"SELECT", "INSERT"}
            elif table not in notes:
                assert may == set(), table
        for statement in (
            "UPDATE audit_event SET count = 0", "DELETE FROM audit_event", "TRUNCATE audit_event",
            "SELECT 1 FROM orgs_credential", "SELECT delete_organization('x')",
            "SELECT audit_seal_partition('2026-01-01')", "SET ROLE cloudsignal_app", "CREATE TABLE mine ()",
        ):  # fmt: skip
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                ingest.execute(statement)
        row = ingest.execute(
            "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
        )
        assert row.fetchone() == (False, True, False, False)
