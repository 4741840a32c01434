"""The whole system under ``cloudsignal up``: every part comes back, and each knows only the secrets it needs."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import stat
from contextlib import suppress

import httpx
import psutil
import pytest

from tests.support.attacks_web import without_a_body
from tests.support.cli import program
from tests.support.system import HOST, Stack

pytestmark = [pytest.mark.stack]

OURS = ("web", "worker", "beat", "ingest", "edge-1", "edge-2")
PARTS = ("postgres", "valkey", "mosquitto", *OURS)


def environment(stack: Stack, name: str) -> dict[str, str]:
    return psutil.Process(stack.pid(name)).environ()


def test_everything_runs_and_says_where(stack: Stack) -> None:
    state = stack.run_state()
    assert {name for name, part in state["parts"].items() if part["state"] == "ready"} == set(PARTS)
    assert state["parts"]["migrate"]["state"] == "done"
    assert stack.nodes == ["edge-1", "edge-2"]
    console = stack.output.read_text()
    assert stack.url == f"http://localhost:{stack.ports['web']}"
    assert stack.url in console
    assert f"mqtts://localhost:{stack.mqtts_port}" in console
    assert str(stack.ca) in console


def test_the_dashboard_answers(stack: Stack) -> None:
    assert httpx.get(f"{stack.url}/healthz").status_code == 200
    assert httpx.get(f"{stack.url}/readyz").status_code == 200


INVITE = """
import sys
from orgs.access.grants import access_org
from orgs.models import User
from orgs.people.invitations import invite
from orgs.organizations.lifecycle import create_organization
owner = User.objects.create_user("inviter@example.com")
invite(access_org(owner, create_organization(owner, name="Inviting").pk), email="guest@example.com", role="viewer")
"""


def test_an_invitation_leads_back_to_where_people_reach_the_dashboard(stack: Stack) -> None:
    stack.django(INVITE)

    def link() -> re.Match[str] | None:
        text = "".join(path.read_text() for path in (stack.data / "mail").glob("*.log"))
        return re.search(r"To: guest@example\.com.*?\n(https?://\S+/)invitations/\S+", text, re.DOTALL)

    assert stack.eventually(link, what="the mail")[1] == f"{stack.url}/"


def test_both_edges_serve_the_public_port_with_a_certificate_that_verifies(stack: Stack) -> None:
    context = ssl.create_default_context(cafile=str(stack.ca))
    with (
        socket.create_connection((HOST, stack.mqtts_port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        assert wrapped.version() == "TLSv1.3"
    for name in ("edge-1", "edge-2"):
        ports = {one.laddr.port for one in psutil.Process(stack.pid(name)).net_connections("tcp") if not one.raddr}
        assert stack.mqtts_port in ports, name


@pytest.mark.parametrize("name", PARTS)
def test_no_part_knows_a_secret_that_it_does_not_need(stack: Stack, name: str) -> None:
    known = " ".join(environment(stack, name).values())
    secrets = stack.secrets
    needed = {
        "web": {secrets.django_key, secrets.pepper, secrets.postgres_app, secrets.valkey},
        "worker": {
            secrets.django_key,
            secrets.pepper,
            secrets.signing_key,
            secrets.postgres_app,
            secrets.postgres_delete,
            secrets.log_key,
            secrets.valkey,
        },
        "beat": {secrets.django_key, secrets.postgres_app, secrets.valkey},
        "ingest": {secrets.postgres_app, secrets.postgres_ingest, secrets.valkey},
        "edge-1": {secrets.pepper, secrets.valkey},
        "edge-2": {secrets.pepper, secrets.valkey},
    }.get(name, set())
    assert {secret for secret in secrets.values() if secret in known} <= needed
    assert "DATABASE_OWNER_URL" not in environment(stack, name)


def test_no_secret_stands_on_a_command_line_or_in_the_state(stack: Stack) -> None:
    text = (stack.data / "run.json").read_text() + stack.output.read_text()
    text += " ".join(" ".join(psutil.Process(stack.pid(name)).cmdline()) for name in PARTS)
    assert not [secret for secret in stack.secrets.values() if secret in text]


def test_files_are_closed_to_others(stack: Stack) -> None:
    for path in [stack.data / "run.json", *(stack.data / "logs").iterdir(), *(stack.data / "secrets").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_only_the_edge_and_the_dashboard_listen_and_only_on_loopback_here(stack: Stack) -> None:
    public = {"web": {"web"}, "edge-1": {"mqtts", "wss"}, "edge-2": {"mqtts", "wss"}}
    private = {"postgres": {"postgres"}, "valkey": {"valkey"}}
    for name in PARTS:
        allowed = {stack.ports[port] for port in (public | private).get(name, set())}
        tree = [psutil.Process(stack.pid(name)), *psutil.Process(stack.pid(name)).children(recursive=True)]
        for process in tree:
            found = []
            with suppress(psutil.NoSuchProcess):  # workers of PostgreSQL come and go
                found = process.net_connections("tcp")
            for one in found:
                if one.status == psutil.CONN_LISTEN:
                    assert one.laddr.port in allowed, (name, one)
                    assert one.laddr.ip == HOST, (name, one)


@pytest.mark.parametrize("name", PARTS)
def test_a_killed_part_comes_back(stack: Stack, name: str) -> None:
    old = stack.pid(name)
    children = psutil.Process(old).children(recursive=True)
    stack.kill(name)
    stack.wait_part(name, other_than=old)
    stack.eventually(lambda: not [child for child in children if child.is_running()], what="the end of its children")
    stack.eventually(lambda: httpx.get(f"{stack.url}/readyz").status_code == 200, what="a ready dashboard")


def test_requests_without_their_body_switch_nothing_off(stack: Stack) -> None:
    paths = {"/v2/tokens/create": 405, "/v2/me": 401, "/accounts/login/": 200, "/healthz": 200, "/readyz": 200}
    with (
        without_a_body(stack.url, 100),
        without_a_body(stack.url, 100, path="/accounts/login/", begin=b"{"),
        httpx.Client(base_url=stack.url) as client,
    ):
        assert {path: client.get(path).status_code for path in paths} == paths
    big = client_refused(stack.url, length=50_000_000)
    assert big.startswith(b"HTTP/1.1 413 ")
    assert b'"error":' in big.replace(b" ", b"")


def client_refused(url: str, *, length: int) -> bytes:
    with without_a_body(url, 1, length=length) as held:
        return held.answers(seconds=20)[0]


def test_started_by_root_each_data_part_runs_as_a_user_of_its_own(stack: Stack) -> None:
    users = {name: psutil.Process(stack.pid(name)).uids().real for name in ("postgres", "valkey", "mosquitto")}
    if os.geteuid() == 0:
        assert len(set(users.values()) | {0}) == 4, users
    else:
        assert set(users.values()) == {os.geteuid()}


def test_the_doctor_finds_nothing_wrong(stack: Stack) -> None:
    done = program("doctor", "--data", str(stack.data))
    assert done.code == 0, done.output
    for area in ("part edge-2", "database role", "row security", "redis", "certificate"):
        assert re.search(rf"^(ok|warning) +{area}", done.output, re.MULTILINE), area
    assert "no superuser, no BYPASSRLS, owns no table" in done.output


def test_everything_stops_cleanly_and_starts_again_on_the_same_data() -> None:
    stack = Stack(edges=1)
    try:
        stack.start()
        stack.wait_ready()
        pids = [stack.pid(name) for name in ("postgres", "valkey", "mosquitto", "web", "worker", "ingest", "edge")]
        stack.redis().set("kept", "1")
        assert stack.stop(signal.SIGTERM) == 0
        assert not [pid for pid in pids if psutil.pid_exists(pid)]
        for name in ("edge", "worker", "ingest"):
            assert "Traceback" not in stack.log(name), stack.log(name)
        stack.start()
        stack.wait_ready()
        assert stack.redis().get("kept") == b"1"
    finally:
        stack.remove()
    assert not os.path.exists(stack.data)
