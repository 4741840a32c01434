"""Read YAML or JSON into a syntax tree with positions: one document, no anchors, no tags, no duplicate keys.

Both syntaxes read to the same nodes, so that everything after this module has one input and exact places to point at.
Nothing here raises: what cannot be read becomes a ``Finding``.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from json.decoder import JSONDecodeError
from typing import Any, Literal

from acl.policy.engine.model import MAX_DOCUMENT_BYTES

MAX_DEPTH = 32
Kind = Literal["map", "list", "text", "number", "bool", "null"]


@dataclass(frozen=True, slots=True)
class Span:
    """A range of the source: character offsets from 0, lines and columns from 1, the end excluded."""

    start: int = 0
    end: int = 0
    line: int = 1
    column: int = 1
    end_line: int = 1
    end_column: int = 1


@dataclass(frozen=True, slots=True)
class Fix:
    """A source change that resolves a finding: replace the characters ``start`` to ``end`` by ``text``."""

    title: str
    start: int
    end: int
    text: str

    def apply(self, source: str) -> str:
        """Apply the fix to ``source``."""
        return source[: self.start] + self.text + source[self.end :]


@dataclass(frozen=True, slots=True)
class Finding:
    """An error or warning about a document, with its position.

    ``path`` reads ``rules[2].topic``; ``code`` is stable, for machines; ``message`` is a sentence for people.
    """

    level: Literal["error", "warning"]
    path: str
    message: str
    code: str
    line: int = 1
    column: int = 1
    end_line: int = 1
    end_column: int = 1
    fix: Fix | None = None

    def __str__(self) -> str:
        return f"{self.level}: {self.path} - {self.message}"


@dataclass(frozen=True, slots=True)
class SyntaxNode:
    """A value of the document. ``value`` is a list of pairs (map), of nodes (list), or a Python scalar.

    ``raw`` is a scalar as it was written: ``version: 2.1`` is a number whose text matters.
    """

    kind: Kind
    value: Any
    span: Span
    raw: str = ""

    def pairs(self) -> list[tuple[SyntaxNode, SyntaxNode]]:
        """The pairs of a map, in order; none for anything else."""
        return self.value if self.kind == "map" else []

    def get(self, name: str) -> SyntaxNode | None:
        """The value under ``name``, or ``None``."""
        return next((value for key, value in self.pairs() if key.value == name), None)


class SyntaxProblem(Exception):  # noqa: N818  # never leaves the package
    """The text is not valid YAML or JSON; ``span`` is the position of the error."""

    def __init__(self, message: str, span: Span, code: str = "syntax") -> None:
        super().__init__(message)
        self.message, self.span, self.code = message, span, code


def read(text: str | bytes) -> tuple[str, SyntaxNode | None, Finding | None]:
    """Read ``text`` into source, tree, and the error when there is no tree. An empty document has a null tree."""
    source = ""
    try:
        source = _decode(text)
        return source, _read_text(source), None
    except SyntaxProblem as problem:
        return source, None, located("error", "document", problem.message, code=problem.code, span=problem.span)


def located(
    level: Literal["error", "warning"], path: str, message: str, *, code: str, span: Span, fix: Fix | None = None
) -> Finding:
    """A finding at ``span``."""
    return Finding(level, path, message, code, span.line, span.column, span.end_line, span.end_column, fix)


def _decode(text: str | bytes) -> str:
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(data) > MAX_DOCUMENT_BYTES:
        message = f"a policy has at most {MAX_DOCUMENT_BYTES} bytes, this one {len(data)}"
        raise SyntaxProblem(message, Span(), "too-large")
    if not isinstance(text, str):
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            before = data[: error.start].decode("utf-8", "replace")
            raise SyntaxProblem("the document is not UTF-8 text", Lines(before).point(len(before))) from None
    text = text.removeprefix("\ufeff")
    bad = re.search("[\ud800-\udfff\0]", text)
    if bad:
        raise SyntaxProblem("this character cannot stand in a document", Lines(text).point(bad.start()))
    return text


def _read_text(source: str) -> SyntaxNode:
    if source.lstrip()[:1] in ("{", "["):
        try:
            return _Json(source).document()
        except SyntaxProblem as problem:
            if problem.code != "syntax":
                raise
            try:  # flow style YAML begins with a brace too
                return _read_yaml(source)
            except SyntaxProblem:
                raise problem from None
    return _read_yaml(source)


class Lines:
    """Turns character offsets of a text into lines and columns."""

    def __init__(self, source: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\r\n|\n|\r", source))]

    def span(self, start: int, end: int) -> Span:
        """The span from ``start`` to ``end``."""
        line, end_line = bisect_right(self._starts, start), bisect_right(self._starts, end)
        return Span(
            start, end, line, start - self._starts[line - 1] + 1, end_line, end - self._starts[end_line - 1] + 1
        )

    def point(self, at: int) -> Span:
        """The empty span at ``at``."""
        return self.span(at, at)


_SPACE = re.compile(r"[ \t\r\n]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_NOT_YAML = "[^\\t\\n\\r\\x20-\\x7e\\x85\\xa0-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]"
"""YAML 1.1 s5.1: what is not printable."""
_WORDS: dict[str, tuple[Kind, bool | None]] = {
    "true": ("bool", True),
    "false": ("bool", False),
    "null": ("null", None),
}


class _Json:
    """A JSON parser (RFC 8259) that keeps positions. Nesting is limited, so recursion is too."""

    def __init__(self, source: str) -> None:
        self._source, self._lines = source, Lines(source)

    def document(self) -> SyntaxNode:
        node, at = self._value(self._skip(0), 0)
        at = self._skip(at)
        if at < len(self._source):
            raise self._problem("more text after the end of the document", at)
        return node

    def _value(self, at: int, depth: int) -> tuple[SyntaxNode, int]:
        first = self._source[at : at + 1]
        if first and first in "{[":
            if depth >= MAX_DEPTH:
                raise SyntaxProblem("the document is nested too deeply", self._lines.point(at), "too-deep")
            return self._map(at, depth + 1) if first == "{" else self._list(at, depth + 1)
        if first == '"':
            text, end = self._text(at)
            return SyntaxNode("text", text, self._lines.span(at, end), text), end
        return self._word(at)

    def _word(self, at: int) -> tuple[SyntaxNode, int]:
        for word, (kind, value) in _WORDS.items():
            if self._source.startswith(word, at):
                return SyntaxNode(kind, value, self._lines.span(at, at + len(word)), word), at + len(word)
        number = _NUMBER.match(self._source, at)
        if number is None:
            what = "the document ends here, a value is missing" if at >= len(self._source) else "expected a value"
            raise self._problem(what, at)
        span = self._lines.span(at, number.end())
        return SyntaxNode("number", number_value(number.group()), span, number.group()), number.end()

    def _text(self, at: int) -> tuple[str, int]:
        try:
            text, end = json.decoder.scanstring(self._source, at + 1, True)  # type: ignore[attr-defined]
        except JSONDecodeError as error:
            raise self._problem(error.msg, error.pos) from None
        return str(text), int(end)

    def _map(self, at: int, depth: int) -> tuple[SyntaxNode, int]:
        start, seen = at, set()
        pairs: list[tuple[SyntaxNode, SyntaxNode]] = []
        at = self._skip(at + 1)
        while self._source[at : at + 1] != "}":
            if pairs:
                at = self._expect(",", at, "expected , or }")
            if self._source[at : at + 1] != '"':
                raise self._problem('expected a name in "quotes"', at)
            name, end = self._text(at)
            key = SyntaxNode("text", name, self._lines.span(at, end), name)
            if name in seen:
                raise duplicate_key(key)
            seen.add(name)
            value, at = self._value(self._expect(":", self._skip(end), "expected :"), depth)
            pairs.append((key, value))
            at = self._skip(at)
        return SyntaxNode("map", pairs, self._lines.span(start, at + 1)), at + 1

    def _list(self, at: int, depth: int) -> tuple[SyntaxNode, int]:
        start = at
        nodes: list[SyntaxNode] = []
        at = self._skip(at + 1)
        while self._source[at : at + 1] != "]":
            if nodes:
                at = self._expect(",", at, "expected , or ]")
            node, at = self._value(at, depth)
            nodes.append(node)
            at = self._skip(at)
        return SyntaxNode("list", nodes, self._lines.span(start, at + 1)), at + 1

    def _expect(self, what: str, at: int, message: str) -> int:
        if self._source[at : at + 1] != what:
            raise self._problem(message, at)
        return self._skip(at + 1)

    def _skip(self, at: int) -> int:
        space = _SPACE.match(self._source, at)
        return space.end() if space else at

    def _problem(self, message: str, at: int) -> SyntaxProblem:
        return SyntaxProblem(message, self._lines.point(min(at, len(self._source))))


def number_value(raw: str) -> int | float | None:
    """The number written as ``raw``, or ``None`` when it is out of range."""
    if _INTEGER.fullmatch(raw):
        return int(raw)
    value = float(raw)
    return value if abs(value) < float("inf") else None


def key_text(key: SyntaxNode) -> str:
    """A key shortened to one line for paths; never empty."""
    name = str(key.value)[:64]
    return name if name and name.isprintable() else json.dumps(name)


def duplicate_key(key: SyntaxNode) -> SyntaxProblem:
    """The error for a key that occurs twice in one map."""
    return SyntaxProblem(f"{json.dumps(key.value)} is given twice", key.span, "duplicate-key")


def _read_yaml(source: str) -> SyntaxNode:
    import yaml  # the import costs more than all of this package

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    lines = Lines(source)
    try:
        return _YamlTree(lines, yaml.parse(source, Loader=loader)).document()
    except yaml.reader.ReaderError as error:
        bad = re.search(_NOT_YAML, source)  # the error's own position is in bytes
        at = bad.start() if bad else min(error.position, len(source))
        raise SyntaxProblem("this character cannot stand in a document", lines.point(at)) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = min(mark.index, len(source)) if mark else 0
        raise SyntaxProblem(error.problem or "the document cannot be read", lines.point(at)) from None


class _YamlTree:
    """Builds nodes from parser events with a stack of its own, so no nesting can exhaust the interpreter's."""

    def __init__(self, lines: Lines, events: Iterator[Any]) -> None:
        self._lines, self._events = lines, events
        self._open: list[tuple[SyntaxNode, int]] = []
        self._root: SyntaxNode | None = None
        self._documents = 0

    def document(self) -> SyntaxNode:
        for event in self._events:
            self._take(event, type(event).__name__)
        return self._root or SyntaxNode("null", None, Span())

    def _take(self, event: Any, name: str) -> None:
        span = self._lines.span(event.start_mark.index, event.end_mark.index)
        if name == "DocumentStartEvent":
            self._documents += 1
            if self._documents > 1:
                raise SyntaxProblem("a policy is one document; a second one begins here", span)
        elif name == "AliasEvent" or getattr(event, "anchor", None):
            raise SyntaxProblem("anchors and aliases are not accepted; write the value out", span, "alias")
        elif name in ("MappingStartEvent", "SequenceStartEvent"):
            self._plain_tag(event, span)
            if len(self._open) >= MAX_DEPTH:
                raise SyntaxProblem("the document is nested too deeply", span, "too-deep")
            self._open.append((SyntaxNode("map" if name.startswith("M") else "list", [], span), span.start))
        elif name in ("MappingEndEvent", "SequenceEndEvent"):
            node, start = self._open.pop()
            self._add(self._closed(node, start, span))
        elif name == "ScalarEvent":
            self._add(self._scalar(event, span))

    def _closed(self, node: SyntaxNode, start: int, close: Span) -> SyntaxNode:
        end = close.end
        if close.start == close.end and node.value:  # block style: the event comes with the next token
            end = node.value[-1].span.end
        if node.kind == "list":
            return SyntaxNode("list", node.value, self._lines.span(start, max(end, start)))
        pairs, seen = [], set()
        for key, value in zip(node.value[::2], node.value[1::2], strict=True):
            if key.kind in ("map", "list"):
                raise SyntaxProblem("a name must be a text", key.span)
            named = SyntaxNode("text", key.raw, key.span, key.raw)
            if key.raw in seen:
                raise duplicate_key(named)
            seen.add(key.raw)
            pairs.append((named, value))
        return SyntaxNode("map", pairs, self._lines.span(start, max(end, start)))

    def _add(self, node: SyntaxNode) -> None:
        if self._open:
            self._open[-1][0].value.append(node)
        else:
            self._root = node

    def _scalar(self, event: Any, span: Span) -> SyntaxNode:
        raw = event.value
        quoted = event.style in ("'", '"', "|", ">") or event.tag == "tag:yaml.org,2002:str"
        if not quoted:
            self._plain_tag(event, span)
            if raw in _WORDS:
                kind, value = _WORDS[raw]
                return SyntaxNode(kind, value, span, raw)
            if raw in ("", "~"):
                return SyntaxNode("null", None, span, raw)
            if _NUMBER.fullmatch(raw):
                return SyntaxNode("number", number_value(raw), span, raw)
        return SyntaxNode("text", raw, span, raw)

    @staticmethod
    def _plain_tag(event: Any, span: Span) -> None:
        if event.tag not in (None, "!"):
            raise SyntaxProblem(f"tags are not accepted: {event.tag}", span, "tag")
