"""Fixtures of the edge's tests: shared parts for most of them, own ones where parts are killed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.parts import Broker
from tests.support.rig import Rig, build_rig, stop_rig


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
