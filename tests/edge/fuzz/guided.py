"""A fuzzer led by coverage (Atheris, libFuzzer): ``python -m tests.edge.fuzz.guided FOLDER -max_total_time=60``.

Each input is one connection: what it is (client or broker, version, how the bytes are cut), then its bytes. What must
hold is what ``test_parser`` asks of damaged streams: no exception, whole packets out, an end that has said why.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["cloudsignal.edge"]):
    from cloudsignal.edge import codec
    from cloudsignal.edge.codec import ProtocolError
    from cloudsignal.edge.session.context import Phase
    from cloudsignal.edge.session.machine import Session
    from cloudsignal.edge.transport.proxy_protocol import HEADER, ProxyError, parse, variable_length
from cloudsignal.edge.audit.events import Origin
from tests.edge.fuzz.streams import broker_packet, check_end, client_packet, connect_packet, live_session, welcome
from tests.support.trail import ListSink

HEAD = 2
"""Bytes of an input that say what it is."""


def pieces(data: bytes, size: int) -> list[bytes]:
    """``data`` in pieces of ``size`` bytes; 0: whole."""
    return [data[at : at + size] for at in range(0, len(data), size)] if size else [data]


def client(data: bytes, version: int, size: int) -> None:
    """A signed-in client sends this."""
    session, sink = live_session(version, random.Random(7))
    for piece in pieces(data, size):
        session.client_received(piece)
        while session.unread and not session.ended:
            session.client_received(b"")
    check_end(session, sink, version)


def broker(data: bytes, version: int, size: int) -> None:
    """The broker sends this, behind an answer to something that was asked."""
    session, _ = live_session(version, random.Random(7))
    session.client_received(codec.encode_subscribe(codec.Subscribe(1, [codec.Subscription(b"a/#", 1)]), version))
    for piece in pieces(data, size):
        session.broker_received(piece)


def connect(data: bytes, version: int, size: int) -> None:
    """A stranger sends this; ``version`` has no say in it."""
    session = Session(Origin("127.0.0.1", 1, "mqtts"), sink := ListSink())
    for piece in pieces(data, size):
        session.client_received(piece)
    if session.phase is Phase.SIGNING_IN:
        welcome(session)
    if session.ended:
        assert sink.events[-1].kind in {"auth_failed", "acl_denied"}


def terminator(data: bytes, version: int, size: int) -> None:
    """Something in front sends this as its PROXY header."""
    header, rest = data[:HEADER], data[HEADER:]
    try:
        parse(header, rest[: variable_length(header)])
    except ProxyError:
        return


ROLES = (client, client, broker, connect, terminator)


def one_input(data: bytes) -> None:
    """Run one input."""
    if len(data) >= HEAD:
        role, size = ROLES[(data[0] >> 1) % len(ROLES)], data[1] % 24
        try:
            role(data[HEAD:], 4 + (data[0] & 1), size)
        except ProtocolError as error:
            raise AssertionError("a protocol error got out") from error


def seeds(folder: Path) -> None:
    """Valid streams to start from."""
    rng = random.Random(1)
    for number in range(200):
        version, role = rng.choice((4, 5)), rng.randrange(4)
        make = (client_packet, client_packet, broker_packet)
        body = connect_packet(rng, version) if role == 3 else b"".join(make[role](rng, version) for _ in range(4))
        head = bytes([role << 1 | (version == 5), rng.choice((0, 0, 1, 7))])
        (folder / f"seed{number}").write_bytes(head + body)


if __name__ == "__main__":
    seeds(Path(sys.argv[1]))
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()
