"""Which ports are handed out, and what is said about one that is taken."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from cloudsignal.supervisor.errors import StartError
from cloudsignal.supervisor.ports import PRIVATE_RANGE, Ports, holder, is_free

HOST = "127.0.0.1"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port somebody listens on."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        yield listener.getsockname()[1]


def public(wanted: int | None, usual: int, ports: Ports | None = None) -> int:
    return (ports or Ports()).public(wanted=wanted, usual=usual, host=HOST, what="the dashboard", option="--web-port")


def test_a_taken_usual_port_gives_the_next_free_one(taken: int) -> None:
    ports = Ports()
    found = public(None, taken, ports)
    assert taken < found <= taken + 200
    assert is_free(found)
    assert len(ports.notes) == 1
    assert f"port {taken} is taken by" in ports.notes[0]
    assert f"the dashboard uses {found}" in ports.notes[0]


def test_a_taken_port_that_was_asked_for_is_refused_with_its_holder(taken: int) -> None:
    with pytest.raises(StartError, match=rf"port {taken} for the dashboard .*process {os.getpid()}.*--web-port"):
        public(taken, 8000)


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
