"""The transparency log in the database: every row a leaf, every leaf in the tree once, checkpoints that continue."""

from __future__ import annotations

from hashlib import sha256
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import connection, transaction
from django.db.utils import ProgrammingError
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from audit import kinds
from audit.ingest.consumer import Ingest
from audit.log.rows import log_row
from audit.log.tree import consistency_proof
from audit.log.verifier import (
    Key,
    VerifyError,
    canonical,
    check_consistency,
    commitment,
    leaf_hash,
    open_checkpoint,
    parse_note,
    root_of_tiles,
    split,
)
from audit.models import Event
from audit.services.commitments import RUN, queue_entries, row_bytes
from audit.services.record import AuditedChange, record, record_many
from audit.transparency import growing, tables
from audit.transparency.tables import LogReader
from cloudsignal.ids import CHECKPOINT_LOG, PLATFORM_ORG
from cloudsignal.secrets import keyring
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from orgs.access.grants import Access
from tests.support.audit_events import event, make_org, put
from tests.support.databases import Databases
from tests.support.world import organization

TABLES = ("audit_log_queue", "audit_log_leaves", "audit_log_hash", "audit_log_checkpoint")
FRACTIONS = {"n": [1, 2.5, 1.0, 1e20, 5e-7, -0.0, True, None], "text": 'é"\\\n\u2028\U0001f600', "empty": ""}


def write(access: Access, count: int) -> None:
    """Record ``count`` changes in one transaction."""
    with org_scope(access.org_id):
        changes = [AuditedChange(f"credential:{n}", f"d-{n}", after={**FRACTIONS, "at": n}) for n in range(count)]
        record_many(access, kinds.CREDENTIAL_ISSUED, changes)


def log_keys(org_id: str, *private: Ed25519PrivateKey) -> list[Key]:
    """The verifier keys of an organization's log."""
    found = private or (keyring.log_key(),)
    return [Key(growing.origin_of(org_id), 1, one.public_key().public_bytes_raw()) for one in found]


@pytest.mark.django_db
def test_every_row_is_in_the_tree_once_as_it_is_read_back() -> None:
    access = organization()
    with org_scope(access.org_id):
        record(access, kinds.CLAIMS_CHANGED, target="identity:x", username="x", before={"a": 1}, after=FRACTIONS)
    write(access, 700)
    assert growing.grow() >= 1
    with platform_scope():
        rows = list(Event.objects.filter(org_id=access.org_id))
        leaves = [row.log_leaf for row in rows]
        size = tables.placed(access.org_id)
        assert None not in leaves
        assert len(rows) == size
        reader, indexes = LogReader(access.org_id), set()
        for row in rows:
            index = tables.index_of_leaf(access.org_id, row.log_leaf or 0)
            assert index is not None
            tile = split(reader.tile(0, index // 256, min(256, size - index // 256 * 256)))
            assert tile[index % 256] == leaf_hash(commitment(bytes(row.salt or b""), row_bytes(vars(row))))
            indexes.add(index)
        assert indexes == set(range(size))
        last = tables.last_checkpoint(access.org_id)
        assert last is not None
        checkpoint = open_checkpoint(last.note, log_keys(access.org_id))
        assert (checkpoint.size, checkpoint.root) == (size, root_of_tiles(reader.tile, size))


@pytest.mark.django_db
def test_each_checkpoint_continues_the_one_before_and_is_a_leaf_of_the_platform_s_log() -> None:
    access = organization()
    seen = []
    for count in (1, 255, 1, 300):
        write(access, count)
        growing.grow()
        with platform_scope():
            last = tables.last_checkpoint(access.org_id)
            assert last is not None
            seen.append(last)
    assert growing.grow() == 0
    with platform_scope():
        reader = LogReader(access.org_id)
        for old, new in pairwise(seen):
            check_consistency(
                old.size, old.root, new.size, new.root, consistency_proof(reader.tile, old.size, new.size)
            )
        platform = tables.last_checkpoint(CHECKPOINT_LOG)
        assert platform is not None
        open_checkpoint(platform.note, log_keys(CHECKPOINT_LOG))
        places = [tables.index_of_leaf(CHECKPOINT_LOG, one.leaf or 0) for one in seen]
        assert None not in places
        assert places == sorted(set(places), key=lambda one: one or 0)


@pytest.mark.django_db
def test_a_transaction_that_is_rolled_back_leaves_no_leaf() -> None:
    access = organization()
    growing.grow()
    with platform_scope():
        size = tables.placed(access.org_id)
    with transaction.atomic():
        write(access, 3)
        transaction.set_rollback(True)
    write(access, 2)
    growing.grow()
    with platform_scope():
        assert tables.placed(access.org_id) == size + 2


@pytest.mark.django_db
def test_more_rows_than_a_run_holds_become_several_runs() -> None:
    access = organization()
    write(access, RUN + 5)
    growing.grow()
    with platform_scope():
        leaves = Event.objects.filter(org_id=access.org_id).values_list("log_leaf", flat=True)
        indexes = {tables.index_of_leaf(access.org_id, leaf or 0) for leaf in leaves}
        assert indexes == set(range(tables.placed(access.org_id)))


@pytest.mark.django_db
@pytest.mark.parametrize("table", [*TABLES, "audit_log_key"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET {} = {}", "DELETE FROM {}", "TRUNCATE {}"])
def test_the_application_s_role_can_neither_change_nor_delete_what_the_log_holds(table: str, statement: str) -> None:
    column = "public" if table == "audit_log_key" else "org_id"
    with pytest.raises(ProgrammingError, match="permission denied"), platform_scope(), connection.cursor() as cursor:
        cursor.execute(statement.format(table, column, column))


@pytest.mark.django_db
def test_leaves_are_placed_by_the_function_alone_and_only_in_a_platform_scope() -> None:
    access = organization()
    with pytest.raises(ProgrammingError, match="permission denied"), platform_scope(), connection.cursor() as cursor:
        cursor.execute("INSERT INTO audit_log_leaves VALUES ('platform', 0, 8192, 'x')")
    with pytest.raises(ProgrammingError, match="platform scope"), org_scope(access.org_id):
        tables.place_queued(10, 10)


@pytest.mark.django_db
def test_another_organization_sees_no_leaf_and_no_checkpoint() -> None:
    acme, rival = organization("acme"), organization("rival")
    write(acme, 300)
    growing.grow()
    with org_scope(rival.org_id):
        assert tables.placed(acme.org_id) == 0
        assert tables.read_entries(acme.org_id, 0, 300) == b""
        assert tables.read_hashes(acme.org_id, 1, 0, 5) == []
        assert tables.last_checkpoint(acme.org_id) is None
    with org_scope(acme.org_id):
        assert tables.placed(acme.org_id) >= 300


def _conflicts() -> list[str]:
    with platform_scope():
        return list(Event.objects.filter(org_id=PLATFORM_ORG, kind=kinds.LOG_CONFLICT).values_list("target", flat=True))


@pytest.mark.django_db(transaction=True)
def test_nothing_is_signed_over_leaves_that_were_changed_and_the_operators_log_says_so_once(
    databases: Databases,
) -> None:
    access = organization()
    write(access, 20)
    growing.grow()
    with platform_scope():
        before = tables.last_checkpoint(access.org_id)
    with databases.admin() as admin:
        admin.execute(
            "UPDATE audit_log_leaves SET entries = set_byte(entries, 3, get_byte(entries, 3) # 1) WHERE org_id = %s",
            [access.org_id],
        )
    write(access, 5)
    growing.grow(), growing.grow()
    with platform_scope():
        assert tables.last_checkpoint(access.org_id) == before
    assert _conflicts() == [f"log:{access.org_id}"]


TAIL = "start = (SELECT max(start) FROM audit_log_leaves WHERE org_id = %(org)s)"
DAMAGES = {
    "leaf": "UPDATE audit_log_leaves SET entries = set_byte(entries, octet_length(entries) - 1, 7) WHERE {}",
    "cut": "UPDATE audit_log_leaves SET entries = substring(entries FOR 3200) WHERE {}",
    "replaced": "UPDATE audit_log_leaves SET entries = substring(entries FOR 3200) WHERE {}",
    "empty": "DELETE FROM audit_log_leaves WHERE true",
    "hashes": "DELETE FROM audit_log_hash WHERE true",
    "next": "INSERT INTO audit_log_hash SELECT org_id, 1, 2, root FROM audit_log_checkpoint WHERE size = 512",
    "note": "UPDATE audit_log_checkpoint SET note = 'x' WHERE true",
}


def queue(access: Access, count: int) -> None:
    """Queue leaves of no rows."""
    with org_scope(access.org_id):
        queue_entries(access.org_id, [(count << 16 | n).to_bytes(32, "big") for n in range(count)])


@pytest.mark.django_db(transaction=True)
def test_a_damaged_log_stops_alone_and_a_tail_that_was_cut_is_told_also_when_new_rows_take_its_place(
    databases: Databases,
) -> None:
    """Logs of exactly two tiles: the hashes above them lead to the root without any leaf."""
    orgs = {name: organization() for name in (*DAMAGES, "whole")}
    growing.grow()
    for access in orgs.values():
        with platform_scope():
            there = tables.placed(access.org_id)
        queue(access, 512 - there)
    growing.grow()
    with databases.admin() as admin:
        for name, statement in DAMAGES.items():
            admin.execute(f"{statement.format(TAIL)} AND org_id = %(org)s".encode(), {"org": orgs[name].org_id})
    for name, access in orgs.items():
        if name not in {"cut", "empty"}:
            queue(access, 600)
    growing.grow(), growing.grow()
    with platform_scope(), connection.cursor() as cursor:
        cursor.execute("SELECT org_id, max(size) FROM audit_log_checkpoint GROUP BY org_id")
        sizes = dict(cursor.fetchall())
    found = {name: sizes[access.org_id] for name, access in orgs.items()}
    assert found == {**dict.fromkeys(DAMAGES, 512), "whole": 1_112}
    assert sorted(_conflicts()) == sorted(f"log:{orgs[name].org_id}" for name in DAMAGES)


@pytest.mark.django_db
def test_a_round_is_bounded_by_leaves_and_by_runs_and_the_next_follows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    access = organization()
    growing.grow()
    for _ in range(5):
        write(access, 100)
    with platform_scope():
        start = tables.placed(access.org_id)
        found = []
        for runs, leaves in ((9, 250), (1, 250), (9, 7)):
            waits = tables.place_queued(runs, leaves)
            found.append((tables.placed(access.org_id) - start, waits))
    assert found == [(200, True), (300, True), (400, True)]
    monkeypatch.setattr(growing, "LEAVES_MAX", 100)
    others = [organization(f"other-{n}") for n in range(3)]
    for other in others:
        write(other, 100)
    growing.grow()
    with platform_scope():
        assert tables.place_queued(9, 900) is False
        for each in (access, *others):
            last = tables.last_checkpoint(each.org_id)
            assert last is not None
            assert last.size == tables.placed(each.org_id) == Event.objects.filter(org_id=each.org_id).count()


@pytest.mark.django_db
def test_a_round_that_takes_too_long_signs_what_it_has_and_the_log_that_waits_longest_is_first_in_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No time at all: each round signs one log, and all logs go on growing. None is left behind."""
    monkeypatch.setattr(growing, "ROUND_SECONDS", 0)
    orgs = [organization(f"org-{n}") for n in range(4)]
    growing.grow()
    with platform_scope():
        first = {each.org_id: tables.last_checkpoint(each.org_id) for each in orgs}
    assert all(first.values())
    monkeypatch.setattr(growing, "SECONDS", 0)
    for _ in range(6):
        for access in orgs:
            write(access, 1)
        assert growing.grow() == 2
    with platform_scope():
        assert all(tables.last_checkpoint(org_id) != before for org_id, before in first.items())


@pytest.mark.django_db
def test_the_checkpoints_of_a_round_are_one_run_of_the_platform_s_log() -> None:
    growing.grow()
    orgs = [organization(f"org-{n}") for n in range(4)]
    growing.grow()
    with platform_scope():
        found = [tables.last_checkpoint(each.org_id) for each in orgs]
        leaves = [one.leaf or 0 for one in found if one is not None]
        assert len({leaf // RUN for leaf in leaves}) == 1
        entries = tables.read_entries(CHECKPOINT_LOG, 0, 1_000)
        for one in found:
            index = tables.index_of_leaf(CHECKPOINT_LOG, one.leaf or 0) if one is not None else None
            assert one is not None
            assert index is not None
            assert entries[index * 32 :][:32] == sha256(parse_note(one.note).text).digest()


@pytest.mark.django_db
def test_after_a_change_of_the_key_both_sign_once_and_the_operators_log_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    access = organization()
    growing.grow()
    old, new = keyring.log_key(), Ed25519PrivateKey.generate()
    monkeypatch.setattr(growing, "log_key", lambda: new)
    monkeypatch.setattr(growing, "previous_log_key", lambda: old)
    notes = []
    for _ in range(2):
        write(access, 1)
        growing.grow()
        with platform_scope():
            last = tables.last_checkpoint(access.org_id)
            assert last is not None
            notes.append(last.note)
    for private, verified in ((old, [True, False]), (new, [True, True])):
        assert [_opens(note, log_keys(access.org_id, private)) for note in notes] == verified
    with platform_scope():
        [event] = Event.objects.filter(org_id=PLATFORM_ORG, kind=kinds.LOG_KEY_CHANGED)
    assert event.before == {"key": old.public_key().public_bytes_raw().hex()}
    assert event.after == {"key": new.public_key().public_bytes_raw().hex(), "both_signed": True}


@pytest.mark.django_db
def test_a_key_that_comes_back_is_a_change_too_and_each_change_is_one_event_for_all_logs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orgs = [organization(), organization()]
    growing.grow()
    first, second = keyring.log_key(), Ed25519PrivateKey.generate()
    for now, before in ((second, first), (first, second), (second, None)):
        monkeypatch.setattr(growing, "log_key", lambda now=now: now)
        monkeypatch.setattr(growing, "previous_log_key", lambda before=before: before)
        for _ in range(2):
            for access in orgs:
                write(access, 1)
            growing.grow()
    a, b = (one.public_key().public_bytes_raw().hex() for one in (first, second))
    with platform_scope():
        events = Event.objects.filter(org_id=PLATFORM_ORG, kind=kinds.LOG_KEY_CHANGED).order_by("ts")
        assert [(each.before, each.after) for each in events] == [
            ({"key": a}, {"key": b, "both_signed": True}),
            ({"key": b}, {"key": a, "both_signed": True}),
            ({"key": a}, {"key": b, "both_signed": False}),
        ]


@pytest.mark.django_db
def test_the_fast_bytes_of_a_row_are_the_canonical_ones() -> None:
    nested = st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )

    @settings(max_examples=200, deadline=None)
    @given(st.fixed_dictionaries({"details": nested, "topic": st.text(), "qos": st.integers(-1, 2)}))
    def law(values: dict[str, object]) -> None:
        assert row_bytes(values) == canonical(log_row(values))

    law()


def _opens(note: bytes, keys: list[Key]) -> bool:
    try:
        open_checkpoint(note, keys)
    except VerifyError:
        return False
    return True


@pytest.mark.django_db
def test_events_of_devices_are_in_the_tree_once_also_when_they_come_again(ingest: Ingest, redis: Redis) -> None:
    """Redelivered, mixed with new ones, and doubled in one batch: a leaf for each row, and none without a row."""
    org = make_org()
    first = [event(org.pk, topic=f"plant/{n}", ip=["10.0.0.7", "2001:db8::7", ""][n % 3]) for n in range(40)]
    first[0].details = {"seconds": 1.5, "whole": 2.0, "name": "é\u0000x"}
    for batch in (first[:30], first[20:], first[:5] + first[:5]):
        put(redis, *batch)
        ingest.round(block=0)
    growing.grow()
    with platform_scope():
        rows = list(Event.objects.filter(org_id=org.pk))
        assert len([row for row in rows if row.topic.startswith("plant/")]) == 40
        entries = tables.read_entries(org.pk, 0, len(rows) + 1)
        indexes = [tables.index_of_leaf(org.pk, row.log_leaf or 0) for row in rows]
        assert sorted(index for index in indexes if index is not None) == list(range(len(entries) // 32))
        for row, index in zip(rows, indexes, strict=True):
            assert index is not None
            assert entries[index * 32 :][:32] == commitment(bytes(row.salt or b""), row_bytes(vars(row)))
