"""PostgreSQL or Redis away, and what is refused: pages say so within the shell, with the time to wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from django.db.utils import OperationalError
from django.test import Client
from django.urls import reverse
from redis import Redis
from redis.exceptions import RedisError

from orgs.permissions import Role
from tests.support.world import member

if TYPE_CHECKING:
    from orgs.access.grants import Access
    from tests.web.conftest import Visitor

pytestmark = pytest.mark.django_db

RAIL = '<nav aria-label="Main">'
ORG = "org-abc123"
ASK = """
import json, sys
import django; django.setup()
from django.conf import settings
settings.DATABASES["default"]["OPTIONS"]["pool"]["timeout"] = 0.3
from django.test import Client
client = Client(raise_request_exception=False)
client.cookies[settings.SESSION_COOKIE_NAME] = "a" * 32
found = {}
for path in json.loads(sys.argv[1]):
    more = {"HTTP_HX_REQUEST": "true"} if path.startswith("#") else {}
    if path.startswith("/v2/"):
        more = {"HTTP_AUTHORIZATION": "Bearer sk_" + "a" * 40}
    answer = client.get(path.lstrip("#"), HTTP_HOST="localhost", **more)
    found[path] = [answer.status_code, answer.headers.get("Retry-After"), answer.content.decode()]
print(json.dumps(found))
"""


def ask_without_postgres(*paths: str) -> dict[str, Any]:
    """What a web process answers whose database listens nowhere, to somebody with a session's cookie."""
    away = {**os.environ, "DATABASE_URL": "postgresql://cloudsignal_app:x@127.0.0.1:1/cloudsignal"}
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(paths)],
        env=away,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_without_postgres_pages_and_api_are_503_and_the_navigation_stays() -> None:
    home, audit, gone = reverse("platform:home", args=[ORG]), reverse("audit:list", args=[ORG]), "/no/such/page"
    found = ask_without_postgres(home, audit, gone, f"#{home}", "/v2/me", "/accounts/login/")
    assert {path: (status, wait) for path, (status, wait, _) in found.items()} == dict.fromkeys(found, (503, "5"))
    for path in (home, audit):
        page = found[path][2]
        assert RAIL in page
        assert f'href="{reverse("orgs:credentials", args=[ORG])}"' in page
        assert "A backend service is unavailable; retry in 5 seconds." in page
    assert RAIL in found[gone][2]
    assert found[f"#{home}"][2] == "A backend service is unavailable; retry in 5 seconds."
    problem = json.loads(found["/v2/me"][2])
    assert (problem["code"], problem["detail"]) == ("unavailable", found[f"#{home}"][2])


def test_what_nobody_caught_is_told_by_one_mapping(
    owner: Client, acme: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.raise_request_exception = False
    answers = []
    for error in (RedisError("away"), OperationalError("away"), ValueError("a defect")):

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("cloudsignal.console.home.sessions_or_none", fail)
        answer = owner.get(reverse("platform:home", args=[acme.org_id]))
        answers.append((answer.status_code, answer.headers.get("Retry-After"), RAIL in answer.content.decode()))
    assert answers == [(503, "5", True), (503, "5", True), (500, None, False)]


def test_without_redis_a_page_that_needs_it_is_503_within_the_whole_shell(
    owner: Client, acme: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.2)

    def ask(*_: object) -> object:
        return nowhere.ping()

    monkeypatch.setattr("cloudsignal.console.home.sessions_or_none", ask)
    owner.raise_request_exception = False
    answer = owner.get(reverse("platform:home", args=[acme.org_id]))
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    page = answer.content.decode()
    assert RAIL in page
    assert acme.org.name in page
    assert acme.user.email in page


def test_refusals_keep_the_navigation_of_where_they_happened(acme: Access, visitor: Visitor) -> None:
    viewer = visitor(member(acme.org, Role.VIEWER))
    home = f'href="{reverse("orgs:credentials", args=[acme.org_id])}"'
    refused = {
        403: viewer.get(reverse("orgs:key-new", args=[acme.org_id])),
        404: visitor(acme).get(reverse("orgs:credential-revoke", args=[acme.org_id, "tok_nothing"])),
        405: viewer.delete(reverse("orgs:credentials", args=[acme.org_id])),
    }
    for status, answer in refused.items():
        page = answer.content.decode()
        assert answer.status_code == status
        assert RAIL in page, status
        assert home in page, status
    assert RAIL in viewer.get("/no/such/page").content.decode()
    assert RAIL not in Client().get("/no/such/page").content.decode()
