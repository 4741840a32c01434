"""Issuing many at once: what is handed out works, and what is not handed out ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from audit.access import AuditQuery, search
from cloudsignal import outbox
from cloudsignal.errors import Conflict, Forbidden
from cloudsignal.models import OutboxRow
from cloudsignal.redis import client
from cloudsignal.tenancy.scopes import platform_scope
from cloudsignal.wire import keys
from orgs.access.grants import Access
from orgs.credentials import bulk
from orgs.credentials.bulk import issue_all, issue_in_batches
from orgs.credentials.csv_file import Entry, read_roster
from orgs.credentials.issuing import issue_credential
from orgs.credentials.reads import list_credentials
from orgs.permissions import Role
from orgs.tasks import abandon_batch
from tests.support.databases import Databases
from tests.support.world import member, organization

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "BATCH", 3)


def roster(count: int) -> tuple[Entry, ...]:
    """A file of ``count`` names."""
    return read_roster("username\n" + "".join(f"d-{number}\n" for number in range(count)))


def claims() -> list[OutboxRow]:
    """The batches that wait to be handed out."""
    with platform_scope():
        return list(OutboxRow.objects.filter(task="orgs.tasks.abandon_batch").order_by("pk"))


def states(access: Access) -> dict[str, str]:
    """State by username."""
    return {row.identity.username: row.state for row in list_credentials(access, limit=200).rows}


def run_due_claims() -> None:
    """What a worker does once the time is over."""
    for row in claims():
        abandon_batch.run(**row.payload)


def test_what_is_handed_out_leaves_nothing_behind() -> None:
    access = organization()
    made = issue_all(access, roster(8))
    assert [one.line for one in made.issued] == list(range(2, 10))
    assert claims() == []
    assert set(states(access).values()) == {"active"}
    assert client().exists(keys.credential(access.org_id, "d-7")) == 1


def test_whoever_stops_taking_leaves_only_what_was_taken() -> None:
    """A browser that went away, or a process that died: the taken batch is good, the others are revoked."""
    access = organization()
    taking = issue_in_batches(access, roster(8))
    first = next(taking)
    next(taking)  # coming back for the second says that the first has arrived
    taking.close()  # type: ignore[attr-defined]
    run_due_claims()
    found = states(access)
    handed_out = {one.issued.local for one in first.issued}
    assert {name for name, state in found.items() if state == "active"} == handed_out == {"d-0", "d-1", "d-2"}
    assert len(found) > 3
    told = search(access, AuditQuery(kind="credential.revoked")).events
    assert {event.username for event in told} == set(found) - handed_out
    assert {event.actor for event in told} == {"system"}


def test_issuing_many_is_audited_as_issuing_one_is() -> None:
    access = organization()
    issue_credential(access, username="one", claims={"room": "hall"})
    entry = replace(roster(1)[0], username="many", claims={"room": "hall"})
    list(issue_in_batches(access, [entry]))
    many, one = search(access, AuditQuery(kind="credential.issued")).events
    assert (many.after or {}).keys() == (one.after or {}).keys()
    assert [(event.username, (event.after or {})["claims"]) for event in (many, one)] == [
        ("many", {"room": "hall"}),
        ("one", {"room": "hall"}),
    ]


def test_all_or_nothing_when_the_answer_is_one() -> None:
    """The API answers once: a process that dies before has handed nothing out."""
    access = organization()
    taking = issue_in_batches(access, roster(8), hold=True)
    for _ in range(3):
        next(taking)
    taking.close()  # type: ignore[attr-defined]
    assert len(claims()) == 3
    run_due_claims()
    assert set(states(access).values()) == {"revoked"}


def test_a_further_secret_that_was_not_handed_out_ends_and_the_first_one_does_not() -> None:
    access = organization()
    before = issue_credential(access, username="d-1", claims={"room": "lobby"})
    taking = issue_in_batches(access, roster(3))
    (batch,) = [next(taking)]
    assert [one.line for one in batch.issued] == [2, 3, 4]
    taking.close()  # type: ignore[attr-defined]
    run_due_claims()
    active = [row.token_id for row in list_credentials(access, state="active").rows]
    assert active == [before.token_id]


def test_who_takes_too_long_is_told_and_keeps_nothing() -> None:
    access = organization()
    taking = issue_in_batches(access, roster(3))
    next(taking)
    with platform_scope():  # a worker has begun with it
        OutboxRow.objects.filter(task="orgs.tasks.abandon_batch").update(attempts=1)
    with pytest.raises(Conflict) as refused:
        next(taking)
    assert refused.value.code == "minting_too_slow"
    assert len(claims()) == 1


def test_a_claim_waits_its_time_before_a_worker_takes_it_up() -> None:
    access = organization()
    taking = issue_in_batches(access, roster(3))
    next(taking)
    (claim,) = claims()
    assert claim.available_at - timezone.now() > timedelta(seconds=30)
    outbox.drain()
    assert [row.attempts for row in claims()] == [0]
    taking.close()  # type: ignore[attr-defined]


def test_a_role_that_may_not_issue_credentials_issues_none() -> None:
    access = organization()
    with pytest.raises(Forbidden):
        issue_all(member(access.org, Role.AUDITOR), roster(1))
    assert states(access) == {}


def test_a_claim_holds_no_secret() -> None:
    access = organization()
    taking = issue_in_batches(access, roster(3))
    batch = next(taking)
    with connection.cursor() as cursor, platform_scope():
        cursor.execute("SELECT payload::text FROM cloudsignal_outboxrow")
        stored = " ".join(row[0] for row in cursor.fetchall())
    assert batch.issued[0].issued.token_id in stored
    assert all(one.issued.password not in stored for one in batch.issued)
    taking.close()  # type: ignore[attr-defined]


KILLED = """
import os, signal, sys
import django; django.setup()
from orgs.access.grants import access_org
from orgs.models import User
from orgs.credentials import bulk
from orgs.credentials.csv_file import read_roster
bulk.BATCH = 3
access = access_org(User.objects.get(email=sys.argv[1]), sys.argv[2])
text = "username\\n" + "".join(f"d-{number}\\n" for number in range(12))
for number, batch in enumerate(bulk.issue_in_batches(access, read_roster(text))):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    print("\\n".join(one.issued.local for one in batch.issued), flush=True)
"""


def test_a_process_that_is_killed_half_way_leaves_what_it_has_shown() -> None:
    access = organization()
    assert access.user is not None
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, access.user.email, access.org_id],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    shown = set(killed.stdout.split())
    assert shown == {f"d-{number}" for number in range(6)}
    run_due_claims()
    assert {name for name, state in states(access).items() if state == "active"} == shown


def test_a_row_costs_the_same_however_many_names_there_are(databases: Databases) -> None:
    """The check of the foreign key once read every name of the organization for every new secret."""
    with databases.admin() as admin:
        # Whether a scan of a small table is planned depends on when it was last analysed: here, never.
        admin.execute("ALTER TABLE orgs_mqttidentity SET (autovacuum_enabled = false)")
        admin.execute("TRUNCATE orgs_mqttidentity CASCADE")
    connection.close()
    access = organization()

    def read() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_stat_force_next_flush()")
        with databases.admin() as admin:
            row = admin.execute(
                "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname IN "
                "('orgs_mqttidentity', 'orgs_credential')"
            ).fetchone()
        return int(row[0]) if row else 0

    def scanned() -> int:
        with databases.admin() as admin:
            row = admin.execute(
                "SELECT seq_tup_read FROM pg_stat_user_tables WHERE relname = 'orgs_mqttidentity'"
            ).fetchone()
        return int(row[0]) if row else 0

    before = read() + scanned()
    issue_all(access, roster(600))
    spent = read() + scanned() - before
    with databases.admin() as admin:
        admin.execute("ALTER TABLE orgs_mqttidentity RESET (autovacuum_enabled)")
    assert spent < 600 * 10


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_files_of_spreadsheets_are_read_whatever_separates_their_cells(separator: str, mark: str) -> None:
    lines = ["username|claim.room|note", 'pump|hall|"by the door, or; the window"', "fan||"]
    (pump, fan) = read_roster(mark + "\r\n".join(lines).replace("|", separator))
    assert (pump.username, dict(pump.claims), pump.note) == ("pump", {"room": "hall"}, "by the door, or; the window")
    assert (fan.username, dict(fan.claims), fan.note) == ("fan", {}, "")
