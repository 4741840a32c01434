"""What a run consists of on machines that run some of the parts; nothing is started."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudsignal.config import ConfigError
from cloudsignal.secrets import pki
from cloudsignal.supervisor.assembly import Assembly, System
from cloudsignal.supervisor.options import Options
from tests.support.process import temporary_data_folder

DATABASES = {
    "DATABASE_URL": "postgresql://app@db.example.com/cloudsignal",
    "DATABASE_OWNER_URL": "postgresql://owner@db.example.com/cloudsignal",
    "REDIS_URL": "redis://redis.example.com:6379/0",
}
BROKER = {"MQTT_UPSTREAM_URL": "unix:///run/broker.sock"}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A data folder that the service account can reach."""
    folder = temporary_data_folder("assembly")
    folder.chmod(0o755)
    yield folder / "data"
    shutil.rmtree(folder)


def build(folder: Path, parts: str, own: dict[str, str], **options: int) -> System:
    chosen = Options(folder, listen="127.0.0.1", parts=frozenset(parts.split(",")), **options)  # type: ignore[arg-type]
    return Assembly(chosen, own).build()


@pytest.mark.parametrize(
    ("own", "edges", "names"),
    [
        ({}, 1, ["edge-1"]),
        ({}, 2, ["edge-1", "edge-2"]),
        ({"EDGE_NODE": "hall-b"}, 1, ["hall-b"]),
        ({"EDGE_NODE": "hall-b"}, 2, ["hall-b-1", "hall-b-2"]),
    ],
)
def test_edges_of_several_machines_can_have_names_of_their_own(
    own: dict[str, str], edges: int, names: list[str], folder: Path
) -> None:
    system = build(folder, "edge", DATABASES | BROKER | own, edges=edges, mqtts_port=0, wss_port=0)
    assert system.nodes == [part.environment["EDGE_NODE"] for part in system.parts] == names
    assert set(system.urls) == {"mqtts", "wss"}, "no dashboard runs here"


def test_a_dashboard_without_edges_names_their_usual_port_whoever_has_it_here(folder: Path) -> None:
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # somebody else has it: just as good
            held.enter_context(socket.create_server(("127.0.0.1", 8883)))
        system = build(folder, "web", DATABASES, web_port=0)
    (web,) = system.parts
    assert web.environment["CLOUDSIGNAL_MQTT_PORT"] == "8883"
    assert system.urls == {"web": f"http://localhost:{system.ports['web']}"}
    assert not (folder / "tls" / "ca.pem").exists(), "it would be offered to clients of other edges"


def test_a_node_key_of_another_pepper_is_refused_where_edges_run_and_taken_where_ingest_runs_alone(
    folder: Path,
) -> None:
    own = DATABASES | BROKER | {"CLOUDSIGNAL_NODE_KEY": "01" * 32}
    with pytest.raises(ConfigError, match="CLOUDSIGNAL_NODE_KEY is not the one that is made from the pepper"):
        build(folder, "edge,ingest", own, mqtts_port=0, wss_port=0)
    (ingest,) = build(folder, "ingest", own).parts
    assert ingest.environment["CLOUDSIGNAL_NODE_KEY"] == "01" * 32


def test_who_brings_a_certificate_offers_no_local_authority_any_more(folder: Path, tmp_path: Path) -> None:
    own, ports = DATABASES | BROKER, {"mqtts_port": 0, "wss_port": 0}
    assert build(folder, "edge", own, **ports).ca == folder / "tls" / "ca.pem"
    key = (folder / "tls" / "ca.key").read_bytes()
    brought = pki.ensure(tmp_path)
    own |= {"EDGE_TLS_CERT": str(brought.cert), "EDGE_TLS_KEY": str(brought.key)}
    assert build(folder, "edge", own, **ports).ca is None
    assert not (folder / "tls" / "ca.pem").exists()
    assert (folder / "tls" / "ca.key").read_bytes() == key


def test_a_worker_knows_where_people_reach_the_dashboard(folder: Path) -> None:
    system = build(folder, "worker", DATABASES | {"CLOUDSIGNAL_PUBLIC_URL": "https://signal.example.com"})
    assert system.parts[0].environment["CLOUDSIGNAL_PUBLIC_URL"] == "https://signal.example.com"
