"""What a push says when its nodes do not all do as they should, and while the server cannot be asked."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from cloudsignal.cli.push import _await, _outcome
from cloudsignal.cli.server import Server
from tests.support.http_server import reply, serving


def progress(*nodes: tuple[str, bool], status: str = "pending", finished: bool = False) -> dict[str, Any]:
    """How far a deployment is: (status, online) of each node."""
    rows = [
        {"node": f"edge-{number}", "status": each, "online": online, "seconds": None, "reason": ""}
        for number, (each, online) in enumerate(nodes)
    ]
    return {"deployment": {"id": "dep_x", "status": status}, "finished": finished, "nodes": rows}


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        (progress(("enforcing", True), ("enforcing", True), status="enforcing"), 0, "active on 2 nodes"),
        (progress(("enforcing", True), ("pending", False)), 0, "active on 1 node; 1 node offline"),
        (progress(("enforcing", True), ("enforcing", False)), 0, "active on 1 node; 1 node offline"),
        (progress(("enforcing", True), ("pending", True)), 4, "1 node did not acknowledge it within 60 s"),
        (progress(("enforcing", True), ("refused", True), status="refused"), 1, "rejected by 1 node"),
        (progress(("superseded", True), status="superseded"), 1, "superseded"),
        (progress(), 4, "no node is online"),
        (progress(("pending", False)), 4, "no node is online"),
    ],
)
def test_the_exit_code_says_whether_every_node_enforces_it(found: dict[str, Any], code: int, words: str) -> None:
    said = _outcome(found, 60)
    assert said[0] == code
    assert words in said[1]


def test_a_server_that_stumbles_while_nodes_are_awaited_is_asked_again() -> None:
    done = progress(("enforcing", True), status="enforcing", finished=True)
    problem = {"detail": "A backend service is unavailable; retry in 5 seconds.", "code": "unavailable"}

    def answer(handler: BaseHTTPRequestHandler, before: int) -> None:
        if before == 1:
            reply(handler, 503, problem)
        elif before == 2:
            reply(handler, 502, "<html>bad gateway</html>")
        else:
            reply(handler, 200, progress(("pending", True)) if before == 0 else json.loads(json.dumps(done)))

    with serving(answer) as url, Server(url, "sk_test") as server:
        assert _await(server, {"id": "dep_x"}, 30, quiet=True) == done
