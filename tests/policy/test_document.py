"""Documents: what is read, what is printed, and what is said about mistakes."""

from __future__ import annotations

import json

import pytest

from acl.policy import Effect, canonical, digest, from_canonical, parse, to_json, to_yaml
from acl.policy.engine.model import Policy

FULL = """
version: "3"
default: deny
rules:
  - id: agent-card
    effect: allow
    who: "agent-*"
    action: pub+sub
    topic: agents/{username}/card
    qos: 1
    retain: false
    expires: 2027-01-31T00:00:00Z
    note: free text
  - effect: deny
    who: {client_id: [a, b*], claims: {team: ops, level: ["1", "2"]}}
    action: sub
    topic: [x/+/y, z/#]
tests:
  - name: an agent owns its card
    as: {username: agent-7, client_id: c1, claims: {email: a@example.com, age: 7, ok: true, roles: [a, b]}}
    do: pub
    topic: agents/agent-7/card
    expect: allow
    rule: agent-card
"""


def policy_of(text: str | bytes) -> Policy:
    parsed = parse(text)
    assert parsed.policy is not None, [str(finding) for finding in parsed.findings]
    return parsed.policy


def messages(text: str | bytes) -> list[str]:
    return [str(finding) for finding in parse(text).findings]


def rule(text: str) -> str:
    return f'version: "3"\nrules:\n  - {{{text}}}\n'


def test_every_field_is_read() -> None:
    policy = policy_of(FULL)
    first, second = policy.rules
    assert (first.id, first.qos, first.retain, first.who.username) == ("agent-card", 1, False, ("agent-*",))
    assert first.expires is not None
    assert first.expires.isoformat() == "2027-01-31T00:00:00+00:00"
    assert second.effect is Effect.DENY
    assert second.who.client_id == ("a", "b*")
    assert second.who.claims == (("level", ("1", "2")), ("team", ("ops",)))
    assert dict(policy.tests[0].claims) == {"email": "a@example.com", "age": 7, "ok": True, "roles": ("a", "b")}


@pytest.mark.parametrize("printed", [to_yaml, to_json, canonical])
def test_printing_and_parsing_are_inverse(printed: object) -> None:
    policy = policy_of(FULL)
    assert callable(printed)
    assert policy_of(printed(policy)) == policy


def test_json_and_yaml_of_the_same_policy_have_the_same_digest() -> None:
    policy = policy_of(FULL)
    assert digest(policy_of(to_json(policy))) == digest(policy_of(to_yaml(policy)))
    assert digest(policy).startswith("sha256:")
    assert len(digest(policy)) == 7 + 64


def test_defaults_written_out_do_not_change_the_digest() -> None:
    short = rule("id: a, topic: a/b")
    long = rule('id: a, topic: [a/b], effect: allow, who: "*", action: pub+sub, qos: 2, retain: true')
    assert digest(policy_of(short)) == digest(policy_of(long))


def test_a_changed_rule_changes_the_digest() -> None:
    assert digest(policy_of(rule("id: a, topic: a/b"))) != digest(policy_of(rule("id: a, topic: a/c")))


def test_a_rule_without_an_id_gets_one_from_its_content() -> None:
    made = policy_of(rule("topic: 'Agents/{username}/#'")).rules[0].id
    assert made.startswith("allow-pub-sub-agents-username-")
    assert made == policy_of(rule("topic: 'Agents/{username}/#'")).rules[0].id
    twice = policy_of('version: "3"\nrules: [{topic: a}, {topic: a}]').rules
    assert twice[1].id == twice[0].id + "-2"


def test_canonical_bytes_are_read_back_and_nothing_else_is() -> None:
    policy = policy_of(FULL)
    assert from_canonical(canonical(policy)) == policy
    broken = (b"", b"[]", b"{}", b'{"rules":7}', b'{"rules":[{}]}', to_json(policy).encode(), canonical(policy) + b" ")
    for data in (*broken, b"[" * 100_000, b"\xff"):
        with pytest.raises(ValueError, match=r"."):
            from_canonical(data)


def test_canonical_json_is_sorted_and_without_spaces() -> None:
    data = canonical(policy_of(FULL))
    assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode()


MISTAKES = [
    (rule("id: a, topic: a, qoss: 1"), "error: rules[0].qoss - unknown field qoss; did you mean qos?"),
    (
        rule("id: a, topic: a, action: [pub, sub]"),
        "error: rules[0].action - an action is one word, not a list; write pub+sub",
    ),
    (
        rule("id: a, topic: a, action: fly"),
        'error: rules[0].action - unknown action "fly"; write one of pub, sub, pub+sub',
    ),
    (rule("id: a, topic: a, users: b"), "error: rules[0].users - unknown field users; did you mean who?"),
    (rule("id: a"), "error: rules[0].topic - a rule needs a topic"),
    (rule("id: a, topic: a/#/b"), "error: rules[0].topic - # must be a whole level and the last one"),
    (rule("id: a, topic: [a, 'b+']"), "error: rules[0].topic[1] - + must be a whole level"),
    (rule("id: a, topic: []"), "error: rules[0].topic - an empty list names no topic; give at least one"),
    (rule("id: a, topic: ''"), "error: rules[0].topic - the topic filter is empty"),
    (
        rule("id: a, topic: a, action: publish"),
        'error: rules[0].action - unknown action "publish"; did you mean pub?',
    ),
    (
        rule("id: a, topic: 'a/{$self}'"),
        "error: rules[0].topic - {$self} needs a binding; name the variable instead, as in {username}",
    ),
    (
        rule("id: a, topic: 'a/{usrname}'"),
        "error: rules[0].topic - unknown variable {usrname}; write one of {username}, {client_id}, {org}, "
        "{claims.NAME}, {email}, {user_id}, {agent_id}, {session_id}",
    ),
    (
        rule("id: a, topic: 'a/{user'"),
        "error: rules[0].topic - braces stand around variables only, and inside one level",
    ),
    (rule("id: a, topic: $share/g/a"), "error: rules[0].topic - rules name the filter itself: leave out $share/GROUP"),
    (rule("id: A, topic: a"), 'error: rules[0].id - "A" is not an id: 1 to 64 of a-z, 0-9 and -, and not none'),
    (rule("id: none, topic: a"), 'error: rules[0].id - "none" is not an id: 1 to 64 of a-z, 0-9 and -, and not none'),
    (rule("id: a, topic: a, effect: maybe"), 'error: rules[0].effect - "maybe" is not one of allow, deny'),
    (rule("id: a, topic: a, qos: 3"), "error: rules[0].qos - 3 is not a QoS: 0, 1 or 2"),
    (rule("id: a, topic: a, retain: yes"), 'error: rules[0].retain - "yes" is not true or false'),
    (rule("id: a, topic: a, effect: deny, qos: 1"), "error: rules[0].qos - qos limits allow rules only"),
    (rule("id: a, topic: a, who: 7"), "error: rules[0].who - a glob is a text; put 7 in quotes"),
    (
        rule("id: a, topic: a, who: []"),
        "error: rules[0].who - an empty list matches nobody; remove it, or name a client",
    ),
    (
        rule("id: a, topic: a, expires: 2027-01-31"),
        'error: rules[0].expires - "2027-01-31" is not a time such as 2027-01-31T00:00:00Z',
    ),
    (
        'version: "3"\nrules: [{id: a, topic: a}, {id: a, topic: b}]',
        "error: rules[1].id - id a is already used by rules[0]",
    ),
    ('version: "4"\nrules: []', 'error: version - unknown version "4"; this is version "3"'),
    ("rules: []", 'error: version - say which version of the language this is: version: "3"'),
    ('version: "3"\ndefault: allow\n', "error: default - the default is deny and cannot be another"),
    ('version: "3"\nrules: 7', "error: rules - rules is a list"),
    ('version: "3"\nrules: [7]', "error: rules[0] - a rule is a map with at least a topic"),
    ("", 'error: document - a policy is a map with "version" and "rules"'),
    ('{"version": "3", "version": "3"}', 'error: document - "version" is given twice'),
    ("a: &x 1\nb: *x", "error: document - anchors and aliases are not accepted; write the value out"),
    (
        'version: "3"\ntests: [{name: t, as: {username: a}, do: pub, topic: a}]',
        "error: tests[0].expect - a test needs expect",
    ),
    (b"\xff\xfe", "error: document - the document is not UTF-8 text"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_is_named(text: str, message: str) -> None:
    assert message in messages(text)
    assert parse(text).policy is None


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_findings_carry_line_and_column(newline: str) -> None:
    text = newline.join(['version: "3"', "rules:", "  - id: a", "    topic: a/#/b", "    note: ok"])
    (finding,) = parse(text).findings
    assert (finding.line, finding.column, finding.end_line, finding.end_column) == (4, 12, 4, 17)
    as_json = '{"version": "3",\n "rules": [\n\t{"id": "a", "topic": "a/#/b"}]}'
    (finding,) = parse(as_json).findings
    assert (finding.line, finding.column, finding.end_column) == (3, 23, 30)


PLACES = {
    "a control character after others": ('version: "3"\nnote: "\u00e9 \u00e9" \x07\n', (2, 13, 2, 13)),
    "a control character in a text": ('version: "3"\nrules: [{topic: "\u00e9\u00e9\x07"}]\n', (2, 20, 2, 20)),
    "a name with an accent": ('# \u00e9\nversion: "3"\nbad \u00e9: 1\n', (3, 1, 3, 6)),
    "after a face": ('version: "3"\nrules:\n  - {note: "\U0001f600", topic: a/#/b}\n', (3, 24, 3, 29)),
    "after a face in JSON": ('{"version": "3", "rules": [{"note": "\U0001f600", "topic": "a/#/b"}]}', (1, 51, 1, 58)),
    "a list that does not end": ('version: "3"\nrules:\n  - topic: [\n', (4, 1, 4, 1)),
    "JSON that does not end": ('{"version": "3",\n "rules": [', (2, 12, 2, 12)),
    "a comma too many in JSON": ('{"version": "3",\n "rules": [,]}', (2, 12, 2, 12)),
    "not UTF-8": (b'version: "3"\nnote: \xc3\xa9\xff', (2, 8, 2, 8)),
    "a second document": ('version: "3"\n---\nversion: "3"\n', (2, 1, 2, 4)),
    "an anchor": ('version: "3"\nrules: &a []\n', (2, 8, 2, 12)),
    "a tag": ('version: "3"\nrules: !!set []\n', (2, 8, 2, 15)),
    "a second key in JSON": ('{"version": "3",\n "version": "3"}', (2, 2, 2, 11)),
    "a second key": ('version: "3"\nrules: []\nrules: []\n', (3, 1, 3, 6)),
    "the second of two topics": ('version: "3"\nrules:\n  - topic:\n      - a\n      - b+\n', (5, 9, 5, 11)),
    "a rule that is a number": ('version: "3"\nrules:\n  - 7\n', (3, 5, 3, 6)),
    "a field that is missing": ('version: "3"\nrules:\n  - id: a\n  - id: b\n    topic: b\n', (3, 5, 3, 10)),
    "a glob in an older document": ('version: "2"\nglobal:\n  - a\n  - {topic: b, client_id: 7}\n', (4, 27, 4, 28)),
}


@pytest.mark.parametrize("name", PLACES)
def test_every_message_points_at_its_place(name: str) -> None:
    text, place = PLACES[name]
    finding = parse(text).findings[0]
    assert (finding.line, finding.column, finding.end_line, finding.end_column) == place, finding


def test_a_fix_in_json_leaves_it_json() -> None:
    text = '{"version": "3", "rules": [{"id": "a", "topics": "$share/g/\\"x", "action": "publish", "who": 7}]}'
    for _ in range(4):
        fix = next(finding.fix for finding in parse(text).findings if finding.fix)
        text = fix.apply(text)
        json.loads(text)
    assert parse(text).findings == ()
    assert parse(text).policy == policy_of(rule("id: a, topic: '\"x', action: pub, who: '7'"))


@pytest.mark.parametrize("quote", ["'", '"'])
def test_a_misspelt_variable_is_fixed_where_it_is_clear_what_was_meant(quote: str) -> None:
    text = rule(f"id: a, topic: {quote}u/{{usrname}}/{{claims.x}}/{{clientid}}{quote}")
    (finding,) = parse(text).findings
    assert finding.fix is not None
    assert policy_of(finding.fix.apply(text)).rules[0].topics == ("u/{username}/{claims.x}/{client_id}",)
    (unclear,) = parse(rule("id: a, topic: 'u/{usrname}/{zzz}'")).findings
    assert unclear.fix is None


def test_a_fix_can_be_applied() -> None:
    text = rule("id: a, topics: a/b, action: publish")
    for _ in range(2):
        fixes = [finding.fix for finding in parse(text).findings if finding.fix]
        text = fixes[-1].apply(text)
    assert policy_of(text).rules[0].action == "pub"
    assert policy_of(text).rules[0].topics == ("a/b",)
