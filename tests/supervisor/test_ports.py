"""Which ports are handed out, and what is said about one that is taken."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from cloudsignal.supervisor import ports as ports_module
from cloudsignal.supervisor.errors import StartError
from cloudsignal.supervisor.ports import PRIVATE_RANGE, Ports, holder, localhost

HOST = "127.0.0.1"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port somebody listens on."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.fixture
def taken_beside() -> Iterator[int]:
    """A port somebody listens on at ::1 alone: ``localhost`` may lead there first."""
    with socket.socket(socket.AF_INET6) as listener:
        listener.bind(("::1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def public(wanted: int | None, usual: int, ports: Ports | None = None, host: str = HOST) -> int:
    return (ports or Ports()).public(wanted=wanted, usual=usual, host=host, what="the dashboard", option="--web-port")


def test_a_taken_usual_port_gives_the_next_free_one(taken: int) -> None:
    ports = Ports()
    found = public(None, taken, ports)
    assert taken < found <= taken + 200
    socket.create_server((HOST, found)).close()
    assert len(ports.notes) == 1
    assert f"port {taken} is taken by" in ports.notes[0]
    assert f"the dashboard uses {found}" in ports.notes[0]


def test_a_taken_port_that_was_asked_for_is_refused_with_its_holder(taken: int) -> None:
    with pytest.raises(StartError, match=rf"port {taken} for the dashboard .*process {os.getpid()}.*--web-port"):
        public(taken, 8000)


@pytest.mark.parametrize("host", [HOST, "0.0.0.0"])  # noqa: S104
def test_a_port_where_localhost_could_lead_to_somebody_else_is_not_given(host: str, taken_beside: int) -> None:
    assert public(None, taken_beside, host=host) > taken_beside
    with pytest.raises(StartError, match=rf"port {taken_beside} for the dashboard .*process {os.getpid()}"):
        public(taken_beside, 8000, host=host)


def test_nobody_can_come_to_answer_as_localhost_and_who_tries_is_sent_on(taken_beside: int) -> None:
    ports = Ports()
    given = public(None, taken_beside, ports)
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("::1", given), family=socket.AF_INET6)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("::1", given))
    with socket.create_server((HOST, given)), socket.create_connection(("localhost", given)) as met:
        assert met.getpeername()[1] == given


def test_a_machine_that_knows_one_kind_of_address_only_has_ports_all_the_same(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports_module, "LOOPBACK", (HOST, "2001:db8::1"))
    given = public(None, taken)
    socket.create_server((HOST, given)).close()


@pytest.mark.parametrize(
    ("known", "address"),
    [(["127.0.0.1"], "127.0.0.1"), (["::1", "127.0.0.1"], "127.0.0.1"), (["::1"], "::1"), ([], "127.0.0.1")],
)
def test_the_dashboard_listens_where_localhost_leads(
    known: list[str], address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resolve(*_: object, **__: object) -> list[object]:
        if not known:
            raise socket.gaierror
        return [(0, 0, 0, "", (each, 0)) for each in known]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert localhost() == address


@pytest.mark.parametrize("host", ["8.8.8.8", "2001:db8::1"])
@pytest.mark.parametrize("wanted", [None, 0, 18883])
def test_an_address_that_is_not_of_this_machine_is_told_as_such(host: str, wanted: int | None) -> None:
    with pytest.raises(StartError, match=rf"the dashboard cannot listen on .* of {host}: .*--listen"):
        public(wanted, 8883, host=host)


def test_a_free_port_that_was_asked_for_is_given() -> None:
    free = Ports().private()
    assert public(free, 8000) == free


def test_zero_gives_any_free_port_outside_the_ephemeral_range() -> None:
    assert public(0, 8000) in PRIVATE_RANGE


def test_no_port_is_given_twice() -> None:
    ports = Ports()
    first = public(0, 8000, ports)
    with pytest.raises(StartError, match=str(first)):
        public(first, 8000, ports)
    assert public(None, first, ports) != first


def test_the_last_port_is_given_again_unless_it_is_taken(taken: int) -> None:
    free = Ports().private()
    assert Ports().private(last=free) == free
    assert Ports().private(last=taken) != taken
    assert Ports().private(last="not a port") in PRIVATE_RANGE


def test_a_free_port_has_no_holder() -> None:
    assert holder(Ports().private()) == "another program"
