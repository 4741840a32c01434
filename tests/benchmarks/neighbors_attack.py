"""The attacker of ``make bench-neighbors``, in a process of its own that gets an attack's name and options (JSON).

It runs one attack until its time is up. Loopback only; every attack is bounded in count and in time.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import ssl
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from cloudsignal.edge.codec.properties import USER_PROPERTIES_MAX
from tests.support import attacks, attacks_broker, attacks_connections, attacks_policy, attacks_web
from tests.support.attacks_connections import Target
from tests.support.wire import ClosedError, Wire

PAUSE = 0.05


class Attack:
    """What the attacker knows, and until when it goes on."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self.end = math.inf
        self.target = Target(0, 0, ssl.create_default_context())
        if "port" in options:
            self.target = Target(
                options["port"], options["wss_port"], ssl.create_default_context(cafile=options["ca"]),
                options["username"], options["password"],
            )  # fmt: skip

    def begin(self) -> None:
        """Say that the attack is under way; its time runs from now. Said once."""
        if self.end == math.inf:
            self.end = time.monotonic() + float(self.options["seconds"])
            print("begun", flush=True)

    def goes_on(self) -> bool:
        """Whether there is time left."""
        return time.monotonic() < self.end

    def again(self, once: Callable[[int], None]) -> None:
        """Do it again and again; what the edge closes is opened anew."""
        number = 0
        while self.goes_on():
            number += 1
            with contextlib.suppress(OSError, ClosedError, AssertionError):
                once(number)
            self.begin()
            time.sleep(PAUSE)

    def hold(self, context: contextlib.AbstractContextManager[object]) -> None:
        """Stay in a context until the time is up."""
        with context:
            time.sleep(10 * PAUSE)
            self.begin()
            while self.goes_on():
                time.sleep(PAUSE)


def user_properties(attack: Attack) -> None:
    """PUBLISH with 52,000 user properties, and with as many as are allowed, to 60 subscribers."""
    for number in range(attacks.SUBSCRIBERS):
        wire = attack.target.client(f"s{number}")
        wire.subscribe("fan")
        threading.Thread(target=_drain, args=(wire,), daemon=True).start()

    def once(number: int) -> None:
        wire = attack.target.client("writer")
        wire.send(attacks.publish("fan"))
        wire = attack.target.client("writer-within")
        attack.begin()
        for _ in range(20):
            wire.send(attacks.publish("fan", user_properties=USER_PROPERTIES_MAX))
            time.sleep(PAUSE)

    attack.again(once)


def connects(attack: Attack) -> None:
    """CONNECT with 52,000 user properties, without any credential, from four connections at a time."""

    def once(number: int) -> None:
        wire = attack.target.dial()
        wire.send(attacks.connect())
        wire.closed()

    threads = [threading.Thread(target=attack.again, args=(once,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def filters(attack: Attack) -> None:
    """SUBSCRIBE with 65,000 filters and UNSUBSCRIBE with 87,000."""

    def once(number: int) -> None:
        wire = attack.target.client("filters", version=4 + number % 2)
        version = 4 + number % 2
        wire.send(attacks.subscribe(version=version) if number % 4 < 2 else attacks.unsubscribe(version=version))
        wire.closed()

    attack.again(once)


def memory(attack: Attack) -> None:
    """Ten sessions that have used 512 topics of 64 KiB each, and are idle then."""
    held: list[Wire] = []
    attack.begin()
    with contextlib.suppress(OSError, ClosedError):
        held += [attacks_connections.remembered_topics(attack.target, f"m{number}") for number in range(10)]
    attack.again(lambda number: [wire.ping() for wire in held] and None)


def frames(attack: Attack) -> None:
    """WebSocket frames of 16 MiB in which everything but the last byte is sent."""
    attack.again(lambda number: attacks_connections.huge_frame(attack.target, f"f{number % 4}").closed() and None)


def journal(attack: Attack) -> None:
    """Denials on fresh topics of 60 KB over four connections."""
    attack.hold(attacks_connections.denied_topics(attack.target))


def retained(attack: Attack) -> None:
    """Retained messages of 250 KB on ever new topics, as fast as they go."""

    def once(number: int) -> None:
        attack.begin()
        left = attack.end - time.monotonic()
        attacks_broker.retained_flood(
            attack.target.dial, attack.target.username, attack.target.password, seconds=min(left, 6.0)
        )

    attack.again(once)


def silence(attack: Attack) -> None:
    """1,500 TCP connections a second that say nothing."""
    attack.hold(attacks_connections.silent_connections(attack.target))


def bodies(attack: Attack) -> None:
    """Requests with a Content-Length and no body: 16 at a time, opened anew when they are closed."""
    while attack.goes_on():
        attack.begin()
        with contextlib.suppress(OSError), attacks_web.without_a_body(attack.options["url"], 16) as held:
            held.answers(seconds=min(5.0, max(0.0, attack.end - time.monotonic())))


def documents(attack: Attack) -> None:
    """16 requests at a time that compare documents of 44 KiB made to be dear."""
    before, after = attacks_policy.PAIRS["plus and literals"](1.0)
    while len(after.encode()) > 44 * 1024:
        size = json.loads(after)["rules"]
        after = json.dumps({"version": "3", "rules": size[: len(size) * 9 // 10]})
    headers = {"Authorization": f"Bearer {attack.options['key']}"}

    def once() -> None:
        with httpx.Client(base_url=attack.options["url"], headers=headers, timeout=60, trust_env=False) as client:
            while attack.goes_on():
                with contextlib.suppress(httpx.HTTPError):
                    client.post("/v2/policy/diff", json={"new_text": after, "old_text": before})
                    client.post("/v2/policy/validate", json={"text": after})

    threads = [threading.Thread(target=once, daemon=True) for _ in range(16)]
    for thread in threads:
        thread.start()
    attack.begin()
    time.sleep(max(0.0, attack.end - time.monotonic()))


def _drain(wire: Wire) -> None:
    with contextlib.suppress(OSError):
        while wire.sock.recv(262_144):
            pass


ATTACKS: dict[str, Callable[[Attack], None]] = {
    one.__name__: one
    for one in (user_properties, connects, filters, memory, frames, journal, retained, silence, bodies, documents)
}


def main() -> int:
    """Run the attack that the command line names."""
    # In the field the attacker has a machine of its own. Here it gets only what nobody else wants, and gives it back at
    # once: with a low priority alone the scheduler would let it run on for milliseconds before it wakes the edge.
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    else:
        os.nice(19)
    name, options = sys.argv[1], json.loads(sys.argv[2])
    ATTACKS[name](Attack(options))
    os._exit(0)  # threads that wait for an answer are not waited for


if __name__ == "__main__":
    sys.exit(main())
