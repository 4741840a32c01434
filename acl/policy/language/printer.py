"""Print a policy as the canonical bytes that the digest covers, or as YAML or JSON for people.

Printing and parsing are inverse: ``parse(to_yaml(p)).policy == p`` and ``parse(canonical(p)).policy == p``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from acl.policy.engine.model import Effect, Identity, Policy, PolicyTest, Rule, Who

_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def canonical(policy: Policy) -> bytes:
    """``policy`` as canonical JSON: sorted names, no spaces, ASCII, defaults left out. Equal policies, equal bytes."""
    return json.dumps(as_data(policy), sort_keys=True, separators=(",", ":")).encode("ascii")


def from_canonical(data: bytes) -> Policy:
    """The policy whose ``canonical`` bytes are ``data``: ``parse`` without its checks, for bytes that we wrote.

    Only for bytes of known origin, such as a signed bundle. Raises ``ValueError`` for anything else.
    """
    try:
        tree = json.loads(data)
        rules = tuple(_rule(each) for each in tree["rules"])
        tests = tuple(_test(each) for each in tree.get("tests", ()))
        policy = Policy(rules, tests)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError("these are not the canonical bytes of a policy") from error
    if canonical(policy) != data:
        raise ValueError("these are not the canonical bytes of a policy")
    return policy


def digest(policy: Policy) -> str:
    """``sha256:`` and the 64 hexadecimal digits of the SHA-256 of ``canonical(policy)``."""
    return "sha256:" + hashlib.sha256(canonical(policy)).hexdigest()


def to_json(policy: Policy) -> str:
    """``policy`` as indented JSON in the order that people write."""
    return json.dumps(as_data(policy), indent=2, ensure_ascii=False) + "\n"


def to_yaml(policy: Policy) -> str:
    """``policy`` as YAML in the order that people write, one blank line between rules."""
    lines = [f"version: {_scalar(policy.version)}", "rules:" if policy.rules else "rules: []"]
    for rule in policy.rules:
        lines += _item(rule_data(rule))
    if policy.tests:
        lines.append("tests:")
        for test in policy.tests:
            lines += _item(test_data(test))
    return "\n".join(lines) + "\n"


def as_data(policy: Policy) -> dict[str, Any]:
    """``policy`` as plain maps and lists, defaults left out."""
    data: dict[str, Any] = {"version": policy.version, "rules": [rule_data(rule) for rule in policy.rules]}
    if policy.tests:
        data["tests"] = [test_data(test) for test in policy.tests]
    return data


def rule_data(rule: Rule) -> dict[str, Any]:
    """``rule`` as a plain map, defaults left out."""
    data: dict[str, Any] = {"id": rule.id}
    if rule.effect is Effect.DENY:
        data["effect"] = "deny"
    if rule.who != Who():
        data["who"] = who_data(rule.who)
    if rule.action != "pub+sub":
        data["action"] = rule.action
    data["topic"] = _one_or_list(rule.topics)
    if rule.effect is Effect.ALLOW and rule.qos != 2:
        data["qos"] = rule.qos
    if rule.effect is Effect.ALLOW and not rule.retain:
        data["retain"] = False
    if rule.expires is not None:
        data["expires"] = moment_text(rule.expires)
    if rule.note:
        data["note"] = rule.note
    return data


def who_data(who: Who) -> Any:
    """``who`` in its shortest form: a glob, a list of globs, or a map."""
    if who.client_id == ("*",) and not who.claims:
        return _one_or_list(who.username)
    data: dict[str, Any] = {}
    if who.username != ("*",):
        data["username"] = _one_or_list(who.username)
    if who.client_id != ("*",):
        data["client_id"] = _one_or_list(who.client_id)
    if who.claims:
        data["claims"] = {name: _one_or_list(globs) for name, globs in who.claims}
    return data


def who_text(who: Who) -> str:
    """``who`` on one line, for messages: ``agent-*``, ``a or b``, ``* with claim team in ops``."""
    text = " or ".join(who.username)
    if who.client_id != ("*",):
        text += f" with client ID {' or '.join(who.client_id)}"
    for name, globs in who.claims:
        text += f" with claim {name} {' or '.join(globs)}"
    return text


def identity_text(identity: Identity) -> str:
    """``identity`` on one line, for messages."""
    parts = [identity.username or '""']
    if identity.client_id:
        parts.append(f"client ID {identity.client_id}")
    parts += [f"{name}={json.dumps(value, default=list)}" for name, value in identity.claims.items()]
    return ", ".join(parts)


def test_data(test: PolicyTest) -> dict[str, Any]:
    """``test`` as a plain map, defaults left out."""
    actor: dict[str, Any] = {"username": test.username}
    if test.client_id:
        actor["client_id"] = test.client_id
    if test.claims:
        actor["claims"] = {name: list(value) if isinstance(value, tuple) else value for name, value in test.claims}
    data: dict[str, Any] = {
        "name": test.name,
        "as": actor,
        "do": test.do,
        "topic": test.topic,
        "expect": test.expect.value,
    }
    if test.rule is not None:
        data["rule"] = test.rule
    if test.qos:
        data["qos"] = test.qos
    if test.retain:
        data["retain"] = True
    return data


def moment_text(moment: datetime) -> str:
    """``moment`` as RFC 3339 in UTC with a Z; fractions of a second only where there are some."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _rule(data: dict[str, Any]) -> Rule:
    return Rule(
        id=data["id"],
        topics=_texts(data["topic"]),
        action=data.get("action", "pub+sub"),
        effect=Effect(data.get("effect", "allow")),
        who=_who(data.get("who", "*")),
        qos=data.get("qos", 2),
        retain=data.get("retain", True),
        expires=datetime.fromisoformat(data["expires"]) if "expires" in data else None,
        note=data.get("note", ""),
    )


def _who(data: Any) -> Who:
    if not isinstance(data, dict):
        return Who(_texts(data))
    claims = tuple(sorted((name, _texts(globs)) for name, globs in data.get("claims", {}).items()))
    return Who(_texts(data.get("username", "*")), _texts(data.get("client_id", "*")), claims)


def _test(data: dict[str, Any]) -> PolicyTest:
    actor = data["as"]
    claims = actor.get("claims", {}).items()
    return PolicyTest(
        name=data["name"],
        username=actor["username"],
        do=data["do"],
        topic=data["topic"],
        expect=Effect(data["expect"]),
        client_id=actor.get("client_id", ""),
        claims=tuple(sorted((name, tuple(value) if isinstance(value, list) else value) for name, value in claims)),
        rule=data.get("rule"),
        qos=data.get("qos", 0),
        retain=data.get("retain", False),
    )


def _texts(data: str | list[str]) -> tuple[str, ...]:
    return (data,) if isinstance(data, str) else tuple(data)


def _one_or_list(texts: tuple[str, ...]) -> str | list[str]:
    return texts[0] if len(texts) == 1 else list(texts)


def _item(data: Mapping[str, Any]) -> list[str]:
    lines = [f"{name}: {_flow(value)}" for name, value in data.items()]
    return [("  - " if at == 0 else "    ") + line for at, line in enumerate(lines)]


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(name)}: {_flow(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_flow(inner) for inner in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """A scalar as YAML: plain where that is unmistakable, as a JSON text (which YAML reads alike) elsewhere."""
    if not isinstance(value, str):
        return json.dumps(value)
    plain = value.replace("/", "").replace("-", "").replace("_", "").replace(".", "")
    if plain.isascii() and plain.isalnum() and value[0].isalpha() and value not in ("true", "false", "null"):
        return value
    # YAML takes no pairs of surrogates for one character, and not every character as it is.
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
