"""Talking to servers that are slow, gone, strange or hostile: what the program says, and what it never sends."""

from __future__ import annotations

import json
import ssl
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from itertools import islice
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from cloudsignal.cli import audit
from cloudsignal.cli.outcome import CommandError, Exit
from cloudsignal.cli.server import Server, checked_url, plain
from cloudsignal.secrets import pki
from tests.support.cli import Done, program
from tests.support.http_server import reply, serving

ME = {
    "kind": "key", "name": "sk_...x7m4", "operator": False, "organization_id": "org_aaaaaaaaaaaa",
    "organization": "Acme", "person": None, "role": None, "expires_at": None, "permissions": ["org.read"],
}  # fmt: skip


STRANGE: list[object] = [
    [], {}, None, "text", 7, {"data": 1}, {"data": None}, {"data": [1, 2]}, {"data": [[]]}, {"data": [{}]},
    {"data": [{"version": 1}], "next_cursor": None}, "[" * 5000,
]  # fmt: skip


def whoami(url: str, *options: str, key: str = "sk_test", **environment: str) -> Done:
    own = {"CLOUDSIGNAL_URL": url, "CLOUDSIGNAL_API_KEY": key}
    return program("whoami", *options, environment=own | environment)


def test_the_key_goes_in_the_header_and_nowhere_else() -> None:
    seen = []

    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        seen.append((handler.path, handler.headers["Authorization"]))
        reply(handler, 200, ME)

    with serving(answer) as url:
        done = whoami(url)
    assert done.code == 0
    assert seen == [("/v2/me", "Bearer sk_test")]
    assert "sk_test" not in done.output + done.errors


def test_a_server_that_asks_to_wait_is_waited_for() -> None:
    problem = {"detail": "Too many requests", "code": "rate_limited"}

    def answer(handler: BaseHTTPRequestHandler, before: int) -> None:
        if before == 0:
            reply(handler, 429, problem, Retry_After="1")
        else:
            reply(handler, 200, ME)

    with serving(answer) as url:
        done = whoami(url)
    assert (done.code, done.errors) == (0, "the server asks to wait 1 s\n")


def test_a_server_that_asks_to_wait_for_an_hour_is_not() -> None:
    problem = {"detail": "Too many requests", "code": "rate_limited"}
    with serving(lambda handler, _: reply(handler, 429, problem, Retry_After="3600")) as url:
        done = whoami(url)
    assert (done.code, done.errors) == (4, "cloudsignal: Too many requests\n")


@pytest.mark.parametrize(("status", "code"), [(401, 3), (403, 3), (404, 1), (409, 1), (422, 2), (500, 4), (503, 4)])
def test_exit_codes_say_whose_fault_it_is(status: int, code: int) -> None:
    with serving(lambda handler, _: reply(handler, status, {"detail": "No.", "code": "x"})) as url:
        done = whoami(url)
    assert done.code == code
    assert done.errors.startswith("cloudsignal: No.")


@pytest.mark.parametrize("body", ["<html>hello</html>", "", "[]", "{"])
def test_what_is_no_cloudsignal_is_told_as_such(body: str) -> None:
    with serving(lambda handler, _: reply(handler, 404, body)) as url:
        done = whoami(url)
    assert done.code == 4
    assert "does not answer as a CloudSignal does" in done.errors


def test_a_redirect_is_not_followed_with_a_key_in_hand() -> None:
    asked = []
    with serving(lambda handler, _: (asked.append(1), reply(handler, 200, ME))[1]) as thief:  # type: ignore[func-returns-value]
        with serving(lambda handler, _: reply(handler, 302, "", Location=f"{thief}/v2/me")) as url:
            done = whoami(url)
        assert not asked
    assert done.code == 4
    assert "use that address" in done.errors


def test_no_proxy_carries_plain_http_away() -> None:
    with serving(lambda handler, _: reply(handler, 200, ME)) as url:
        assert whoami(url, http_proxy="http://127.0.0.1:1", HTTP_PROXY="http://127.0.0.1:1").code == 0


def test_a_server_that_is_away() -> None:
    done = whoami("http://127.0.0.1:1")
    assert done.code == 4
    assert "http://127.0.0.1:1 cannot be reached" in done.errors
    assert "Traceback" not in done.errors


def test_a_certificate_of_nobody_is_refused_and_a_private_ca_can_be_named(tmp_path: Path) -> None:
    chain = pki.ensure(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "edge.pem", tmp_path / "edge.key")
    assert chain
    with serving(lambda handler, _: reply(handler, 200, ME), tls) as url:
        refused = whoami(url)
        assert refused.code == 4
        assert "certificate is not trusted" in refused.errors
        assert "--ca FILE" in refused.errors
        assert whoami(url, "--ca", str(tmp_path / "ca.pem")).code == 0
        assert whoami(url, CLOUDSIGNAL_CA=str(tmp_path / "ca.pem")).code == 0
        assert whoami(url, "--ca", str(tmp_path / "edge.key")).code == 2


@pytest.mark.parametrize(
    "url",
    ["http://signal.example.com", "http://127.0.0.1.example.com", "http://10.0.0.1", "ftp://127.0.0.1", "127.0.0.1",
     "https://", "https://user:word@signal.example.com", "https://signal.example.com/?x=1", "https://[::1",
     "https://a\x00b", ""],
)  # fmt: skip
def test_plain_http_leaves_this_machine_never(url: str) -> None:
    with pytest.raises(CommandError) as refused:
        checked_url(url)
    assert refused.value.code is Exit.USAGE


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000", "http://localhost", "http://[::1]:8000", "https://a.example/"]
)
def test_what_may_be_asked(url: str) -> None:
    assert checked_url(url) == url.rstrip("/")


@pytest.mark.parametrize("key", ["sk_a\nX-Evil: 1", "sk_ä", "sk a", "k" * 500])
def test_a_key_is_not_a_way_to_write_headers(key: str) -> None:
    done = whoami("http://127.0.0.1:1", key=key)
    assert (done.code, done.output) == (2, "")
    assert "X-Evil" not in done.errors


def test_a_key_in_a_command_is_warned_of() -> None:
    with serving(lambda handler, _: reply(handler, 200, ME)) as url:
        done = program("whoami", "--url", url, "--api-key", "sk_test")
    assert done.code == 0
    assert "other users of this machine can see a key" in done.errors
    assert "sk_test" not in done.errors


def test_what_a_server_says_does_not_steer_the_terminal() -> None:
    evil = {**ME, "organization": "\x1b[2J\x9b31mevil\u202e\r\n"}
    with serving(lambda handler, _: reply(handler, 200, evil)) as url:
        shown, data = whoami(url).output, whoami(url, "--json").output
    for text in (shown, data):
        assert not set("\x1b\x9b\u202e\r") & set(text)
    assert "\\x1b[2J" in shown
    assert json.loads(data)["organization"] == evil["organization"]
    assert plain("grüße 日本") == "grüße 日本"


def test_where_a_server_leads_does_not_steer_the_terminal_either() -> None:
    with serving(lambda handler, _: reply(handler, 302, "", Location="http://x/\x9b31mevil")) as url:
        done = whoami(url)
    assert done.code == 4
    assert "http://x/\\x9b31mevil" in done.errors


@pytest.mark.parametrize("errors", [{"a": ["b"]}, ["a", "b"], 7, None])
def test_a_refusal_in_another_form_is_still_told(errors: object) -> None:
    with serving(lambda handler, _: reply(handler, 422, {"detail": "No.", "errors": errors})) as url:
        done = whoami(url)
    assert (done.code, done.errors) == (2, "cloudsignal: No.\n")


@pytest.mark.parametrize(
    ("command", "said"), [(["creds", "revoke", "--yes"], "revoked"), (["sessions", "close"], "closing")]
)
def test_one_that_cannot_be_ended_keeps_none_of_the_others(command: list[str], said: str) -> None:
    def answer(handler: BaseHTTPRequestHandler, _: int) -> None:
        name = handler.path.rpartition("/")[2]
        if name == "typo":
            reply(handler, 404, {"detail": "typo does not exist.", "code": "not_found"})
        else:
            reply(handler, 200, {"token_id": name, "session": name, "username": "ada"})

    with serving(answer) as url:
        own = {"CLOUDSIGNAL_URL": url, "CLOUDSIGNAL_API_KEY": "sk_test"}
        done = program(*command, "one", "typo", "two", environment=own)
    assert done.code == 1
    assert [line.split()[:2] for line in done.output.splitlines()] == [[said, "one"], [said, "two"]]
    assert done.errors == "cloudsignal: typo does not exist.\n"


def test_following_the_audit_does_not_ask_the_clock_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's is ten minutes behind ours, or ours ahead: what happens now was long ago."""
    monkeypatch.setattr(audit, "EVERY", 0.01)
    start = datetime.now(UTC) - timedelta(minutes=10)

    def answer(handler: BaseHTTPRequestHandler, before: int) -> None:
        asked = parse_qs(urlsplit(handler.path).query)
        since = datetime.fromisoformat(asked["since"][0]) if "since" in asked else datetime.min.replace(tzinfo=UTC)
        there = [(start + timedelta(seconds=number), f"e{number}") for number in range(min(before, 3))]
        events = [{"id": name, "ts": ts.isoformat()} for ts, name in reversed(there) if ts >= since]
        reply(handler, 200, {"data": events, "next_cursor": None})

    with serving(answer) as url, Server(url, "sk_test") as server:
        found = islice(audit._follow(server, {}, 10, float("inf")), 3)
        assert [event["id"] for event in found] == ["e0", "e1", "e2"]


def test_a_key_without_a_server_says_what_is_missing() -> None:
    done = program("whoami", environment={"CLOUDSIGNAL_API_KEY": "sk_test"})
    assert done.code == 2
    assert "CLOUDSIGNAL_URL" in done.errors


@pytest.mark.parametrize("command", [["whoami"], ["logout"], ["acl", "get"], ["creds", "list"], ["audit", "tail"]])
def test_nobody_is_signed_in(command: list[str]) -> None:
    done = program(*command)
    assert (done.code, done.output) == (3, "")
    assert "cloudsignal login" in done.errors


@pytest.mark.parametrize(
    "command",
    [
        ("whoami",), ("creds", "list"), ("sessions", "list"), ("acl", "history"), ("acl", "get"), ("audit", "search"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("body", STRANGE)
def test_an_answer_of_another_shape_is_told_without_a_traceback(command: tuple[str, ...], body: object) -> None:
    def answer(handler: BaseHTTPRequestHandler, before: int) -> None:
        reply(handler, 200, ME if before == 0 and command != ("whoami",) and handler.path == "/v2/me" else body)

    with serving(answer) as url:
        done = program(*command, environment={"CLOUDSIGNAL_URL": url, "CLOUDSIGNAL_API_KEY": "sk_test"})
    assert "Traceback" not in done.errors
    assert done.code in {0, 4}, done.errors
    assert done.code == 0 or "CloudSignal" in done.errors


def test_a_list_that_was_cut_says_so() -> None:
    rows = [{"version": n, "kind": "deploy", "status": "superseded", "created_at": "2026-01-01T00:00:00Z",
             "created_by": "user:a@example.com", "note": ""} for n in range(3)]  # fmt: skip

    def answer(handler: BaseHTTPRequestHandler, before: int) -> None:
        reply(handler, 200, {"data": rows, "next_cursor": None})

    with serving(answer) as url:
        environment = {"CLOUDSIGNAL_URL": url, "CLOUDSIGNAL_API_KEY": "sk_test"}
        cut = program("acl", "history", "--limit", "2", environment=environment)
        whole = program("acl", "history", "--limit", "3", environment=environment)
        as_json = program("acl", "history", "--limit", "2", "--json", environment=environment)
    assert "the first 2 are shown; use --limit" in cut.errors
    assert len(cut.output.splitlines()) == 3
    assert "use --limit" not in whole.errors
    assert json.loads(as_json.output)["more"] is True
