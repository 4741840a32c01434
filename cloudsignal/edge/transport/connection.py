"""The client's and the broker's socket of one session: the only I/O on the data path.

Every read is handed to the session as one ``bytes``; what follows is written with one ``write`` per side, after the
journal has been flushed. One buffer serves all reads of the process: it is copied out before a callback returns.

The module is longer than others because client and broker side pause and resume each other: apart, each would need
half of the other.
"""
# Over 400 lines: what either socket may do depends on what waits at the other, so both are read together.

from __future__ import annotations

import asyncio
import ssl
import time
from itertools import pairwise
from typing import Protocol, cast

from audit.kinds import AuthReason, CloseCause
from cloudsignal.config import Upstream
from cloudsignal.edge.audit.events import Origin
from cloudsignal.edge.audit.journal import Journal
from cloudsignal.edge.codec import Kind
from cloudsignal.edge.session.context import Phase
from cloudsignal.edge.session.machine import Session
from cloudsignal.edge.session.responses import normal_disconnect
from cloudsignal.edge.transport.admission import Place
from cloudsignal.edge.transport.turns import Turns

READ_BUFFER = memoryview(bytearray(262_144))
"""Shared buffer for every read of every session, decrypted; a callback copies its bytes before it returns."""


ANSWER_BACKLOG = 256 * 1024
"""Bytes of input and answers of a client that does not read, above which reading from it pauses."""

UNREAD_MAX = 1024 * 1024
"""Bytes waiting for a client, above which QoS 0 messages to it are dropped until it has caught up."""

UNREAD_LEAST = 256 * 1024
"""Bytes that may wait for a client when its organization has no room for more."""

LINGER = 3.0
"""Seconds a client may take to read the last bytes before its connection is aborted."""

BROKER_LINGER = 30.0
"""The same for a node of the broker, which may have much to read before it comes to the client's DISCONNECT."""

PING = bytes([Kind.PINGREQ, 0])

_LIVE = Phase.LIVE  # looking it up in the enumeration costs as much as a call
_LISTENING = (Phase.LIVE, Phase.NEW)
"""In between the client waits for its answer, and is not read from."""


class Host(Protocol):
    """Interface of the process that a connection runs in (:class:`cloudsignal.edge.node.Node`)."""

    name: str
    upstream: Upstream
    journal: Journal
    turns: Turns

    def opened(self, client: Client) -> None:
        """A TLS handshake is done."""

    async def sign_in(self, client: Client) -> None:
        """Sign the client in after its CONNECT: connect to the broker, or refuse the session."""

    def signed_in(self, client: Client) -> None:
        """The client has its CONNACK."""

    def broker_lost(self, client: Client) -> None:
        """The broker has closed a session that had not ended."""

    def closed(self, client: Client, ip: str) -> None:
        """The client's socket is gone."""

    def count(self, name: str, by: int = 1) -> None:
        """Raise a counter of the heartbeat and the metrics."""


class Client(asyncio.BufferedProtocol):
    """The connection with the client."""

    __slots__ = (
        "_answers",
        "_blocked",
        "_closing",
        "_ip",
        "_late",
        "_linger",
        "_owed",
        "_queued",
        "_task",
        "_unread",
        "broker",
        "host",
        "place",
        "session",
        "transport",
    )

    transport: asyncio.Transport
    session: Session

    def __init__(self, host: Host, origin: Origin, place: Place) -> None:
        self.host = host
        self.broker: Broker | None = None
        self.place = place
        """Its place among the connections that have not sent CONNECT."""
        self._closing = False
        self._blocked = False
        """Whether more than the transport's high-water mark (64 KiB) waits for the client."""
        self._answers = 0
        """Bytes of input, and of answers to it, since ``_blocked`` was set."""
        self._unread = 0
        """Unread bytes that are counted against the organization."""
        self._queued = False
        """Whether the session waits for its turn; reading from client and broker is paused."""
        self._late = self._owed = b""
        """Bytes from the client and from the broker that wait for the session's turn."""
        self._task: asyncio.Task[None] | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._ip = origin.ip
        self.session = Session(origin, host.journal, node=host.name, upstream=host.upstream)

    # --- asyncio's side ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The TLS handshake is done."""
        self.transport = cast(asyncio.Transport, transport)
        tls = transport.get_extra_info("ssl_object")
        if isinstance(tls, ssl.SSLObject):
            origin = self.session.origin
            cipher = tls.cipher()
            self.session.origin = Origin(
                origin.ip, origin.port, origin.transport, tls.version() or "", cipher[0] if cipher else ""
            )
        self.host.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport puts what it reads."""
        return READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes from the client."""
        self.take(READ_BUFFER[:nbytes].tobytes())
        if nbytes == len(READ_BUFFER):
            self.yield_turn()

    def take(self, data: bytes) -> None:
        """Pass on bytes of the client, decrypted."""
        self.received(data)

    def eof_received(self) -> bool:
        """The client will send nothing more: MQTT has no half-closed connections."""
        return False

    def pause_writing(self) -> None:
        """The client reads too slowly. The broker is read on: it would queue QoS 0 messages without a bound."""
        self._blocked = True

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._blocked = self.session.shedding = False
        self._answers = 0
        self._settle_unread()
        self.read_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client's socket is gone."""
        if self._late and not self._closing:
            self.session.client_received(self._late)  # it may have said goodbye
        self.session.client_lost()
        self._closing = True
        self._settle_unread()
        self.place.leave()
        self.pump()
        if self._task is not None:
            self._task.cancel()
        if self.broker is not None:
            self.broker.close()
            self.broker = None
        if self._linger is not None:
            self._linger.cancel()
        self.host.closed(self, self._ip)
        self.session.release()

    # --- our side ------------------------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """MQTT bytes from the client."""
        if self._closing:
            return
        session = self.session
        if session.phase is _LIVE and (self._queued or session.org.waiting or self.host.turns.crowded_out(session.org)):
            self._late += data
            session.heard_at = time.time()
            self._queue()
            return
        if self._blocked:
            self._hear(data)
        else:
            session.client_received(data)
            self.pump()
        if session.unread:
            self.yield_turn()

    def _hear(self, data: bytes) -> None:
        """Process bytes from the client, and count the answers that it does not read."""
        session = self.session
        waited = self.transport.get_write_buffer_size() if self._blocked else 0
        session.client_received(data)
        self.pump()
        if self._blocked:
            self._answers += len(data) + max(0, self.transport.get_write_buffer_size() - waited)
            if self.deaf:
                session.shedding = True  # so that it catches up, and is read from again
                pause(self.transport)

    @property
    def deaf(self) -> bool:
        """Whether the client keeps sending without reading the answers.

        Messages that it has not read do not count: it must be heard to acknowledge them, and to be known alive.
        """
        waiting = self._blocked and self._answers > ANSWER_BACKLOG
        return waiting and self.transport.get_write_buffer_size() > ANSWER_BACKLOG

    def _weigh(self) -> None:
        """Count what the client has not read against its organization; drop QoS 0 messages beyond the bounds.

        Those of QoS 1 and 2 end by themselves: the broker waits for acknowledgements
        (:data:`cloudsignal.edge.session.mountpoint.IN_FLIGHT`).
        """
        session = self.session
        purse = session.org.unread
        self._settle_unread()
        size = self.transport.get_write_buffer_size()
        if purse.take(size):
            self._unread = size
        elif size > UNREAD_LEAST:
            # What is on its way with QoS 1 and 2 is not lost: the broker sends it again to a session that is kept.
            session.limit_reached("unread_bytes")
            session.end(CloseCause.QUOTA)
        if size > UNREAD_MAX or purse.scarce:
            session.shedding = True

    def _settle_unread(self) -> None:
        if self._unread:
            self.session.org.unread.give(self._unread)
            self._unread = 0

    def delivered(self, data: bytes) -> None:
        """MQTT bytes from the broker."""
        session = self.session
        if self._blocked:
            self._weigh()
        if session.phase is _LIVE and (self._queued or session.org.waiting or self.host.turns.crowded_out(session.org)):
            self._owed += data
            self._queue()
            return
        session.broker_received(data)
        self.pump()
        if session.owed:
            self.yield_turn()

    def settle(self) -> None:
        """Process what the broker sent before it closed."""
        session = self.session
        while not self._closing and (self._owed or session.owed):
            owed, self._owed = self._owed, b""
            session.broker_received(owed)
            self.pump()

    def yield_turn(self) -> None:
        """Let other sessions go first: the last read cost a turn, or filled the buffer.

        Behind a full one more is waiting, and the loop would read on up to 32 times before it looks at anybody else.
        """
        if self.session.phase is _LIVE and not self._closing:
            self._wait()

    def _queue(self) -> None:
        """Let what was just read come behind others: those of its organization that wait, or other organizations.

        Reading is not paused for one read, which would cost as much as many messages; it is for the second.
        """
        if self._queued:
            self._wait()
        else:
            self._queued = True
            self.host.turns.wait(self.session.org, self._go_on)

    def _wait(self) -> None:
        """Pause reading from both sides until the session has had its turn."""
        pause(self.transport)
        if self.broker is not None and self.broker.transport is not None:
            pause(self.broker.transport)
        if not self._queued:
            self._queued = True
            self.host.turns.wait(self.session.org, self._go_on)

    def _go_on(self) -> None:
        """Take the turn waited for; a failure in it ends the connection, as one in a read does."""
        self._queued = False
        if self._closing:
            return
        try:
            self._take_turn()
        except Exception:
            self.abort()
            raise

    def _take_turn(self) -> None:
        """Process the next part of what was received; resume reading when nothing is left."""
        session = self.session
        late, self._late = self._late, b""
        if late or session.unread:
            self._hear(late)
        owed, self._owed = self._owed, b""
        if owed or session.owed:
            session.broker_received(owed)
        self.pump()
        if session.ended:
            return
        if session.unread or session.owed:
            self._wait()
            return
        self.read_on()
        if self.broker is not None and self.broker.transport is not None:
            resume(self.broker.transport)

    def read_on(self) -> None:
        """Resume reading from the client unless there is another reason to pause."""
        blocked = self.broker is not None and self.broker.blocked
        if self.session.phase in _LISTENING and not (self._queued or self.deaf or blocked):
            resume(self.transport)

    def send(self, data: bytes) -> None:
        """Write MQTT bytes to the client."""
        self.transport.write(data)

    def pump(self) -> None:
        """Flush the journal, then write the session's output; start sign-in or close as the session requires."""
        session, broker = self.session, self.broker
        try:
            self.host.journal.flush()
        except OSError:
            self.host.count("journal_failures")
            if session.noted > self.host.journal.written:
                self.abort()  # what cannot be recorded is not answered
                return
        if session.to_broker and broker is not None and broker.transport is not None:
            data = b"".join(session.to_broker)
            session.to_broker.clear()
            broker.transport.write(data)
            broker.spoken = True
        if session.cuts:
            self._speak_apart(session)
        elif session.to_client:
            data = b"".join(session.to_client)
            session.to_client.clear()
            if data and not self.transport.is_closing():
                session.bytes_out += len(data)
                self.send(data)
        if session.ended:
            self.close()
        elif session.phase is _LIVE and self._task is None:
            return
        elif session.phase is Phase.SIGNING_IN and self._task is None:
            self.place.leave()
            pause(self.transport)
            self._task = asyncio.get_running_loop().create_task(self._sign_in())
        elif session.phase is _LIVE and self._task is not None:
            self._task = None
            self.read_on()
            self.host.signed_in(self)
            if session.unread:
                self._wait()

    def _speak_apart(self, session: Session) -> None:
        """Write the output for the client in several writes, divided at the session's ``cuts``."""
        parts = session.to_client
        for begin, end in pairwise([0, *session.cuts, len(parts)]):
            data = b"".join(parts[begin:end])
            if data and not self.transport.is_closing():
                session.bytes_out += len(data)
                self.send(data)
        parts.clear()
        session.cuts = ()

    async def _sign_in(self) -> None:
        await self.host.sign_in(self)
        if not self._closing:
            self.pump()

    def give_up(self) -> None:
        """Close a connection whose CONNECT has not arrived in time."""
        self.session.refuse(AuthReason.PROTOCOL, details={"text": "no CONNECT in time"})
        self.session.to_client.clear()
        self.pump()

    def close(self) -> None:
        """Close both sides once everything is written."""
        if self._closing:
            return
        self._closing = True
        self.place.leave()
        if self.broker is not None:
            self.broker.close()
        if not self.transport.is_closing():
            self.farewell()
            self.transport.close()
            self._linger = asyncio.get_running_loop().call_later(LINGER, self.abort)

    def farewell(self) -> None:
        """Send the transport's own closing message; plain TLS has none."""

    @property
    def broker_unread(self) -> bool:
        """Whether the broker is not read from for now, so that its silence says nothing."""
        return self._queued

    def abort(self) -> None:
        """Close both sides at once, whatever is still to be written."""
        self._closing = True
        self.transport.abort()
        if self.broker is not None:
            self.broker.close()


class Broker(asyncio.BufferedProtocol):
    """The connection with the broker."""

    __slots__ = (
        "_answered",
        "_client",
        "backlog",
        "blocked",
        "heard_at",
        "node",
        "pinged_at",
        "spoke_at",
        "spoken",
        "transport",
    )

    def __init__(self, client: Client, node: str = "") -> None:
        self._client = client
        self.node = node
        """The node of the broker, as people read it."""
        self.transport: asyncio.Transport | None = None
        self.blocked = False
        self.heard_at = self.spoke_at = time.time()
        """Times at which the node was last heard, and about last sent something, in seconds since the epoch."""
        self.spoken = False
        """Whether it was sent something since :attr:`spoke_at` was set."""
        self.pinged_at = 0.0
        """Time at which the edge asked the node for a sign of life."""
        self.backlog = 0
        """Bytes that waited for the node then."""
        self._answered: asyncio.Future[None] | None = None
        """Set when CONNECT has been answered; whoever has sent CONNECT waits for it."""

    async def answered(self, within: float) -> None:
        """Wait until the node has taken or declined the session, or is gone; at most so many seconds."""
        if self._undecided:
            loop = asyncio.get_running_loop()
            self._answered = loop.create_future()
            timer = loop.call_later(within, self._decide, True)
            try:
                await self._answered
            finally:
                timer.cancel()
                self._answered = None
        if self._undecided:
            await asyncio.sleep(0)  # this process may have been the slow one: what has arrived is read now

    @property
    def _undecided(self) -> bool:
        session = self._client.session
        return self.transport is not None and session.phase is Phase.CONNECTING and not session.declined

    def _decide(self, late: bool = False) -> None:
        """Tell who waits for the answer to CONNECT that it is here, or is not waited for any longer."""
        if self._answered is not None and not self._answered.done() and (late or not self._undecided):
            self._answered.set_result(None)

    def give_up(self) -> None:
        """Leave a node that has not taken the session: nothing of it is heard any more.

        Behind the CONNECT it gets a normal DISCONNECT: one that was frozen and reads both later publishes no will.
        """
        if self.transport is not None:
            self.transport.set_protocol(asyncio.Protocol())
            self.transport.write(normal_disconnect(self._client.session.version))
            self.close()
            self.transport = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The broker has accepted; CONNECT follows."""
        self.transport = cast(asyncio.Transport, transport)
        if self._client.session.ended:
            self.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the transport puts what it reads."""
        return READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes from the broker."""
        self.heard_at = time.time()
        self._client.delivered(READ_BUFFER[:nbytes].tobytes())
        if self._answered is not None:
            self._decide()
        if nbytes == len(READ_BUFFER):
            self._client.yield_turn()

    def pause_writing(self) -> None:
        """The broker reads too slowly: stop reading from the client."""
        self.blocked = True
        pause(self._client.transport)

    def resume_writing(self) -> None:
        """The broker has caught up."""
        self.blocked = False
        self._client.read_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """The broker's socket is gone."""
        self.transport = None
        self._client.settle()
        session = self._client.session
        if session.phase is Phase.CONNECTING:
            self._decide()  # another node may take it
        elif not session.ended:
            self.pause_writing()  # until it is known why, there is nobody to write to
            self._client.host.broker_lost(self._client)

    def ping(self, now: float) -> None:
        """Ask the node for a sign of life."""
        if self.transport is not None:
            self._client.session.own_pings += 1
            self.pinged_at = self.spoke_at = now
            self.backlog = self.transport.get_write_buffer_size()
            self.transport.write(PING)

    @property
    def reads(self) -> bool:
        """Whether the node has read some of what waited for it when it was pinged."""
        return self.transport is not None and self.transport.get_write_buffer_size() < self.backlog

    def close(self) -> None:
        """Close once everything queued is written; a node that does not read it is not waited for."""
        if self.transport is not None:
            self.transport.close()
            if self.transport.get_write_buffer_size():
                asyncio.get_running_loop().call_later(BROKER_LINGER, self.transport.abort)


def pause(transport: asyncio.Transport) -> None:
    """Pause reading, unless the transport is closing."""
    if not transport.is_closing():
        transport.pause_reading()


def resume(transport: asyncio.Transport) -> None:
    """Resume reading, unless the transport is closing."""
    if not transport.is_closing():
        transport.resume_reading()
