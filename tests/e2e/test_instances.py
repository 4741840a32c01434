"""Several real clients of one identity on the running system, and one that comes back with its first password."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.support.device import Device
from tests.support.system import Stack
from tests.support.tenants import Tenant, make_tenant

pytestmark = pytest.mark.stack

POLICY = "version: '3'\nrules: [{id: all, topic: 'fleet/#'}]"
KEY = """
from orgs.api_keys.keys import create_api_key
print(json.dumps({"key": create_api_key(owner(), kind="sk", name="backend").secret}))
"""
EXPIRE = """
with org_scope(given["org"]):
    row = Credential.objects.select_related("identity").get(token_id=given["token_id"])
    row.issued_at -= timedelta(seconds=given["seconds"])
    row.expires_at -= timedelta(seconds=given["seconds"])
    row.mac = secret_mac(pepper(), org=given["org"], username=row.identity.username, secret=given["password"],
                         expires_at=int(row.expires_at.timestamp()))
    row.save()
    tell_edges(MqttIdentity.objects.select_for_update().get(pk=row.identity_id))
print("{}")
"""
"""A token as it stands later: nothing else of the system is put forward."""


@pytest.fixture(scope="module")
def tenant(stack: Stack) -> Tenant:
    return make_tenant(stack, "Instances", POLICY)


@pytest.fixture(scope="module")
def http(stack: Stack, tenant: Tenant) -> httpx.Client:
    return httpx.Client(base_url=stack.url, headers={"Authorization": f"Bearer {tenant.run(KEY)['key']}"})


def create(http: httpx.Client, email: str) -> dict[str, Any]:
    answer = http.post("/v2/tokens/create", json={"user_email": email, "replace_existing": True})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def refresh(http: httpx.Client, token: dict[str, Any]) -> dict[str, Any]:
    proof = {"token_id": token["token_id"], "current_token_password": token["access_token"]}
    answer = http.post("/v2/tokens/refresh", json=proof)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def connect(stack: Stack, token: dict[str, Any], client_id: str, version: str = "5") -> Device:
    username, password = token["mqtt_credentials"]["username"], token["mqtt_credentials"]["password"]
    return Device(stack.host, stack.mqtts_port, stack.ca, username, password, version=version, client_id=client_id)


def test_three_instances_that_replace_existing_all_stay_connected(
    stack: Stack, tenant: Tenant, http: httpx.Client
) -> None:
    with ExitStack() as open_clients:
        tokens, devices = list[dict[str, Any]](), list[Device]()
        for number in range(3):
            tokens.append(create(http, "agent@example.com"))
            devices.append(open_clients.enter_context(connect(stack, tokens[-1], f"agent-{number}")))
            assert devices[-1].subscribe("fleet/all").value == 1
        for token in tokens:
            refresh(http, token)
        create(http, "agent@example.com")
        for number, device in enumerate(devices):
            payload = f"still here {number}".encode()
            assert not device.publish("fleet/all", payload).is_failure
            assert all(one.received("fleet/all", payload) for one in devices)
        for number, token in enumerate(tokens):  # and each comes back with what it has
            open_clients.enter_context(connect(stack, token, f"again-{number}"))
        local = tokens[0]["mqtt_credentials"]["username"].partition("@")[0]
        assert tenant.events("session_closed", username=local) == []


def test_instances_beyond_the_bound_retire_a_password_and_close_no_session(
    stack: Stack, tenant: Tenant, http: httpx.Client
) -> None:
    first = create(http, "page@example.com")
    with connect(stack, first, "tab-1") as device:
        for _ in range(20):
            last = create(http, "page@example.com")
        assert not device.publish("fleet/tab", b"still here").is_failure
        with connect(stack, last, "tab-21"):
            pass
        with pytest.raises(AssertionError, match="Not authorized"), connect(stack, first, "tab-again"):
            pass
        local = first["mqtt_credentials"]["username"].partition("@")[0]
        assert tenant.event("auth_failed", username=local)["reason"] == "retired"
        with connect(stack, refresh(http, first), "tab-again"):
            assert not device.publish("fleet/tab", b"still here").is_failure


@pytest.mark.parametrize("version", ["3.1.1", "5"])
def test_a_client_comes_back_with_its_first_password_after_refreshes(
    stack: Stack, tenant: Tenant, http: httpx.Client, version: str
) -> None:
    first = create(http, f"phone-{version}@example.com")
    renewed = refresh(http, refresh(http, first))
    tenant.run(EXPIRE, token_id=first["token_id"], password=first["access_token"], seconds=3700)
    with connect(stack, first, f"phone-{version}", version) as device:
        assert not device.publish("fleet/phone", b"back").is_failure
    tenant.revoke(renewed["token_id"])
    with pytest.raises(AssertionError, match="Not authorized"), connect(stack, first, f"phone-{version}", version):
        pass
    local = first["mqtt_credentials"]["username"].partition("@")[0]
    assert tenant.event("auth_failed", username=local)["reason"] == "expired"
