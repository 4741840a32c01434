"""Older documents: version 2, 2.1 and the short editor form mean what they meant."""

from __future__ import annotations

import pytest

from acl.policy import parse
from acl.policy.language.printer import rule_data

CONVERSIONS = {
    "a rule with a list of agents": (
        'version: "2.1"\nrules:\n'
        "  - {topic: ns/tools/x/call, action: pub, binding: agent_id, agents: [scout, analyst]}\n"
        "  - {topic: 'u/{$self}', action: sub, binding: username, agents: [ada]}\n",
        [
            {"who": {"claims": {"agent_id": ["scout", "analyst"]}}, "action": "pub", "topic": "ns/tools/x/call"},
            {"who": "ada", "action": "sub", "topic": "u/{username}"},
        ],
    ),
    "organization and channel": (
        'version: "2.1"\nrules:\n'
        "  - {topic: '{org_short_id}/chat/{channel}', action: sub}\n"
        "  - {topic: 'chat/{channel}', action: sub, require_grant: true}\n"
        "  - {topic: 'open/{channel}/x', action: sub, require_grant: false}\n",
        [
            {"action": "sub", "topic": "{org}/chat/{claims.channel}"},
            {"action": "sub", "topic": "chat/{claims.channel}"},
            {"action": "sub", "topic": "open/+/x"},
        ],
    ),
    "no version in the shape of 2.1": (
        "rules:\n  - {topic: 'a/{$self}', action: pub, binding: agent_id}\n",
        [{"action": "pub", "topic": "a/{claims.agent_id}"}],
    ),
    "a bare list of the short form": (
        "- {user: ada, topic: a/b, permission: publish}\n- {user: '*', topic: c/#, permission: subscribe}\n",
        [{"who": "ada", "action": "pub", "topic": "a/b"}, {"action": "sub", "topic": "c/#"}],
    ),
    "the short form in JSON": (
        '[{"user": "dev-*", "topic": "d/{username}/#", "permission": "both"}]',
        [{"who": "dev-*", "topic": "d/{username}/#"}],
    ),
    "the short form under rules, without a version": (
        "rules:\n  - {user: ada, topic: a, permission: both}\n",
        [{"who": "ada", "topic": "a"}],
    ),
    "the short form beside version 3 rules": (
        'version: "3"\nrules:\n  - {id: x, topic: x}\n  - {user: ada, topic: a, permission: publish}\n',
        [{"id": "x", "topic": "x"}, {"who": "ada", "action": "pub", "topic": "a"}],
    ),
    "the short form keeps effect, limits and expiry": (
        "- {user: a, topic: t, permission: publish, qos: 1, retain: false, expires: 2027-01-01T00:00:00Z, note: n}\n",
        [
            {
                "who": "a",
                "action": "pub",
                "topic": "t",
                "qos": 1,
                "retain": False,
                "expires": "2027-01-01T00:00:00Z",
                "note": "n",
            }
        ],
    ),
    "global rules speak of everybody": (
        'version: "2"\nglobal:\n  - {topic: news/#, permission: subscribe}\n  - all/{username}\n',
        [{"action": "sub", "topic": "news/#"}, {"topic": "all/{username}"}],
    ),
    "a version written as a number": (
        "version: 2.1\nglobal: [{topics: [a, b], action: pub}]\n",
        [{"action": "pub", "topic": ["a", "b"]}],
    ),
    "self is what the binding names": (
        'version: "2.1"\nrules:\n'
        "  - {binding: username, topic: 'u/{$self}/#'}\n"
        "  - {binding: client_id, topic: 'c/{$self}'}\n"
        "  - {binding: agent_id, topic: ['a/{$self}/x', b]}\n"
        "  - {binding: claims.team, topic: 't/{$self}'}\n"
        "  - {binding: '{email}', topic: 'm/{$self}', effect: deny}\n",
        [
            {"topic": "u/{username}/#"},
            {"topic": "c/{client_id}"},
            {"topic": ["a/{claims.agent_id}/x", "b"]},
            {"topic": "t/{claims.team}"},
            {"effect": "deny", "topic": "m/{claims.email}"},
        ],
    ),
    "a binding without self asks for the claim": (
        'version: "2.1"\nrules: [{binding: agent_id, topic: pool/#, permission: both}]\n',
        [{"who": {"claims": {"agent_id": "*"}}, "topic": "pool/#"}],
    ),
    "a binding of the document": (
        'version: "2.1"\nbinding: agent_id\nrules: [{topic: "a/{$self}"}, {binding: username, topic: "u/{$self}"}]\n',
        [{"topic": "a/{claims.agent_id}"}, {"topic": "u/{username}"}],
    ),
    "agents with lists": (
        'version: "2.1"\nagents:\n  - {id: agent-7, publish: [out/a, out/b], subscribe: in/#}\n  - {id: agent-8}\n',
        [
            {"who": "agent-7", "action": "pub", "topic": ["out/a", "out/b"]},
            {"who": "agent-7", "action": "sub", "topic": "in/#"},
        ],
    ),
    "agents with rules and a binding": (
        'version: "2.1"\nagents:\n'
        "  - {username: agent-*, binding: username, rules: [{topic: 'a/{$self}', permission: publish}, z]}\n",
        [{"who": "agent-*", "action": "pub", "topic": "a/{username}"}, {"who": "agent-*", "topic": "z"}],
    ),
    "agents with a client id": (
        'version: "2"\nagents: [{id: a, client_id: c-*, publish: t}]\n',
        [{"who": {"username": "a", "client_id": "c-*"}, "action": "pub", "topic": "t"}],
    ),
    "publishers": (
        'version: "2"\npublishers:\n  - {publisher: backend, topics: [a, b]}\n  - {id: feed, topic: c, qos: 0}\n',
        [
            {"who": "backend", "action": "pub", "topic": ["a", "b"]},
            {"who": "feed", "action": "pub", "topic": "c", "qos": 0},
        ],
    ),
    "sections keep their order": (
        'version: "2.1"\npublishers: [{user: p, topic: p}]\nagents: [{id: a, publish: a}]\n'
        "rules: [{topic: r}]\nglobal: [g]\n",
        [
            {"topic": "g"},
            {"topic": "r"},
            {"who": "a", "action": "pub", "topic": "a"},
            {"who": "p", "action": "pub", "topic": "p"},
        ],
    ),
    "empty sections": ('version: "2"\nglobal: []\nrules:\n', []),
}


@pytest.mark.parametrize("name", CONVERSIONS)
def test_an_old_document_reads_as(name: str) -> None:
    text, expected = CONVERSIONS[name]
    parsed = parse(text)
    assert [str(finding) for finding in parsed.findings if not finding.code.startswith("assumed-")] == []
    assert parsed.policy is not None
    data = [rule_data(rule) for rule in parsed.policy.rules]
    for got, wanted in zip(data, expected, strict=True):
        assert got.pop("id")
        wanted = {key: value for key, value in wanted.items() if key != "id"}  # noqa: PLW2901
        assert got == wanted


def test_tests_of_an_old_document_are_kept() -> None:
    parsed = parse(
        'version: "2.1"\nglobal: [a]\ntests: [{name: t, as: {username: x}, do: pub, topic: a, expect: allow}]\n'
    )
    assert parsed.policy is not None
    assert [test.name for test in parsed.policy.tests] == ["t"]


MISTAKES = [
    ('version: "2.1"\nrules: [{topic: "a/{$self}"}]\n', "error: rules[0].topic - {$self} needs a binding"),
    ('version: "2"\nglobal: [{topic: a, colour: red}]\n', "error: global[0].colour - unknown field colour"),
    ('version: "2"\ngroups: []\n', "error: groups - unknown field groups"),
    ('version: "2"\nagents: [{publish: a}]\n', "error: agents[0] - an agent needs an id"),
    ('version: "2"\nagents: [7]\n', "error: agents[0] - this entry is a map"),
    ('version: "2"\nagents: 7\n', "error: agents - agents is a list"),
    ('version: "2"\npublishers: [{topic: a}]\n', "error: publishers[0] - a publisher needs a publisher and a topic"),
    (
        "- {user: a, topic: t, permission: everything}\n",
        'error: rules[0].permission - unknown permission "everything"; write publish, subscribe or both',
    ),
    (
        'version: "2"\nrules: [{binding: "a b", topic: "x/{$self}"}]\n',
        "error: rules[0].binding - a binding names a variable, as username or agent_id",
    ),
    ('version: "2"\nglobal: [{topic: "a/#/b"}]\n', "error: global[0].topic - # must be a whole level and the last one"),
    (
        'version: "2.1"\nglobal: [a]\nagents: [{id: x, rules: [b, {topic: "c+"}]}]\n',
        "error: agents[0].rules[1].topic - + must be a whole level",
    ),
    (
        'version: "2.1"\nagents: [{id: x, publish: [b, "c+"]}]\n',
        "error: agents[0].publish.topic[1] - + must be a whole level",
    ),
    (
        'version: "2"\npublishers: [{user: x, topic: "{x}"}]\n',
        "error: publishers[0].topic - unknown variable {x}; write one of {username}, {client_id}, {org}, "
        "{claims.NAME}, {email}, {user_id}, {agent_id}, {session_id}",
    ),
    (
        'version: "2.1"\nagents: [{id: x, rules: [{topic: "{$self}"}]}]\n',
        "error: agents[0].rules[0].topic - {$self} needs a binding",
    ),
    (
        'version: "2"\nglobal: [{topic: a, topics: b}]\n',
        "error: global[0].topics - topic and topics say the same; keep one of them",
    ),
    (
        'version: "2"\nrules: [{topic: a, permission: publish, action: sub}]\n',
        "error: rules[0].action - permission and action say the same; keep one of them",
    ),
    (
        'version: "2"\nrules: [{topic: a, note: x, description: y}]\n',
        "error: rules[0].description - note and description say the same; keep one of them",
    ),
    (
        "- {user: a, username: b, topic: t, permission: both}\n",
        "error: rules[0].username - user and username say the same; keep one of them",
    ),
    (
        'version: "2.1"\nglobal: [a, {topic: b, id: x}]\nrules: [{topic: c, id: x}]\n',
        "error: rules[0].id - id x is already used by global[1]",
    ),
    ("- {user: a, topic: t, permission: publish, qos: 3}\n", "error: rules[0].qos - 3 is not a QoS: 0, 1 or 2"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_a_mistake_in_an_old_document_is_named(text: str, message: str) -> None:
    parsed = parse(text)
    assert message in [str(finding) for finding in parsed.findings]
    assert parsed.policy is None


def test_what_is_assumed_of_an_old_document_is_a_warning() -> None:
    parsed = parse("global: [{topic: a}]\nrules: [{topic: 'c/{channel}'}]\n")
    assert parsed.policy is not None
    assert [(each.level, each.path, each.code) for each in parsed.findings] == [
        ("warning", "version", "assumed-version"),
        ("warning", "rules[0].topic", "assumed-claim"),
    ]


@pytest.mark.parametrize(
    ("rule", "path", "words"),
    [
        ("{topic: a, action: pubb}", "rules[0].action", 'unknown action "pubb"; write pub, sub or pub+sub'),
        ("{topic: a, permission: read}", "rules[0].permission", "write publish, subscribe or both"),
        ("{topic: a, agents: [b]}", "rules[0].agents", "give a binding"),
        ("{topic: a, binding: username, agents: [b], user: c}", "rules[0].agents", "both say which username"),
        ("{topic: a, require_grant: maybe}", "rules[0].require_grant", "true or false"),
    ],
)
def test_what_cannot_be_converted_is_told_of_the_field_that_was_written(rule: str, path: str, words: str) -> None:
    (finding,) = parse(f'version: "2.1"\nrules: [{rule}]\n').errors
    assert finding.path == path
    assert words in finding.message
