"""Prometheus text (exposition format 0.0.4) on a private port, and nothing else on it."""

from __future__ import annotations

import asyncio
import time

from cloudsignal.config import Address
from cloudsignal.edge.judge import TALLY
from cloudsignal.edge.node import Node

READ_WITHIN = 5.0
"""Seconds a scrape may take to send its request."""

_REQUEST_MAX = 8_192


def render(node: Node) -> str:
    """All metrics of this process."""
    sessions = [session for org in node.snapshot.organizations.values() for session in org.sessions.values()]
    counters = node.counters
    rows: list[tuple[str, str, str, float]] = [
        ("sessions", "gauge", "", len(sessions)),
        ("connections", "gauge", "", len(node.clients)),
        ("connects_total", "counter", "", counters.get("connects", 0)),
        (
            "messages_total",
            "counter",
            '{direction="in"}',
            counters.get("messages_in", 0) + sum(session.messages_in for session in sessions),
        ),
        (
            "messages_total",
            "counter",
            '{direction="out"}',
            counters.get("messages_out", 0) + sum(session.messages_out for session in sessions),
        ),
        *(
            ("events_total", "counter", f'{{kind="{kind}"}}', total)
            for kind, total in sorted(node.journal.kinds.items())
        ),
        ("turned_away_total", "counter", "", counters.get("turned_away", 0)),
        ("decisions_total", "counter", "", TALLY.asked),
        ("decision_seconds_total", "counter", "", TALLY.nanoseconds / 1e9),
        ("audit_events_total", "counter", "", node.journal.sequence),
        ("audit_shipped_total", "counter", "", node.shipper.shipped),
        ("audit_journal_bytes", "gauge", "", node.journal.size),
        ("redis_in_step", "gauge", "", int(node.follower.in_step.is_set())),
        ("upstream_backlog_waits_total", "counter", "", node.dialer.waited),
    ]
    now = time.time()
    rows += [
        ("bundle_age_seconds", "gauge", f'{{org="{org.id}"}}', round(now - org.force.issued_at, 1))
        for org in node.snapshot.organizations.values()
    ]
    lines: list[str] = []
    for name, kind, labels, value in rows:
        if f"# TYPE cloudsignal_edge_{name} {kind}" not in lines:
            lines.append(f"# TYPE cloudsignal_edge_{name} {kind}")
        lines.append(f"cloudsignal_edge_{name}{labels} {value}")
    return "\n".join(lines) + "\n"


async def serve(node: Node, address: Address) -> asyncio.Server:
    """Listen; every request gets the metrics, whatever its path."""

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

    return await asyncio.start_server(answer, address.host, address.port, limit=_REQUEST_MAX)
