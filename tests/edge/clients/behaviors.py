"""What a client library shows its program of what the edge does: one question each, answered from a real run."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.edge.clients.driving import Client, Library
from tests.support.parts import ALLOW_ALL
from tests.support.rig import Rig

POLICY = "version: '3'\nrules:\n  - {id: open, topic: open/#}\n"
SEEN_SECONDS = 8.0
"""How long a client is watched for what it does by itself."""


def refused_publish(library: Library, rig: Rig) -> str:
    """QoS 1 to a topic that no rule allows."""
    org = rig.org(POLICY)
    client = Client(library, rig, rig.plane.issue(org))
    assert client.wait("connected"), client.events
    client.do("publish", "closed/door")
    told = client.wait("published", "disconnected", seconds=3)
    client.do("publish", "open/door")
    client.do("subscribe", "open/#")
    goes_on = client.wait("subscribed", seconds=20) is not None
    client.kill()
    return f"{_code(told)}; {'stays connected' if goes_on else 'connection lost'}"


def refused_subscribe(library: Library, rig: Rig) -> str:
    """A filter that no rule allows."""
    org = rig.org(POLICY)
    client = Client(library, rig, rig.plane.issue(org))
    assert client.wait("connected"), client.events
    client.do("subscribe", "closed/#")
    told = client.wait("subscribed", "disconnected", seconds=15)
    client.do("subscribe", "open/#")
    goes_on = client.wait("subscribed", seconds=20) is not None
    client.kill()
    return f"{_code(told)}; {'stays connected' if goes_on else 'connection lost'}"


def expiry(library: Library, rig: Rig) -> str:
    """The credential ends while the client is connected; it keeps the password it has."""
    org = rig.org(POLICY)
    client = Client(library, rig, rig.plane.issue(org, ttl=4))
    assert client.wait("connected"), client.events
    told = client.wait("disconnected")
    time.sleep(SEEN_SECONDS)
    tries = len(rig.plane.events(org=org, kind="auth_failed"))
    client.kill()
    return f"{_code(told)}; {'tries again and is refused' if tries else 'does not try again'}"


def suspension(library: Library, rig: Rig) -> str:
    """The organization is suspended for a few seconds and resumed."""
    org = rig.org(POLICY)
    client = Client(library, rig, rig.plane.issue(org))
    assert client.wait("connected"), client.events
    rig.plane.deploy(org, POLICY, suspended=True)
    told = client.wait("disconnected")
    time.sleep(3)
    rig.plane.deploy(org, POLICY)
    back = client.wait("connected", seconds=40) is not None
    client.kill()
    return f"{_code(told)}; {'comes back by itself' if back else 'does not come back'}"


def edge_killed(library: Library, rig: Rig) -> str:
    """The edge is killed and started again."""
    org = rig.org(ALLOW_ALL)
    client = Client(library, rig, rig.plane.issue(org))
    assert client.wait("connected"), client.events
    rig.edge.stop(kill=True)
    assert client.wait("disconnected", seconds=40), client.events
    rig.edge.start()
    back = client.wait("connected", seconds=60) is not None
    client.kill()
    return "comes back by itself" if back else "does not come back"


def will(library: Library, rig: Rig) -> str:
    """The client is killed; somebody else waits for its will."""
    org = rig.org(ALLOW_ALL)
    watcher = rig.client(rig.plane.issue(org, "watcher"), client_id="watcher")
    watcher.subscribe("wills/#")
    client = Client(library, rig, rig.plane.issue(org), will="wills/c")
    assert client.wait("connected"), client.events
    client.kill()
    return "delivered" if watcher.delivery().topic == b"wills/c" else "lost"


def retained(library: Library, rig: Rig) -> str:
    """A retained message is there before the client subscribes."""
    org = rig.org(ALLOW_ALL)
    rig.client(rig.plane.issue(org, "writer")).publish("kept/state", b"x", qos=1, retain=True)
    client = Client(library, rig, rig.plane.issue(org))
    assert client.wait("connected"), client.events
    client.do("subscribe", "kept/#")
    found = client.wait("message", seconds=10)
    client.kill()
    return "delivered after the subscription" if found and found["topic"] == "kept/state" else "lost"


def resume(library: Library, rig: Rig) -> str:
    """A stored session: the client is killed, a message is sent, the client comes back."""
    org = rig.org(ALLOW_ALL)
    issued = rig.plane.issue(org)
    first = Client(library, rig, issued, clean=False)
    assert first.wait("connected"), first.events
    first.do("subscribe", "queue/#")
    assert first.wait("subscribed"), first.events
    first.kill()
    assert rig.plane.event(org=org, kind="disconnect").reason
    rig.client(rig.plane.issue(org, "writer")).publish("queue/1", b"x", qos=1)
    second = Client(library, rig, issued, clean=False)
    found = second.wait("message", seconds=15)
    second.kill()
    return "resumed, nothing lost" if found and found["topic"] == "queue/1" else "message lost"


BEHAVIORS: dict[str, Callable[[Library, Rig], str]] = {
    "denied publish": refused_publish,
    "denied subscribe": refused_subscribe,
    "expiry": expiry,
    "suspension": suspension,
    "edge killed": edge_killed,
    "will": will,
    "retained": retained,
    "resume": resume,
}


def _code(event: dict[str, object] | None) -> str:
    """What the program learned: a reason code, that something went wrong, or nothing."""
    if event is None:
        return "told nothing"
    code = event["code"]
    if event["event"] == "disconnected":
        return f"disconnected, {int(str(code)):#04x}" if code else "disconnected, no reason"
    if not isinstance(code, int) or code < 0:
        return "told that it failed"
    return f"told {code:#04x}" if code >= 0x80 else "told that it was done"
