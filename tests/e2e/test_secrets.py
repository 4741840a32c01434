"""Secrets on the running system: issued over HTTP, then searched for in logs, process list, files and error pages."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.support.system import Stack
from tests.support.tenants import PASSWORD, Tenant, make_tenant

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

KEYS = """
from orgs.api_keys.keys import create_api_key
print(json.dumps({kind: create_api_key(owner(), kind=kind, name="x").secret for kind in ("sk", "pk")}))
"""
BINARY = {"postgres", "valkey"}
"""Data folders of the databases: their content is searched row by row elsewhere, their files hold no text."""


def issued(stack: Stack, tenant: Tenant) -> tuple[set[str], list[str]]:
    """Every kind of secret made by a request, and the answers that were to tell none."""
    made = tenant.run(KEYS)
    secrets, told = set(made.values()), list[str]()
    with httpx.Client(base_url=stack.url, headers={"Authorization": f"Bearer {made['sk']}"}) as http:
        issued = http.post("/v2/credentials", json={"username": "marked"}).json()
        token = http.post("/v2/tokens/create", json={"user_email": "ada@example.com"}).json()
        bulk = http.post("/v2/credentials/bulk", content=b"username\nmarked-2\n", headers={"Content-Type": "text/csv"})
        secrets |= {issued["password"], token["access_token"], bulk.json()["issued"][0]["password"]}
        proof = {"token_id": token["token_id"], "current_token_password": token["access_token"]}
        secrets.add(http.post("/v2/tokens/refresh", json=proof).json()["access_token"])
        # Requests that go wrong with a secret in them, in every place that ends in a log or on an error page.
        told += [
            http.post("/v2/tokens/refresh", json={**proof, "token_id": "tok_x"}).text,
            http.post("/v2/tokens/create", content=b'{"secret_key": "' + made["sk"].encode()).text,
            http.get(f"/v2/credentials/{issued['password']}").text,
            http.get("/v2/audit/events").text,
            http.post("/v2/tokens/exchange", json={"token": issued["password"], "provider": "x"}).text,
        ]
    return secrets, told


def pages(stack: Stack, tenant: Tenant, secrets: set[str]) -> list[str]:
    """Pages that list or refuse, read by the owner, after a secret was issued on one."""
    with httpx.Client(base_url=stack.url, headers={"Referer": stack.url}, follow_redirects=True) as http:

        def csrf(path: str) -> str:
            found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', http.get(path).text)
            assert found
            return found[1]

        form = {"login": tenant.email, "password": PASSWORD, "csrfmiddlewaretoken": csrf("/accounts/login/")}
        assert http.post("/accounts/login/", data=form).status_code == 200
        home = f"/o/{tenant.org}"
        token = csrf(f"{home}/credentials/new/")
        shown = http.post(f"{home}/credentials/new/", data={"username": "paged", "csrfmiddlewaretoken": token}).text
        found = re.search(r"tkn_[0-9A-Za-z]{20,}", shown)
        assert found
        secrets.add(found[0])
        wrong = {"username": "NOT A NAME", "note": "x", "csrfmiddlewaretoken": token}
        read = [f"{home}/{path}" for path in ("", "credentials/", "audit/", "settings/keys/", "settings/members/")]
        return [
            http.post(f"{home}/credentials/new/", data=wrong).text,
            http.get(f"{home}/credentials/tok_none/revoke/").text,
            *(http.get(path).text for path in read),
        ]


def processes() -> str:
    """The process list with every argument, as any account of this machine sees it."""
    return subprocess.run(["ps", "-eo", "args", "-ww"], capture_output=True, text=True, check=True).stdout


def files(stack: Stack) -> dict[str, str]:
    """Logs, spool, run state and whatever else lies in the data folder, apart from the secrets themselves."""
    found = {}
    for path in stack.data.rglob("*"):
        place = path.relative_to(stack.data).parts
        if path.is_file() and place[0] not in BINARY | {"secrets", "tls", "programs"}:
            found["/".join(place)] = path.read_bytes().decode("utf-8", "replace")
    return found


def test_no_secret_is_in_a_log_the_process_list_a_file_or_on_an_error_page(stack: Stack) -> None:
    tenant = make_tenant(stack, "Marked")
    secrets, answers = issued(stack, tenant)
    answers += pages(stack, tenant, secrets)
    own = set(stack.secrets.values())
    assert len(secrets) >= 7
    assert len(own) >= 5
    found = {"the process list": processes(), **files(stack), "an answer": "\n".join(answers)}
    assert "logs/web.log" in found
    assert "granian" in found["the process list"]
    for where, text in found.items():
        # Other tests of the same moment show the password that they all use in arguments of their own programs.
        for secret in secrets | own | ({PASSWORD} if where != "the process list" else set()):
            assert secret not in text, f"{secret[:6]}... stands in {where}"
    assert Path(stack.data / "secrets").stat().st_mode & 0o077 == 0
