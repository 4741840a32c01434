"""Parse a policy document into a ``Policy``, with a located finding for every error.

Version "3" is read here. Version "2", "2.1" and the short editor form are first rewritten to version "3" nodes by
``acl.policy.language.legacy``, so that there is one set of checks and messages point at what was written.
"""
# Over 400 lines: one grammar, whose checks stand in the order of the schema.

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from acl.policy.engine.model import MAX_RULES, VERSION, ActionName, ClaimValue, Effect, Policy, PolicyTest, Rule, Who
from acl.policy.engine.templates import CLAIM_NAME, SHORT_FORMS, VARIABLE, full_name, pattern_problem
from acl.policy.language import legacy
from acl.policy.language.reader import Finding, Fix, Span, SyntaxNode, key_text, located, read

_RULE_PATH = re.compile(r"rules\[([0-9]+)\]")
RULE_ID = re.compile(r"[a-z0-9-]{1,64}")
_MOMENT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})")
MAX_FINDINGS = 200
ACTIONS: dict[str, ActionName] = {"pub": "pub", "sub": "sub", "pub+sub": "pub+sub"}
_ACTION_WORDS = {"publish": "pub", "subscribe": "sub", "both": "pub+sub", "sub+pub": "pub+sub", "all": "pub+sub"}
_FIELD_WORDS = {
    "user": "who", "users": "who", "username": "who", "usernames": "who", "client": "who", "clients": "who",
    "identity": "as", "permission": "action", "permissions": "action", "allow": "effect", "deny": "effect",
    "expiry": "expires", "until": "expires", "comment": "note", "description": "note", "result": "expect",
}  # fmt: skip
"""Fields of other languages, and what they are called here."""
_RULE_FIELDS = ("id", "effect", "who", "action", "topic", "qos", "retain", "expires", "note")
_TEST_FIELDS = ("name", "as", "do", "topic", "expect", "rule", "qos", "retain")


@dataclass(frozen=True, slots=True)
class Parsed:
    """The result of ``parse``: the policy (``None`` when there is an error), the findings, and the place of each part.

    ``spans`` maps paths such as ``rules[2]`` and ``rules[2].topic`` to places in ``source``. ``converted`` says that
    the document is written in an older form.
    """

    policy: Policy | None
    findings: tuple[Finding, ...]
    source: str = ""
    filename: str = "policy"
    spans: Mapping[str, Span] = field(default_factory=dict, repr=False)
    converted: bool = False

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that keep the document from being a policy."""
        return tuple(finding for finding in self.findings if finding.level == "error")


def parse(text: str | bytes, *, filename: str = "policy") -> Parsed:
    """Parse a policy document of any accepted version. Never raises: errors are in ``findings``."""
    source, node, problem = read(text)
    if node is None:
        return Parsed(None, (problem,) if problem else (), source, filename)
    reader = _DocumentReader()
    policy = reader.policy(node)
    findings = tuple(sorted(reader.findings[:MAX_FINDINGS], key=lambda found: (found.line, found.column)))
    broken = any(finding.level == "error" for finding in findings)
    return Parsed(None if broken else policy, findings, source, filename, reader.spans, reader.converted)


class _DocumentReader:
    """Reads one document in one pass. Every method returns a usable value and records findings."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.spans: dict[str, Span] = {}
        self.converted = False
        self._written: list[str] = []
        """Where the rules stand in the older document that was written; empty where they stand under ``rules``."""

    def error(self, path: str, message: str, code: str, span: Span, fix: Fix | None = None) -> None:
        if self._written and (rule := _RULE_PATH.match(path)):
            path = self._written[int(rule[1])] + path[rule.end() :]
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(located("error", path, message, code=code, span=span, fix=fix))

    def policy(self, root: SyntaxNode) -> Policy:
        try:
            written, (root, self._written, assumed) = root, legacy.modernized(root)
            self.converted = root is not written
            self.findings += [
                located("warning", each.path, each.message, code=each.code, span=each.span)
                for each in assumed[:MAX_FINDINGS]
            ]
        except legacy.CannotConvert as problem:
            self.error(problem.path, problem.message, problem.code, problem.span)
            return Policy()
        if root.kind != "map":
            self.error("document", 'a policy is a map with "version" and "rules"', "not-a-policy", root.span)
            return Policy()
        self.spans["document"] = root.span
        self._known_fields(root, "", ("version", "default", "rules", "tests"))
        self._version(root)
        default = root.get("default")
        if default is not None and default.value != "deny":
            self.error("default", "the default is deny and cannot be another", "default", default.span)
        rules = self._rules(root.get("rules"))
        return Policy(rules, tuple(self._tests(root.get("tests"))))

    def _version(self, root: SyntaxNode) -> None:
        version = root.get("version")
        if version is None:
            message = f'say which version of the language this is: version: "{VERSION}"'
            self.error("version", message, "version", root.span)
        elif version.raw != VERSION:
            self.error(
                "version", f'unknown version {_shown(version)}; this is version "{VERSION}"', "version", version.span
            )

    def _rules(self, node: SyntaxNode | None) -> tuple[Rule, ...]:
        nodes = self._list(node, "rules")
        if node is not None and len(nodes) > MAX_RULES:
            self.error("rules", f"a policy has at most {MAX_RULES} rules, this one {len(nodes)}", "too-many", node.span)
            return ()
        rules = [self._rule(each, f"rules[{at}]") for at, each in enumerate(nodes)]
        return self._named(rules, nodes)

    def _named(self, rules: list[Rule], nodes: list[SyntaxNode]) -> tuple[Rule, ...]:
        """Give every rule an ID: duplicates are an error, missing IDs are made from the content."""
        taken: dict[str, int] = {}
        for at, rule in enumerate(rules):
            if not rule.id:
                continue
            if rule.id in taken:
                span = self.spans.get(f"rules[{at}].id", nodes[at].span)
                first = taken[rule.id]
                place = self._written[first] if self._written else f"rules[{first}]"
                message = f"id {rule.id} is already used by {place}"
                self.error(f"rules[{at}].id", message, "duplicate-id", span)
            taken.setdefault(rule.id, at)
        made = MadeIds(taken)
        return tuple(rule if rule.id else _with_id(rule, made.next(rule)) for rule in rules)

    def _rule(self, node: SyntaxNode, path: str) -> Rule:
        self.spans[path] = node.span
        if node.kind != "map":
            self.error(path, "a rule is a map with at least a topic", "not-a-rule", node.span)
            return Rule("", ("#",))
        self._known_fields(node, path, _RULE_FIELDS)
        fields = _Fields(self, node, path)
        effect = Effect(fields.choice("effect", ("allow", "deny"), "allow"))
        if effect is Effect.DENY:
            for name in ("qos", "retain"):
                limit = node.get(name)
                if limit is not None:
                    self.error(f"{path}.{name}", f"{name} limits allow rules only", "deny-limit", limit.span)
        return Rule(
            id=fields.rule_id(),
            topics=self._topics(node.get("topic"), path, node.span),
            action=fields.action(),
            effect=effect,
            who=self._who(node.get("who"), f"{path}.who"),
            qos=fields.qos(2) if effect is Effect.ALLOW else 2,
            retain=fields.flag("retain", True) if effect is Effect.ALLOW else True,
            expires=fields.moment("expires"),
            note=fields.text("note", ""),
        )

    def _topics(self, node: SyntaxNode | None, path: str, whole: Span) -> tuple[str, ...]:
        path = f"{path}.topic"
        if node is None:
            self.error(path, "a rule needs a topic", "missing", whole)
            return ("#",)
        topics = self._texts(node, path, "a topic filter")
        if node.kind == "list" and not node.value:
            self.error(path, "an empty list names no topic; give at least one", "empty", node.span)
        for at, topic in enumerate(topics):
            inner = node.value[at] if node.kind == "list" else node
            if node.kind == "list":
                self.spans[f"{path}[{at}]"] = inner.span
            problem = pattern_problem(topic)
            if problem:
                code, message = problem
                fix = _known_variables(inner) if code == "unknown-variable" else None
                if topic.startswith("$share/") and topic.count("/") > 1:
                    fix = Fix("Leave out $share", inner.span.start, inner.span.end, json.dumps(topic.split("/", 2)[2]))
                self.error(f"{path}[{at}]" if node.kind == "list" else path, message, code, inner.span, fix)
        return tuple(dict.fromkeys(topics)) or ("#",)

    def _who(self, node: SyntaxNode | None, path: str) -> Who:
        if node is None:
            return Who()
        self.spans[path] = node.span
        if node.kind != "map":
            return Who(username=self._globs(node, path))
        self._known_fields(node, path, ("username", "client_id", "claims"))
        parts = {
            name: self._globs(part, f"{path}.{name}")
            for name in ("username", "client_id")
            if (part := node.get(name)) is not None
        }
        claims = node.get("claims")
        if claims is not None and claims.kind != "map":
            self.error(f"{path}.claims", "claims is a map from claim names to globs", "not-a-map", claims.span)
        wanted = {}
        for key, value in claims.pairs() if claims is not None else ():
            self._claim_name(key, f"{path}.claims")
            wanted[key.value] = self._globs(value, f"{path}.claims.{key.value}")
        return Who(parts.get("username", ("*",)), parts.get("client_id", ("*",)), tuple(sorted(wanted.items())))

    def _claim_name(self, key: SyntaxNode, path: str) -> None:
        if not CLAIM_NAME.fullmatch(key.value):
            self.error(path, f"{_shown(key)} is not a claim name", "claim-name", key.span)

    def _globs(self, node: SyntaxNode, path: str) -> tuple[str, ...]:
        globs = self._texts(node, path, "a glob")
        if not globs:
            self.error(path, "an empty list matches nobody; remove it, or name a client", "empty", node.span)
        if any("\0" in glob for glob in globs):
            self.error(path, "a glob cannot contain the character U+0000", "bad-glob", node.span)
        return tuple(dict.fromkeys(globs))

    def _tests(self, node: SyntaxNode | None) -> Iterable[PolicyTest]:
        for at, each in enumerate(self._list(node, "tests")):
            path = f"tests[{at}]"
            self.spans[path] = each.span
            if each.kind != "map":
                self.error(path, "a test is a map with as, do, topic and expect", "not-a-test", each.span)
                continue
            self._known_fields(each, path, _TEST_FIELDS)
            yield self._test(each, path, at)

    def _test(self, node: SyntaxNode, path: str, at: int) -> PolicyTest:
        fields = _Fields(self, node, path)
        actor = node.get("as") or SyntaxNode("map", [], node.span)
        if actor.kind == "text":
            actor = SyntaxNode("map", [(SyntaxNode("text", "username", actor.span), actor)], actor.span)
        if actor.kind != "map":
            message = "as is a username, or a map with username, client_id and claims"
            self.error(f"{path}.as", message, "not-a-map", actor.span)
            actor = SyntaxNode("map", [], actor.span)
        self._known_fields(actor, f"{path}.as", ("username", "client_id", "claims"))
        identity = _Fields(self, actor, f"{path}.as")
        for name in ("do", "topic", "expect"):
            if node.get(name) is None:
                self.error(f"{path}.{name}", f"a test needs {name}", "missing", node.span)
        do = fields.action(("pub", "sub"), "pub", name="do")
        return PolicyTest(
            name=fields.text("name", f"test {at + 1}"),
            username=identity.text("username", ""),
            do="sub" if do == "sub" else "pub",
            topic=fields.text("topic", ""),
            expect=Effect(fields.choice("expect", ("allow", "deny"), "deny")),
            client_id=identity.text("client_id", ""),
            claims=self._claims(actor.get("claims"), f"{path}.as.claims"),
            rule=fields.text("rule", "") or None,
            qos=fields.qos(0),
            retain=fields.flag("retain", False),
        )

    def _claims(self, node: SyntaxNode | None, path: str) -> tuple[tuple[str, ClaimValue | tuple[str, ...]], ...]:
        if node is None:
            return ()
        if node.kind != "map":
            self.error(path, "claims is a map from claim names to values", "not-a-map", node.span)
            return ()
        claims: dict[str, ClaimValue | tuple[str, ...]] = {}
        for key, value in node.pairs():
            self._claim_name(key, path)
            if value.kind == "list" or (value.kind == "text" and _surrogates(value.value)):
                claims[key.value] = self._texts(value, f"{path}.{key.value}", "a text")
            elif value.kind in ("text", "number", "bool") and value.value is not None:
                claims[key.value] = value.value
            else:
                message = "a claim is a text, a number, true, false or a list"
                self.error(f"{path}.{key.value}", message, "claim", value.span)
        return tuple(sorted(claims.items()))

    def _list(self, node: SyntaxNode | None, path: str) -> list[SyntaxNode]:
        if node is None or node.kind == "null":
            return []
        if node.kind != "list":
            self.error(path, f"{path} is a list", "not-a-list", node.span)
            return []
        return list(node.value)

    def _texts(self, node: SyntaxNode, path: str, noun: str) -> tuple[str, ...]:
        """A text, or a list of them."""
        self.spans[path] = node.span
        nodes = node.value if node.kind == "list" else [node]
        for at, each in enumerate(nodes):
            where = f"{path}[{at}]" if node.kind == "list" else path
            if each.kind != "text":
                fix = (
                    Fix("Put it in quotes", each.span.start, each.span.end, json.dumps(each.raw)) if each.raw else None
                )
                self.error(where, f"{noun} is a text; put {_shown(each)} in quotes", "not-a-text", each.span, fix)
            elif _surrogates(each.value):
                self.error(where, f"{noun} must be well-formed Unicode", "not-unicode", each.span)
        return tuple(each.value for each in nodes if each.kind == "text" and not _surrogates(each.value))

    def _known_fields(self, node: SyntaxNode, path: str, known: tuple[str, ...]) -> None:
        for key, _ in node.pairs():
            if key.value in known or len(self.findings) >= MAX_FINDINGS:
                continue
            close = _close_to(key.value[:64], known) or [
                _FIELD_WORDS[word] for word in (key.value,) if word in _FIELD_WORDS
            ]
            close = [name for name in close if name in known]
            hint = f"; did you mean {close[0]}?" if close else f"; write one of {', '.join(known)}"
            fix = _written(key, close[0]) if close else None
            name = key_text(key)
            where = f"{path}.{name}" if path else name
            self.error(where, f"unknown field {name}{hint}", "unknown-field", key.span, fix)


@dataclass(frozen=True, slots=True)
class _Fields:
    """The scalar fields of one map, each with its check."""

    document: _DocumentReader
    node: SyntaxNode
    path: str

    def _scalar(self, name: str, kind: str, check: Callable[[Any], bool], complaint: str) -> Any:
        node = self.node.get(name)
        if node is None:
            return None
        where = f"{self.path}.{name}"
        self.document.spans[where] = node.span
        if node.kind == kind and check(node.value):
            return node.value
        self.document.error(where, complaint.format(value=_shown(node)), f"bad-{name}", node.span)
        return None

    def text(self, name: str, default: str) -> str:
        complaint = "{value} is not a text; put it in quotes"
        value = self._scalar(name, "text", lambda text: not _surrogates(text), complaint)
        return default if value is None else str(value)

    def choice(self, name: str, choices: tuple[str, ...], default: str) -> str:
        complaint = "{value} is not one of " + ", ".join(choices)
        return self._scalar(name, "text", choices.__contains__, complaint) or default

    def flag(self, name: str, default: bool) -> bool:
        value = self._scalar(name, "bool", lambda _: True, "{value} is not true or false")
        return default if value is None else bool(value)

    def qos(self, default: int) -> int:
        value = self._scalar("qos", "number", (0, 1, 2).__contains__, "{value} is not a QoS: 0, 1 or 2")
        return default if value is None else int(value)

    def rule_id(self) -> str:
        complaint = "{value} is not an id: 1 to 64 of a-z, 0-9 and -, and not none"
        value = self._scalar("id", "text", lambda text: text != "none" and bool(RULE_ID.fullmatch(text)), complaint)
        return value or ""

    def moment(self, name: str) -> datetime | None:
        complaint = "{value} is not a time such as 2027-01-31T00:00:00Z"
        text = self._scalar(name, "text", lambda value: read_moment(value) is not None, complaint)
        return None if text is None else read_moment(text)

    def action(
        self,
        choices: tuple[ActionName, ...] = ("pub", "sub", "pub+sub"),
        default: ActionName = "pub+sub",
        name: str = "action",
    ) -> ActionName:
        node = self.node.get(name)
        if node is not None and node.kind == "text" and node.value in choices:
            self.document.spans[f"{self.path}.{name}"] = node.span
            return ACTIONS[node.value]
        if node is not None:
            meant = "pub+sub" if node.kind == "list" else _ACTION_WORDS.get(str(node.value))
            meant = meant if meant in choices else None
            fix = _written(node, meant) if meant and node.kind == "text" else None
            message = f"unknown action {_shown(node)}; write one of {', '.join(choices)}"
            if meant and node.kind == "list":
                message = f"an action is one word, not a list; write {meant}"
            elif meant:
                message = f"unknown action {_shown(node)}; did you mean {meant}?"
            self.document.error(f"{self.path}.{name}", message, "unknown-action", node.span, fix)
        return default


def read_moment(text: str) -> datetime | None:
    """The UTC time that an RFC 3339 ``date-time`` names, or ``None``. There are no leap seconds."""
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC) if _MOMENT.fullmatch(text) else None
    except (ValueError, OverflowError):
        return None


class MadeIds:
    """Makes readable IDs from the content of rules that have none; avoids ``taken`` and adds to it."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = set(taken)
        self._counts: dict[str, int] = {}
        """How often an id was made from a content: equal rules go on counting where the one before them ended."""

    def next(self, rule: Rule) -> str:
        """Make the ID of ``rule``."""
        base = _id_from_content(rule)
        count = self._counts.get(base, 0) + 1
        while (made := f"{base}-{count}" if count > 1 else base) in self._taken:
            count += 1
        self._counts[base] = count
        self._taken.add(made)
        return made


def _id_from_content(rule: Rule) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", f"{rule.effect}-{rule.action}-{rule.topics[0][:256]}".lower())
    words = words.strip("-")[:48].strip("-")
    content = repr((rule.effect, rule.who, rule.action, rule.topics, rule.qos, rule.retain, rule.expires))
    return f"{words}-{hashlib.sha256(content.encode('utf-8', 'backslashreplace')).hexdigest()[:6]}"


def _with_id(rule: Rule, rule_id: str) -> Rule:
    return Rule(
        rule_id, rule.topics, rule.action, rule.effect, rule.who, rule.qos, rule.retain, rule.expires, rule.note
    )


def _close_to(name: str, known: tuple[str, ...]) -> list[str]:
    """The name in ``known`` that ``name`` is probably a misspelling of."""
    import difflib  # only a mistake is worth its import

    return difflib.get_close_matches(name, known, 1, 0.6)


def _known_variables(topic: SyntaxNode) -> Fix | None:
    """The fix that replaces a topic's misspelled variables by the closest known ones; ``None`` when there are none."""
    text = str(topic.value)
    for name in VARIABLE.findall(text):
        close = [name] if full_name(name) else _close_to(name, ("username", "client_id", "org", *SHORT_FORMS))
        if not close:
            return None
        text = text.replace(f"{{{name}}}", f"{{{close[0]}}}")
    return Fix(f"Write {text}", topic.span.start, topic.span.end, json.dumps(text))


def _written(node: SyntaxNode, text: str) -> Fix:
    """The fix that replaces a text of the document by ``text``, quoted where the original is quoted."""
    quoted = node.span.end - node.span.start > len(node.raw)
    return Fix(f"Write {text}", node.span.start, node.span.end, json.dumps(text) if quoted else text)


def _surrogates(text: str) -> bool:
    return not text.isascii() and re.search("[\ud800-\udfff]", text) is not None


def _shown(node: SyntaxNode) -> str:
    """A value shortened to one line for messages."""
    if node.kind in ("map", "list"):
        return f"a {node.kind}"
    text = node.raw if len(node.raw) <= 40 else node.raw[:37] + "..."
    return f'"{text}"' if node.kind == "text" else text or "nothing"
