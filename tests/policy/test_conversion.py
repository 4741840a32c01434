"""Many older documents of each form, made beside the version 3 document that they mean; both must be one policy."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from acl.policy import Policy, canonical, compile_policy, parse, run_tests
from acl.policy.engine import evaluate
from tests.support.policy_strategies import NOW

PERMISSIONS = {"publish": "pub", "subscribe": "sub", "both": "pub+sub"}
BINDINGS = {
    "username": "{username}",
    "client_id": "{client_id}",
    "org": "{org}",
    "agent_id": "{claims.agent_id}",
    "{email}": "{claims.email}",
    "claims.team": "{claims.team}",
}
USERS = ("ada", "dev-*", "*", "*-bot", "a*b")
TOPICS = ("a", "a/b", "a/#", "+/x", "#", "$SYS/#", "u/{username}/#", "c/{client_id}", "/", "m/{claims.team}")
SELF = ("s/{$self}", "s/{$self}/#", "x-{$self}-y/+", "{$self}")
DOCUMENTS = 60
Made = tuple[Any, dict[str, Any]]
"""What is written, and the version 3 rule that it means."""


def limits(rng: random.Random) -> dict[str, Any]:
    """Fields that older rules have in common with those of version 3."""
    some: dict[str, Any] = {}
    if rng.random() < 0.3:
        some |= {"effect": "deny"}
    elif rng.random() < 0.3:
        some |= {"qos": rng.choice((0, 1)), "retain": False}
    if rng.random() < 0.2:
        some["expires"] = "2027-01-31T00:00:00Z"
    return some


def noted(rng: random.Random, rule: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A note, under one of the names it has had."""
    if rng.random() < 0.7:
        return {}, rule
    return {rng.choice(("note", "description", "comment", "name")): "why"}, {**rule, "note": "why"}


def short(rng: random.Random) -> Made:
    """The short editor form."""
    user, topic, permission = rng.choice(USERS), rng.choice(TOPICS), rng.choice(tuple(PERMISSIONS))
    rule = {"who": user, "topic": topic, "action": PERMISSIONS[permission], **limits(rng)}
    extra, meant = noted(rng, rule)
    kept = {name: rule[name] for name in ("effect", "qos", "retain", "expires") if name in rule}
    return {"user": user, "topic": topic, "permission": permission, **kept, **extra}, meant


def bound(rng: random.Random) -> Made:
    """A rule of version 2 with a binding; without ``{$self}`` it speaks of those that carry the claim."""
    binding = rng.choice(tuple(BINDINGS))
    variable = BINDINGS[binding]
    rule: dict[str, Any] = limits(rng)
    if rng.random() < 0.7:
        topics = [rng.choice(SELF), *rng.sample(TOPICS, rng.randint(0, 2))]
        meant = {**rule, "topic": [topic.replace("{$self}", variable) for topic in topics]}
    else:
        topics = [rng.choice(TOPICS)]
        claim = variable.strip("{}").removeprefix("claims.")
        meant = {**rule, "topic": topics}
        if variable.startswith("{claims."):
            meant["who"] = {"claims": {claim: "*"}}
    extra, meant = noted(rng, meant)
    named = "topics" if len(topics) > 1 and rng.random() < 0.5 else "topic"
    return {"binding": binding, named: topics if len(topics) > 1 else topics[0], **rule, **extra}, meant


def plain(rng: random.Random) -> Made:
    """A rule for everybody: a topic alone, or with a permission."""
    topic = rng.choice(TOPICS)
    if rng.random() < 0.3:
        return topic, {"topic": topic}
    permission = rng.choice(tuple(PERMISSIONS))
    named = rng.choice(("permission", "action"))
    return {"topic": topic, named: permission}, {"topic": topic, "action": PERMISSIONS[permission]}


def agent(rng: random.Random) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The rules of one identity."""
    name = rng.choice(USERS)
    written: dict[str, Any] = {rng.choice(("id", "agent", "username", "user")): name}
    meant: list[dict[str, Any]] = []
    who: Any = name
    if rng.random() < 0.3:
        written["client_id"], who = "c-*", {"username": name, "client_id": "c-*"}
    if rng.random() < 0.5:
        rules = [plain(rng) for _ in range(rng.randint(1, 2))]
        written["rules"] = [each for each, _ in rules]
        meant += [{**rule, "who": who} for _, rule in rules]
    for field, action in (("publish", "pub"), ("subscribe", "sub")):
        if rng.random() < 0.6:
            topics = rng.sample(TOPICS, rng.randint(1, 3))
            written[field] = topics if len(topics) > 1 or rng.random() < 0.5 else topics[0]
            meant.append({"topic": topics, "action": action, "who": who})
    if rng.random() < 0.3:
        written["note"] = "of the agent"
        meant = [{**rule, "note": "of the agent"} for rule in meant]
    return written, meant


def publisher(rng: random.Random) -> Made:
    """Who may publish what."""
    name, topics = rng.choice(USERS), rng.sample(TOPICS, rng.randint(1, 3))
    written = {rng.choice(("publisher", "id", "username")): name, "topics": topics, **(extra := limits(rng))}
    return written, {"who": name, "topic": topics, "action": "pub", **extra}


def version_2(rng: random.Random, version: Any) -> tuple[Any, list[dict[str, Any]]]:
    """A document with every section of versions 2 and 2.1."""
    document: dict[str, Any] = {"version": version}
    rules: list[dict[str, Any]] = []
    sections: dict[str, Callable[[random.Random], Made]] = {"global": plain, "rules": bound}
    for section, make in sections.items():
        made = [make(rng) for _ in range(rng.randint(0, 3))]
        document[section] = [each for each, _ in made]
        rules += [rule for _, rule in made]
    agents = [agent(rng) for _ in range(rng.randint(0, 2))]
    document["agents"] = [each for each, _ in agents]
    rules += [rule for _, some in agents for rule in some]
    made = [publisher(rng) for _ in range(rng.randint(0, 2))]
    document["publishers"] = [each for each, _ in made]
    rules += [rule for _, rule in made]
    return dict(rng.sample(list(document.items()), len(document))), rules


def short_form(rng: random.Random) -> tuple[Any, list[dict[str, Any]]]:
    """A bare list, or the entries of ``rules``, with or without a version."""
    made = [short(rng) for _ in range(rng.randint(1, 5))]
    entries, rules = [each for each, _ in made], [rule for _, rule in made]
    return rng.choice((entries, {"rules": entries}, {"version": "3", "rules": entries})), rules


FORMS: dict[str, Callable[[random.Random], tuple[Any, list[dict[str, Any]]]]] = {
    "version 2": lambda rng: version_2(rng, rng.choice(("2", "2.0", 2))),
    "version 2.1": lambda rng: version_2(rng, rng.choice(("2.1", 2.1))),
    "the short form": short_form,
}


def policy_of(document: object) -> Policy:
    parsed = parse(json.dumps(document))
    assert parsed.policy is not None, ([str(finding) for finding in parsed.findings], document)
    return parsed.policy


@pytest.mark.parametrize("seed", range(DOCUMENTS))
@pytest.mark.parametrize("form", FORMS)
def test_an_older_document_and_the_new_one_that_it_means_are_one_policy(form: str, seed: int) -> None:
    rng = random.Random(f"{form} {seed}")
    written, rules = FORMS[form](rng)
    old, new = policy_of(written), policy_of({"version": "3", "rules": rules})
    assert canonical(old) == canonical(new), written
    assert parse(canonical(old)).policy == old


def test_a_converted_document_decides_and_passes_its_tests() -> None:
    parsed = parse(
        """
version: "2.1"
binding: agent_id
global: [{topic: news/#, permission: subscribe}]
rules: [{topic: "agents/{$self}/#"}, {binding: agent_id, topic: agents/+/card, permission: subscribe}]
agents: [{id: relay, publish: relay/out, subscribe: relay/in/#}]
publishers: [{publisher: backend, topic: news/+}]
tests:
  - {name: own, as: {username: x, claims: {agent_id: a7}}, do: pub, topic: agents/a7/state, expect: allow}
  - {name: other, as: {username: x, claims: {agent_id: a7}}, do: pub, topic: agents/a8/state, expect: deny}
  - {name: cards need the claim, as: x, do: sub, topic: agents/+/card, expect: deny}
  - {name: cards, as: {username: x, claims: {agent_id: a7}}, do: sub, topic: agents/+/card, expect: allow}
  - {name: relay, as: relay, do: pub, topic: relay/out, expect: allow}
  - {name: news, as: backend, do: pub, topic: news/today, expect: allow}
  - {name: no news, as: relay, do: pub, topic: news/today, expect: deny, rule: none}
"""
    )
    assert parsed.policy is not None
    assert parsed.converted
    assert [outcome.message for outcome in run_tests(parsed.policy, org="o", now=NOW) if not outcome.passed] == []
    compiled = compile_policy(parsed.policy)
    for test in parsed.policy.tests:
        who = evaluate.Identity("o", test.username, "", dict(test.claims))
        expected = evaluate.receive(parsed.policy, who, "news/today", now=NOW)
        assert compiled.receive(who, "news/today", now=NOW) == expected
