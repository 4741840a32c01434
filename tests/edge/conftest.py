"""Real parts for the edge's tests: Mosquitto on a unix socket, a Valkey, a certificate authority, edge processes.

Everything listens on loopback with free ports and lives in a temporary folder; nothing of Django is used.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cloudsignal.edge.brokers import MOSQUITTO_ACL, mosquitto_config


def wait_for(condition: Callable[[], object], *, seconds: float = 10.0, what: str = "the condition") -> None:
    """Poll until ``condition()`` is true; fails after ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come about within {seconds} s")
        time.sleep(0.01)


class Broker:
    """A Mosquitto with the generated configuration. ``acl`` replaces the ACL file's content."""

    def __init__(self, folder: Path, *, acl: str = MOSQUITTO_ACL) -> None:
        self.folder = folder
        self.socket = folder / "broker.sock"
        data = folder / "db"
        data.mkdir(parents=True, exist_ok=True)
        acl_file = folder / "acl"
        acl_file.write_text(acl)
        acl_file.chmod(0o600)
        user = "root" if os.geteuid() == 0 else None
        self.config = folder / "mosquitto.conf"
        self.config.write_text(mosquitto_config(socket=self.socket, acl_file=acl_file, data=data, user=user))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait for its socket to accept."""
        program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        assert program, "mosquitto is not installed"
        log = (self.folder / "broker.log").open("ab")
        self.process = subprocess.Popen([program, "-c", str(self.config)], stdout=log, stderr=log)
        wait_for(self.accepts, what="mosquitto")

    def accepts(self) -> bool:
        """Whether something listens on the socket."""
        import socket

        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True

    def stop(self, *, kill: bool = False) -> None:
        """Stop it; ``kill`` gives it no chance to save."""
        if self.process is not None:
            if kill:
                self.process.kill()
            else:
                self.process.terminate()
            self.process.wait(10)
            self.process = None


@pytest.fixture(scope="session")
def workdir() -> Iterator[Path]:
    """A short temporary folder: paths of unix sockets hold 107 bytes at most."""
    folder = Path(tempfile.mkdtemp(prefix="cs-edge-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def broker(workdir: Path) -> Iterator[Broker]:
    """A Mosquitto of its own for one test."""
    made = Broker(Path(tempfile.mkdtemp(dir=workdir)))
    made.start()
    yield made
    made.stop()
