"""TLS between the socket and the session: records cut anywhere, packed together, broken, and the goodbye."""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest
import uvloop

from cloudsignal.edge.codec import Connect, Kind, encode_connect, encode_publish
from cloudsignal.edge.codec.packets import Publish
from cloudsignal.edge.transport.certificates import server_context
from cloudsignal.edge.transport.connection import Client
from cloudsignal.edge.transport.tls_transport import SecureTransport
from tests.support.parts import Authority, Issued, wait_for
from tests.support.rig import Rig

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


class Peer:
    """A client that decides how its TLS bytes are cut."""

    def __init__(self, rig: Rig, version: ssl.TLSVersion, *, session: ssl.SSLSession | None = None) -> None:
        self.context = rig.authority.client_context()
        self.context.maximum_version = version
        self.sock = socket.create_connection(("127.0.0.1", rig.edge.port), timeout=20)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = self.context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost", session=session)

    def shake(self, *, piece: int = 0, behind: bytes = b"") -> None:
        """Shake hands in pieces of so many bytes; ``behind`` leaves together with the last flight."""
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self.flush(piece)
                self.incoming.write(self.sock.recv(65_536))
                continue
            if behind:
                self.tls.write(behind)
            self.flush(piece)
            return

    def flush(self, piece: int = 0) -> None:
        data = self.outgoing.read()
        for start in range(0, len(data), piece or len(data) or 1):
            self.sock.sendall(data[start : start + (piece or len(data))])

    def read(self, count: int) -> bytes:
        """At least so many bytes of plaintext; less when the edge says goodbye properly."""
        found = b""
        while len(found) < count:
            try:
                part = self.tls.read(65_536)
            except ssl.SSLWantReadError:
                data = self.sock.recv(65_536)
                if not data:
                    raise ConnectionResetError("the edge left without close_notify") from None
                self.incoming.write(data)
                continue
            except ssl.SSLZeroReturnError:
                return found
            if not part:
                return found
            found += part
        return found

    def sign_in(self, issued: Issued, *, piece: int = 0, client_id: str = "s") -> None:
        connect = Connect(4, client_id, username=issued.username, password=issued.password.encode())
        self.shake(piece=piece, behind=encode_connect(connect))
        assert self.read(4) == b"\x20\x02\0\0"


@pytest.fixture
def issued(rig: Rig) -> Issued:
    return rig.plane.issue(rig.org())


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("piece", [1, 7, 0])
def test_a_handshake_may_be_cut_anywhere_and_connect_may_come_with_it(
    rig: Rig, issued: Issued, version: ssl.TLSVersion, piece: int
) -> None:
    peer = Peer(rig, version)
    peer.sign_in(issued, piece=piece)
    peer.tls.write(bytes([Kind.PINGREQ, 0]))
    peer.flush(piece)
    assert peer.read(2) == bytes([Kind.PINGRESP, 0])


def test_many_records_in_one_segment_are_all_worked_off_in_order(rig: Rig, issued: Issued) -> None:
    peer = Peer(rig, ssl.TLSVersion.TLSv1_3)
    peer.sign_in(issued)
    for packet_id in range(1, 401):
        peer.tls.write(encode_publish(Publish(b"a/b", b"x" * 700, qos=1, packet_id=packet_id), 4))
    peer.flush()
    acknowledged = b"".join(bytes([Kind.PUBACK, 2]) + n.to_bytes(2, "big") for n in range(1, 401))
    assert peer.read(len(acknowledged)) == acknowledged


def test_a_packet_larger_than_a_record_and_than_a_read_arrives_whole(rig: Rig, issued: Issued) -> None:
    reader = rig.client(issued, client_id="reader")
    reader.subscribe("big")
    peer = Peer(rig, ssl.TLSVersion.TLSv1_3)
    peer.sign_in(issued)
    payload = bytes(range(256)) * 900
    peer.tls.write(encode_publish(Publish(b"big", payload), 4))
    peer.flush()
    assert reader.delivery().payload == payload


@pytest.mark.parametrize("damage", [b"\x17\x03\x03\0\x20" + b"x" * 32, b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64])
def test_a_damaged_record_ends_the_session_and_nothing_of_it_is_believed(
    rig: Rig, issued: Issued, damage: bytes
) -> None:
    peer = Peer(rig, ssl.TLSVersion.TLSv1_3)
    peer.sign_in(issued)
    peer.sock.sendall(damage)
    with pytest.raises((ConnectionResetError, ssl.SSLError)):
        peer.read(1)
    ended = wait_for(lambda: rig.plane.events(org=issued.org, kind="disconnect"), what="the end of the session")
    assert [event.reason for event in ended] == ["lost"]


@pytest.mark.parametrize("version", VERSIONS)
def test_close_notify_of_the_client_ends_the_session_though_its_socket_stays_open(
    rig: Rig, issued: Issued, version: ssl.TLSVersion
) -> None:
    peer = Peer(rig, version)
    peer.sign_in(issued)
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.flush()
    wait_for(lambda: rig.plane.events(org=issued.org, kind="disconnect", reason="lost"), what="the end of the session")


def test_what_came_before_close_notify_is_worked_off_to_the_last_packet(rig: Rig, issued: Issued) -> None:
    """More topics than one turn works off, the goodbye of MQTT and that of TLS, all in one read."""
    peer = Peer(rig, ssl.TLSVersion.TLSv1_3)
    peer.sign_in(issued)
    messages = [encode_publish(Publish(b"t/%d" % n, b"x"), 4) for n in range(1_000)]
    peer.tls.write(b"".join([*messages, bytes([Kind.DISCONNECT, 0])]))
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.flush()
    event = rig.plane.event(org=issued.org, kind="disconnect")
    assert (event.reason, event.details["messages_in"]) == ("clean", 1_000)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_edge_says_goodbye_before_it_closes(rig: Rig, issued: Issued, version: ssl.TLSVersion) -> None:
    peer = Peer(rig, version)
    peer.sign_in(issued)
    rig.plane.revoke(issued)
    assert peer.read(1) == b""
    assert peer.sock.recv(1) == b"", "the socket is closed after close_notify"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_can_be_resumed_with_the_one_ticket_there_is(
    rig: Rig, issued: Issued, version: ssl.TLSVersion
) -> None:
    context = rig.authority.client_context()
    context.maximum_version = version
    session = None
    for expected in (False, True):
        raw = socket.create_connection(("127.0.0.1", rig.edge.port), timeout=20)
        tls = context.wrap_socket(raw, server_hostname="localhost", session=session)
        connect = Connect(4, "t", username=issued.username, password=issued.password.encode())
        tls.sendall(encode_connect(connect))
        assert tls.recv(4) == b"\x20\x02\0\0"
        assert tls.session_reused is expected
        session = tls.session
        tls.close()


def test_a_client_that_keeps_its_socket_open_after_the_goodbye_is_let_go(rig: Rig, issued: Issued) -> None:
    peer = Peer(rig, ssl.TLSVersion.TLSv1_3)
    peer.sign_in(issued)
    rig.plane.revoke(issued)
    assert peer.read(1) == b""

    def aborted() -> bool:
        try:
            peer.sock.sendall(b"x" * 1_000)
        except ConnectionError:
            return True
        return False

    wait_for(aborted, what="the end of what is left of the connection")


class Told:
    """A client that notes what it is told, and reads no more once it is to yield its turn."""

    def __init__(self, told: list[str]) -> None:
        self.told = told

    def connection_made(self, transport: SecureTransport) -> None:
        self.transport = transport
        transport.pause_reading()

    def take(self, data: bytes) -> None:
        self.told.append("take")

    def yield_turn(self) -> None:
        self.told.append("yield")
        self.transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None: ...


def test_a_client_yields_its_turn_after_a_full_read(tmp_path: Path) -> None:
    """Behind it more is waiting: the loop would read on 32 times before it looks at anybody else."""
    told: list[str] = []
    authority = Authority(tmp_path)
    context = server_context(*authority.issue(tmp_path / "edge", "localhost"))

    def dial(port: int) -> ssl.SSLSocket:
        sock = socket.create_connection(("127.0.0.1", port))
        return authority.client_context().wrap_socket(sock, server_hostname="localhost")

    async def play() -> None:
        made = SecureTransport(context, lambda: cast(Client, Told(told)))
        server = await asyncio.get_running_loop().create_server(lambda: made, "127.0.0.1", 0)
        wire = await asyncio.to_thread(dial, server.sockets[0].getsockname()[1])
        await made.ready
        sending = asyncio.create_task(asyncio.to_thread(wire.sendall, bytes(1024 * 1024)))
        rounds = []
        for _ in range(3):
            made.resume_reading()
            while told[-1:] != ["yield"]:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            rounds.append(told.copy())
            told.clear()
        made.abort()
        server.close()
        with suppress(OSError):
            await sending
        assert all(told.count("yield") == 1 for told in rounds), rounds

    uvloop.run(play())
