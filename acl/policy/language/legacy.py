"""Older documents, rewritten to version "3" nodes without loss.

* Version "2" and "2.1": ``global[]`` (rules for everybody), ``rules[]``, ``agents[]`` (rules of one identity),
  ``publishers[]`` (who may publish what), read in this order. ``binding`` names the variable that ``{$self}`` stands
  for; it may stand on a rule, on the agent around it, or on the document, the nearest wins. A rule with a binding of
  its own to a claim but without ``{$self}`` speaks of the identities that carry the claim.
* The short editor form: ``{user, topic, permission: publish|subscribe|both}``, as an entry of ``rules`` in any
  version, or as a bare list.

Nodes keep the places of what was written, so findings point at the old text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from acl.policy.engine.templates import full_name
from acl.policy.language.reader import Span, SyntaxNode, key_text

OLD_VERSIONS = ("2", "2.0", "2.1")
_PERMISSIONS = {
    "publish": "pub",
    "subscribe": "sub",
    "both": "pub+sub",
    "pubsub": "pub+sub",
    "pub": "pub",
    "sub": "sub",
    "pub+sub": "pub+sub",
}
_ACTIONS = "pub, sub or pub+sub"
_CHANNEL = "{claims.channel}"
_RENAMED = {"topics": "topic", "description": "note", "comment": "note", "name": "note"}
_KEPT = ("id", "effect", "qos", "retain", "expires", "note", "topic")
_PEOPLE = ("user", "username", "agent", "publisher", "who")
_SAME = {**_RENAMED, "permission": "action", **dict.fromkeys(_PEOPLE, "who")}
"""By the names that older documents use: what they say."""
_OLD_RULE = (
    *_KEPT, *_RENAMED, *_PEOPLE, "client_id", "binding", "permission", "action", "agents", "require_grant",
)  # fmt: skip
_ONLY_OLD = ("global", "agents", "publishers", "binding")
_ONLY_OLD_IN_RULES = ("binding", "agents", "require_grant")
_OLD_DOCUMENT = ("version", "default", "global", "rules", "agents", "publishers", "tests", "binding")
_OLD_AGENT = ("id", "agent", "username", "user", "client_id", "binding", "rules", "publish", "subscribe", "note")


class CannotConvert(Exception):  # noqa: N818  # never leaves the package
    """An older document cannot be converted; ``path`` and ``span`` say where the problem is."""

    def __init__(self, path: str, message: str, span: Span, code: str = "conversion") -> None:
        super().__init__(message)
        self.path, self.message, self.span, self.code = path, message, span, code


@dataclass(frozen=True, slots=True)
class Notice:
    """An assumption made while converting an older document; it becomes a warning."""

    path: str
    message: str
    code: str
    span: Span


def modernized(root: SyntaxNode) -> tuple[SyntaxNode, list[str], list[Notice]]:
    """Convert ``root`` to a version "3" document; also returns the original path of each rule and the notices.

    One that is version "3" already is returned with its short-form rules written out.
    """
    if root.kind == "list":
        root = SyntaxNode("map", [_pair("rules", root)], root.span)
    version = root.get("version")
    rules = root.get("rules")
    if version is not None and version.raw in OLD_VERSIONS:
        return _from_version_2(root, [])
    if version is None and _looks_old(root):
        message = 'there is no version; this is read as version "2.1", whose shape it has'
        return _from_version_2(root, [Notice("version", message, "assumed-version", root.span)])
    if rules is None or rules.kind != "list" or not any(_is_short(each) for each in rules.value):
        return root, [], []
    if version is None and all(_is_short(each) for each in rules.value):
        root = SyntaxNode("map", [_pair("version", _text("3", root.span)), *root.value], root.span)
    written = [_rule(each, f"rules[{at}]", None) if _is_short(each) else each for at, each in enumerate(rules.value)]
    pairs = [
        (key, SyntaxNode("list", written, rules.span) if key.value == "rules" else value) for key, value in root.value
    ]
    return SyntaxNode("map", pairs, root.span), [], []


def _is_short(node: SyntaxNode) -> bool:
    return node.get("user") is not None or node.get("permission") is not None


def _looks_old(root: SyntaxNode) -> bool:
    """Whether a document without a version uses a field that only version "2.1" has."""
    if any(root.get(name) is not None for name in _ONLY_OLD):
        return True
    rules = root.get("rules")
    written = rules.value if rules is not None and rules.kind == "list" else []
    return any(rule.get(name) is not None for rule in written for name in _ONLY_OLD_IN_RULES)


def _from_version_2(root: SyntaxNode, notices: list[Notice]) -> tuple[SyntaxNode, list[str], list[Notice]]:
    _only(root, "document", _OLD_DOCUMENT)
    binding = root.get("binding")
    rules: list[tuple[str, SyntaxNode]] = []
    for section in ("global", "rules"):
        rules += [(path, _rule(each, path, binding)) for path, each in _section(root, section)]
    for path, each in _section(root, "agents"):
        rules += _agent(each, path, binding)
    for path, each in _section(root, "publishers"):
        rules.append((path, _publisher(each, path, binding)))
    written = SyntaxNode("list", [node for _, node in rules], root.span)
    kept = [(key, value) for key, value in root.pairs() if key.value in ("default", "tests")]
    pairs = [_pair("version", _text("3", root.span)), _pair("rules", written), *kept]
    for path, node in rules:
        topic = node.get("topic")
        if topic is not None and any(_CHANNEL in each.raw for each in _each(topic)):
            message = f"{{channel}} is read as {_CHANNEL}: it matches for those that carry that claim"
            notices.append(Notice(f"{path}.topic", message, "assumed-claim", topic.span))
    return SyntaxNode("map", pairs, root.span), [path for path, _ in rules], notices


def _section(root: SyntaxNode, name: str) -> Iterator[tuple[str, SyntaxNode]]:
    node = root.get(name)
    if node is None or node.kind == "null":
        return
    if node.kind != "list":
        raise CannotConvert(name, f"{name} is a list", node.span, "not-a-list")
    for at, each in enumerate(node.value):
        yield f"{name}[{at}]", each


def _rule(
    node: SyntaxNode, path: str, binding: SyntaxNode | None, who: SyntaxNode | None = None, action: str = ""
) -> SyntaxNode:
    """One old or short rule as a version "3" rule; ``who`` and ``action`` come from the section around it."""
    if node.kind == "text":
        node = SyntaxNode("map", [_pair("topic", node)], node.span)
    _only(node, path, _OLD_RULE)
    _once(node, path)
    binding = node.get("binding") or binding
    pairs: list[tuple[SyntaxNode, SyntaxNode]] = []
    selves = False
    for key, value in node.pairs():
        name = _RENAMED.get(key.value, key.value)
        if name == "topic":
            selves = any("{$self}" in each.raw for each in _each(value))
            bound = _bound(_placed(value, free=_grants_not(node, path)), path, binding)
            pairs.append((key if name == key.value else _text(name, key.span), bound))
        elif name in _KEPT:
            pairs.append((_text(name, key.span), value))
    field, words = ("permission", "publish, subscribe or both") if node.get("permission") else ("action", _ACTIONS)
    said = node.get(field)
    if said is not None:
        if said.raw not in _PERMISSIONS:
            message = f'unknown {field} "{said.raw[:40]}"; write {words}'
            raise CannotConvert(f"{path}.{field}", message, said.span, "unknown-action")
        pairs.append(_pair("action", _text(_PERMISSIONS[said.raw], said.span)))
    elif action:
        pairs.append(_pair("action", _text(action, node.span)))
    listed = node.get("agents")
    if listed is not None:
        if binding is None:
            raise CannotConvert(
                f"{path}.agents", "agents lists values of what binding names; give a binding", listed.span
            )
        who = _listed(node, who, binding, listed, path)
    else:
        who = _who(node, who, None if selves else node.get("binding"), path)
    return SyntaxNode("map", pairs + ([_pair("who", who)] if who else []), node.span)


def _agent(node: SyntaxNode, path: str, binding: SyntaxNode | None) -> list[tuple[str, SyntaxNode]]:
    """The rules of one identity: ``rules``, and the lists of filters under ``publish`` and ``subscribe``."""
    _only(node, path, _OLD_AGENT)
    _once(node, path)
    named = next((value for name in ("username", "user", "agent", "id") if (value := node.get(name))), None)
    who = _who(node, named, None, path)
    if who is None:
        raise CannotConvert(path, "an agent needs an id", node.span, "missing")
    binding = node.get("binding") or binding
    inner = [(f"{path}.{each_path}", each) for each_path, each in _section(node, "rules")]
    rules = [(each_path, _rule(each, each_path, binding, who)) for each_path, each in inner]
    for name, action in (("publish", "pub"), ("subscribe", "sub")):
        topics = node.get(name)
        if topics is not None and _each(topics):
            entry = SyntaxNode("map", [_pair("topic", topics)], topics.span)
            rules.append((f"{path}.{name}", _rule(entry, f"{path}.{name}", binding, who, action)))
    note = node.get("note")
    if note is not None:
        rules = [(where, rule if rule.get("note") else _with(rule, "note", note)) for where, rule in rules]
    return rules


def _publisher(node: SyntaxNode, path: str, binding: SyntaxNode | None) -> SyntaxNode:
    """Publishers and their topics: a map with ``publisher`` or ``username``, and ``topic`` or ``topics``."""
    if node.kind == "map" and node.get("id") is not None and not any(node.get(name) for name in _PEOPLE):
        pairs = [(_text("publisher", key.span) if key.value == "id" else key, value) for key, value in node.pairs()]
        node = SyntaxNode("map", pairs, node.span)
    if not any(node.get(name) for name in (*_PEOPLE, "binding")):
        raise CannotConvert(path, "a publisher needs a publisher and a topic", node.span, "missing")
    return _rule(node, path, binding, None, "pub")


def _who(node: SyntaxNode, who: SyntaxNode | None, binding: SyntaxNode | None, path: str) -> SyntaxNode | None:
    """The ``who`` of a rule: its own usernames or those of the section, its client ID, and the bound claim."""
    people = next((value for name in _PEOPLE if (value := node.get(name))), who)
    client = node.get("client_id")
    variable = _variable(binding, path) if binding is not None else ""
    if client is None and not variable.startswith("claims."):
        return people
    if people is not None and people.kind == "map":
        pairs = list(people.value)
    else:
        pairs = [_pair("username", people)] if people is not None else []
    if client is not None:
        pairs.append(_pair("client_id", client))
    if binding is not None and variable.startswith("claims.") and not any(key.value == "claims" for key, _ in pairs):
        claim = _pair(variable.removeprefix("claims."), _text("*", binding.span))
        pairs.append(_pair("claims", SyntaxNode("map", [claim], binding.span)))
    return SyntaxNode("map", pairs, node.span)


def _listed(node: SyntaxNode, who: SyntaxNode | None, binding: SyntaxNode, listed: SyntaxNode, path: str) -> SyntaxNode:
    """The ``who`` of a rule whose bound variable is one of a list."""
    people = next((value for name in _PEOPLE if (value := node.get(name))), who)
    pairs = list(people.value) if people is not None and people.kind == "map" else []
    if people is not None and people.kind != "map":
        pairs.append(_pair("username", people))
    if node.get("client_id") is not None:
        pairs.append(_pair("client_id", node.get("client_id") or listed))
    variable = _variable(binding, path)
    name = "claims" if variable.startswith("claims.") else variable
    if variable == "org" or any(key.value == name for key, _ in pairs):
        raise CannotConvert(f"{path}.agents", f"agents and another field both say which {name} it is", listed.span)
    value = listed
    if name == "claims":
        value = SyntaxNode("map", [_pair(variable.removeprefix("claims."), listed)], listed.span)
    return SyntaxNode("map", [*pairs, _pair(name, value)], node.span)


def _grants_not(node: SyntaxNode, path: str) -> bool:
    """Whether a rule says that its channel needs no grant."""
    grant = node.get("require_grant")
    if grant is None:
        return False
    if grant.kind != "bool":
        raise CannotConvert(f"{path}.require_grant", "require_grant is true or false", grant.span, "bad-require_grant")
    return grant.value is False


def _placed(node: SyntaxNode, *, free: bool) -> SyntaxNode:
    """Topics with ``{org_short_id}`` and ``{channel}`` replaced by the variables of version "3"."""
    if node.kind == "list":
        return SyntaxNode("list", [_placed(each, free=free) for each in node.value], node.span)
    if "{channel}" not in node.raw and "{org_short_id}" not in node.raw:
        return node
    levels = node.raw.replace("{org_short_id}", "{org}").split("/")
    levels = ["+" if free and level == "{channel}" else level.replace("{channel}", _CHANNEL) for level in levels]
    return _text("/".join(levels), node.span)


def _bound(node: SyntaxNode, path: str, binding: SyntaxNode | None) -> SyntaxNode:
    """The topics of a rule with ``{$self}`` written as the variable that the binding names."""
    if node.kind == "list":
        return SyntaxNode("list", [_bound(each, path, binding) for each in node.value], node.span)
    if "{$self}" not in node.raw:
        return node
    if binding is None:
        raise CannotConvert(f"{path}.topic", "{$self} needs a binding", node.span, "self-without-binding")
    return _text(node.raw.replace("{$self}", f"{{{_variable(binding, path)}}}"), node.span)


def _variable(binding: SyntaxNode, path: str) -> str:
    name = binding.raw.strip().removeprefix("{").removesuffix("}")
    variable = full_name(name) or full_name(f"claims.{name}")
    if binding.kind != "text" or variable is None:
        raise CannotConvert(f"{path}.binding", "a binding names a variable, as username or agent_id", binding.span)
    return variable


def _with(node: SyntaxNode, name: str, value: SyntaxNode) -> SyntaxNode:
    return SyntaxNode("map", [*node.value, _pair(name, value)], node.span)


def _each(node: SyntaxNode) -> list[SyntaxNode]:
    return list(node.value) if node.kind == "list" else [node]


def _only(node: SyntaxNode, path: str, known: tuple[str, ...]) -> None:
    if node.kind != "map":
        raise CannotConvert(path, "this entry is a map", node.span, "not-a-map")
    for key, _ in node.pairs():
        if key.value not in known:
            name = key_text(key)
            where = name if path == "document" else f"{path}.{name}"
            raise CannotConvert(where, f"unknown field {name}", key.span, "unknown-field")


def _once(node: SyntaxNode, path: str) -> None:
    """Refuse two names for the same field in one entry: one of them would be lost."""
    said: dict[str, str] = {}
    for key, _ in node.pairs():
        meant = _SAME.get(key.value, key.value)
        if meant in said:
            message = f"{said[meant]} and {key.value} say the same; keep one of them"
            raise CannotConvert(f"{path}.{key.value}", message, key.span)
        said[meant] = key.value


def _pair(name: str, value: SyntaxNode) -> tuple[SyntaxNode, SyntaxNode]:
    return _text(name, value.span), value


def _text(text: str, span: Span) -> SyntaxNode:
    return SyntaxNode("text", text, span, text)
