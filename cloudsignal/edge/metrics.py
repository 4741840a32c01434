"""Prometheus text (exposition format 0.0.4) on a private port, and ``/readyz`` for a balancer before several edges."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

from cloudsignal.config import Address
from cloudsignal.edge.node import Node
from cloudsignal.edge.session.authorizer import TALLY
from cloudsignal.edge.session.machine import Session
from cloudsignal.edge.transport.listener import ListenError
from cloudsignal.wire.report import REACHED

READ_WITHIN = 5.0
"""Seconds a scrape may take to send its request."""

_REQUEST_MAX = 8_192


Row = tuple[str, float]
"""Labels in braces, or nothing, and the value."""


def render(node: Node) -> str:
    """All metrics of this process."""
    lines: list[str] = []
    for name, kind, text, rows in (*_traffic(node), *_upkeep(node), *_brokers(node)):
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


def _brokers(node: Node) -> Iterator[tuple[str, str, str, list[Row]]]:
    """Metrics about the probes of broker nodes."""
    seen = [(f'{{broker="{_quoted(each.state.label)}"}}', each) for each in node.probes.watched]
    up = [(labels, float(each.state.state in REACHED)) for labels, each in seen]
    yield "broker_up", "gauge", "1 while a broker node lets the edge in.", up
    latency = [(labels, each.state.latency_ms / 1000) for labels, each in seen if each.state.latency_ms >= 0]
    yield "broker_latency_seconds", "gauge", "Seconds of the last probe: connect, sign in, ping.", latency
    probes = [(labels, float(each.probes)) for labels, each in seen]
    yield "broker_probes_total", "counter", "Probes of a broker node.", probes
    failed = [(labels, float(each.failures)) for labels, each in seen]
    yield "broker_probes_failed_total", "counter", "Probes that a broker node did not answer.", failed
    known = [(labels, each) for labels, each in seen if each.state.cluster != "unknown"]
    agree = [(labels, float(each.state.cluster == "agree")) for labels, each in known]
    yield "broker_members_agree", "gauge", "1 while all broker nodes see the same members, all running.", agree
    members = [(labels, float(len(each.state.members))) for labels, each in known]
    yield "broker_members", "gauge", "Members that run, as this broker node sees them.", members
    drops = [(labels, float(each.state.drops)) for labels, each in seen if each.state.drops >= 0]
    yield "broker_queue_drops_total", "counter", "Messages that a broker node's queues dropped.", drops


def _quoted(text: str) -> str:
    """A label's value (exposition format: backslash, quote and line feed are escaped)."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _messages(node: Node) -> list[Row]:
    sessions = list(_sessions(node))
    arrived = node.counters.get("messages_in", 0) + sum(session.messages_in for session in sessions)
    delivered = node.counters.get("messages_out", 0) + sum(session.messages_out for session in sessions)
    refused = TALLY.refused
    denied, over, split = refused["in", "denied"], refused["in", "over_quota"], refused["in", "split"]
    return [
        (
            '{direction="in",verdict="allowed"}',
            max(0, arrived - denied - over - split - refused["in", "refused_by_broker"]),
        ),
        ('{direction="in",verdict="denied"}', denied),
        ('{direction="in",verdict="over_quota"}', over),
        ('{direction="in",verdict="split"}', split),
        ('{direction="in",verdict="refused_by_broker"}', refused["in", "refused_by_broker"]),
        ('{direction="out",verdict="allowed"}', delivered),
        ('{direction="out",verdict="denied"}', refused["out", "denied"]),
        ('{direction="out",verdict="unread"}', refused["out", "unread"]),
    ]


def _sessions(node: Node) -> Iterator[Session]:
    return iter(node.sessions)


Answer = tuple[str, str, bytes]
"""Status, type and body."""


def _metrics(node: Node) -> Answer:
    return "200 OK", "text/plain; version=0.0.4", render(node).encode()


def _readiness(node: Node) -> Answer:
    """200 while a broker node lets this edge in, else 503: a balancer that asks sends its clients elsewhere."""
    why = "it is being stopped" if node.sign_in_flow.closed else ""
    if not why and not node.probes.reaches_one:
        why = "it reaches no broker: " + ("; ".join(node.probes.troubles()) or "no probe has been answered yet")
    body: dict[str, object] = {"status": "unavailable" if why else "ok"}
    if why:
        body["why"] = why
    body["brokers"] = {state.label: state.state for state in node.probes.states()}
    return "503 Service Unavailable" if why else "200 OK", "application/json", json.dumps(body).encode()


async def serve(node: Node, address: Address) -> asyncio.Server:
    """Listen; ``/readyz`` says whether clients should be sent here, every other path gets the metrics.

    Raises :class:`ListenError`.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(READ_WITHIN):
                request = await reader.readuntil(b"\r\n\r\n")
            path = (request.split(maxsplit=2)[1:2] or [b""])[0].partition(b"?")[0]
            status, kind, body = _readiness(node) if path == b"/readyz" else _metrics(node)
            head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
            writer.write(head.encode() + b"Cache-Control: no-store\r\nConnection: close\r\n\r\n" + body)
            await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    try:
        return await asyncio.start_server(answer, address.host, address.port, limit=_REQUEST_MAX)
    except OSError as error:
        raise ListenError(f"cannot listen on {address}: {error.strerror or error}") from error
