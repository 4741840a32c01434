"""``cloudsignal up`` with the real PostgreSQL, Valkey and Mosquitto: start, kill, stop, take-over, refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from cloudsignal.supervisor import state
from cloudsignal.supervisor.part import PROJECT
from cloudsignal.supervisor.postgres import ADMIN, APP, DELETE, INGEST, OWNER
from tests.support.broker_nodes import TlsNode, upstream_url
from tests.support.cli import program
from tests.support.parts import Authority
from tests.support.process import Up, clean_environment, temporary_data_folder
from tests.support.system import Stack

DATA_PARTS = "postgres,valkey,mosquitto"
NAMES = DATA_PARTS.split(",")


@pytest.fixture(scope="module")
def data_parts() -> Iterator[Stack]:
    """The three data parts, shared by the tests of this module that leave them running."""
    stack = Stack("--parts", DATA_PARTS)
    stack.start()
    try:
        stack.wait_ready()
        yield stack
    finally:
        stack.remove()


@pytest.fixture
def own_parts() -> Iterator[Stack]:
    """The three data parts for one test alone; not started."""
    stack = Stack("--parts", DATA_PARTS)
    try:
        yield stack
    finally:
        stack.remove()


def broker_socket(stack: Stack) -> Path:
    return stack.data / "broker" / "socket" / "mqtt.sock"


def test_the_roles_are_what_row_level_security_needs(data_parts: Stack) -> None:
    with data_parts.admin() as admin:
        rows = admin.execute(
            "SELECT rolname, rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolreplication, rolcanlogin "
            "FROM pg_roles WHERE rolname LIKE 'cloudsignal%' ORDER BY 1"
        ).fetchall()
        owner = admin.execute(
            "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = 'cloudsignal'"
        ).fetchone()
    unprivileged = (False, False, False, False, False, True)
    appends = (False, True, False, False, False, True)  # COPY is closed to roles under row-level security
    assert rows == [(name, *(appends if name == INGEST else unprivileged)) for name in (APP, DELETE, INGEST, OWNER)]
    assert owner == (OWNER,)


def test_the_application_role_may_not_create_tables(data_parts: Stack) -> None:
    with (
        psycopg.connect(data_parts.database_url(APP)) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("CREATE TABLE mine (x int)")


def test_a_wrong_password_is_refused_and_nothing_but_loopback_is_bound(data_parts: Stack) -> None:
    wrong = data_parts.database_url(APP).replace(data_parts.secrets.postgres_app, "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=data_parts.ports["valkey"]).ping()
    for name in NAMES:
        for connection in psutil.Process(data_parts.pid(name)).net_connections("inet"):
            assert connection.laddr.ip == "127.0.0.1", (name, connection)


def test_the_broker_has_no_port_and_its_socket_is_closed_to_others(data_parts: Stack) -> None:
    process = psutil.Process(data_parts.pid("mosquitto"))
    assert [one for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN] == []
    assert stat.S_IMODE(broker_socket(data_parts).parent.stat().st_mode) == 0o700


def test_valkey_keeps_everything_and_evicts_nothing(data_parts: Stack) -> None:
    client = data_parts.redis()
    assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    assert 256 * 1024**2 <= int(client.config_get("maxmemory")["maxmemory"]) <= 2 * 1024**3
    assert client.config_get("appendonly")["appendonly"] == "yes"


def test_no_data_part_runs_as_root(data_parts: Stack) -> None:
    users = {psutil.Process(data_parts.pid(name)).username() for name in NAMES}
    own = {f"cloudsignal-{part}" for part in ("postgres", "valkey", "broker")}
    assert users == (own if os.geteuid() == 0 else {psutil.Process().username()})


def test_no_secret_stands_on_a_command_line_in_a_log_or_in_the_state(data_parts: Stack) -> None:
    text = data_parts.output.read_text() + (data_parts.data / "run.json").read_text()
    for name in NAMES:
        text += data_parts.log(name) + " ".join(psutil.Process(data_parts.pid(name)).cmdline())
    assert not [secret for secret in data_parts.secrets.values() if secret in text]


def test_a_second_supervisor_on_the_same_folder_is_refused(data_parts: Stack) -> None:
    second = Up(data_parts.data, "--parts", "valkey")
    second.output = data_parts.data.with_name(f"{data_parts.data.name}-second.out")
    second.start()
    assert second.process is not None
    assert second.process.wait(100) == 1
    assert data_parts.process is not None
    text = second.output.read_text()
    second.output.unlink()
    assert f"another CloudSignal (process {data_parts.process.pid}) runs on" in text
    assert data_parts.redis().ping()


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_data_part_comes_back_with_what_was_acknowledged(data_parts: Stack, name: str) -> None:
    key = f"kept-{name}"
    data_parts.redis().set(key, "1")
    with psycopg.connect(data_parts.database_url(ADMIN), autocommit=True) as admin:
        # Not in public, where the migrations of another test would have to grant it, which is not theirs.
        admin.execute("CREATE SCHEMA IF NOT EXISTS elsewhere")
        admin.execute("CREATE TABLE IF NOT EXISTS elsewhere.kept (name text)")
        admin.execute("INSERT INTO elsewhere.kept VALUES (%s)", [name])
    ports = data_parts.ports
    old = data_parts.kill(name)
    data_parts.wait_part(name, other_than=old)
    assert data_parts.ports == ports
    assert data_parts.redis().get(key) == b"1"
    with psycopg.connect(data_parts.database_url(ADMIN)) as admin:
        assert admin.execute("SELECT count(*) FROM elsewhere.kept WHERE name = %s", [name]).fetchone() == (1,)
    with socket.socket(socket.AF_UNIX) as broker:
        broker.connect(str(broker_socket(data_parts)))


def test_a_clean_stop_leaves_no_process_and_a_clean_database(own_parts: Stack) -> None:
    own_parts.start()
    own_parts.wait_ready()
    pids = [own_parts.pid(name) for name in NAMES]
    assert own_parts.stop(signal.SIGINT) == 0
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert "database system is shut down" in own_parts.log("postgres")
    assert state.read(own_parts.data / "run.json")["parts"]["postgres"]["state"] == "stopped"


def test_addresses_stay_the_same_over_a_restart(own_parts: Stack) -> None:
    own_parts.start()
    before = own_parts.wait_ready()["ports"]
    own_parts.stop()
    own_parts.start()
    after = own_parts.wait_ready()["ports"]
    assert {name: after[name] for name in ("postgres", "valkey")} == {
        name: before[name] for name in ("postgres", "valkey")
    }


def test_parts_of_a_killed_supervisor_end_and_the_next_start_works(own_parts: Stack) -> None:
    own_parts.start()
    own_parts.wait_ready()
    own_parts.redis().set("kept", "1")
    pids = [own_parts.pid(name) for name in NAMES]
    assert own_parts.process is not None
    own_parts.process.kill()
    own_parts.process.wait()
    own_parts.start()
    own_parts.wait_ready()
    assert own_parts.redis().get("kept") == b"1"
    assert not [pid for pid in pids if psutil.pid_exists(pid)]


def test_a_process_with_a_reused_pid_is_never_ended(tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        born = psutil.Process(stranger.pid).create_time()
        part = {"pid": stranger.pid, "born": born - 1000}
        state.write(tmp_path / "run.json", {"parts": {"postgres": part}})
        assert state.end_leftovers(tmp_path / "run.json", tmp_path) == []
        assert stranger.poll() is None
        state.write(tmp_path / "run.json", {"parts": {"worker": part | {"born": born}}})
        assert state.end_leftovers(tmp_path / "run.json", tmp_path) == ["worker"]
        assert not psutil.pid_exists(stranger.pid)
    finally:
        stranger.kill()


def test_a_process_with_the_mark_of_the_folder_is_ended(tmp_path: Path) -> None:
    ours = subprocess.Popen(["sleep", "60"], env={state.MARK: str(tmp_path)})
    other = subprocess.Popen(["sleep", "60"], env={state.MARK: str(tmp_path / "other")})
    try:
        while any(state.MARK not in psutil.Process(one.pid).environ() for one in (ours, other)):
            time.sleep(0.01)
        assert state.end_leftovers(tmp_path / "run.json", tmp_path) == ["sleep"]
        assert not psutil.pid_exists(ours.pid)
        assert other.poll() is None
    finally:
        ours.kill()
        other.kill()


def test_a_part_that_runs_elsewhere_is_not_started(data_parts: Stack, own_parts: Stack) -> None:
    own_parts.environment["REDIS_URL"] = data_parts.redis_url
    own_parts.environment["MQTT_UPSTREAM_URL"] = f"unix://{broker_socket(data_parts)}"
    own_parts.start()
    assert set(own_parts.wait_ready()["parts"]) == {"postgres"}


def test_a_machine_with_edges_only_needs_no_database(data_parts: Stack, own_parts: Stack) -> None:
    ports = ("--web-port", "0", "--mqtts-port", "0", "--wss-port", "0", "--listen", "127.0.0.1")
    own_parts.options = ("--parts", "mosquitto,edge", *ports)
    own_parts.start()
    assert own_parts.process is not None
    assert own_parts.process.wait(100) == 1
    assert "REDIS_URL is not set and its embedded part is not among --parts" in own_parts.output.read_text()
    own_parts.environment |= {"REDIS_URL": data_parts.redis_url, "EDGE_NODE": "far-edge"}
    own_parts.environment["CLOUDSIGNAL_VERIFY_KEY"] = data_parts.secrets.verify_key
    own_parts.start()
    state = own_parts.wait_ready()
    assert set(state["parts"]) == {"mosquitto", "edge"}
    assert own_parts.nodes == ["far-edge"]
    assert set(state["urls"]) == {"mqtts", "wss"}, "no dashboard runs here"


def test_an_edge_whose_certificate_the_broker_rejects_is_not_ready_and_everybody_says_why(
    data_parts: Stack, own_parts: Stack, tmp_path: Path
) -> None:
    ours, stranger = Authority(tmp_path / "tls"), Authority(tmp_path / "stranger")
    node = TlsNode(tmp_path / "node", ours)
    node.start()
    own_parts.options = ("--parts", "edge", "--mqtts-port", "0", "--wss-port", "0", "--listen", "127.0.0.1")
    upstream = upstream_url(ours, tmp_path, [node], signer=stranger)
    own_parts.environment |= {"REDIS_URL": data_parts.redis_url, "EDGE_NODE": "far-edge", "MQTT_UPSTREAM_URL": upstream}
    own_parts.environment["CLOUDSIGNAL_VERIFY_KEY"] = data_parts.secrets.verify_key
    why = f"broker {node.label} is refused: client certificate rejected"
    try:
        own_parts.start()
        own_parts.eventually(lambda: "reaches no broker" in own_parts.output.read_text(), what="the reason")
        assert "client certificate rejected" in own_parts.output.read_text()
        assert "Everything runs" not in own_parts.output.read_text()
        environment = {"REDIS_URL": data_parts.redis_url, "MQTT_UPSTREAM_URL": upstream}
        done = program("doctor", "--data", str(own_parts.data), "--json", environment=environment)
        checks = [check for check in json.loads(done.output)["checks"] if "certificate rejected" in check["text"]]
        assert [(check["area"], check["level"]) for check in checks] == [
            ("part edge", "problem"), ("edge far-edge", "problem"), ("broker", "problem"),
        ]  # fmt: skip
        assert checks[1]["text"].startswith(why)
        node.stop()
        node.config.write_text(node.config.read_text().replace(str(ours.file), str(stranger.file)))
        node.start()
        own_parts.wait_ready()
        own_parts.eventually(lambda: "Everything runs" in own_parts.output.read_text(), what="the summary")
        node.stop(kill=True)
        said = own_parts.output.read_text
        own_parts.eventually(lambda: said().count("reaches no broker") == 2, what="that it was lost")
    finally:
        node.stop()


def test_a_first_start_that_was_cut_short_is_begun_again(own_parts: Stack) -> None:
    own_parts.options = ("--parts", "postgres")
    own_parts.start()
    draft = own_parts.data / "postgres.new"
    own_parts.eventually((draft / "PG_VERSION").exists, what="the beginning of a cluster")
    assert own_parts.process is not None
    own_parts.process.kill()
    own_parts.process.wait()
    own_parts.start()
    own_parts.wait_ready()
    assert not draft.exists()
    assert not (own_parts.data / "postgres.pw").exists(), "the administrator's password lies about"


def test_data_whose_secrets_are_lost_is_not_waited_for(own_parts: Stack) -> None:
    own_parts.options = ("--parts", "postgres")
    own_parts.start()
    own_parts.wait_ready()
    own_parts.stop()
    (own_parts.data / "secrets" / "postgres_admin").unlink()
    own_parts.start()
    assert own_parts.process is not None
    assert own_parts.process.wait(100) == 1
    assert "postgres_admin is missing, and the data beside it needs it" in own_parts.output.read_text()


def test_started_with_nohup_it_outlives_its_terminal(own_parts: Stack) -> None:
    own_parts.options = ("--parts", "valkey")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # what nohup(1) does
    try:
        own_parts.start()
    finally:
        signal.signal(signal.SIGHUP, before)
    own_parts.wait_ready()
    assert own_parts.process is not None
    own_parts.process.send_signal(signal.SIGHUP)
    assert own_parts.stop(signal.SIGTERM) == 0
    assert "SIGHUP" not in own_parts.output.read_text()


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"DATABASE_URL": "postgresql://app@db/x"}, "DATABASE_OWNER_URL is not"),
        ({"MQTT_UPSTREAM_URL": "mqtt://broker:1883"}, "MQTT_UPSTREAM_URL must be unix://"),
        ({"EDGE_TLS_CERT": "/dev/null"}, "EDGE_TLS_KEY is not set, but EDGE_TLS_CERT is; they belong together"),
        ({"CLOUDSIGNAL_PEPPER": "short"}, "CLOUDSIGNAL_PEPPER must be 32 bytes"),
        ({"CLOUDSIGNAL_SIGNING_KEY": "00" * 32}, "belong together"),
        ({"CLOUDSIGNAL_NODE_KEY": "00" * 32}, "CLOUDSIGNAL_NODE_KEY is not the one that is made from the pepper"),
        ({"EDGE_MQTTS": "8883"}, 'EDGE_MQTTS is "8883"; write host:port'),
        ({"EDGE_METRICS": "0.0.0.0:9100"}, 'EDGE_METRICS is "0.0.0.0:9100"'),
        ({"EDGE_PLAINTEXT": "0.0.0.0:1883"}, "only a loopback or private address"),
    ],
)
def test_a_wrong_variable_stops_the_start_with_its_name(
    own_parts: Stack, environment: dict[str, str], message: str
) -> None:
    own_parts.options = ("--web-port", "0", "--wss-port", "0")
    if "EDGE_MQTTS" not in environment:
        own_parts.options += ("--mqtts-port", "0")
    own_parts.environment |= environment
    own_parts.start()
    assert own_parts.process is not None
    assert own_parts.process.wait(100) == 2
    assert message in own_parts.output.read_text()
    assert "Traceback" not in own_parts.output.read_text()
    assert not (own_parts.data / "postgres" / "PG_VERSION").exists(), "nothing half-done stays"


def test_a_taken_port_that_was_asked_for_stops_the_start(own_parts: Stack) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        own_parts.options = ("--parts", "postgres,valkey,migrate,web", "--web-port", str(port))
        own_parts.start()
        assert own_parts.process is not None
        assert own_parts.process.wait(100) == 1
    assert f"port {port} for the dashboard is taken by" in own_parts.output.read_text()
    assert f"(process {os.getpid()})" in own_parts.output.read_text()


def test_parts_that_run_once_end_the_run_when_they_have_finished(data_parts: Stack) -> None:
    environment = clean_environment() | {
        "DATABASE_URL": data_parts.database_url(APP), "DATABASE_OWNER_URL": data_parts.database_url(OWNER),
        "REDIS_URL": data_parts.redis_url,
    }  # fmt: skip
    folder = temporary_data_folder("once")
    command = [sys.executable, "-m", "cloudsignal.cli", "up", "--parts", "migrate", "--data", str(folder)]
    try:
        done = subprocess.run(
            command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=100, check=False
        )
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "migrate" in done.stdout
