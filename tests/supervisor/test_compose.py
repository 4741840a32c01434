"""``compose.yaml`` and the Dockerfile stay true to what ``cloudsignal up`` does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloudsignal.config import VARIABLES
from cloudsignal.edge import brokers
from cloudsignal.supervisor.part import PROJECT

COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "compose.yaml").read_text())
ROLES = {
    "web": "web",
    "worker": "worker",
    "beat": "worker",
    "ingest": "ingest",
    "edge": "edge",
    "migrate": "migrations",
}
EXTRA = {("migrate", "DATABASE_URL")}
"""Variables a service gets although the table does not name its role."""


def test_the_broker_is_configured_as_the_embedded_one() -> None:
    text = brokers.mosquitto_config(
        socket=Path("/run/broker/mqtt.sock"), acl_file=Path("/config/acl"), data=Path("/broker")
    )
    wanted = [line for line in text.splitlines() if not line.startswith("#")]
    assert COMPOSE["configs"]["mosquitto"]["content"].splitlines() == wanted
    assert COMPOSE["configs"]["mosquitto-acl"]["content"] == brokers.MOSQUITTO_ACL


@pytest.mark.parametrize("service", sorted(ROLES))
def test_a_service_gets_the_variables_of_its_role_and_no_other(service: str) -> None:
    readers = {variable.name: {one.strip() for one in variable.read_by.split(",")} for variable in VARIABLES}
    for name in COMPOSE["services"][service]["environment"]:
        assert name in readers, f"{name} is no variable of CloudSignal"
        assert ROLES[service] in readers[name] or (service, name) in EXTRA, f"{service} does not read {name}"


def test_a_variable_that_one_service_is_given_reaches_all_that_read_it() -> None:
    given = {name for service in ROLES for name in COMPOSE["services"][service]["environment"]}
    for variable in VARIABLES:
        for service in set(ROLES) - {"beat"} if variable.name in given else ():
            if ROLES[service] in {reader.strip() for reader in variable.read_by.split(",")}:
                assert variable.name in COMPOSE["services"][service]["environment"], f"{service}: {variable.name}"


def test_only_the_edge_is_published_and_the_dashboard_on_loopback_alone() -> None:
    published = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert set(published) == {"edge", "web"}
    assert all(port.startswith("127.0.0.1:") for port in published["web"])
    assert COMPOSE["networks"]["data"]["internal"] is True
    assert COMPOSE["services"]["mosquitto"]["network_mode"] == "none"


def test_every_service_that_stays_has_a_health_check_and_restarts() -> None:
    for name, service in COMPOSE["services"].items():
        if name not in {"migrate", "folders"}:
            assert "healthcheck" in service, name
            assert service["restart"] == "unless-stopped", name


def test_no_secret_is_written_down_and_none_has_a_default() -> None:
    text = (PROJECT / "compose.yaml").read_text()
    for name in re.findall(r"\$\{([A-Z_]*(?:PASSWORD|KEY|PEPPER)[A-Z_]*)([^}]*)\}", text):
        # The previous key is there during a rotation only, so it may be empty.
        expected = ":-" if name[0].endswith("_PREVIOUS") else ":?"
        assert name[1] == expected, f"{name[0]} must be given"


def test_the_image_holds_everything_that_runs_and_does_not_run_as_root() -> None:
    lines = (PROJECT / "Dockerfile").read_text().splitlines()
    copied = {word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]}
    assert {"cloudsignal", "orgs", "acl", "audit", "templates", "static", "manage.py"} <= copied
    assert "USER cloudsignal" in lines
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    for name in copied - {"/opt/venv"}:
        if not name.startswith("--"):
            assert f"!{name}" in ignored, name
