"""``cloudsignal acl``: the offline commands, their exit codes and their messages."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from acl.policy.language.presets import PRESETS, Preset
from tests.support.cli import program

POLICY = """\
version: "3"
rules:
  - id: own-inbox
    topic: inbox/{username}
    action: sub
  - id: speak
    who: {claims: {role: [member, guest]}}
    topic: rooms/{org}
    action: pub
    qos: 0
tests:
  - name: an inbox is private
    as: {username: ada, claims: {role: guest}}
    do: sub
    topic: inbox/bob
    expect: deny
    rule: none
"""


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return str(path)


def broken(tmp_path: Path, old: str, new: str) -> str:
    path = tmp_path / "broken.yaml"
    assert old in POLICY
    path.write_text(POLICY.replace(old, new))
    return str(path)


def test_a_valid_file(policy: str) -> None:
    done = program("acl", "validate", policy)
    assert done.code == 0
    assert "valid, 2 rules, 1 test, sha256:" in done.output
    assert done.errors == ""


def test_an_error_is_told_with_line_and_column(tmp_path: Path) -> None:
    path = broken(tmp_path, "topic: inbox/{username}", "topic: inbox/#/x")
    done = program("acl", "validate", path)
    assert done.code == 1
    assert f"{path}:4:12: error: rules[0].topic - " in done.errors
    found = json.loads(program("acl", "validate", path, "--json").output)
    assert (found["valid"], found["digest"]) == (False, None)
    assert [(one["level"], one["line"], one["column"]) for one in found["findings"]] == [("error", 4, 12)]


def test_warnings_are_told_and_are_fine(tmp_path: Path) -> None:
    path = broken(tmp_path, "topic: inbox/{username}", 'topic: "inbox/%u"')
    done = program("acl", "validate", path, "--local-only")
    assert done.code == 0
    assert f"{path}:3:5: warning: rules[0] - " in done.errors
    found = json.loads(program("acl", "validate", path, "--local-only", "--json").output)
    assert (found["valid"], {each["level"] for each in found["findings"]}) == (True, {"warning"})


def test_standard_input_is_read() -> None:
    assert program("acl", "validate", "-", stdin=POLICY).code == 0
    assert program("acl", "validate", "-", stdin="rules: 7").code == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0",
        "{",
        "[[[[",
        "version: '3'\nrules: [" + "{" * 500,
        "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_rubbish_is_an_error_never_a_traceback(text: str) -> None:
    done = program("acl", "validate", "-", stdin=text)
    assert done.code == 1
    assert "error" in done.errors
    assert "Traceback" not in done.errors


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    done = program("acl", "validate", str(tmp_path / "none.yaml"))
    assert done.code == 2
    assert "none.yaml cannot be read: No such file or directory" in done.errors


@pytest.mark.parametrize("command", [["plan"], ["push", "--yes"]], ids=" ".join)
def test_what_is_wrong_with_a_file_is_said_before_that_nobody_is_signed_in(
    command: list[str], policy: str, tmp_path: Path
) -> None:
    done = program("acl", *command, str(tmp_path / "none.yaml"))
    assert (done.code, done.output) == (2, "")
    assert done.errors.endswith("none.yaml cannot be read: No such file or directory\n")
    path = broken(tmp_path, "action: sub", "action: read")
    done = program("acl", *command, path)
    assert done.code == 1
    assert done.errors.endswith("is not a valid policy\n")
    assert program("acl", *command, policy).code == 3


def test_tests_that_pass_and_fail(policy: str, tmp_path: Path) -> None:
    done = program("acl", "test", policy)
    assert (done.code, done.output) == (0, "pass  an inbox is private\n1 test, 0 failed\n")
    failing = broken(tmp_path, "expect: deny\n    rule: none", "expect: allow")
    done = program("acl", "test", failing)
    assert done.code == 1
    assert "FAIL  an inbox is private\n      expected allow, got deny" in done.output
    assert json.loads(program("acl", "test", failing, "--json").output)["passed"] is False


def test_testing_an_invalid_file_shows_its_errors(tmp_path: Path) -> None:
    done = program("acl", "test", broken(tmp_path, "action: sub", "action: read"))
    assert done.code == 1
    assert "error: rules[0].action - " in done.errors
    assert "is not a valid policy" in done.errors


@pytest.mark.parametrize(
    ("question", "code", "answer"),
    [
        (["--as", "ada", "--sub", "inbox/ada"], 0, "allow  rule own-inbox"),
        (["--as", "ada", "--receive", "inbox/ada"], 0, "allow  rule own-inbox"),
        (["--as", "ada", "--sub", "inbox/bob"], 1, "deny  rule none"),
        (["--as", "ada", "--sub", "inbox/#"], 1, "deny  rule none"),
        (["--as", "ada", "--pub", "rooms/org_aaaaaaaaaaaa"], 1, "deny  rule none"),
        (["--as", "ada", "--pub", "rooms/org_aaaaaaaaaaaa", "--claim", "role=guest"], 0, "allow  rule speak"),
        (["--as", "ada", "--pub", "rooms/x", "--claim", "role=guest", "--org", "x"], 0, "allow  rule speak"),
        (
            ["--as", "ada", "--pub", "rooms/x", "--claim", "role=guest", "--org", "x", "--qos", "1"],
            1,
            "qos 1 above 0",
        ),
    ],
)
def test_simulate(policy: str, question: list[str], code: int, answer: str) -> None:
    done = program("acl", "simulate", policy, *question)
    assert done.code == code, done
    assert answer in done.output


def test_simulate_explains_every_rule_when_asked(policy: str) -> None:
    question = ["acl", "simulate", policy, "--as", "ada", "--sub", "inbox/bob"]
    assert "own-inbox" not in program(*question).output
    assert 'topic differs at level 2: "bob" is not "ada"' in program(*question, "--rules").output
    explained = json.loads(program(*question, "--json").output)
    assert (explained["allowed"], explained["rule"]) == (False, "none")
    assert [rule["rule"] for rule in explained["rules"]] == ["own-inbox", "speak"]


def test_simulate_asks_exactly_one_question(policy: str) -> None:
    for question in ([], ["--pub", "a", "--sub", "a"]):
        done = program("acl", "simulate", policy, "--as", "ada", *question)
        assert done.code == 2
        assert "exactly one of --pub, --sub and --receive" in done.errors
    assert program("acl", "simulate", policy, "--as", "a", "--pub", "a", "--claim", "x").code == 2


def test_diff_tells_what_is_said_not_how(policy: str, tmp_path: Path) -> None:
    same = tmp_path / "same.yaml"
    same.write_text("# a comment\n" + POLICY.replace("action: sub", "action:   'sub'"))
    assert "the same policy" in program("acl", "diff", policy, str(same)).output
    other = broken(tmp_path, "topic: inbox/{username}", "topic: post/{username}")
    done = program("acl", "diff", policy, other)
    assert done.code == 0
    assert "-" in done.output
    assert "+" in done.output
    assert "post/{username}" in done.output
    assert program("acl", "diff", policy, other, "--exit-code").code == 1
    assert program("acl", "diff", policy, str(same), "--exit-code").code == 0
    assert json.loads(program("acl", "diff", policy, other, "--json").output)["equal"] is False


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_every_preset_passes_its_own_tests(preset: Preset, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(preset.starting(datetime.now(UTC)))
    assert program("acl", "validate", str(path)).code == 0
    assert program("acl", "test", str(path)).code == 0


def test_simulate_says_when_rules_ask_for_claims_and_none_are_known(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text('version: "3"\nrules:\n  - {id: a, topic: "t/{claims.team}"}\n')
    done = program("acl", "simulate", str(file), "--as", "ada", "--pub", "t/red")
    assert (done.code, "no claims of ada are known; give --claim" in done.errors) == (1, True)
    told = program("acl", "simulate", str(file), "--as", "ada", "--pub", "t/red", "--claim", "team=red")
    assert (told.code, "claims" in told.errors) == (0, False)
