"""``cloudsignal doctor``: finds what is wrong, says how to fix it, changes nothing."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from cloudsignal.cli.doctor import _chosen
from cloudsignal.config import VARIABLES
from cloudsignal.secrets import pki
from cloudsignal.supervisor import state
from cloudsignal.supervisor.postgres import ADMIN, APP
from cloudsignal.wire.sealed import node_key
from tests.support.cli import Done, program
from tests.support.process import temporary_data_folder
from tests.support.system import Stack


@pytest.fixture(scope="module")
def data_parts() -> Iterator[Stack]:
    """A running PostgreSQL and Valkey."""
    stack = Stack("--parts", "postgres,valkey")
    stack.start()
    try:
        stack.wait_ready()
        yield stack
    finally:
        stack.remove()


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty data folder that the service account can reach."""
    folder = temporary_data_folder("doctor")
    folder.chmod(0o755)
    yield folder
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def doctor(data: Path, **environment: str) -> tuple[Done, dict[str, dict[str, Any]]]:
    done = program("doctor", "--data", str(data), "--json", environment=environment)
    assert done.errors == ""
    return done, {check["area"]: check for check in json.loads(done.output)["checks"]}


def test_a_sound_machine_has_no_problem_and_nothing_is_made(folder: Path) -> None:
    done = program("doctor", "--data", str(folder / "new"))
    assert done.code == 0, done.output
    assert "0 problems" in done.output
    assert "mosquitto version" in done.output
    assert not (folder / "new").exists()


def test_every_part_that_runs_is_looked_at(data_parts: Stack) -> None:
    done, checks = doctor(data_parts.data)
    for area in ("part postgres", "part valkey", "postgres", "redis", "database role", "redis clock"):
        assert checks[area]["level"] == "fine", checks[area]
    assert checks["row security"]["text"] == "there are no tables"
    assert done.code == 1
    assert not [secret for secret in data_parts.secrets.values() if secret in done.output]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CLOUDSIGNAL_PEPPER", "short", "must be 32 bytes"),
        ("CLOUDSIGNAL_NODE_KEY", "short", "must be 32 bytes"),
        ("CLOUDSIGNAL_EMAIL_BACKEND", "nowhere.Backend", "no such package"),
        ("CLOUDSIGNAL_MQTT_PORT", "99999", "between 1 and 65535"),
        ("CLOUDSIGNAL_DEBUG", "maybe", "write 1 or 0"),
        ("CLOUDSIGNAL_PUBLIC_URL", "signal.example.com", "write https:// or http://"),
        ("MQTT_UPSTREAM_URL", "tcp://broker", "must be unix:///"),
        ("REDIS_URL", "localhost:6379", "must start with redis://"),
        ("EDGE_NODE", "a node", "write letters"),
        ("EDGE_PLAINTEXT", "0.0.0.0:1883", "only a loopback or private address"),
        ("EDGE_TLS_CERT", "/nonexistent.pem", "cannot be read"),
    ],
)
def test_a_wrong_variable_is_named(folder: Path, name: str, value: str, message: str) -> None:
    done, checks = doctor(folder, **{name: value})
    assert checks[name]["level"] == "problem"
    assert message in checks[name]["fix"]
    assert done.code == 1


def test_a_secret_is_never_shown(folder: Path) -> None:
    done, checks = doctor(folder, CLOUDSIGNAL_SECRET_KEY="do-not-show-me")
    assert checks["CLOUDSIGNAL_SECRET_KEY"]["text"].startswith("set (")
    assert "do-not-show-me" not in done.output


def test_a_misspelt_variable_is_noticed(folder: Path) -> None:
    _, checks = doctor(folder, CLOUDSIGNAL_PEPER="x")
    assert checks["CLOUDSIGNAL_PEPER"]["fix"] == "did you mean CLOUDSIGNAL_PEPPER?"


def test_every_variable_that_needs_one_has_a_check() -> None:
    from cloudsignal.cli.checks.variables import CHECKS

    free_text = {"CLOUDSIGNAL_SECRET_KEY"}
    forgotten = {variable.name for variable in VARIABLES} - set(CHECKS) - free_text
    assert not forgotten, f"give {forgotten} a check in cloudsignal/cli/checks/variables.py"


@pytest.mark.parametrize(
    ("environment", "lacking", "level"),
    [
        ({"DATABASE_OWNER_URL": "postgresql://owner@127.0.0.1:1/x"}, "DATABASE_URL", "problem"),
        ({"CLOUDSIGNAL_SIGNING_KEY": "00" * 32}, "CLOUDSIGNAL_VERIFY_KEY", "problem"),
        ({"EDGE_TLS_KEY": "/dev/null"}, "EDGE_TLS_CERT", "problem"),
        ({"DATABASE_URL": "postgresql://app@127.0.0.1:1/x"}, "DATABASE_OWNER_URL", "warning"),
    ],
)
def test_half_of_what_belongs_together_is_noticed(
    folder: Path, environment: dict[str, str], lacking: str, level: str
) -> None:
    _, checks = doctor(folder, **environment)
    assert checks[lacking]["level"] == level
    assert f"is not set, but {next(iter(environment))} is" in checks[lacking]["text"]


def test_a_node_key_that_is_not_made_from_the_pepper_is_a_problem(folder: Path) -> None:
    pepper = "07" * 32
    _, checks = doctor(folder, CLOUDSIGNAL_PEPPER=pepper, CLOUDSIGNAL_NODE_KEY="00" * 32)
    assert "is not the one that is made from CLOUDSIGNAL_PEPPER" in checks["CLOUDSIGNAL_NODE_KEY"]["fix"]
    made = node_key(bytes.fromhex(pepper)).hex()
    _, checks = doctor(folder, CLOUDSIGNAL_PEPPER=pepper, CLOUDSIGNAL_NODE_KEY=made)
    assert checks["CLOUDSIGNAL_NODE_KEY"]["level"] == "fine"


def test_a_machine_with_edges_only_needs_the_public_key_alone(folder: Path) -> None:
    _, checks = doctor(folder, CLOUDSIGNAL_VERIFY_KEY="00" * 32)
    assert "CLOUDSIGNAL_SIGNING_KEY" not in checks


def test_a_database_that_does_not_answer_is_a_problem(folder: Path) -> None:
    url = "postgresql://app:hidden-word@127.0.0.1:1/x"
    done, checks = doctor(folder, DATABASE_URL=url, DATABASE_OWNER_URL=url, REDIS_URL="redis://127.0.0.1:1/0")
    assert "no connection" in checks["postgres"]["text"]
    assert "no connection" in checks["redis"]["text"]
    assert "hidden-word" not in done.output


def test_a_role_that_row_level_security_does_not_bind_is_a_problem(data_parts: Stack) -> None:
    url = data_parts.database_url(ADMIN)
    _, checks = doctor(data_parts.data, DATABASE_URL=url, DATABASE_OWNER_URL=url)
    assert "is a superuser or has BYPASSRLS" in checks["database role"]["text"]
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE careless LOGIN PASSWORD 'x'"))
        admin.execute("GRANT CONNECT ON DATABASE cloudsignal TO careless")
        admin.execute("CREATE TABLE owned (x int)")
        admin.execute("ALTER TABLE owned OWNER TO careless")
        try:
            careless = f"postgresql://careless:x@127.0.0.1:{data_parts.ports['postgres']}/cloudsignal"
            _, checks = doctor(data_parts.data, DATABASE_URL=careless, DATABASE_OWNER_URL=careless)
            assert checks["database role"]["text"] == "careless owns tables"
        finally:
            admin.execute("DROP TABLE owned")
            admin.execute("REVOKE CONNECT ON DATABASE cloudsignal FROM careless")
            admin.execute("DROP ROLE careless")


def test_a_role_that_may_delete_organizations_is_a_problem(data_parts: Stack) -> None:
    url = data_parts.database_url()
    with psycopg.connect(data_parts.database_url(ADMIN), autocommit=True) as admin:
        admin.execute("CREATE FUNCTION public.delete_organization(text) RETURNS boolean LANGUAGE sql AS 'SELECT false'")
        try:
            _, checks = doctor(data_parts.data, DATABASE_URL=url, DATABASE_OWNER_URL=url)
            assert "may delete organizations with their audit" in checks["database role"]["text"]
        finally:
            admin.execute("DROP FUNCTION public.delete_organization(text)")
    assert "stay in the database" in checks["DATABASE_DELETE_URL"]["fix"]


def test_a_deletion_role_that_may_not_delete_or_may_more_is_a_problem(data_parts: Stack) -> None:
    with data_parts.admin() as admin:
        admin.execute("CREATE TABLE public.orgs_deletion (organization text)")
        for function in ("delete_organization(text)", "notice_deletions()"):
            admin.execute(f"CREATE FUNCTION public.{function} RETURNS boolean LANGUAGE sql AS 'SELECT false'")
            admin.execute(f"REVOKE ALL ON FUNCTION public.{function} FROM PUBLIC")
        try:
            _, checks = doctor(data_parts.data)
            assert checks["deletion role"]["level"] == "problem"
            assert "may not delete organizations" in checks["deletion role"]["text"]
            admin.execute(
                "GRANT EXECUTE ON FUNCTION notice_deletions(), delete_organization(text) TO cloudsignal_delete"
            )
            admin.execute("GRANT SELECT, DELETE ON orgs_deletion TO cloudsignal_delete")
            _, checks = doctor(data_parts.data)
            assert checks["deletion role"]["level"] == "fine"
            own = data_parts.database_url(APP)
            above = {"DATABASE_URL": own, "DATABASE_DELETE_URL": data_parts.database_url(ADMIN)}
            _, checks = doctor(data_parts.data, **above)
            assert "is a superuser or has BYPASSRLS" in checks["deletion role"]["text"]
            gone = {"DATABASE_URL": own, "DATABASE_DELETE_URL": "postgresql://nobody:hidden-word@127.0.0.1:1/x"}
            done, checks = doctor(data_parts.data, **gone)
            assert "no connection" in checks["deletion role"]["text"]
            assert "hidden-word" not in done.output
        finally:
            admin.execute("DROP TABLE public.orgs_deletion")
            admin.execute("DROP FUNCTION public.delete_organization(text), public.notice_deletions()")


def test_an_ingest_role_that_may_not_append_or_may_more_is_a_problem(data_parts: Stack) -> None:
    with data_parts.admin() as admin:
        for table in ("audit_event", "audit_journal", "audit_opensession"):
            admin.execute(f"CREATE TABLE public.{table} (org_id text)")
        try:
            _, checks = doctor(data_parts.data)
            assert "may not append to the audit" in checks["ingest role"]["text"]
            admin.execute("GRANT SELECT, INSERT ON audit_event TO cloudsignal_ingest")
            admin.execute("GRANT SELECT, INSERT, UPDATE ON audit_journal TO cloudsignal_ingest")
            admin.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON audit_opensession TO cloudsignal_ingest")
            _, checks = doctor(data_parts.data)
            assert checks["ingest role"]["level"] == "fine"
            admin.execute("GRANT UPDATE ON audit_event TO cloudsignal_ingest")
            _, checks = doctor(data_parts.data)
            assert "may change the audit" in checks["ingest role"]["text"]
            own = data_parts.database_url(APP)
            _, checks = doctor(data_parts.data, DATABASE_URL=own, DATABASE_INGEST_URL=own)
            assert "lacks BYPASSRLS" in checks["ingest role"]["text"]
            gone = {"DATABASE_URL": own, "DATABASE_INGEST_URL": "postgresql://nobody:hidden-word@127.0.0.1:1/x"}
            done, checks = doctor(data_parts.data, **gone)
            assert "no connection" in checks["ingest role"]["text"]
            assert "hidden-word" not in done.output
        finally:
            admin.execute("DROP TABLE audit_event, audit_journal, audit_opensession")
    assert "slower" in doctor(data_parts.data, DATABASE_URL=own)[1]["DATABASE_INGEST_URL"]["fix"]


def test_a_temporary_table_is_no_table_that_a_role_owns(data_parts: Stack) -> None:
    with psycopg.connect(data_parts.database_url(), autocommit=True) as connection:
        connection.execute("CREATE TEMPORARY TABLE passing (x int)")
        _, checks = doctor(data_parts.data)
    assert checks["database role"]["level"] == "fine"


def test_a_table_without_row_security_is_a_problem(data_parts: Stack) -> None:
    with data_parts.admin() as admin:
        admin.execute("CREATE TABLE forgotten (org_id text)")
        try:
            _, checks = doctor(data_parts.data)
            assert checks["row security"]["text"] == "not forced on forgotten"
        finally:
            admin.execute("DROP TABLE forgotten")


def test_a_redis_that_evicts_is_a_problem(data_parts: Stack) -> None:
    client = data_parts.redis()
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("appendonly", "no")
    try:
        _, checks = doctor(data_parts.data)
        assert checks["redis memory"]["level"] == "problem"
        assert checks["redis persistence"]["level"] == "warning"
    finally:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("appendonly", "yes")


def test_a_key_that_does_not_fit_is_a_problem(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = pki.ensure(tmp_path / "one"), pki.ensure(tmp_path / "two")
    _, checks = doctor(folder, EDGE_TLS_CERT=str(one.cert), EDGE_TLS_KEY=str(two.key))
    assert "do not load" in checks["certificate"]["text"]
    _, checks = doctor(folder, EDGE_TLS_CERT=str(one.cert), EDGE_TLS_KEY=str(one.key))
    assert checks["certificate"]["level"] == "fine"


def test_nothing_is_made_in_a_folder_that_is_there(folder: Path) -> None:
    doctor(folder)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/tmp/with space", "special character"),
        ("/", "holds other things"),
        ("/tmp/" + "x" * 300, "File name too long"),
    ],
)
def test_a_data_folder_that_the_start_would_refuse_is_a_problem(path: str, message: str) -> None:
    done, checks = doctor(Path(path))
    assert checks["data folder"]["level"] == "problem"
    assert message in checks["data folder"]["fix"]
    assert done.code == 1


def test_a_program_that_does_not_work_is_a_problem(folder: Path, tmp_path: Path) -> None:
    broker = tmp_path / "mosquitto"
    broker.write_text("#!/bin/sh\necho 'mosquitto: error while loading shared libraries' >&2\nexit 127\n")
    broker.chmod(0o755)
    done, checks = doctor(folder, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert checks["mosquitto"]["level"] == "problem"
    assert "error while loading shared libraries" in checks["mosquitto"]["text"]
    assert done.code == 1


def test_who_holds_a_usual_port_is_named(folder: Path) -> None:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", 8443))
            listener.listen()
            expected = f"(process {os.getpid()})"
        except OSError:
            expected = "held by"  # somebody else has it: just as good
        _, checks = doctor(folder)
    assert checks["port 8443"]["level"] == "warning"
    assert expected in checks["port 8443"]["text"]


def test_the_one_installation_that_runs_is_examined_when_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLOUDSIGNAL_DATA", raising=False)
    monkeypatch.setattr("cloudsignal.cli.up.default_data_folder", lambda name: tmp_path / name)
    for name in ("default", "demo"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text('{"parts": {}}')
    assert _chosen(None, None) == tmp_path / "default"
    with state.locked(tmp_path / "demo" / "lock"):
        assert _chosen(None, None) == tmp_path / "demo"
        assert _chosen(None, "default") == tmp_path / "default"
        assert _chosen(tmp_path / "other", None) == tmp_path / "other"
