"""Status pages of broker nodes, and what they mean together: members, splits, draining, lies."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from cloudsignal.edge.broker.status import (
    LINES_MAX,
    MEMBERS_MAX,
    PAGES,
    WITHIN,
    NodeStatus,
    cluster_view,
    read_node,
    read_status,
)
from cloudsignal.wire.codec import decode, encode
from cloudsignal.wire.report import BrokerState
from tests.support.ports import free_port
from tests.support.vernemq_status import Lie, StatusPages, lying

A, B, C = "VerneMQ@a", "VerneMQ@b", "VerneMQ@c"


@pytest.fixture
def pages() -> Iterator[StatusPages]:
    made = StatusPages(A)
    made.members = {A: True, B: True}
    yield made
    made.stop()


def read(pages: StatusPages) -> NodeStatus:
    return asyncio.run(read_status(pages.url))


def status_of(**members: bool) -> bytes:
    return json.dumps([{A: {"mystatus": [{f"VerneMQ@{name}": runs for name, runs in members.items()}]}}]).encode()


def test_a_node_says_who_it_is_whom_it_sees_and_what_it_has_dropped(pages: StatusPages) -> None:
    pages.members = {A: True, B: False}
    pages.drops = 7
    seen = read(pages)
    assert (seen.name, seen.running, seen.missing, seen.why) == (A, (A,), (B,), "")
    assert (seen.ready, seen.draining, seen.drops, seen.bytes_dropped, seen.netsplits) == (True, False, 7, 0, 1)


def test_a_node_that_has_stopped_its_listeners_drains_and_is_a_member_still(pages: StatusPages) -> None:
    pages.draining = True
    seen = read(pages)
    assert (seen.ready, seen.draining, seen.running) == (False, True, (A, B))


def test_a_node_outside_of_a_cluster_is_not_ready_and_does_not_drain(pages: StatusPages) -> None:
    pages.lies["/health"] = lying(503, {"status": "DOWN", "reasons": ["Node has not joined cluster"]})
    assert (read(pages).ready, read(pages).draining) == (False, False)


def deep(handler: BaseHTTPRequestHandler) -> None:
    lying(200, "[" * 100_000)(handler)


def no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\x10\x00 this is no HTTP\r\n\r\n")


def long_head(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("X", "x" * 1_000_000)
    handler.end_headers()


def too_long(handler: BaseHTTPRequestHandler) -> None:
    lying(200, b"[" + b" " * PAGES[handler.path[1:]])(handler)


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b" " * 65_536)
    except OSError:
        return


def chunked(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 10_000 + b"0\r\n\r\n"
    )


def put_off(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 2_500 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def cut_off(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()


GARBAGE: dict[str, tuple[Lie, str]] = {
    "no JSON": (lying(200, "<html>"), "no JSON"),
    "nothing": (lying(200, ""), "no JSON"),
    "deeper than a parser goes": (deep, "no JSON"),
    "another shape": (lying(200, {"status": "green"}), "no members"),
    "a number": (lying(200, 7), "no members"),
    "no members": (lying(200, [{A: {"mystatus": [{}]}}]), "no members"),
    "members that are no names": (lying(200, [{A: {"mystatus": [{A: True, "b c\n": True}]}}]), "not as VerneMQ"),
    "members that are no truth values": (lying(200, [{A: {"mystatus": [{A: True, B: "yes"}]}}]), "not as VerneMQ"),
    "itself as down": (lying(200, [{A: {"mystatus": [{A: False, B: True}]}}]), "count itself"),
    "itself as no member": (lying(200, [{A: {"mystatus": [{B: True}]}}]), "count itself"),
    "too many members": (
        lying(200, [{A: {"mystatus": [{A: True, **{f"n@{i}": True for i in range(MEMBERS_MAX)}}]}}]), "more than 64",
    ),
    "another address": (lying(302, "", Location="http://127.0.0.1:1/"), "answered 302"),
    "an error": (lying(500, "no"), "answered 500"),
    "a compressed page": (lying(200, gzip.compress(b" " * 9_000_000), Content_Encoding="gzip"), "compressed"),
    "too much": (too_long, "longer than"),
    "without an end": (endless, "longer than"),
    "a byte at a time": (chunked, "too many pieces"),
    "later, and later": (put_off, "too many pieces"),
    "a head without an end": (long_head, "ProtocolError"),
    "half of it": (cut_off, "ProtocolError"),
    "no HTTP": (no_http, "ProtocolError"),
}  # fmt: skip


@pytest.mark.parametrize("garbage", GARBAGE)
def test_whatever_is_not_as_vernemq_writes_it_is_unknown_and_says_why(pages: StatusPages, garbage: str) -> None:
    lie, why = GARBAGE[garbage]
    pages.lies["/status.json"] = lie
    seen = read(pages)
    assert (dict(seen.members), seen.ready, seen.drops) == ({}, True, 0)
    assert why in seen.why, seen.why
    pages.lies = dict.fromkeys(("/health", "/status.json", "/metrics"), lie)
    seen = read(pages)
    assert (dict(seen.members), seen.draining, seen.drops, seen.netsplits) == ({}, False, -1, -1)


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_pages_that_do_not_end_are_given_up_together_and_take_the_time_of_one(pages: StatusPages, how: str) -> None:
    pages.lies = dict.fromkeys(("/health", "/status.json", "/metrics"), getattr(pages, how))
    before = time.monotonic()
    seen = read(pages)
    assert time.monotonic() - before < 2.5 * WITHIN
    assert (seen.ready, dict(seen.members)) == (None, {})
    assert f"no answer within {WITHIN} s" in seen.why


def test_nobody_there_and_no_address_are_unknown_too() -> None:
    for base in (f"http://127.0.0.1:{free_port()}", "http://nowhere.invalid:8888", "ftp://x", "http://[", "http://"):
        seen = asyncio.run(read_status(base))
        assert (dict(seen.members), seen.ready) == ({}, None)
        assert seen.why.startswith("status.json: "), base


def test_the_metrics_of_other_releases_and_nonsense_in_them_are_read_as_far_as_they_say_something() -> None:
    page = (200, b'vernemq_queue_message_drop{node="VerneMQ@a"} 3\nnetsplit_detected x\nnetsplit_resolved 5e9\n\xff')
    seen = read_node((200, b"{}"), (200, status_of(a=True)), page)
    assert (seen.name, seen.drops, seen.netsplits, seen.ready) == (A, 3, -1, True)


def test_no_more_lines_of_metrics_are_added_up_than_a_node_writes() -> None:
    page = (200, b"queue_message_drop 1\n" * 2 * LINES_MAX)
    assert read_node((200, b"{}"), (200, status_of(a=True)), page).drops == LINES_MAX


def test_a_count_without_bounds_is_cut_to_what_a_heartbeat_and_the_database_take() -> None:
    page = (200, b'queue_message_drop{mountpoint=""} 999999999999999999\n' * 40)
    seen = read_node((200, b"{}"), (200, status_of(a=True)), page)
    assert decode(encode(BrokerState("b", "reachable", drops=seen.drops)), BrokerState).drops == 2**63 - 1


def test_the_own_entry_of_a_status_page_is_the_one_its_metrics_name() -> None:
    both = json.dumps([{B: {"mystatus": [{A: False, B: True}]}, A: {"mystatus": [{A: True, B: False}]}}]).encode()
    metrics = (200, b'queue_message_drop{node="VerneMQ@a"} 0\n')
    assert read_node((200, b"{}"), (200, both), metrics).running == (A,)
    assert read_node((200, b"{}"), (200, both), (404, b"")).running == (B,)


def node(name: str, *, why: str = "", draining: bool = False, **members: bool) -> NodeStatus:
    seen = {f"VerneMQ@{member}": runs for member, runs in members.items()}
    return NodeStatus(f"VerneMQ@{name}", seen, not draining, draining, why=why)


SILENT = NodeStatus(why="status.json: no answer within 1.5 s")
VIEWS = {
    "both see both": ([node("a", a=True, b=True), node("b", a=True, b=True)], "agree", False, [(A, B)]),
    "a third that nobody asks": ([node("a", a=True, c=True), node("a", a=True, c=True)], "agree", False, [(A, C)]),
    "one node, no cluster": ([node("a", a=True)], "agree", False, [(A,)]),
    "each sees itself alone": (
        [node("a", a=True, b=False), node("b", a=False, b=True)], "disagree", True, [(A,), (B,)],
    ),
    "each knows itself alone": ([node("a", a=True), node("b", b=True)], "disagree", True, [(A,), (B,)]),
    "two and one": (
        [node("a", a=True, b=True, c=False), node("b", a=True, b=True, c=False), node("c", a=False, b=False, c=True)],
        "disagree", True, [(A, B), (C,)],
    ),
    "a node was killed": ([node("a", a=True, b=False), SILENT], "disagree", True, [(A,), (B,)]),
    "one says the other is gone, which says it is not": (
        [node("a", a=True, b=False), node("b", a=True, b=True)], "disagree", False, [(A,), (B,)],
    ),
    "one page hangs, the other sees both": ([node("a", a=True, b=True), SILENT], "unknown", False, [(A, B)]),
    "all pages hang": ([SILENT, SILENT], "unknown", False, []),
    "nobody was asked": ([], "unknown", False, []),
}  # fmt: skip


@pytest.mark.parametrize("case", VIEWS)
def test_what_nodes_say_means_together(case: str) -> None:
    nodes, state, split, groups = VIEWS[case]
    view = cluster_view({f"b{number}:1883": one for number, one in enumerate(nodes)})
    assert (view.state, view.split, list(view.groups)) == (state, split, groups)
    assert bool(view.why) is (state != "agree")


def test_a_node_that_drains_is_named_whatever_the_others_see() -> None:
    view = cluster_view({"b1:1": node("a", draining=True, a=True, b=True), "b2:1": node("b", a=True, b=True)})
    assert (view.state, view.draining) == ("agree", ("b1:1",))
    view = cluster_view({"b1:1": NodeStatus(draining=True, why="status.json: it is no JSON")})
    assert (view.state, view.draining) == ("unknown", ("b1:1",))
