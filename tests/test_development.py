"""``docs/development.md`` is true: from each URL of its table the code is where it says, and every path exists."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from django.urls import URLPattern, get_resolver

from tests.support.docs import missing_paths

PROJECT = Path(__file__).parent.parent
PAGE = (PROJECT / "docs" / "development.md").read_text()
ROWS = [
    [re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if re.match(r"\| `((GET|POST|PUT|PATCH|DELETE) )?/[^`]*` \| `[\w/]+\.py` \| `", line)
]


def served() -> dict[str, tuple[str, Any]]:
    """Every URL, with ``METHOD`` for the API's: the list that names it, and the view."""
    found: dict[str, tuple[str, Any]] = {}
    for prefix, pattern, urls in _walk(get_resolver().url_patterns, "", ""):
        path = "/" + re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", prefix + str(pattern.pattern))
        view = getattr(pattern.callback, "view_class", pattern.callback)
        for method in getattr(view, "needs", None) or [""]:
            found[f"{method} {path}".strip()] = (urls, view)
    return found


def _walk(patterns: Any, prefix: str, urls: str) -> Any:
    for pattern in patterns:
        if isinstance(pattern, URLPattern):
            yield prefix, pattern, urls
        else:
            named = getattr(pattern.urlconf_name, "__name__", urls)
            yield from _walk(pattern.url_patterns, prefix + str(pattern.pattern), named)


def module(path: str) -> str:
    """``orgs/people/web.py`` as it is imported."""
    return path.removesuffix(".py").replace("/", ".")


def test_there_are_ten_pages_and_ten_operations() -> None:
    operations = [row for row in ROWS if " " in row[0][0]]
    assert (len(ROWS), len(operations)) == (20, 10)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][0])
def test_the_code_is_two_steps_from_the_url(row: list[list[str]]) -> None:
    [url], [urls], [path, name], called = row
    listed, view = served()[url]
    assert module(urls) == listed
    assert (view.__module__, view.__name__) == (module(path), name)
    if len(called) == 2:
        assert hasattr(import_module(module(called[0])), called[1])
        assert called[1] in (PROJECT / path).read_text(), f"{path} does not call {called[1]}"


def test_every_path_that_is_named_exists() -> None:
    assert missing_paths(PAGE) == []


def test_every_folder_and_file_in_the_picture_exists() -> None:
    picture = (PROJECT / "docs" / "img" / "map.svg").read_text()
    named = re.findall(r">((?:orgs|acl|audit|cloudsignal|edge)/[\w./]+)<", picture)
    assert len(named) > 30
    missing = [name for name in named if not (PROJECT / re.sub("^edge/", "cloudsignal/edge/", name)).exists()]
    assert missing == []


def test_every_test_that_a_recipe_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    written = {
        name
        for path in (PROJECT / "tests").rglob("test_*.py")
        for name in re.findall(r"^\s*(?:async )?def (test_\w+)", path.read_text(), re.M)
    }
    assert named
    assert named <= written, sorted(named - written)


def beginnings() -> dict[str, str]:
    """Beginning of a path to the list of URLs, as the page has it; one that stands for ``itself`` ends with ``$``."""
    table = PAGE.partition("| the path begins with | list of URLs |")[2].partition("\n\n")[0]
    found = {}
    for line in (line for line in table.splitlines() if "`/" in line):
        cell, urls = line.strip("|").split("|")
        for path, itself in re.findall(r"`(/[^`]*)`( itself)?", cell):
            found[path + ("$" if itself else "")] = "" if "allauth" in urls else re.findall(r"`([\w/.]+)`", urls)[0]
    return found


def test_the_beginning_of_every_path_names_the_list_of_its_urls() -> None:
    table = beginnings()
    wrong = {}
    for name, (urls, view) in served().items():
        if view.__name__ == "unknown":
            continue  # the answer to what is not there
        path = name.partition(" ")[2] or name
        path = path.replace("{org_id}", "ORG") + "$"
        longest = max((prefix for prefix in table if path.startswith(prefix)), key=len)
        if module(table[longest]) != ("" if urls.startswith("allauth.") else urls):
            wrong[name] = (longest, urls)
    assert wrong == {}
