"""The JSON Schema: published, sound, and of one mind with the reader."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acl.policy import MAX_RULES, Parsed, Policy, parse, to_json
from acl.policy.language.presets import PRESETS
from acl.policy.language.schema import schema_text
from tests.support import policy_strategies as world

SCHEMA = json.loads(schema_text())
VALIDATOR = jsonschema_rs.validator_for(SCHEMA, validate_formats=True)
BEYOND = {"duplicate-id", "not-unicode", "syntax", "conversion"}
"""Codes of errors that no schema can find."""


def document(**rule: object) -> dict[str, object]:
    return {"version": "3", "rules": [{"id": "a", "topic": "a/b", **rule}]}


def with_test(**test: object) -> dict[str, object]:
    return {"version": "3", "tests": [{"do": "pub", "topic": "a", "expect": "deny", **test}]}


def test_it_is_a_schema_of_its_draft_and_part_of_the_package() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema_rs.meta.validate(SCHEMA)
    assert resources.files("acl.policy").joinpath("schema.json").read_text("utf-8") == schema_text()


GOOD: list[dict[str, Any]] = [
    {"version": "3"},
    {"version": 3, "rules": [], "tests": []},
    {"version": "3", "default": "deny", "rules": None, "tests": None},
    document(effect="deny"),
    document(effect="allow", qos=0, retain=False, note=""),
    document(qos=1.0),
    *(document(action=action) for action in ("pub", "sub", "pub+sub")),
    *(
        document(topic=topic)
        for topic in ("#", "+", "/", "//", "a/#", "+/+/#", "/#", "$SYS/#", "$shared", "a b/\u00e9")
    ),
    *(document(topic=topic) for topic in (["a"], ["a", "a", "b/#"], "a\n", "/" * 127, "+/" * 127 + "#", "a" * 65_535)),
    *(
        document(topic=topic)
        for topic in ("{username}", "x{client_id}y/{org}", "{email}/{user_id}", "{agent_id}-{session_id}/#")
    ),
    document(topic="{claims.team}/{claims.a.b:c-d}"),
    *(document(who=who) for who in ("*", "", "a*", ["a", "b*"], {}, {"username": "a"}, {"client_id": ["a", "b"]})),
    document(who={"claims": {}}),
    document(who={"claims": {"team": "*", "a.b": ["c", "d*"]}}),
    *(
        document(expires=moment)
        for moment in ("2027-01-31T00:00:00Z", "2027-01-31t00:00:00.25z", "2024-02-29T23:59:59+05:30")
    ),
    with_test(),
    with_test(**{"as": "ada", "name": "t", "rule": "none", "qos": 2, "retain": True}),
    with_test(**{"as": {"username": "a", "client_id": "c", "claims": {"n": 1, "b": True, "t": "x", "l": ["a", "b"]}}}),
    with_test(**{"as": {}, "topic": "", "rule": ""}),
]
BAD: list[dict[str, Any]] = [
    {},
    {"version": "4"},
    {"version": None},
    {"version": "3", "default": "allow"},
    {"version": "3", "rules": {}},
    {"version": "3", "rules": [7]},
    {"version": "3", "rules": [{}]},
    {"version": "3", "tests": {}},
    {"version": "3", "colour": "red"},
    {"version": "3", "rules": [{"topic": "a"}] * (MAX_RULES + 1)},
    *(document(id=name) for name in ("", "A", "none", "a b", "a" * 65, 7, None)),
    *(document(effect=effect) for effect in ("maybe", "", None, True)),
    document(effect="deny", qos=1),
    document(effect="deny", retain=True),
    *(document(action=action) for action in ("publish", "sub+pub", None, ["pub"])),
    *(
        document(topic=topic)
        for topic in ("", [], None, 7, [7], [[]], {}, "a/#/b", "a#", "#/a", "a+", "+a/b", "++", "#/#")
    ),
    *(document(topic=topic) for topic in ("$share/g/a", "$share", "$share/", "a\0", "/" * 128, "+/" * 128 + "#")),
    *(document(topic=topic) for topic in ("{", "a}", "{}", "{user}", "{claims.}", "{$self}", "{a/b}", "{{username}}")),
    *(document(qos=qos) for qos in (3, -1, 0.5, "1", None, True)),
    *(document(retain=retain) for retain in (0, "true", None)),
    *(document(who=who) for who in (7, None, [], [7], "a\0", {"user": "a"}, {"username": []}, {"claims": []})),
    document(who={"claims": {"": "a"}}),
    document(who={"claims": {"a b": "a"}}),
    document(who={"claims": {"a": []}}),
    *(
        document(expires=moment)
        for moment in ("2027-01-31", "2027-01-31T00:00:00", "2027-13-01T00:00:00Z", "20270131T000000Z", "", 7)
    ),
    document(expires="2027-01-31 00:00:00Z"),
    document(expires="2027-02-30T00:00:00Z"),
    document(note=7),
    document(colour="red"),
    with_test(do="receive"),
    with_test(expect="maybe"),
    with_test(topic=None),
    with_test(colour="red"),
    *(with_test(**{"as": actor}) for actor in (7, [], {"user": "a"}, {"username": 7}, {"claims": {"a": None}})),
    with_test(**{"as": {"claims": {"a": {}}}}),
    with_test(**{"as": {"claims": {"a": [7]}}}),
    with_test(qos=3),
    with_test(retain=1),
    {"version": "3", "tests": [{}]},
]


@pytest.mark.parametrize("data", GOOD, ids=lambda data: json.dumps(data)[:80])
def test_both_accept(data: dict[str, object]) -> None:
    assert [str(finding) for finding in read(data).findings] == []
    assert VALIDATOR.is_valid(data)


@pytest.mark.parametrize("data", BAD, ids=lambda data: json.dumps(data)[:80])
def test_both_refuse(data: dict[str, object]) -> None:
    assert read(data).policy is None
    assert not VALIDATOR.is_valid(data)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)
def test_presets_are_valid(preset: object) -> None:
    policy = parse(getattr(preset, "text")).policy  # noqa: B009
    assert policy is not None
    VALIDATOR.validate(json.loads(to_json(policy)))


@given(world.policies())
def test_every_policy_as_it_is_printed_is_valid(policy: Policy) -> None:
    VALIDATOR.validate(json.loads(to_json(policy)))


def read(data: object) -> Parsed:
    return parse(json.dumps(data))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.text(max_size=3)
    | st.sampled_from(("3", "deny", "allow", "pub", "a/#", "a/{username}", "a*", "{x}", "2027-01-31T00:00:00Z", "a#")),
    lambda inner: st.lists(inner, max_size=2)
    | st.dictionaries(st.sampled_from(("username", "client_id", "claims", "k", "a b", "topic")), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
RULE = ("id", "effect", "who", "action", "topic", "qos", "retain", "expires", "note", "colour")
TEST = ("name", "as", "do", "topic", "expect", "rule", "qos", "retain", "colour")


@st.composite
def nearly(draw: st.DrawFn) -> dict[str, Any]:
    """A good document with a few values of it changed."""
    data = json.loads(json.dumps(draw(st.sampled_from(GOOD))))
    for _ in range(draw(st.integers(1, 3))):
        part, fields = draw(st.sampled_from((("", ("version", "default", "k")), ("rules", RULE), ("tests", TEST))))
        entries = data.get(part) or [{}]
        target = data if not part or not isinstance(entries[0], dict) else entries[0]
        field = draw(st.sampled_from(fields))
        if draw(st.integers(0, 4)):
            target[field] = draw(VALUES)
        else:
            target.pop(field, None)
    return data


@settings(max_examples=400, deadline=None)
@given(nearly())
def test_the_schema_and_the_reader_agree(data: dict[str, Any]) -> None:
    parsed = read(data)
    codes = {finding.code for finding in parsed.errors}
    if VALIDATOR.is_valid(data):
        assert codes <= BEYOND, [str(finding) for finding in parsed.errors]
    elif not parsed.converted:
        assert codes, data
