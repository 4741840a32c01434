"""The project's own imports as a graph, read from the source: which module imports which, on which line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[2]
APPS = ("cloudsignal", "orgs", "acl", "audit")

Graph = dict[str, dict[str, str]]
"""By module, the modules that it imports, each with its place (``path:line``)."""


def modules(root: Path) -> dict[str, Path]:
    """The source files of the four apps by module name, without migrations."""
    return {
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path
        for app in APPS
        for path in sorted((root / app).rglob("*.py"))
        if "migrations" not in path.parts
    }


def graph(root: Path = PROJECT) -> Graph:
    """Every import of one module by another: at the top, in a function, or for types only.

    A package whose ``__init__`` hands on names of its own modules is not counted as imported by these.
    """
    files = modules(root)
    found: Graph = {}
    for name, path in files.items():
        imported = found[name] = {}
        for target, line in _imports(name, path, files):
            own_face = name.startswith(f"{target}.") and files[target].name == "__init__.py"
            if target != name and not own_face:
                imported.setdefault(target, f"{path.relative_to(root)}:{line}")
    return found


def _imports(name: str, path: Path, files: dict[str, Path]) -> Iterator[tuple[str, int]]:
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                target = f"{base}.{alias.name}"
                target = target if target in files else base
                if target in files:
                    yield target, node.lineno


def cycles(found: Graph) -> list[frozenset[str]]:
    """The strongly connected parts of the graph that have more than one module (Tarjan)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    parts: list[frozenset[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for target in found[name]:
            if target not in order:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], order[target])
        if low[name] == order[name]:
            place = stack.index(name)
            part = frozenset(stack[place:])
            del stack[place:]
            if len(part) > 1:
                parts.append(part)

    for name in found:
        if name not in order:
            visit(name)
    return parts


def places(found: Graph, cycle: frozenset[str]) -> list[str]:
    """The imports that hold a cycle together, one a line: ``path:line: imports module``."""
    return [
        f"{place}: imports {target}"
        for name in sorted(cycle)
        for target, place in sorted(found[name].items())
        if target in cycle
    ]
