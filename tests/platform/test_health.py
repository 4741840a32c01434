"""Liveness, readiness, alive files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.db import DatabaseError
from django.test import Client
from redis import Redis

from acl.models import Cluster, Node
from cloudsignal.health import alive

pytestmark = pytest.mark.django_db


def test_healthz_asks_nothing(client: Client, django_assert_num_queries) -> None:  # type: ignore[no-untyped-def]
    with django_assert_num_queries(0):
        response = client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_readyz_says_which_part_is_missing(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    brokers = "no edge node is online"
    assert client.get("/readyz").json() == {"status": "ok", "database": "ok", "redis": "ok", "brokers": brokers}
    nowhere = Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.2)
    monkeypatch.setattr("cloudsignal.health.views.fast_client", lambda: nowhere)
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.json() == {
        "status": "unavailable", "database": "ok", "redis": "unavailable", "brokers": brokers,
    }  # fmt: skip


def test_trouble_of_the_brokers_is_told_and_takes_no_control_plane_out_of_service(client: Client) -> None:
    cluster = Cluster.objects.get(name="default")
    node = Node.objects.create(cluster=cluster, name="edge-1", brokers=[{"label": "b1", "state": "unreachable"}])
    response = client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (200, "ok")
    assert response.json()["brokers"] == "1 of 1 edge nodes reach no broker"
    node.brokers = [{"label": "b1", "state": "reachable", "cluster": "disagree"}]
    node.save()
    assert client.get("/readyz").json()["brokers"] == "broker nodes disagree about their members"
    node.brokers = [{"label": "b1", "state": "reachable", "cluster": "agree"}]
    node.save()
    assert client.get("/readyz").json()["brokers"] == "ok"


def test_readyz_without_a_database(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> None:
        raise DatabaseError

    monkeypatch.setattr("cloudsignal.health.views.connection.cursor", away)
    response = client.get("/readyz")
    assert (response.status_code, response.json()["database"]) == (503, "unavailable")


def test_a_role_that_bypasses_row_level_security_is_not_ready(
    client: Client, monkeypatch: pytest.MonkeyPatch, databases
) -> None:  # type: ignore[no-untyped-def]
    with databases.admin() as admin:
        monkeypatch.setattr("cloudsignal.health.views.connection", admin)
        response = client.get("/readyz")
    assert response.status_code == 503
    assert "row-level security" in response.json()["database"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_is_read_only_and_never_cached(client: Client, path: str) -> None:
    assert client.post(path).status_code == 405
    assert "no-store" in client.get(path)["Cache-Control"]


def test_alive_files_tell_their_age(settings: LazySettings, tmp_path: Path) -> None:
    settings.DATA_DIR = tmp_path
    assert alive.age("worker") is None
    alive.touch("worker")
    age = alive.age("worker")
    assert age is not None
    assert age < alive.STALE_SECONDS
    past = time.time() - 100
    os.utime(alive.path("worker"), (past, past))
    age = alive.age("worker")
    assert age is not None
    assert age > alive.STALE_SECONDS


def test_an_alive_file_that_cannot_be_written_stops_nothing(
    settings: LazySettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "alive").write_text("a file where the folder should be")
    settings.DATA_DIR = tmp_path
    alive.touch("beat")
    assert "beat" in caplog.text
