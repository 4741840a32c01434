"""Witnesses over HTTP: what workers do with their answers, and histories that were forked or rolled back."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from audit import kinds, proofs
from audit.log.signing import Cosigner, Signer
from audit.log.verifier import Key, VerifyError, open_checkpoint, parse_proof, verify_file
from audit.models import Event
from audit.services.record import record
from audit.transparency import growing, tables, witnesses
from cloudsignal.cli.witness_server import InUseError, WitnessServer, WitnessState
from cloudsignal.ids import CHECKPOINT_LOG, PLATFORM_ORG
from cloudsignal.secrets.keyring import log_key
from cloudsignal.supervisor.part import PROJECT
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from orgs.access.grants import Access
from tests.support.cli import program
from tests.support.databases import Databases
from tests.support.log_reference import EXAMPLE
from tests.support.world import organization

COSIGNER = Cosigner("witness.example/w1", Ed25519PrivateKey.from_private_bytes(b"\x02" * 32))
Answering = Callable[[http.server.BaseHTTPRequestHandler], None]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file in which the workers find their witnesses."""
    path = tmp_path / "witnesses"
    monkeypatch.setenv("CLOUDSIGNAL_WITNESSES", str(path))
    return path


def platform_key() -> Key:
    """The verifier key of the log of checkpoints."""
    with platform_scope():
        return Signer(growing.origin_of(CHECKPOINT_LOG), log_key()).key


@pytest.fixture
def witness(tmp_path: Path, place: Path, db: None) -> Iterator[WitnessServer]:
    """A witness of the log of checkpoints, listed for the workers."""
    server = WitnessServer(("127.0.0.1", 0), WitnessState(tmp_path / "seen.json"), COSIGNER, [platform_key()])
    yield from _serving(server, place)


def _serving(server: http.server.HTTPServer, place: Path) -> Iterator[WitnessServer]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    place.write_text(f"http://127.0.0.1:{server.server_address[1]} {COSIGNER.key.vkey}\n")
    yield server  # type: ignore[misc]
    server.shutdown()
    server.server_close()
    thread.join()


def grow(access: Access) -> None:
    """Record a change and bring the logs up to date."""
    with org_scope(access.org_id):
        record(access, kinds.ORG_UPDATED, target="org:x")
    growing.grow()


def said(kind: str) -> list[str]:
    """Events about witnesses in the operator's log."""
    with platform_scope():
        found = Event.objects.filter(org_id=PLATFORM_ORG, kind=kind)
        return [str((event.after or {}).get("problem")) for event in found]


@pytest.mark.django_db
def test_a_witness_cosigns_what_continues_and_its_line_verifies(witness: WitnessServer) -> None:
    access = organization()
    for _ in range(3):
        grow(access)
        assert witnesses.submit_to_all() == 1
        with platform_scope():
            last = tables.last_checkpoint(CHECKPOINT_LOG)
            assert last is not None
            lines = tables.cosignatures(CHECKPOINT_LOG, last.size)
        open_checkpoint(last.note + b"".join(lines), [platform_key()], [COSIGNER.key])
    assert witnesses.submit_to_all() == 0
    assert said(kinds.LOG_CONFLICT) == said(kinds.LOG_WITNESS_FAILED) == []


@pytest.mark.django_db
def test_a_checkpoint_of_an_organization_is_proven_with_the_cosignature_and_offline(
    witness: WitnessServer, tmp_path: Path
) -> None:
    access = organization()
    grow(access), growing.grow()
    witnesses.submit_to_all()
    path = tmp_path / "witnessed.tlog-proof"
    path.write_bytes(proofs.platform_proof(access))
    said = verify_file(path, [platform_key()], [COSIGNER.key])
    assert f"/log/{access.org_id} is in " in said
    assert said.endswith("cosigned by witness.example/w1")
    path.write_bytes(path.read_bytes().replace(b"extra ", b"extra AAAA"))
    with pytest.raises(VerifyError):
        verify_file(path, [platform_key()])


@pytest.mark.django_db
def test_a_witness_far_behind_still_proves_the_newest_checkpoint_that_it_has_seen(witness: WitnessServer) -> None:
    access = organization()
    grow(access)
    witnesses.submit_to_all()
    with platform_scope():
        seen = tables.last_cosigned(CHECKPOINT_LOG)
        first = tables.newest_within(access.org_id, seen.size if seen else 0)
    for _ in range(25):
        grow(access)
    proof = parse_proof(proofs.platform_proof(access))
    assert first is not None
    assert proof.extra == first.note
    open_checkpoint(proof.checkpoint, [platform_key()], [COSIGNER.key])


@pytest.mark.django_db
def test_of_several_witnesses_a_checkpoint_is_preferred_that_all_have_cosigned(witness: WitnessServer) -> None:
    """The second witness has cosigned the first checkpoint alone, and is gone for good after 20 more."""
    access = organization()
    grow(access)
    witnesses.submit_to_all()
    with platform_scope():
        first = tables.last_cosigned(CHECKPOINT_LOG)
        assert first is not None
        tables.add_cosignature(CHECKPOINT_LOG, first.size, "another", b"line")
    grow(access)
    witnesses.submit_to_all()
    with platform_scope():
        assert tables.last_cosigned(CHECKPOINT_LOG) == first
        for _ in range(20):
            grow(access)
            newest = tables.last_checkpoint(CHECKPOINT_LOG)
            assert newest is not None
            tables.add_cosignature(CHECKPOINT_LOG, newest.size, COSIGNER.key.vkey, b"line")
        assert tables.last_cosigned(CHECKPOINT_LOG) == newest


@pytest.mark.django_db
def test_a_witness_that_has_seen_more_than_we_know_is_asked_once_more(witness: WitnessServer) -> None:
    access = organization()
    grow(access)
    witnesses.submit_to_all()
    with platform_scope():
        last = tables.last_checkpoint(CHECKPOINT_LOG)
    grow(access)
    assert last is not None
    witness.state.put(growing_origin(), last.size, last.root)
    assert witnesses.submit_to_all() == 1


@pytest.mark.django_db
def test_an_answer_that_was_lost_is_no_alarm_and_the_cosignature_comes_with_the_next_round(
    witness: WitnessServer,
) -> None:
    """The witness has stored and cosigned exactly the newest checkpoint; nobody here has noted it."""
    grow(organization())
    with platform_scope():
        last = tables.last_checkpoint(CHECKPOINT_LOG)
    assert last is not None
    witness.state.put(growing_origin(), last.size, last.root)
    assert witnesses.submit_to_all() == 1
    assert said(kinds.LOG_CONFLICT) == said(kinds.LOG_WITNESS_FAILED) == []


@pytest.mark.django_db
def test_a_witness_that_has_seen_another_tree_of_the_same_size_is_an_alarm(witness: WitnessServer) -> None:
    grow(organization())
    with platform_scope():
        last = tables.last_checkpoint(CHECKPOINT_LOG)
    assert last is not None
    witness.state.put(growing_origin(), last.size, bytes(32))
    assert witnesses.submit_to_all() == 0
    assert said(kinds.LOG_CONFLICT) == [f"it has seen other {last.size} checkpoints than those here"]


def growing_origin() -> str:
    """The origin of the log of checkpoints."""
    return platform_key().name


@pytest.mark.django_db(transaction=True)
def test_a_forked_and_a_rolled_back_database_are_refused_and_say_so(
    witness: WitnessServer, databases: Databases
) -> None:
    access = organization()
    grow(access), grow(access)
    assert witnesses.submit_to_all() == 1
    origin = growing_origin()
    size, root = witness.state.latest(origin) or (0, b"")
    grow(access)
    witness.state.put(origin, size, bytes(32))
    assert witnesses.submit_to_all() == 0
    assert said(kinds.LOG_CONFLICT) == [f"what is here does not continue the {size} checkpoints that it has seen"]
    with databases.admin() as admin:
        admin.execute("DELETE FROM audit_event WHERE kind = 'log.conflict'")
    witness.state.put(origin, size + 1_000, root)
    assert witnesses.submit_to_all() == 0
    [problem] = said(kinds.LOG_CONFLICT)
    assert problem.startswith(f"it has seen {size + 1_000} checkpoints")


def _raw(status: int, body: bytes) -> Answering:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def _foreign(handler: http.server.BaseHTTPRequestHandler) -> None:
    _raw(200, COSIGNER.line(b"another text\n", at=1))(handler)


def _hang(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.connection.settimeout(5)
    handler.connection.recv(65_536)
    while handler.connection.recv(65_536):
        pass


def _drip(handler: http.server.BaseHTTPRequestHandler) -> None:
    """Send a byte of a header now and then: no read ever takes long."""
    with suppress(OSError):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(50):
            handler.wfile.write(b"x")
            time.sleep(0.1)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("answering", "problem"),
    [
        (_raw(200, b"nothing\n"), "does not verify"),
        (_raw(200, b"\xff\xff\n"), "does not verify"),
        (_foreign, "does not verify"),
        (_raw(200, "— other AAAAAAAA\n".encode()), "no cosignature of its key"),
        (_raw(409, b"many\n"), "409 without a size"),
        (_raw(409, b"0\n"), "409 to the size that it has named itself"),
        (_raw(302, b""), "it answers 302"),
        (_raw(500, b""), "it answers 500"),
        (_raw(200, b"x" * 70_000), "too long"),
        (_hang, "not answered within 0.3 s"),
        (_drip, "not answered within 0.3 s"),
    ],
)
def test_a_witness_that_lies_hangs_or_is_broken_is_bounded_and_said(
    place: Path, monkeypatch: pytest.MonkeyPatch, answering: Answering, problem: str
) -> None:
    if answering in {_hang, _drip}:
        monkeypatch.setattr(witnesses, "SECONDS", 0.3)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answering(self)

        def log_message(self, *_: object) -> None:
            pass

    access = organization()
    grow(access)
    for _ in _serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler), place):
        assert witnesses.submit_to_all() == 0
        assert witnesses.submit_to_all() == 0
    [found] = said(kinds.LOG_WITNESS_FAILED)
    assert problem in found
    assert growing.grow() >= 0


@pytest.mark.django_db
def test_the_server_keeps_to_its_bounds_and_survives_a_restart(witness: WitnessServer, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{witness.server_address[1]}"
    with httpx.Client(trust_env=False) as client:
        assert client.post(f"{url}/elsewhere").status_code == 404
        assert client.post(f"{url}/add-checkpoint", content=b"x" * 70_000).status_code == 400
        assert client.post(f"{url}/add-checkpoint", content=b"old 0\n\n").status_code == 400
        assert client.get(f"{url}/add-checkpoint").status_code == 501
    for length in ("9" * 5_000, "-1", "+1", "1_0"):
        with socket.create_connection(("127.0.0.1", witness.server_address[1]), timeout=5) as raw:
            raw.sendall(f"POST /add-checkpoint HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
            assert raw.recv(100).startswith(b"HTTP/1.1 400 ")
    access = organization()
    grow(access)
    witnesses.submit_to_all()
    with pytest.raises(InUseError, match="another witness runs with"):
        WitnessState(tmp_path / "seen.json")
    witness.state.close()
    assert WitnessState(tmp_path / "seen.json").latest(growing_origin()) == witness.state.latest(growing_origin())
    assert witness.state.latest(growing_origin()) is not None


@pytest.mark.django_db
def test_a_list_of_witnesses_that_cannot_be_read_is_said(place: Path) -> None:
    grow(organization())
    place.write_text("https://witness.example nonsense\n")
    assert witnesses.submit_to_all() == 0
    [problem] = said(kinds.LOG_WITNESS_FAILED)
    assert problem.startswith("the list of witnesses cannot be read")


def test_the_commands_serve_a_witness_and_list_it_once(tmp_path: Path) -> None:
    log = Signer("log.example/log/checkpoints", Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)).key.vkey
    command = [sys.executable, "-m", "cloudsignal.cli", "audit", "witness", "serve", "--data", str(tmp_path / "w"),
               "--name", "witness.example/w2", "--log", log, "--listen", "127.0.0.1:0"]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT) as process:
        assert process.stdout is not None
        url, vkey = process.stdout.readline().split()
        with httpx.Client(trust_env=False) as client:
            assert client.post(f"{url}/add-checkpoint", content=EXAMPLE.encode()).status_code == 404
        process.terminate()
    assert (tmp_path / "w" / "key").stat().st_mode & 0o077 == 0
    path = tmp_path / "list"
    add = ("audit", "witness", "add")
    assert program(*add, url, vkey, "--file", str(path)).code == 0
    assert path.read_text() == f"{url} {vkey}\n"
    assert "already" in program(*add, url, vkey, "--file", str(path)).errors
    assert "not the verifier key of a witness" in program(*add, url, log, "--file", str(path)).errors
    assert "https://" in program(*add, "http://example.com", vkey, "--file", str(path)).errors
    open_to_all = program("audit", "witness", "serve", "--data", str(tmp_path), "--name", "w", "--log", log,
                          "--listen", "0.0.0.0:0")  # fmt: skip
    assert "only a loopback or private address" in open_to_all.errors
