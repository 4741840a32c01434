"""The front under load: bodies that do not come, readers that do not read, kinds and addresses that take turns."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from cloudsignal.front.app import SHARES, THREADS, kind_of, network
from cloudsignal.front.turns import Place, Turns
from tests.front.conftest import running
from tests.support.attacks_web import Held, where, without_a_body, without_reading


def ask(url: str, path: str = "/show", **more: Any) -> dict[str, Any]:
    """What the application sees of a request."""
    answer = httpx.get(f"{url}{path}", timeout=20, **more)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def looked(url: str) -> dict[str, int]:
    """What the application has counted."""
    found: dict[str, int] = json.loads(ask(url, "/v2/show")["seen"])
    return found


def raw(url: str, request: str) -> bytes:
    """Everything that is answered to these very bytes."""
    with socket.create_connection(where(url), timeout=20) as one:
        one.sendall(request.encode("latin1"))
        found = b""
        while data := one.recv(65536):
            found += data
        return found


class Holding:
    """Requests that keep their threads until they are let go."""

    def __init__(self, url: str, count: int, path: str, headers: dict[str, str] | None = None) -> None:
        self.url, self.count, self.path, self.headers = url, count, path, headers
        self.pool = ThreadPoolExecutor(count)

    def __enter__(self) -> list[Any]:
        ask = functools.partial(httpx.get, self.url + self.path, headers=self.headers, timeout=30)
        return [self.pool.submit(ask) for _ in range(self.count)]

    def __exit__(self, *_: object) -> None:
        ask(self.url, "/v2/let-go" if not self.path.startswith("/v2/") else "/let-go")
        self.pool.shutdown()


def test_requests_without_their_body_hold_no_thread_and_are_refused_in_time(front: str) -> None:
    with without_a_body(front, 8 * THREADS, begin=b"{") as held:
        assert ask(front, "/healthz")
        assert ask(front, "/v2/tokens/create")
        assert ask(front, "/")
        assert int(ask(front)["threads"]) <= THREADS + 6
        answers = held.answers(seconds=20)
    assert {answer.split(b"\r\n", 1)[0] for answer in answers} == {b"HTTP/1.1 408 Request Timeout"}
    assert all(b"connection: close" in answer and answer.endswith(b"body_timeout") for answer in answers)


def test_a_body_that_drips_is_refused_too(front: str) -> None:
    stop = threading.Event()

    def drip(one: socket.socket) -> None:
        while not stop.wait(0.3):
            try:
                one.sendall(b" ")
            except OSError:
                return

    with without_a_body(front, 1) as held:
        thread = threading.Thread(target=drip, args=held.sockets)
        thread.start()
        answer = held.answers(seconds=20)[0]
        stop.set()
        thread.join()
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_bodies_that_do_not_come_make_room_for_those_that_do(front: str) -> None:
    with without_a_body(front, 300) as held:
        assert all(httpx.post(f"{front}/v2/tokens/x", content=b"{}").json()["body"] == "{}" for _ in range(5))
        answers = held.answers(seconds=20)
    busy = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503 ")]
    assert len(busy) == 300 - 256 + 1
    assert all(b"retry-after: 5" in answer and answer.endswith(b"busy") for answer in busy)
    # A busy server sees connections in another order than they were made in, but not the younger half before the older.
    assert not [answer for answer in answers[150:] if answer in busy], "the oldest make room"


def test_one_address_has_so_many_requests_and_no_more(front: str) -> None:
    request = f"GET /v2/hold HTTP/1.1\r\nHost: {urlsplit(front).netloc}\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        held = Held()
        for _ in range(300):
            held.sockets.append(stack.enter_context(socket.create_connection(where(front), timeout=20)))
            held.sockets[-1].sendall(request)
        assert sum(answer.startswith(b"HTTP/1.1 503 ") for answer in held.answers(seconds=1)) == 300 - 256
        assert httpx.get(f"{front}/healthz").status_code == 200
    assert ask(front, "/let-go")


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(front: str) -> None:
    with without_a_body(front, 1, length=50_000_000) as held:
        assert held.answers(seconds=20)[0].startswith(b"HTTP/1.1 413 ")
    chunk = "100000\r\n" + "x" * 0x100000 + "\r\n"
    head = "POST /show HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(where(front), timeout=20) as one:
        one.sendall(head.encode())
        try:
            for _ in range(5):
                one.sendall(chunk.encode())
            found = one.recv(4096)
        except ConnectionError:
            found = b""
    assert found.startswith(b"HTTP/1.1 413 ") or not found
    assert ask(front)


@pytest.mark.parametrize("kind", SHARES)
def test_no_kind_of_request_takes_every_thread(front: str, kind: str) -> None:
    path = {"tokens": "/v2/tokens/hold", "entrance": "/accounts/hold", "api": "/v2/hold", "pages": "/hold"}[kind]
    assert kind_of(path) == kind
    with Holding(front, THREADS, path) as held:
        others = [other for other in ("/v2/tokens/x", "/accounts/x", "/v2/x", "/x") if kind_of(other) != kind]
        for other in (*others, "/healthz", "/readyz"):
            assert ask(front, other)
        refused = [one for one in held if one.done() and one.result().status_code != 503]
        assert not refused
    assert [one.result().status_code for one in held].count(200) >= (SHARES[kind] + 3) // 4


def test_addresses_take_turns() -> None:
    with running("127.0.0.0/8") as url, Holding(url, THREADS, "/v2/hold"):
        assert ask(url, "/v2/x", headers={"X-Forwarded-For": "203.0.113.9"})["REMOTE_ADDR"] == "203.0.113.9"


@pytest.mark.parametrize("header", ["Authorization", "Cookie"])
def test_callers_of_one_address_take_turns(front: str, header: str) -> None:
    """What stands between two organizations in one office, or behind a proxy that is not named as trusted."""
    with Holding(front, THREADS, "/v2/hold", {header: "one"}) as held:
        assert ask(front, "/v2/x", headers={header: "another"})
        assert not [one for one in held if one.done() and one.result().status_code != 503]


def test_a_caller_may_take_half_of_what_its_address_may() -> None:
    """The next free thread goes to the address that has waited, then to the caller that has."""

    async def taken() -> list[str]:
        turns, never = Turns(20, {"api": 8}), asyncio.get_running_loop().create_future()
        entered: list[str] = []

        async def enter(address: str, caller: str) -> None:
            await turns.enter(Place("api", address, caller), never)
            entered.append(f"{address}{caller}")

        asked = [("1", "a")] * 5 + [("1", "b")] * 5 + [("1", "c")] * 5 + [("2", "a")] * 5
        waiting = [asyncio.create_task(enter(*each)) for each in asked]
        await asyncio.sleep(0)
        turns.leave(Place("api", "1", "a"))
        turns.leave(Place("api", "1", "a"))
        await asyncio.sleep(0.01)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return entered

    found = asyncio.run(taken())
    assert sorted(found[:6]) == ["1a", "1a", "1b", "1b", "2a", "2a"]
    assert sorted(found[6:]) == ["1a", "1c"], "c waited longest of its address, and a has no thread any more"


def test_a_web_whose_threads_all_hang_says_so(front: str) -> None:
    with Holding(front, THREADS, "/hold"):
        for _ in range(100):
            answer = httpx.get(f"{front}/healthz")
            if answer.status_code == 503:
                break
            time.sleep(0.05)
        assert answer.json()["status"] == "stuck"
    assert httpx.get(f"{front}/healthz").status_code == 200


def test_a_flood_of_questions_about_health_costs_few_looks(front: str) -> None:
    before = looked(front)["looks"]
    with httpx.Client() as client:
        answers = [client.get(f"{front}/healthz", headers={"Host": "evil.example"}) for _ in range(200)]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["HTTP_HOST"] for answer in answers} == {"localhost"}
    assert looked(front)["looks"] - before < 50


def test_readers_that_do_not_read_are_let_go(front: str) -> None:
    before = looked(front)["closed"]
    with without_reading(front, THREADS, path="/long"):
        for path in ("/healthz", "/v2/x", "/v2/tokens/x"):
            assert ask(front, path)
        with httpx.stream("GET", f"{front}/v2/long", timeout=20) as answer:
            assert sum(map(len, answer.iter_bytes())) == 640 * 65_536
        for _ in range(100):
            if looked(front)["closed"] - before > SHARES["pages"] // 2:
                break
            time.sleep(0.1)
        else:
            pytest.fail("threads are still making answers that nobody reads")


def test_answers_come_bit_by_bit(front: str) -> None:
    with httpx.stream("GET", f"{front}/pieces", timeout=20) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "first"
        ask(front, "/v2/let-go")
        assert next(lines) == "last"


def test_what_fails_outside_every_handler_is_500_and_the_next_request_is_served(front: str) -> None:
    assert httpx.get(f"{front}/broken").text == "internal"
    assert ask(front)


def test_the_environment_is_that_of_the_request(front: str) -> None:
    found = raw(
        front,
        "POST /a%20b/%C3%A9%2Fshow?x=%20&y HTTP/1.1\r\nHost: signal.example\r\nContent-Type: text/plain\r\n"
        "Cookie: a=1\r\nCookie: b=2\r\nX-Two: 1\r\nX-Two: 2\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        "3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    )
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.count(b"x-cookie") == 2
    seen = json.loads(body)
    assert seen["PATH_INFO"].encode("latin1").decode() == "/a b/é/show"
    assert (seen["QUERY_STRING"], seen["body"], seen["CONTENT_LENGTH"]) == ("x=%20&y", "abcde", "5")
    assert (seen["HTTP_COOKIE"], seen["HTTP_X_TWO"], seen["CONTENT_TYPE"]) == ("a=1; b=2", "1,2", "text/plain")
    assert (seen["REQUEST_METHOD"], seen["HTTP_HOST"]) == ("POST", "signal.example")
    assert "HTTP_TRANSFER_ENCODING" not in seen


def test_head_has_no_body_and_connections_are_kept(front: str) -> None:
    head = "{} /show HTTP/1.1\r\nHost: a\r\n{}\r\n"
    found = raw(front, head.format("HEAD", "") + head.format("GET", "Connection: close\r\n"))
    assert found.count(b"HTTP/1.1 200 OK") == 2
    assert found.count(b'"REQUEST_METHOD"') == 1


def test_a_network_of_ipv6_counts_as_one_address() -> None:
    assert network("203.0.113.9") == "203.0.113.9"
    assert network("2001:db8:1:2:3::4") == network("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert network("unknown") == "unknown"
