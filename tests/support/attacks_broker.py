"""What one credential can do to the broker, bounded in bytes and seconds, for tests and ``make bench-neighbors``."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from cloudsignal.edge.codec import Kind, Publish, encode_publish
from tests.support.wire import Wire

WINDOW = 64
"""Messages without an answer at a time."""


@dataclass
class Flood:
    """What became of an attack."""

    sent: int = 0
    """Messages sent."""
    sent_bytes: int = 0
    taken: int = 0
    """Messages acknowledged with success."""
    refused: int = 0
    """Messages answered 0x97."""
    seconds: float = 0.0


def retained_flood(
    dial: Callable[[], Wire],
    username: str,
    password: str,
    *,
    payload_bytes: int = 250_000,
    total_bytes: int = 717 * 1024 * 1024,
    seconds: float = 6.0,
    topic: str = "flood/{number}",
    stop: Callable[[], bool] = lambda: False,
) -> Flood:
    """Write retained messages of ``payload_bytes`` on ever new topics over one MQTT 5 connection, as fast as it can.

    Ends after ``total_bytes`` or ``seconds``, whichever comes first, or when ``stop()`` says so. It is QoS 1 with a
    window, so that every refusal is seen.
    """
    wire = dial()
    answer = wire.connect(version=5, client_id="flood", username=username, password=password)
    assert answer.code == 0, hex(answer.code)
    flood, payload, waiting = Flood(), bytes(payload_bytes), 0
    started = time.monotonic()
    while flood.sent_bytes < total_bytes and time.monotonic() - started < seconds and not stop():
        name = topic.format(number=flood.sent).encode()
        message = encode_publish(Publish(name, payload, 1, True, packet_id=flood.sent % 65_535 + 1), 5)
        wire.send(message)
        flood.sent, flood.sent_bytes, waiting = flood.sent + 1, flood.sent_bytes + len(message), waiting + 1
        while waiting >= WINDOW:
            waiting -= _answered(wire, flood)
    while waiting:
        waiting -= _answered(wire, flood)
    flood.seconds = time.monotonic() - started
    wire.disconnect()
    return flood


def _answered(wire: Wire, flood: Flood) -> int:
    body = wire.expect(Kind.PUBACK)
    code = body[2] if len(body) > 2 else 0
    flood.taken += code < 0x80
    flood.refused += code >= 0x80
    return 1
