"""Each process gets the variables it reads, and no secret besides."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudsignal.config import VARIABLES
from cloudsignal.supervisor.environment import for_role, plain

DATA = Path("/data")
MADE = {variable.name: f"made {variable.name}" for variable in VARIABLES}
FORBIDDEN = {
    "edge": {
        "DATABASE_DELETE_URL",
        "DATABASE_INGEST_URL",
        "DATABASE_URL",
        "DATABASE_OWNER_URL",
        "CLOUDSIGNAL_SIGNING_KEY",
        "CLOUDSIGNAL_LOG_KEY",
        "CLOUDSIGNAL_SECRET_KEY",
    },
    "web": {
        "DATABASE_DELETE_URL",
        "DATABASE_INGEST_URL",
        "DATABASE_OWNER_URL",
        "CLOUDSIGNAL_SIGNING_KEY",
        "CLOUDSIGNAL_LOG_KEY",
        "MQTT_UPSTREAM_URL",
        "EDGE_TLS_KEY",
    },
    "worker": {"DATABASE_INGEST_URL", "DATABASE_OWNER_URL", "MQTT_UPSTREAM_URL", "EDGE_TLS_KEY"},
    "ingest": {
        "DATABASE_DELETE_URL",
        "DATABASE_OWNER_URL",
        "CLOUDSIGNAL_SIGNING_KEY",
        "CLOUDSIGNAL_LOG_KEY",
        "CLOUDSIGNAL_PEPPER",
        "MQTT_UPSTREAM_URL",
    },
    "migrations": {
        "DATABASE_DELETE_URL",
        "DATABASE_INGEST_URL",
        "CLOUDSIGNAL_SIGNING_KEY",
        "CLOUDSIGNAL_LOG_KEY",
        "CLOUDSIGNAL_PEPPER",
        "REDIS_URL",
        "MQTT_UPSTREAM_URL",
    },
}
NEEDED = {
    "edge": {"REDIS_URL", "MQTT_UPSTREAM_URL", "CLOUDSIGNAL_PEPPER", "CLOUDSIGNAL_VERIFY_KEY", "EDGE_TLS_KEY"},
    "web": {"DATABASE_URL", "REDIS_URL", "CLOUDSIGNAL_SECRET_KEY", "CLOUDSIGNAL_PEPPER"},
    "worker": {"DATABASE_URL", "DATABASE_DELETE_URL", "REDIS_URL", "CLOUDSIGNAL_SIGNING_KEY", "CLOUDSIGNAL_LOG_KEY"},
    "ingest": {"DATABASE_URL", "DATABASE_INGEST_URL", "REDIS_URL", "CLOUDSIGNAL_NODE_KEY"},
    "migrations": {"DATABASE_OWNER_URL"},
}


@pytest.mark.parametrize("role", sorted(FORBIDDEN))
def test_a_process_gets_what_it_needs_and_no_other_secret(role: str) -> None:
    environment = for_role(role, data=DATA, made=MADE, own={})
    assert NEEDED[role] <= set(environment)
    assert not FORBIDDEN[role] & set(environment)


def test_nothing_else_of_our_own_environment_is_passed_on() -> None:
    own = {
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": "x",
        "DATABASE_OWNER_URL": "y",
        "PYTHONPATH": "/tmp",
        "LD_PRELOAD": "z",
    }
    environment = for_role("edge", data=DATA, made={}, own=own)
    assert environment["PATH"] == "/bin"
    assert not {"AWS_SECRET_ACCESS_KEY", "DATABASE_OWNER_URL", "PYTHONPATH", "LD_PRELOAD"} & set(environment)


def test_a_variable_that_a_person_has_set_reaches_those_who_read_it() -> None:
    own = {"CLOUDSIGNAL_DEBUG": "1", "EDGE_PLAINTEXT": "127.0.0.1:1883"}
    assert for_role("web", data=DATA, made={}, own=own)["CLOUDSIGNAL_DEBUG"] == "1"
    assert "EDGE_PLAINTEXT" not in for_role("web", data=DATA, made={}, own=own)
    assert for_role("edge", data=DATA, made={}, own=own)["EDGE_PLAINTEXT"] == "127.0.0.1:1883"


def test_what_was_worked_out_wins() -> None:
    own = {"REDIS_URL": "redis://elsewhere"}
    assert for_role("edge", data=DATA, made={"REDIS_URL": "redis://here"}, own=own)["REDIS_URL"] == "redis://here"


def test_programs_that_are_not_ours_get_no_variable_of_ours() -> None:
    environment = plain(data=DATA, own=MADE | {"PATH": "/bin"})
    assert environment == {"PATH": "/bin", "CLOUDSIGNAL_SUPERVISED": "/data"}
