"""Attacks of one tenant or stranger: bounded in memory, on disk and in what they take from others."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.edge.conftest import Rig
from tests.edge.parts import Issued, wait_for
from tests.support import attacks_connections as attacks
from tests.support.attacks_connections import Target

MakeRig = Callable[..., Rig]

NOTHING = "version: '3'\nrules: []"
MB = 1024 * 1024


def target(rig: Rig, issued: Issued | None = None) -> Target:
    """The rig's edge as attackers see it."""
    context = rig.authority.client_context()
    if issued is None:
        return Target(rig.edge.port, rig.edge.wss_port, context)
    return Target(rig.edge.port, rig.edge.wss_port, context, issued.username, issued.password)


def signs_in(rig: Rig, issued: Issued) -> bool:
    """Whether a client gets in."""
    wire = rig.dial()
    return wire.connect(version=5, client_id="again", username=issued.username, password=issued.password).code == 0


def journal_bytes(rig: Rig) -> int:
    """Bytes of the edge's journal on disk."""
    folder = rig.edge.folder / "edge" / rig.edge.node / "journal"
    return sum(path.stat().st_size for path in folder.iterdir())


def test_fresh_denied_topics_fill_no_disk_and_keep_nobody_out(make_rig: MakeRig) -> None:
    """Also while nothing can be shipped; and every one of them is counted."""
    rig = make_rig(EDGE_JOURNAL_MB="4")
    org, other = rig.org(NOTHING), rig.org()
    loud, quiet = rig.plane.issue(org), rig.plane.issue(other)
    rig.client(quiet, client_id="first").disconnect()
    rig.client(loud, client_id="known").disconnect()
    rig.plane.event(org=other, kind="disconnect")
    rig.valkey.stop(kill=True)
    largest = 0
    with attacks.denied_topics(target(rig, loud), most=6_000) as attack:
        end = time.monotonic() + 20
        while attack.count < 6_000 and time.monotonic() < end:
            rig.client(quiet, client_id="again").disconnect()
            largest = max(largest, journal_bytes(rig))
            time.sleep(0.05)
    assert largest < 3 * MB, "a flood of one organization takes more than its share"
    answer = rig.dial().connect(version=5, client_id="more", username=loud.username, password=loud.password)
    assert answer.code == 0x97, "an organization that has its share of the journal gets no new sessions"
    rig.client(quiet, client_id="again").ping()
    rig.valkey.start()

    def denied() -> int:
        return sum(event.count for event in rig.plane.events(org=org, kind="acl_denied"))

    wait_for(lambda: denied() == attack.count, what=f"{attack.count} denials, counted to the last one")
    events = rig.plane.events(org=org, kind="acl_denied")
    assert max(len(event.topic) for event in events) <= 2_000
    assert {event.details.get("topic_bytes") for event in events} == {60_000, None}
    assert rig.plane.event(org=org, kind="auth_failed").details == {"limit": "audit_journal"}
    wait_for(lambda: signs_in(rig, loud), what="room in the journal")
