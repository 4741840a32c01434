"""One probe of one broker node: sign in as an edge does, ping, leave; and the result in plain words.

The probe takes the way of every session: the same socket or TLS context, the same username and client ID as a mount
gives them, in the name of an organization that no tenant can have (:data:`cloudsignal.ids.PROBE_ORG`). It subscribes to
nothing, stores nothing, and is bounded in time and in bytes, whatever the other side sends.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass

from cloudsignal.edge.broker.pool import BrokerNode, BrokerPool
from cloudsignal.edge.codec import (
    Connect,
    Kind,
    ProtocolError,
    Reason,
    decode_connack,
    disconnect,
    encode_connect,
)
from cloudsignal.ids import PROBE_ORG

WITHIN = 1.5
"""Seconds a whole probe may take."""

LISTEN = 0.5
"""Seconds of a probe to hear why the broker closes."""

SLOW_MS = 500.0
"""Milliseconds from which an answer counts as slow."""

PACKET_MAX = 65_536
"""Bytes of a packet that a probe reads: what claims to be longer is no answer to it."""

KEEP_ALIVE = 5
"""Seconds: should the edge's machine go, the broker forgets the probe soon."""

_PING = bytes([Kind.PINGREQ, 0])
_USE_ANOTHER = {0x9C: "use another server", 0x9D: "the server has moved"}
_ALERTS = (
    ("CERTIFICATE_REQUIRED", "it asks for a client certificate, and none is configured"),
    ("UNKNOWN_CA", "the broker does not know the authority that issued it"),
    ("CERTIFICATE_EXPIRED", "it has expired"),
    ("CERTIFICATE_REVOKED", "it was revoked"),
    ("BAD_CERTIFICATE", "it cannot be used"),
    ("UNSUPPORTED_CERTIFICATE", "it is of a kind that the broker does not take"),
    ("CERTIFICATE_UNKNOWN", "the broker does not accept it"),
    ("ACCESS_DENIED", "the broker does not accept it"),
    ("DECRYPT_ERROR", "its signature does not verify with the broker's authority"),
)
"""TLS alerts that speak of the edge's own certificate (RFC 8446 s6.2), as OpenSSL names them."""


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The result of one probe: a state of :data:`cloudsignal.wire.report.BROKER_STATES`, why, and the latency."""

    state: str
    why: str = ""
    latency_ms: float = -1.0

    @property
    def answered(self) -> bool:
        """Whether an edge can work with the node."""
        return self.state in {"reachable", "slow"}


def client_id(edge: str, label: str) -> str:
    """The client ID of an edge's probes of one node: always the same, so a broker remembers no more than one."""
    return f"{PROBE_ORG}:%probe-{edge}-{label}"


async def probe(pool: BrokerPool, node: BrokerNode, *, edge: str) -> ProbeResult:
    """Probe one node within :data:`WITHIN` seconds; never raises but for cancellation."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(WITHIN):
            await _ask(pool, node, edge)
    except (TimeoutError, OSError, EOFError, ProtocolError, _RefusedError, UnicodeError, ValueError) as error:
        return explain(error)
    latency = round((time.monotonic() - began) * 1000, 1)
    if latency >= SLOW_MS:
        return ProbeResult("slow", f"took {latency:.0f} ms to let a probe in and answer its ping", latency)
    return ProbeResult("reachable", latency_ms=latency)


class _RefusedError(Exception):
    """The broker answered, and said no."""


_ERRORS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str, str], ...] = (
    (TimeoutError, "unreachable", f"no answer within {WITHIN} s"),
    ((EOFError, ConnectionResetError, BrokenPipeError), "refused", "closed the connection before it had answered"),
    (ConnectionRefusedError, "unreachable", "nothing listens there (connection refused)"),
    (FileNotFoundError, "unreachable", "its socket does not exist"),
    (PermissionError, "unreachable", "its socket may not be opened by this account"),
)
"""Meanings of the operating system's errors; the first that fits counts."""


def explain(error: BaseException) -> ProbeResult:
    """An error of a probe in operators' words."""
    if isinstance(error, _RefusedError):
        return ProbeResult("refused", str(error))
    if isinstance(error, ssl.SSLError):
        return ProbeResult("refused", _of_tls(error))
    if isinstance(error, ProtocolError):
        return ProbeResult("unreachable", f"what answers is no MQTT broker: {error}")
    for kinds, state, why in _ERRORS:
        if isinstance(error, kinds):
            return ProbeResult(state, why)
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ProbeResult("unreachable", str(words)[:200])


def _of_tls(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message or error.reason}"
    reason = error.reason or str(error)
    alert = reason.upper().replace(" ", "_")
    for name, words in _ALERTS:
        if name in alert:
            return f"client certificate rejected: {words}"
    return f"TLS failed: {reason.replace('_', ' ').lower()}"


async def _ask(pool: BrokerPool, node: BrokerNode, edge: str) -> None:
    reader, writer = await pool.streams(node)
    try:
        await _talk(reader, writer, pool.upstream.password, client_id(edge, node.label))
    except BaseException as error:
        writer.transport.abort()  # closing TLS politely would wait for a broker that does not answer
        if pool.tls is not None and isinstance(error, EOFError | ConnectionError):
            await _listen(pool, node)
        raise
    with suppress(OSError):
        writer.close()


async def _listen(pool: BrokerPool, node: BrokerNode) -> None:
    """Connect once more and say nothing: with TLS 1.3 a server checks the client's certificate after its handshake.

    It closes with what the client had written unread, which takes its own alert away from the wire. Raises that alert.
    """
    reader, writer = await pool.streams(node)
    try:
        async with asyncio.timeout(LISTEN):
            await reader.read(1)
    except TimeoutError:
        pass
    finally:
        writer.transport.abort()


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, password: str, name: str) -> None:
    connect = Connect(5, name, keep_alive=KEEP_ALIVE, username=PROBE_ORG, password=password.encode() or None)
    writer.write(encode_connect(connect))
    answer = decode_connack(await _packet(reader, Kind.CONNACK), 5)
    if answer.code:
        raise _RefusedError(_refusal(answer.code))
    writer.write(_PING)
    await _packet(reader, Kind.PINGRESP)
    writer.write(disconnect(0))
    await writer.drain()


def _refusal(code: int) -> str:
    said = f"answered CONNECT with 0x{code:02x}"
    if code in _USE_ANOTHER:
        return f"{said}: {_USE_ANOTHER[code]}"
    if code in {Reason.BAD_LOGIN, Reason.NOT_AUTHORIZED}:
        return f"{said}: {PROBE_ORG}, the username of probes, may not sign in"
    if code in {Reason.SERVER_UNAVAILABLE, Reason.SHUTTING_DOWN}:
        return f"{said}: it takes no sign-ins now"
    return said


async def _packet(reader: asyncio.StreamReader, kind: Kind) -> bytes:
    """The body of the next packet, which must be of this kind."""
    first, length = (await reader.readexactly(1))[0], 0
    for shift in (0, 7, 14, 21):
        byte = (await reader.readexactly(1))[0]
        length |= (byte & 127) << shift
        if byte < 128:
            break
    if first & 0xF0 == Kind.DISCONNECT and length < PACKET_MAX:
        body = await reader.readexactly(length)
        raise _RefusedError(f"ended the connection with 0x{(body or bytes(1))[0]:02x}")
    if first & 0xF0 != kind or length > PACKET_MAX:
        raise ProtocolError(Reason.PROTOCOL_ERROR, f"0x{first:02x} instead of {kind.name}")
    return await reader.readexactly(length)
