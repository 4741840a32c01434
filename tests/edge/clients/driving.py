"""A client library in a process of its own: commands go in, events come out, each a line of JSON."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.npm import installed
from tests.support.parts import Issued
from tests.support.rig import Rig

DRIVERS = Path(__file__).parent / "drivers"
NODE = Path(__file__).parent.parent / "node"


@dataclass(frozen=True, slots=True)
class Library:
    """A client library as the table names it."""

    name: str
    driver: str
    version: int

    def command(self, options: dict[str, object]) -> list[str]:
        """What starts its driver."""
        script = str(DRIVERS / self.driver)
        if script.endswith(".mjs"):
            node = shutil.which("node")
            assert node, "node is not installed; run `make setup`"
            return [node, script, f"{installed(NODE)}/", json.dumps(options)]
        return [sys.executable, script, json.dumps(options)]


LIBRARIES = (
    Library("paho (Python), MQTT 5", "paho_driver.py", 5),
    Library("paho (Python), MQTT 3.1.1", "paho_driver.py", 4),
    Library("aiomqtt, MQTT 5", "aiomqtt_driver.py", 5),
    Library("aiomqtt, MQTT 3.1.1", "aiomqtt_driver.py", 4),
    Library("gmqtt, MQTT 5", "gmqtt_driver.py", 5),
    Library("gmqtt, MQTT 3.1.1", "gmqtt_driver.py", 4),
    Library("awscrt, MQTT 5", "awscrt_driver.py", 5),
    Library("MQTT.js, MQTT 5", "mqttjs_driver.mjs", 5),
    Library("MQTT.js, MQTT 3.1.1", "mqttjs_driver.mjs", 4),
)


class Client:
    """One running client. ``events`` holds everything it said so far."""

    def __init__(self, library: Library, rig: Rig, issued: Issued, **options: object) -> None:
        given: dict[str, object] = {
            "host": "localhost", "port": rig.edge.port, "ca": str(rig.authority.file), "version": library.version,
            "username": issued.username, "password": issued.password, "client_id": f"c-{issued.local}", "clean": True,
        }  # fmt: skip
        environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        self.process = subprocess.Popen(
            library.command(given | options), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment,
        )  # fmt: skip
        self.events: list[dict[str, Any]] = []
        self._new: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            self.events.append(event)
            self._new.put(event)

    def do(self, what: str, topic: str) -> None:
        """Give a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": what, "topic": topic}) + "\n")
        self.process.stdin.flush()

    def wait(self, *kinds: str, seconds: float = 20.0) -> dict[str, Any] | None:
        """The next event of one of these kinds; None when none comes. Others on the way are passed over."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                event = self._new.get(timeout=left)
            except queue.Empty:
                return None
            if event["event"] in kinds:
                return event
        return None

    def kill(self) -> None:
        """End it as a crash does: nothing is said to the edge."""
        self.process.kill()
        self.process.wait()
