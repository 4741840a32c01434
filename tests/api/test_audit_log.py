"""The log over HTTP: a stranger's client checks it whole, proofs and packs verify offline, and tampering is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from audit import kinds
from audit.access import AuditQuery, cursor_of, search
from audit.log.verifier import VerifyError, parse_key, verify_file, verify_proof
from audit.models import Event
from audit.services.commitments import RUN, queue_entries
from audit.services.record import AuditedChange, record_many
from audit.transparency import growing
from cloudsignal.cli.proofs import verifier, verify
from cloudsignal.tenancy.scopes import org_scope
from tests.support.calling import World
from tests.support.databases import Databases
from tests.support.tlog_client import Client

LOG = "/v2/audit/log/"


@pytest.fixture
def logged(acme: World) -> World:
    """An organization with a thousand rows in its log."""
    with org_scope(acme.id):
        record_many(acme.owner, kinds.CREDENTIAL_ISSUED, [AuditedChange(f"credential:{n}") for n in range(1_000)])
    growing.grow()
    return acme


def fetcher(world: World) -> Callable[[str], bytes]:
    """GET below the log's prefix, with an API key."""
    caller = world.caller()

    def fetch(path: str) -> bytes:
        answer = caller("GET", LOG + path)
        assert answer.status == 200, f"{path}: {answer.status}"
        return answer.content

    return fetch


def vkey_of(world: World) -> str:
    """The verifier key that the API names."""
    keys: list[str] = world.caller()("GET", LOG + "key").body["keys"]
    return keys[0]


def test_a_client_written_from_the_specifications_checks_the_whole_log(logged: World) -> None:
    assert Client(fetcher(logged), vkey_of(logged)).check() > 1_000


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_a_million_leaves_are_checked_over_http(acme: World) -> None:
    with org_scope(acme.id):
        for run in range(123):
            queue_entries(acme.id, [(run * RUN + at).to_bytes(32, "big") for at in range(RUN)])
    growing.grow()
    callers = [acme.caller() for _ in range(20)]

    def fetch(path: str) -> bytes:
        while (answer := callers[-1]("GET", LOG + path)).status == 429:
            callers.insert(0, callers.pop())  # each key has requests of its own
        assert answer.status == 200, f"{path}: {answer.status}"
        return answer.content

    assert Client(fetch, vkey_of(acme)).check() > 1_000_000


def test_only_tiles_under_the_checkpoint_and_canonical_paths_are_served(logged: World) -> None:
    caller = logged.caller()
    assert caller("GET", LOG + "tile/0/000").headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert caller("GET", LOG + "tile/0/003.p/1").headers["Cache-Control"] == "no-store"
    for path in (
        "0/004", "0/003", "0/003.p/255", "0/x000/000", "00/000", "0/0", "0/000.p/0", "0/000.p/256", "0/000.p/01",
        "1/000", "64/000", "8/000", "2/000.p/1", "entries/004", "-1/000", "0/000/", "0/٠٠٠",
        "0/" + "x999/" * 1_500 + "999",
    ):  # fmt: skip
        assert caller("GET", f"{LOG}tile/{path}").status == 404, path


def test_the_proof_of_an_event_verifies_offline_and_another_organization_gets_none(logged: World, rival: World) -> None:
    found = search(logged.owner, AuditQuery(limit=1)).events[0]
    path = f"/v2/audit/events/{cursor_of(found)}/proof"
    proof = logged.caller()("GET", path).content
    row, _, checkpoint = verify_proof(proof, [parse_key(vkey_of(logged))])
    assert (row.row["id"], row.row["org_id"]) == (str(found.id), logged.id)
    assert checkpoint.origin == f"localhost:8000/log/{logged.id}"
    with pytest.raises(VerifyError):
        verify_proof(proof, [parse_key(vkey_of(rival))])
    assert rival.caller()("GET", path).status == 404


def test_an_event_without_a_checkpoint_yet_says_when_to_try_again(logged: World) -> None:
    with org_scope(logged.id):
        record_many(logged.owner, kinds.CREDENTIAL_ISSUED, [AuditedChange("credential:last")])
    found = search(logged.owner, AuditQuery(limit=1)).events[0]
    answer = logged.caller()("GET", f"/v2/audit/events/{cursor_of(found)}/proof")
    assert (answer.status, answer.code) == (409, "proof_pending")


def test_an_event_of_before_the_log_has_no_proof_and_says_so(logged: World) -> None:
    with org_scope(logged.id):
        old = Event.objects.create(ts="2026-01-01T00:00:00Z", org_id=logged.id, kind="acl_denied")
        old.refresh_from_db()
    answer = logged.caller()("GET", f"/v2/audit/events/{cursor_of(old)}/proof")
    assert (answer.status, answer.code) == (409, "no_proof")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("attack", "named"),
    [
        ("count = 0", "was changed"),
        ("target = 'credential:x'", "was changed"),
        ("ts = ts + interval '1 us'", "was changed"),
        ("salt = ''", "salt is 16 bytes"),
    ],
)
def test_a_row_changed_by_a_superuser_is_named(
    logged: World, databases: Databases, tmp_path: Path, attack: str, named: str
) -> None:
    fetch, vkey = fetcher(logged), vkey_of(logged)
    path = tmp_path / "pack.zip"
    path.write_bytes(fetch("pack"))
    assert "complete and in order" in verify_file(path, [parse_key(vkey)])
    with databases.admin() as admin:
        where = "WHERE org_id = %s AND target = 'credential:500'"
        admin.execute(f"UPDATE audit_event SET {attack} {where}".encode(), [logged.id])  # noqa: S608 - SQL of constants
    path.write_bytes(fetch("pack"))
    done = CliRunner().invoke(verify, [str(path), "--key", vkey], standalone_mode=False)
    assert done.return_value == 1
    assert named in done.output


@pytest.mark.django_db(transaction=True)
def test_a_row_deleted_by_a_superuser_makes_the_pack_incomplete(
    logged: World, databases: Databases, tmp_path: Path
) -> None:
    fetch, vkey = fetcher(logged), vkey_of(logged)
    with databases.admin() as admin:
        admin.execute("DELETE FROM audit_event WHERE org_id = %s AND target = 'credential:500'", [logged.id])
    path = tmp_path / "pack.zip"
    path.write_bytes(fetch("pack"))
    assert "a selection" in verify_file(path, [parse_key(vkey)])


def test_the_command_writes_the_single_file_and_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "verify.py"
    assert CliRunner().invoke(verifier, ["-o", str(path)], standalone_mode=False).return_value == 0
    assert path.read_text().startswith("#!/usr/bin/env python3")
    again = CliRunner().invoke(verifier, ["-o", str(path)], standalone_mode=False)
    assert "exists" in str(again.exception)
