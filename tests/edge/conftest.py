"""Fixtures of the edge's tests: shared parts for most of them, own ones where parts are killed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.parts import ALLOW_ALL, Authority, Broker, Edge, Issued, Plane, Valkey
from tests.support.wire import Wire, dial_tls


@dataclass
class Rig:
    """Everything one edge needs, and the edge."""

    broker: Broker
    valkey: Valkey
    plane: Plane
    authority: Authority
    edge: Edge

    def org(self, policy: str = ALLOW_ALL, **options: object) -> str:
        """A new organization whose policy is in force."""
        org = self.plane.new_org()
        self.plane.enforced(org, self.plane.deploy(org, policy, **options))
        return org

    def dial(self) -> Wire:
        """A TLS connection to the edge."""
        return dial_tls(self.edge.port, self.authority.client_context())

    def client(self, issued: Issued, *, version: int = 5, **options: object) -> Wire:
        """A signed-in client."""
        wire = self.dial()
        answer = wire.connect(version=version, username=issued.username, password=issued.password, **options)  # type: ignore[arg-type]
        assert answer.code == 0, hex(answer.code)
        return wire


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


def build_rig(folder: Path, *, broker: Broker | None = None, edge: type[Edge] = Edge, **env: str) -> Rig:
    """Start a broker, a Valkey and an edge."""
    broker = broker or Broker(folder)
    broker.start()
    valkey = Valkey(folder)
    valkey.start()
    plane = Plane(valkey.redis, folder)
    authority = Authority(folder / "tls")
    made = edge(
        folder,
        redis_url=valkey.url,
        upstream=f"unix://{broker.socket}",
        verify_key=plane.verify_key,
        authority=authority,
        **env,
    )
    rig = Rig(broker, valkey, plane, authority, made)
    try:
        made.start()
    except BaseException:
        stop_rig(rig)  # nobody else knows of them yet
        raise
    return rig


def stop_rig(rig: Rig) -> None:
    """Stop what :func:`build_rig` started; how an edge drains is a test of its own."""
    rig.edge.stop(kill=True)
    rig.broker.stop()
    rig.valkey.stop(kill=True)


@pytest.fixture(scope="session")
def rig(workdir: Path) -> Iterator[Rig]:
    """The shared edge. Tests make organizations of their own in it and kill nothing."""
    made = build_rig(Path(tempfile.mkdtemp(dir=workdir)))
    yield made
    stop_rig(made)


@pytest.fixture
def make_rig(workdir: Path) -> Iterator[Callable[..., Rig]]:
    """Rigs for one test, whose parts may be killed."""
    made: list[Rig] = []

    def make(**options: object) -> Rig:
        made.append(build_rig(Path(tempfile.mkdtemp(dir=workdir)), **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for one in made:
        stop_rig(one)
