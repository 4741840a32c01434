"""What people read: the texts of templates, scripts, Python and documentation, and the glossary for them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

CODE = ("acl", "audit", "cloudsignal", "orgs")
"""The packages whose strings people read: labels, help texts, messages, errors, logs."""

_ATTRIBUTE = re.compile(r"""\b(?:aria-label|title|placeholder|label|alt)="((?:[^"{]|\{[^}]*\})*)\"""")
_TAG = re.compile(r"<[^<>]*>")
_LITERAL = re.compile(r'"([^"]*)"')
_DJANGO = re.compile(r"\{%(.*?)%\}|\{\{.*?\}\}|\{#.*?#\}")
_SPOKEN = re.compile(r"^\s*(?:include|badge|with)\b")
_SQL = re.compile(r"\s*(?:SELECT|INSERT|UPDATE|DELETE|CREATE|WITH|COPY)\b")
_FENCE = re.compile(r"^\s*(?:```|~~~)")
_INLINE_CODE = re.compile(r"`[^`]*`|\]\([^)]*\)|<[^<> ]+>")


@dataclass(frozen=True)
class Text:
    """One line of text that people read, and where it stands."""

    path: Path
    line: int
    text: str


@dataclass(frozen=True)
class Term:
    """One row of the glossary: the term, the files where it appears, and the words that are not used for it."""

    name: str
    line: int
    places: tuple[str, ...]
    forbidden: tuple[str, ...]


def read_glossary(path: Path) -> list[Term]:
    """The rows of ``docs/glossary.md``; raises :class:`ValueError` with the line of a row that has not four cells."""
    terms = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.startswith("| ") or line.startswith(("| ---", "| term ")):
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) != 4:
            raise ValueError(f"{path}:{number}: a row has four cells: term, meaning, where it appears, not")
        name, _, where, forbidden = cells
        terms.append(Term(name.strip("*"), number, tuple(_quoted(where)), tuple(_quoted(forbidden))))
    return terms


def problems(terms: Iterable[Term], texts: Iterable[Text], root: Path) -> list[str]:
    """What breaks the glossary, as ``file:line: what``: forbidden words, and terms without a place that names them."""
    terms = list(terms)
    found = [problem for term in terms for problem in _places(term, root)]
    rules = [(term, word, _pattern(word)) for term in terms for word in term.forbidden]
    for text in texts:
        for term, word, pattern in rules:
            if pattern.search(text.text):
                where = text.path.relative_to(root)
                found.append(f"{where}:{text.line}: say {term.name}, not {word!r}: {text.text.strip()[:100]}")
    return found


def all_texts(root: Path) -> Iterator[Text]:
    """Every text that people read, file by file."""
    for path in sorted((root / "templates").rglob("*")):
        if path.suffix in {".html", ".txt"}:
            yield from template_texts(path)
    for path in sorted((root / "static" / "js").glob("*.js")):
        yield from _script_texts(path)
    for package in CODE:
        for path in sorted((root / package).rglob("*.py")):
            if "migrations" not in path.parts:
                yield from python_texts(path, docstrings=_has_spoken_docstrings(path))
    for path in (*sorted((root / "docs").rglob("*.md")), root / "README.md", root / "CHANGELOG.md"):
        if path.name != "glossary.md":
            yield from prose_texts(path)


def template_texts(path: Path) -> Iterator[Text]:
    """The words of a template: text, spoken attributes, and strings passed by ``include``, ``badge`` and ``with``."""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        passed = [
            words for tag in _DJANGO.finditer(line) if _SPOKEN.match(tag[1] or "") for words in _LITERAL.findall(tag[1])
        ]
        plain = _DJANGO.sub(" ", line)
        words = [*passed, *_ATTRIBUTE.findall(plain), _TAG.sub(" ", plain)]
        for text in words:
            if text.strip():
                yield Text(path, number, text)


def python_texts(path: Path, *, docstrings: bool = False) -> Iterator[Text]:
    """Strings with a space in them but SQL, f-strings with ``{}`` for values, and docstrings where people read them."""
    tree = ast.parse(path.read_text())
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            silent.update(id(part) for part in node.values)
            parts = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            text = "".join(parts)
            if not _SQL.match(text):
                yield from _lines(path, node.lineno, text)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            spoken = id(node) not in silent or docstrings
            if spoken and not _SQL.match(node.value):
                yield from _lines(path, node.lineno, node.value)


def prose_texts(path: Path) -> Iterator[Text]:
    """Lines of Markdown without code; of the changelog what is not released yet, because the rest is history."""
    fenced = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if _FENCE.match(line):
            fenced = not fenced
        elif path.name == "CHANGELOG.md" and line.startswith("## ") and "Unreleased" not in line:
            return
        elif not fenced and line.strip():
            yield Text(path, number, _INLINE_CODE.sub(" ", line))


def _script_texts(path: Path) -> Iterator[Text]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        for text in re.findall(r'"([^"]* [^"]*)"|`([^`]* [^`]*)`', line):
            yield Text(path, number, "".join(text))


def _lines(path: Path, first: int, text: str) -> Iterator[Text]:
    for offset, line in enumerate(text.splitlines()):
        yield Text(path, first + offset, line)


def _has_spoken_docstrings(path: Path) -> bool:
    return "api" in {*path.parts, path.stem} or "cli" in path.parts


def _quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def _pattern(word: str) -> re.Pattern[str]:
    first, rest = word[0], re.escape(word[1:])
    return re.compile(rf"(?<![\w-])[{re.escape(first.lower())}{re.escape(first.upper())}]{rest}(?![\w-])")


def _places(term: Term, root: Path) -> Iterator[str]:
    where = f"docs/glossary.md:{term.line}"
    if not term.places:
        yield f"{where}: {term.name} names no place where it appears"
    for place in term.places:
        path = root / place
        if not path.is_file():
            yield f"{where}: {term.name} appears in {place}, which is no file"
        elif term.name.lower() not in path.read_text().lower():
            yield f"{where}: {place} does not say {term.name}"
