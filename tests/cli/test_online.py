"""The program at work on a running CloudSignal: each command, by each role, and what it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as mqtt
import pytest

from cloudsignal.supervisor.part import PROJECT
from tests.cli.conftest import Place
from tests.support.cli import alone, command

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

RULES = """\
version: "3"
rules:
  - {{id: own, topic: "inbox/{{username}}", action: sub}}
  - {{id: speak, topic: "{topic}", action: pub}}
tests:
  - {{name: an inbox is private, as: {{username: ada}}, do: sub, topic: inbox/bob, expect: deny}}
"""
FAILING = RULES.replace("expect: deny", "expect: allow")


@pytest.fixture
def policy(tmp_path: Path) -> str:
    """A policy that allows something new each time: tests share one organization, in any order."""
    return written(tmp_path, RULES, topic=f"rooms/{time.monotonic_ns()}")


def written(folder: Path, text: str, *, topic: str) -> str:
    path = folder / f"policy-{time.monotonic_ns()}.yaml"
    path.write_text(text.format(topic=topic))
    return str(path)


def in_force(place: Place) -> dict[str, Any]:
    found: dict[str, Any] = place.json("acl", "get")
    return found


# --- access rules ----------------------------------------------------------------------------------------------------


def test_a_policy_is_planned_pushed_to_every_node_read_back_and_rolled_back(place: Place, policy: str) -> None:
    before = in_force(place)
    planned = place.run("acl", "plan", policy)
    assert planned.code == 0, planned
    assert "2 rules, 1 test, 0 failed" in planned.output
    assert "+ allowed now" in planned.output
    assert "for example" in planned.output
    assert in_force(place) == before

    pushed = place.run("acl", "push", policy, "--yes", "--note", "from the terminal", key="developer")
    assert pushed.code == 0, pushed
    assert "is active on 2 nodes" in pushed.output
    for node in place.stack.nodes:
        assert node in pushed.output
    now = in_force(place)
    assert now["text"] == Path(policy).read_text()
    assert place.run("acl", "pull").output == now["text"]
    compact = place.run("acl", "get", "--compact").output
    assert json.loads(compact)["rules"][0]["id"] == "own"
    assert len(compact.strip().splitlines()) == 1
    assert "expect: deny" in place.run("acl", "get", "--pretty").output

    latest = place.json("acl", "history", "--limit", "1")["data"][0]
    assert (latest["version"], latest["kind"], latest["note"]) == (now["number"], "deploy", "from the terminal")
    assert latest["created_by"].startswith("key:rk_...")
    assert latest["created_by"].endswith(" of developer@tidewater.example")
    assert "from the terminal" in place.run("acl", "history").output

    back = place.run("acl", "rollback", str(before["number"]), "--yes")
    assert back.code == 0, back
    assert "- denied now" in back.errors + back.output
    assert in_force(place)["number"] == before["number"]
    assert place.run("acl", "rollback", "99999", "--yes").code == 1


def test_what_is_in_force_is_not_pushed_again(place: Place, policy: str) -> None:
    assert place.run("acl", "update", policy, "--yes").code == 0
    again = place.run("acl", "push", policy, "--yes")
    assert (again.code, "nothing to do" in again.output) == (0, True)


def test_json_holds_plan_and_nodes(place: Place, policy: str) -> None:
    done = place.run("acl", "push", policy, "--json")
    assert (done.code, done.output) == (2, "")
    found = place.json("acl", "push", policy, "--yes")
    assert found["plan"]["wider"] is True
    widened = [each["witness_topic"] for each in found["plan"]["change"]["widened"]]
    assert any(topic.startswith("rooms/") for topic in widened)
    assert {node["status"] for node in found["nodes"]} == {"enforcing"}
    assert found["deployment"]["status"] == "enforcing"


def test_a_failing_test_refuses(place: Place, tmp_path: Path) -> None:
    before = in_force(place)
    path = written(tmp_path, FAILING, topic=f"failing/{time.monotonic_ns()}")
    for arguments in (["plan", path], ["push", path, "--yes"]):
        done = place.run("acl", *arguments)
        assert done.code == 1, done
        assert "FAIL  an inbox is private" in done.output
    assert in_force(place) == before


def test_an_error_is_told_with_its_line_before_any_server_is_asked(place: Place, tmp_path: Path) -> None:
    path = written(tmp_path, "rules: [{{topic: '#/x', action: pub}}]", topic="")
    done = place.run("acl", "push", path, "--yes", CLOUDSIGNAL_URL=place.stack.url)
    assert done.code == 1
    assert f"{path}:1:" in done.errors


def test_no_wider_refuses_what_allows_more_and_lets_less_through(place: Place, tmp_path: Path, policy: str) -> None:
    before = in_force(place)
    for arguments in (["plan", policy, "--no-wider"], ["push", policy, "--yes", "--no-wider"]):
        done = place.run("acl", *arguments)
        assert done.code == 1, done
        assert "--no-wider" in done.errors
    assert in_force(place) == before
    assert place.run("acl", "push", policy, "--yes").code == 0
    narrower = tmp_path / "narrower.yaml"
    narrower.write_text('version: "3"\nrules: []\n')
    assert place.run("acl", "push", str(narrower), "--yes", "--no-wider").code == 0
    wide = place.run("acl", "rollback", str(in_force(place)["number"] - 1), "--yes", "--no-wider")
    assert (wide.code, "--no-wider" in wide.errors) == (1, True)


def answer_when_asked(place: Place, *arguments: str, meanwhile: Any, say: bytes = b"y\n") -> tuple[int, str]:
    """Run the program in a terminal; when it asks, do ``meanwhile``, then answer."""
    ours, theirs = pty.openpty()
    own = {"CLOUDSIGNAL_URL": place.stack.url, "CLOUDSIGNAL_API_KEY": place.keys["sk"], "TERM": "dumb"}
    running = subprocess.Popen(
        command(*arguments), cwd=PROJECT, env=alone() | own, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown, asked = b"", False
    while select.select([ours], [], [], 60)[0]:
        try:
            shown += os.read(ours, 4096)
        except OSError:  # the terminal's other end is gone
            break
        if not asked and b"[y/N]" in shown:
            asked = True
            meanwhile()
            os.write(ours, say)
    os.close(ours)
    return running.wait(30), shown.decode()


def test_a_draft_that_somebody_saved_in_the_meantime_is_not_overwritten(place: Place, policy: str) -> None:
    before = in_force(place)
    theirs = f"# saved meanwhile {time.monotonic_ns()}\nrules: []\n"

    def save() -> None:
        with api(place) as http:
            assert http.put("/v2/policy/draft", json={"text": theirs}).status_code == 200

    code, shown = answer_when_asked(place, "acl", "push", policy, meanwhile=save)
    assert code == 1, shown
    assert "was changed by" in shown
    assert in_force(place) == before
    assert place.run("acl", "get", "--draft").output == theirs
    told = place.run("acl", "plan", policy).output
    assert "were never deployed; pushing replaces them" in told


def test_what_somebody_deployed_in_the_meantime_is_not_undone(place: Place, tmp_path: Path, policy: str) -> None:
    assert place.run("acl", "push", policy, "--yes").code == 0
    number = in_force(place)["number"]
    other = written(tmp_path, RULES, topic=f"other/{time.monotonic_ns()}")

    def roll_back() -> None:
        assert place.run("acl", "rollback", str(number - 1), "--yes").code == 0

    code, shown = answer_when_asked(place, "acl", "push", other, meanwhile=roll_back)
    assert code == 1, shown
    assert "in the meantime" in shown
    assert in_force(place)["number"] == number - 1


def test_in_a_terminal_it_asks_and_draws_how_far_it_is(place: Place, policy: str) -> None:
    before = in_force(place)
    code, shown = answer_when_asked(place, "acl", "push", policy, meanwhile=lambda: None, say=b"n\n")
    assert code == 1, shown
    assert in_force(place) == before
    code, shown = answer_when_asked(place, "acl", "push", policy, meanwhile=lambda: None)
    assert code == 0, shown
    assert "nodes" in shown
    assert "is active on 2 nodes" in shown


def test_where_nobody_can_be_asked_yes_must_be_given(place: Place, policy: str) -> None:
    done = place.run("acl", "push", policy)
    assert done.code == 2
    assert "--yes" in done.errors


@pytest.mark.parametrize("role", ["viewer", "auditor", "pk"])
def test_roles_that_may_not_deploy_cannot_from_here_either(role: str, place: Place, policy: str) -> None:
    before = in_force(place)
    for arguments in (["push", policy, "--yes"], ["rollback", "1", "--yes"], ["plan", policy]):
        done = place.run("acl", *arguments, key=role)
        assert done.code == 3, done
        assert "Traceback" not in done.errors
    assert in_force(place) == before


def test_a_simulation_without_a_file_asks_the_rules_in_force(place: Place, policy: str) -> None:
    assert place.run("acl", "push", policy, "--yes").code == 0
    allowed = place.run("acl", "simulate", "--as", "ada", "--sub", "inbox/ada")
    assert (allowed.code, "allow" in allowed.output) == (0, True)
    assert place.run("acl", "simulate", "--as", "ada", "--sub", "inbox/bob").code == 1


def test_validating_asks_the_server_too_unless_told_not_to(place: Place, policy: str) -> None:
    assert place.run("acl", "validate", policy).code == 0
    gone = place.run("acl", "validate", policy, CLOUDSIGNAL_URL="http://127.0.0.1:1")
    assert gone.code == 0
    assert "checked here only" in gone.errors
    quiet = place.run("acl", "validate", policy, "--local-only", CLOUDSIGNAL_URL="http://127.0.0.1:1")
    assert (quiet.code, quiet.errors) == (0, "")


# --- credentials, sessions, audit ------------------------------------------------------------------------------------


def test_a_credential_is_created_signs_in_is_listed_and_revoked(place: Place) -> None:
    name = f"cli-{time.monotonic_ns()}"
    made = place.json("creds", "create", name, "--ttl", "15m", "--claim", "role=member", "--claim", "role=guest")
    assert made["username"] == f"{name}@{place.org}"
    listed = place.run("creds", "list", "--username", name)
    assert made["token_id"] in listed.output
    assert made["password"] not in listed.output
    with connected(place, made) as gone:
        sessions = [row for row in place.json("sessions", "list")["data"] if row["username"] == name]
        assert len(sessions) == 1
        assert name in place.run("sessions", "list").output
        closed = place.run("sessions", "close", sessions[0]["session"])
        assert closed.code == 0, closed
        assert gone.wait(20), "the session was not closed"
    with connected(place, made) as gone:
        revoked = place.run("creds", "revoke", made["token_id"], "--yes")
        assert (revoked.code, revoked.output) == (0, f"revoked {made['token_id']}\n")
        assert gone.wait(20), "the session was not closed"
    assert place.json("creds", "list", "--username", name)["data"][0]["state"] == "revoked"


def test_a_static_credential_says_that_it_does_not_end(place: Place) -> None:
    done = place.run("creds", "create", f"press-{time.monotonic_ns()}", "--static", "--note", "Hall B")
    assert (done.code, "never, until it is revoked" in done.output) == (0, True)
    assert "cannot be shown again" in done.errors


def test_a_whole_username_is_revoked(place: Place) -> None:
    name = f"all-{time.monotonic_ns()}"
    for _ in range(2):
        place.json("creds", "create", name)
    assert place.run("creds", "revoke", "--username", name).code == 2
    assert place.run("creds", "revoke", "--username", name, "--yes").code == 0
    states = {row["state"] for row in place.json("creds", "list", "--username", name)["data"]}
    assert states == {"revoked"}


@pytest.mark.parametrize(
    "arguments",
    [["create", "--ttl", "1s"], ["create", "--ttl", "soon"], ["create", "--ttl", "2d"], ["create", "Not A Name"],
     ["create", "--claim", "role"], ["create", "x" * 100], ["create", "ü" * 20], ["revoke", "--yes"],
     ["list", "--state", "odd"], ["list", "--limit", "0"]],
    ids=" ".join,
)  # fmt: skip
def test_wrong_input_is_exit_code_2_with_a_reason(arguments: list[str], place: Place) -> None:
    done = place.run("creds", *arguments)
    assert done.code == 2, done
    assert done.errors
    assert "Traceback" not in done.errors


def test_what_belongs_to_another_organization_does_not_exist_here(place: Place) -> None:
    for arguments in (
        ["creds", "revoke", place.foreign_token, "--yes"], ["creds", "revoke", "--username", "foreign", "--yes"],
        ["sessions", "close", "s-of-nobody"], ["sessions", "close", "../credentials/" + place.foreign_token],
        ["acl", "get", "--version", "4000"],
    ):  # fmt: skip
        done = place.run(*arguments)
        assert done.code == 1, done
        assert "does not exist" in done.errors
    assert place.json("creds", "list", "--username", "foreign")["data"] == []


def test_an_event_is_proven_within_seconds_and_verified_offline(place: Place, tmp_path: Path) -> None:
    """The running system: a worker signs checkpoints, the CLI fetches a pack, and the check needs no server."""
    name = f"proven-{time.monotonic_ns()}"
    place.json("creds", "create", name)
    vkey = place.stack.eventually(lambda: place.json("audit", "key")["keys"], what="a signed checkpoint")[0]
    packs = iter(range(1_000))

    def proven() -> Path | None:
        path = tmp_path / f"{next(packs)}.zip"
        done = place.run("audit", "pack", "-o", str(path))
        with contextlib.suppress(FileNotFoundError), zipfile.ZipFile(path) as archive:
            return path if name.encode() in archive.read("rows.jsonl") else None
        assert done.code in {0, 3, 4}, done
        return None

    path = place.stack.eventually(proven, seconds=30, what="a checkpoint over the event")
    nowhere = {"CLOUDSIGNAL_URL": "http://127.0.0.1:1"}
    done = place.run("audit", "verify", str(path), "--key", vkey, **nowhere)
    assert (done.code, done.output.startswith("verified: ")) == (0, True), done
    other = place.json("audit", "key")["platform_keys"][0]
    refused = place.run("audit", "verify", str(path), "--key", other, **nowhere)
    assert (refused.code, "not signed by a key that you trust" in refused.errors) == (1, True), refused


def test_the_audit_is_searched_and_followed(place: Place) -> None:
    names = [f"{word}-{time.monotonic_ns()}" for word in ("before", "audited", "after")]
    name, followed = names[1], list[dict[str, Any]]()
    own = {"CLOUDSIGNAL_URL": place.stack.url, "CLOUDSIGNAL_API_KEY": place.keys["auditor"]}
    tail = subprocess.Popen(
        command("audit", "tail", "--json", "--kind", "credential.issued"),
        cwd=PROJECT, env=alone() | own, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert tail.stdout is not None
    try:
        for each in names:
            place.json("creds", "create", each)
            while not followed or followed[-1]["username"] != each:
                followed.append(json.loads(tail.stdout.readline()))
    finally:
        tail.kill()
        tail.wait()
    found = place.stack.eventually(lambda: place.json("audit", "search", "--username", name, "--last", "5m")["data"])
    assert found[0]["kind"] == "credential.issued"
    assert name in place.run("audit", "search", "--username", name).output
    assert [event["username"] for event in followed].count(name) == 1
    assert len({event["id"] for event in followed}) == len(followed)
    assert place.run("audit", "search", "--kind", "acl_denied", "--topic-prefix", "nowhere/").output == "no results\n"
    assert place.run("audit", "search", "--since", "yesterday").code == 2
    assert name in place.run("audit", "tail", "--for", "0s", "--kind", "credential.issued").output


def test_following_ends_with_ctrl_c_and_without_complaint(place: Place) -> None:
    own = {"CLOUDSIGNAL_URL": place.stack.url, "CLOUDSIGNAL_API_KEY": place.keys["auditor"]}
    place.json("creds", "create", "before")
    tail = subprocess.Popen(
        command("audit", "tail", "--limit", "1"), cwd=PROJECT, env=alone() | own, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A test run in the background of a shell ignores SIGINT, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    assert tail.stdout is not None
    assert tail.stdout.readline()
    tail.send_signal(signal.SIGINT)
    assert tail.communicate(timeout=30)[1] == ""
    assert tail.returncode == 0


@pytest.mark.parametrize("role", ["developer", "viewer"])
def test_the_audit_is_for_those_who_may_read_it(role: str, place: Place) -> None:
    for arguments in (["search"], ["tail", "--for", "1s"]):
        assert place.run("audit", *arguments, key=role).code == 3


# --- keys that do not work -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["sk_nonsense", "Ada's", "rk_" + "0" * 27])
def test_a_wrong_key_is_exit_code_3(key: str, place: Place) -> None:
    done = place.run("whoami", key=key)
    assert done.code == 3, done
    assert "CLOUDSIGNAL_API_KEY" in done.errors
    assert key not in done.errors


def test_keys_end_when_they_are_revoked_expire_or_their_person_leaves(place: Place) -> None:
    made = json.loads(place.stack.django(ENDINGS, place.org).strip().splitlines()[-1])
    for why, key in made.items():
        done = place.run("whoami", key=key)
        assert done.code == 3, (why, done)
        assert key not in done.output + done.errors


ENDINGS = """
import json, sys
from datetime import timedelta
from django.utils import timezone
from orgs.access.grants import access_org
from orgs.models import ApiKey, Membership, User
from orgs.api_keys.keys import create_api_key, create_personal_key
from orgs.api_keys.revocation import revoke_api_key
from orgs.people.members import remove_member
from cloudsignal.tenancy.scopes import org_scope
owner = access_org(User.objects.get(email="grace@example.com"), sys.argv[1])
revoked, expired = (create_api_key(owner, kind="sk", name="over") for _ in range(2))
revoke_api_key(owner, revoked.key.pk)
leaver = User.objects.create_user("leaver@tidewater.example")
with org_scope(owner.org_id):
    ApiKey.objects.filter(pk=expired.key.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    row = Membership.objects.create(org=owner.org, user=leaver, role="admin")
left = create_personal_key(access_org(leaver, owner.org_id), machine="")
remove_member(owner, row.pk)
print(json.dumps({"revoked": revoked.secret, "expired": expired.secret, "left": left.secret}))
"""


def test_whoami_says_who_and_what(place: Place) -> None:
    found = place.json("whoami", key="developer")
    assert (found["person"], found["role"]) == ("developer@tidewater.example", "developer")
    assert "policy.deploy" in found["permissions"]
    shown = place.run("whoami").output
    assert f"Tidewater ({place.org})" in shown
    assert place.keys["sk"] not in shown


def api(place: Place) -> httpx.Client:
    return httpx.Client(base_url=place.stack.url, headers={"Authorization": f"Bearer {place.keys['sk']}"})


@contextlib.contextmanager
def connected(place: Place, made: dict[str, Any]) -> Iterator[threading.Event]:
    """A real MQTT client, signed in and not coming back by itself; the event says that it was cut off."""
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5, reconnect_on_failure=False)
    gone = threading.Event()
    client.on_disconnect = lambda *_: gone.set()
    client.username_pw_set(made["username"], made["password"])
    client.tls_set(str(place.stack.ca))
    client.connect("localhost", place.stack.mqtts_port, keepalive=60)
    client.loop_start()
    place.stack.eventually(client.is_connected, what="the sign-in")
    name = made["username"].partition("@")[0]
    seen = lambda: [row for row in place.json("sessions", "list")["data"] if row["username"] == name]  # noqa: E731
    place.stack.eventually(seen, what="the session in the list")
    try:
        yield gone
    finally:
        client.disconnect()
        client.loop_stop()
