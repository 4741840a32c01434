"""What a refused client is told, and what common clients make of it: codes that mean "try again" where that helps."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from audit.kinds import AuthReason, CloseCause
from cloudsignal.edge import codec
from cloudsignal.edge.audit.events import Origin
from cloudsignal.edge.codec import Connect, Kind, Properties, Property, Publish, Reason
from cloudsignal.edge.session.machine import Session
from cloudsignal.edge.session.responses import AUTH_ANSWERS, CLOSE_ANSWERS
from cloudsignal.wire.change import Change
from tests.support.node_clients import run
from tests.support.parts import Issued, wait_for
from tests.support.rig import Rig
from tests.support.session_bench import Bench
from tests.support.trail import ListSink

DOCS = Path(__file__).parents[2] / "docs" / "edge.md"
BOTH = pytest.mark.parametrize("version", [4, 5])


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of docs/edge.md."""
    section = DOCS.read_text().split(f"## {heading}\n", 1)[1]
    lines = section[section.index("| ") :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`([a-z_]+)`", cell)


def test_the_documentation_lists_every_refusal_with_its_codes_and_whether_it_passes() -> None:
    told = {name: row for row in table("Signing in") for name in names(row[0])}
    assert set(told) == {reason.value for reason in AuthReason}
    for reason, answer in AUTH_ANSWERS.items():
        _, five, three, passes, *_ = told[reason.value]
        if reason is not AuthReason.PROTOCOL:  # it has one of several codes
            code = codec.connack(4, answer.code)[-1]
            assert (five, three) == (f"0x{answer.code:02X}", str(code)), reason
        assert passes == ("yes" if answer.passes else "no"), reason


def test_the_documentation_lists_every_end_with_its_code_and_whether_it_passes() -> None:
    told = {name: row for row in table("Ends of sessions") for name in names(row[0])}
    assert set(told) == {cause.value for cause in CloseCause} - {"quota"}
    for cause, answer in CLOSE_ANSWERS.items():
        if cause.value in told and cause is not CloseCause.PROTOCOL:
            _, five, passes, *_ = told[cause.value]
            assert five == f"0x{answer.code:02X}", cause
            assert passes == ("yes" if answer.passes else "no"), cause


def test_what_passes_by_itself_never_says_not_authorized_and_everything_says_why() -> None:
    final = {Reason.NOT_AUTHORIZED, Reason.BAD_LOGIN, Reason.BANNED}
    for answer in (*AUTH_ANSWERS.values(), *CLOSE_ANSWERS.values()):
        assert not (answer.passes and answer.code in final), answer
    texts = {answer.text for answer in AUTH_ANSWERS.values()}
    assert all(texts)
    same = {AUTH_ANSWERS[reason] for reason in (AuthReason.UNKNOWN, AuthReason.BAD_SECRET, AuthReason.MALFORMED)}
    assert len(same) == 1, "nothing can be told from the words either"


def refusal(reason: AuthReason, limit: int = 0) -> bytes:
    """The CONNACK of a client of MQTT 5 whose packets may have so many bytes."""
    session = Session(Origin("127.0.0.1", 1, "mqtts"), ListSink())
    properties = Properties([(Property.MAXIMUM_PACKET_SIZE, limit)] if limit else [])
    session.client_received(codec.encode_connect(Connect(5, "c1", properties=properties)))
    session.refuse(reason)
    return b"".join(session.to_client)


@pytest.mark.parametrize("reason", list(AuthReason))
def test_a_refusal_says_why_in_words_that_fit_what_the_client_takes(reason: AuthReason) -> None:
    answer = AUTH_ANSWERS[reason]
    whole = refusal(reason)
    assert codec.decode_connack(whole[2:], 5).properties.string(Property.REASON_STRING) == answer.text.encode()
    assert refusal(reason, len(whole)) == whole
    assert refusal(reason, len(whole) - 1) == codec.connack(5, answer.code)


@pytest.mark.parametrize("qos", [1, 2])
def test_a_refused_publish_says_why_unless_the_client_wants_no_reasons(qos: int) -> None:
    kind = Kind.PUBACK if qos == 1 else Kind.PUBREC
    for wants, text in ((1, "the policy does not allow this publish"), (0, "")):
        properties = Properties([(Property.REQUEST_PROBLEM_INFORMATION, wants)])
        bench = Bench(policy="version: '3'\nrules: []", connect={"properties": properties})
        bench.session.client_received(codec.encode_publish(Publish(b"a", b"", qos, packet_id=7), 5))
        assert bench.client() == codec.acknowledgement(kind, 7, 5, 0x87, text)


# --- what clients make of it -----------------------------------------------------------------------------------------


def options(rig: Rig, issued: Issued, version: int, **more: object) -> dict[str, object]:
    login = {"username": issued.username, "password": issued.password, "protocolVersion": version}
    return {"url": f"mqtts://localhost:{rig.edge.port}", "ca": str(rig.authority.file), **login, "seconds": 4, **more}


def resumed(rig: Rig, org: str, work: Callable[[], Any]) -> Any:
    """What ``work`` returns; the organization is resumed as soon as it was refused once."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        wait_for(lambda: rig.plane.events(org=org, kind="auth_failed", reason="org_suspended"), what="the refusal")
        rig.plane.enforced(org, rig.plane.deploy(org))
        return future.result(60)


@BOTH
@pytest.mark.parametrize("again", [False, True], ids=["default", "reconnectOnConnackError"])
def test_mqtt_js_stops_at_any_refusal_unless_told_to_try_again(rig: Rig, version: int, again: bool) -> None:
    """Also at 0x88, since 5.16: what is documented for it must be so."""
    org = rig.org(suspended=True)
    wanted = options(rig, rig.plane.issue(org), version, reconnectOnConnackError=again, seconds=4 if again else 2)
    found = resumed(rig, org, lambda: run("refused.mjs", wanted))
    text = AUTH_ANSWERS[AuthReason.ORG_SUSPENDED].text if version == 5 else ""
    assert found["told"][0] == ["connack", 0x88 if version == 5 else 3, text]
    assert found["connected"] is again


@BOTH
def test_mqtt_js_connects_again_after_a_session_was_ended(rig: Rig, version: int) -> None:
    org = rig.org()
    wanted = options(rig, rig.plane.issue(org), version, clientId="kicked")
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run, "refused.mjs", wanted)
        session = rig.plane.event(org=org, kind="connect").session
        rig.plane.announce(Change("close", org, session=session, committed_at=time.time()))
        found = future.result(60)
    ends = [one for one in found["told"] if one[0] == "disconnect"]
    assert ends == ([["disconnect", 0x98, "closed by an administrator"]] if version == 5 else [])
    assert [one[:2] for one in found["told"] if one[0] == "connack"] == [["connack", 0], ["connack", 0]]


@BOTH
def test_paho_tries_again_after_any_refusal(rig: Rig, version: int) -> None:
    org = rig.org(suspended=True)
    issued = rig.plane.issue(org)
    protocol = MQTTProtocolVersion.MQTTv5 if version == 5 else MQTTProtocolVersion.MQTTv311
    client = Client(CallbackAPIVersion.VERSION2, "paho", protocol=protocol)
    client.username_pw_set(issued.username, issued.password)
    client.tls_set_context(rig.authority.client_context())
    client.reconnect_delay_set(1, 1)
    came_in = threading.Event()
    codes: list[str] = []

    def on_connect(_client: object, _data: object, _flags: object, code: Any, _properties: object) -> None:
        codes.append(str(code))
        if not code.is_failure:
            came_in.set()

    client.on_connect = on_connect
    client.connect("localhost", rig.edge.port)
    client.loop_start()
    try:
        assert resumed(rig, org, lambda: came_in.wait(20))
    finally:
        client.disconnect()
        client.loop_stop()
    assert codes[0] == "Server unavailable"
