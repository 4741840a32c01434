"""The program itself: help, version, wrong usage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloudsignal import __version__
from cloudsignal.cli.app import COMMANDS
from tests.support.cli import process, program


def test_version() -> None:
    done = program("version")
    assert (done.code, done.output.split()[:2]) == (0, ["cloudsignal", __version__])
    assert json.loads(program("version", "--json").output)["cloudsignal"] == __version__
    assert __version__ in program("--version").output


def test_the_program_as_people_start_it() -> None:
    assert process("version").output.startswith(f"cloudsignal {__version__}")
    done = process("acl", "validate", "/nonexistent")
    assert (done.code, done.output) == (2, "")
    assert done.errors.startswith("cloudsignal: /nonexistent cannot be read")


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_is_listed_and_has_help(command: str) -> None:
    assert f"  {command} " in program("--help").output
    assert program(command, "--help").output.startswith(f"Usage: cloudsignal {command}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["acl", "nonsense"], "No such command 'nonsense'"),
        (["up", "--nonsense"], "No such option '--nonsense'"),
        (["up", "--web-port", "70000"], "'--web-port': \"70000\" is no whole number from 0 to 65535"),
        (["up", "--web-port", "http"], "'--web-port': \"http\" is no whole number from 0 to 65535"),
        (["up", "--edges", "0"], "'--edges': \"0\" is no whole number from 1 to 64"),
        (["acl", "get", "--version", "x"], "'--version': \"x\" is no whole number of at least 1"),
        (["acl", "history", "--limit", "1.5"], "'--limit': \"1.5\" is no whole number from 1 to 100000"),
        (["up", "--parts", "web,cache"], 'there is no part "cache"'),
        (["up", "--demo", "--parts", "web"], "--demo needs all parts"),
        (["acl", "validate"], "Missing argument 'FILE'"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_a_message(arguments: list[str], message: str) -> None:
    done = program(*arguments)
    assert done.code == 2
    assert message in done.errors
    assert "Traceback" not in done.errors


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("EDGE_MQTTS", "0.0.0.0:²", 'EDGE_MQTTS is "0.0.0.0:²"; write host:port'),
        ("EDGE_MQTTS", "off", "--demo needs mqtts"),
        ("EDGE_NODE", "a node", "EDGE_NODE: write letters"),
        ("MQTT_UPSTREAM_URL", "mqtts://[::1", 'MQTT_UPSTREAM_URL: "[::1" is no address'),
        ("CLOUDSIGNAL_EMAIL_URL", "smtp://[::1", "CLOUDSIGNAL_EMAIL_URL is not an address"),
        ("CLOUDSIGNAL_PUBLIC_URL", "http://[::1", 'CLOUDSIGNAL_PUBLIC_URL is "http://[::1"'),
        ("CLOUDSIGNAL_PUBLIC_URL", "https://a.example/below", "CLOUDSIGNAL_PUBLIC_URL is"),
        ("CLOUDSIGNAL_PUBLIC_URL", "signal.example.com", 'CLOUDSIGNAL_PUBLIC_URL is "signal.example.com"'),
        ("CLOUDSIGNAL_MQTT_HOST", "müller.example", 'CLOUDSIGNAL_MQTT_HOST is "müller.example"; write a host name'),
        ("REDIS_URL", "redis://host:x/0", "REDIS_URL must start with redis://"),
        ("EDGE_JOURNAL_MB", "2000000", "EDGE_JOURNAL_MB is 2000000; it must lie between 1 and 1000000"),
        ("CLOUDSIGNAL_TRUSTED_PROXIES", "10.0.0.5/8, proxy", "CLOUDSIGNAL_TRUSTED_PROXIES: 'proxy'"),
        ("DATABASE_URL", "nonsense", "is not an address of PostgreSQL"),
    ],
)
def test_a_wrong_variable_is_named_before_anything_starts(name: str, value: str, message: str, tmp_path: Path) -> None:
    done = program("up", "--demo", "--data", str(tmp_path / "data"), environment={name: value})
    assert done.code == 2, done
    assert message in done.errors
    assert not (tmp_path / "data").exists()
    looked = program("doctor", "--data", str(tmp_path / "data"), environment={name: value})
    assert name in looked.output


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    wrong = {"CLOUDSIGNAL_DEBUG": "maybe", "REDIS_URL": "localhost"}
    done = program("up", "--data", str(tmp_path / "data"), environment=wrong)
    assert done.code == 2
    assert 'CLOUDSIGNAL_DEBUG is "maybe"' in done.errors
    assert "REDIS_URL must start with" in done.errors


@pytest.mark.parametrize("command", ["up", "doctor"])
def test_a_home_of_nobody_is_wrong_usage(command: str) -> None:
    done = program(command, "--data", "~nobody-of-this-name/data")
    assert done.code == 2
    assert "there is no such user" in done.errors
    done = program(command, "--data", "/dev/null/x", environment={"EDGE_TLS_CERT": "~nobody-of-this-name/x"})
    assert done.code in {1, 2}
    assert 'EDGE_TLS_CERT is "~nobody-of-this-name/x", and there is no such user' in done.errors + done.output


def test_a_data_folder_that_cannot_be_used_is_exit_code_1() -> None:
    done = program("up", "--data", "/dev/null/data", "--parts", "valkey")
    assert done.code == 1
    assert "/dev/null/data cannot be used" in done.errors
    assert "--data" in done.errors
