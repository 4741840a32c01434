"""Prometheus text (exposition format 0.0.4) on a private port, and nothing else on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from cloudsignal.config import Address
from cloudsignal.edge.node import Node
from cloudsignal.edge.session.authorizer import TALLY
from cloudsignal.edge.session.machine import Session
from cloudsignal.edge.transport.listener import ListenError

READ_WITHIN = 5.0
"""Seconds a scrape may take to send its request."""

_REQUEST_MAX = 8_192


Row = tuple[str, float]
"""Labels in braces, or nothing, and the value."""


def render(node: Node) -> str:
    """All metrics of this process."""
    lines: list[str] = []
    for name, kind, text, rows in (*_traffic(node), *_upkeep(node)):
        lines += [f"# HELP cloudsignal_edge_{name} {text}", f"# TYPE cloudsignal_edge_{name} {kind}"]
        lines += [f"cloudsignal_edge_{name}{labels} {value}" for labels, value in rows]
    return "\n".join(lines) + "\n"


def _traffic(node: Node) -> Iterator[tuple[str, str, str, list[Row]]]:
    """Connections, messages, decisions."""
    counters, tls_failed = node.counters, node.counters.get("tls_failed", 0)
    yield "connections", "gauge", "Connections past their TLS handshake.", [("", len(node.clients))]
    yield "sessions", "gauge", "Signed-in sessions.", [("", sum(1 for _ in _sessions(node)))]
    yield "connects_total", "counter", "Sign-ins that succeeded.", [("", counters.get("connects", 0))]
    yield "handshake_failures_total", "counter", "TLS handshakes and PROXY headers that failed.", [("", tls_failed)]
    turned_away = counters.get("turned_away", 0)
    yield "turned_away_total", "counter", "Connections closed because of a limit.", [("", turned_away)]
    yield "messages_total", "counter", "PUBLISH packets by direction and verdict.", _messages(node)
    yield "decisions_total", "counter", "Decisions asked of policies.", [("", TALLY.asked)]
    seconds = TALLY.nanoseconds / 1e9
    yield "decision_seconds_total", "counter", "Time spent on decisions, in seconds.", [("", seconds)]


def _upkeep(node: Node) -> Iterator[tuple[str, str, str, list[Row]]]:
    """Audit, Redis, broker, bundles."""
    journal, now = node.journal, time.time()
    kinds = [(f'{{kind="{kind}"}}', float(total)) for kind, total in sorted(journal.kinds.items())]
    yield "events_total", "counter", "Audit events by kind, repeats included.", kinds
    yield "audit_events_total", "counter", "Audit events recorded.", [("", journal.sequence)]
    yield "audit_shipped_total", "counter", "Audit events sent, repeats included.", [("", node.shipper.shipped)]
    yield "audit_queue_bytes", "gauge", "Audit that was not sent to Redis yet.", [("", node.shipper.unsent)]
    yield "audit_journal_bytes", "gauge", "Audit on the local disk, sent or not.", [("", journal.size)]
    yield "redis_in_step", "gauge", "1 while changes are followed.", [("", int(node.consumer.in_step.is_set()))]
    yield "redis_waiting", "gauge", "Commands to Redis without a reply.", [("", node.store.waiting)]
    waits = node.dialer.waited
    yield "upstream_backlog_waits_total", "counter", "Times the broker's backlog was full.", [("", waits)]
    ages = [
        (f'{{org="{org.id}"}}', round(now - org.active.issued_at, 1)) for org in node.desired.organizations.values()
    ]
    yield "bundle_age_seconds", "gauge", "Age of the active bundle.", ages


def _messages(node: Node) -> list[Row]:
    sessions = list(_sessions(node))
    arrived = node.counters.get("messages_in", 0) + sum(session.messages_in for session in sessions)
    delivered = node.counters.get("messages_out", 0) + sum(session.messages_out for session in sessions)
    refused = TALLY.refused
    denied, over = refused["in", "denied"], refused["in", "over_quota"]
    return [
        ('{direction="in",verdict="allowed"}', max(0, arrived - denied - over)),
        ('{direction="in",verdict="denied"}', denied),
        ('{direction="in",verdict="over_quota"}', over),
        ('{direction="out",verdict="allowed"}', delivered),
        ('{direction="out",verdict="denied"}', refused["out", "denied"]),
        ('{direction="out",verdict="unread"}', refused["out", "unread"]),
    ]


def _sessions(node: Node) -> Iterator[Session]:
    return iter(node.sessions)


async def serve(node: Node, address: Address) -> asyncio.Server:
    """Listen; every request gets the metrics, whatever its path. Raises :class:`ListenError`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_WITHIN):
                await reader.readuntil(b"\r\n\r\n")
            body = render(node).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n"
            writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
            await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    try:
        return await asyncio.start_server(answer, address.host, address.port, limit=_REQUEST_MAX)
    except OSError as error:
        raise ListenError(f"cannot listen on {address}: {error.strerror or error}") from error
