"""Every link and button of every page, for every role: none leads to a refusal."""

from __future__ import annotations

import html
import re
from collections import deque
from collections.abc import Iterator

import pytest
from django.test import Client
from django.urls import Resolver404, resolve

from orgs.credentials.issuing import issue_credential
from orgs.permissions import OPERATOR, PERMISSIONS, Permission, Role
from tests.support.calling import Caller, World
from tests.support.operations import MARKER, fill
from tests.support.pages import TABLE
from tests.support.world import person

LINK = re.compile(r'<a\b[^>]*?\bhref="([^"]+)"|\bhx-get="([^"]+)"')
FORM = re.compile(r"<form\b([^>]*)>", re.DOTALL)
POSTED = re.compile(r'\bhx-post="([^"]+)"|\bformaction="([^"]+)"')


def links(page: str, here: str) -> Iterator[str]:
    """Paths within the organization that a reader can follow."""
    for found in LINK.finditer(page):
        target = html.unescape(next(filter(None, found.groups()))).partition("#")[0]
        yield here if target.startswith("?") else target.partition("?")[0]


def forms(page: str, here: str) -> Iterator[str]:
    """Paths that a button sends something to."""
    for found in FORM.finditer(page):
        attributes = found[1]
        if 'method="post"' in attributes:
            action = re.search(r'\baction="([^"]+)"', attributes)
            yield html.unescape(action[1]).partition("?")[0] if action else here
    for found in POSTED.finditer(page):
        yield html.unescape(next(filter(None, found.groups()))).partition("?")[0]


def needed(path: str) -> set[Permission]:
    """What sending to a page asks for."""
    try:
        match = resolve(path)
    except Resolver404:
        return set()
    row = TABLE.get(match.view_name)
    return {permission for permission in (row.permission, row.write) if permission} if row else set()


def walk(client: Client, start: str, held: frozenset[Permission] | set[Permission]) -> tuple[int, int]:
    """Follow every link within the organization from its home on; returns how many pages and forms there were."""
    waiting, known, sent = deque([start]), {start}, set[str]()
    while waiting:
        here = waiting.popleft()
        answer = client.get(here)
        assert answer.status_code not in {403, 404, 500}, f"a link leads to {here}: {answer.status_code}"
        if answer.status_code != 200 or "text/html" not in answer.headers["Content-Type"]:
            continue
        page = answer.getvalue().decode()
        for path in forms(page, here):
            sent.add(path)
            assert needed(path) <= held, f"{here} has a button to {path}, which needs {needed(path) - held}"
        for path in links(page, here):
            if path.startswith(start) and path not in known:
                known.add(path)
                waiting.append(path)
    return len(known), len(sent)


@pytest.mark.parametrize("who", [*Role, "operator"])
def test_no_link_and_no_button_leads_to_a_refusal(who: str, acme: World, capsys: pytest.CaptureFixture[str]) -> None:
    fill(acme)
    issue_credential(acme.owner, username=MARKER)  # whose session is live
    if who == "operator":
        client, held = Caller(user=person(operator=True)).client, OPERATOR
    else:
        client, held = acme.person(Role(who)).client, PERMISSIONS[Role(who)]
    pages, buttons = walk(client, f"/o/{acme.id}/", held)
    assert pages > 10
    with capsys.disabled():
        print(f"\n{who}: {pages} pages, {buttons} forms, no refusal")
