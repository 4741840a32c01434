"""Every way a sign-in can be refused: the right CONNACK, the right reason in the audit, the same time for all."""

from __future__ import annotations

import asyncio
import statistics
import time

import pytest

from tests.support.system import Stack
from tests.support.tenants import Tenant, make_tenant
from tests.support.wire_client import WireClient

pytestmark = pytest.mark.stack

LEVELS = {4: "3.1.1", 5: "5"}
NOT_AUTHORIZED = {4: 5, 5: 0x87}
BAD_USER = {4: 4, 5: 0x86}


@pytest.fixture(scope="module")
def tenant(stack: Stack) -> Tenant:
    return make_tenant(stack, "Sign-in")


@pytest.fixture(scope="module")
def other(stack: Stack) -> Tenant:
    return make_tenant(stack, "Somebody else")


def refusals_without_organization(stack: Stack) -> int:
    """Refused sign-ins in the platform's own log, which no tenant sees."""
    with stack.admin() as admin:
        row = admin.execute(
            "SELECT coalesce(sum(count), 0) FROM audit_event WHERE org_id = 'platform' AND kind = 'auth_failed'"
        ).fetchone()
    return int(row[0]) if row else 0


async def answer(stack: Stack, level: int, username: str | bytes | None, password: str | None) -> int | None:
    """The CONNACK code that one sign-in gets."""
    client = await WireClient.open(stack.host, stack.mqtts_port, stack.ca, level=level)
    code = await client.connect(username, password, client_id=f"probe-{level}")
    await client.close()
    return code


@pytest.mark.parametrize("level", LEVELS)
def test_a_valid_credential_connects_and_the_audit_says_from_where(stack: Stack, tenant: Tenant, level: int) -> None:
    issued = tenant.issue(f"valid-{level}")
    assert asyncio.run(answer(stack, level, issued["username"], issued["password"])) == 0
    event = tenant.event("connect", username=f"valid-{level}")
    assert (str(event["ip"]), event["transport"], event["mqtt_version"]) == ("127.0.0.1", "mqtts", LEVELS[level])
    assert event["tls_version"] == "TLSv1.3"
    assert event["tls_cipher"].startswith("TLS_")


@pytest.mark.parametrize("level", LEVELS)
def test_a_wrong_password_is_bad_secret(stack: Stack, tenant: Tenant, level: int) -> None:
    issued = tenant.issue(f"wrong-{level}")
    assert asyncio.run(answer(stack, level, issued["username"], issued["password"] + "x")) == BAD_USER[level]
    assert tenant.event("auth_failed", username=f"wrong-{level}")["reason"] == "bad_secret"


@pytest.mark.parametrize("level", LEVELS)
def test_an_expired_credential_is_expired(stack: Stack, tenant: Tenant, level: int) -> None:
    issued = tenant.issue_ending(f"late-{level}", seconds=-5)
    assert asyncio.run(answer(stack, level, issued["username"], issued["password"])) == NOT_AUTHORIZED[level]
    assert tenant.event("auth_failed", username=f"late-{level}")["reason"] == "expired"


@pytest.mark.parametrize("level", LEVELS)
def test_a_revoked_credential_is_revoked(stack: Stack, tenant: Tenant, level: int) -> None:
    issued = tenant.issue(f"gone-{level}")
    tenant.revoke(issued["token_id"])
    assert asyncio.run(answer(stack, level, issued["username"], issued["password"])) == NOT_AUTHORIZED[level]
    assert tenant.event("auth_failed", username=f"gone-{level}")["reason"] == "revoked"


@pytest.mark.parametrize("level", LEVELS)
def test_an_unknown_username_is_unknown(stack: Stack, tenant: Tenant, level: int) -> None:
    assert asyncio.run(answer(stack, level, f"nobody-{level}@{tenant.org}", "tkn_x")) == BAD_USER[level]
    assert tenant.event("auth_failed", username=f"nobody-{level}")["reason"] == "unknown"


@pytest.mark.parametrize("level", LEVELS)
def test_a_credential_of_another_organization_is_wrong_org(
    stack: Stack, tenant: Tenant, other: Tenant, level: int
) -> None:
    issued = other.issue(f"stranger-{level}")
    code = asyncio.run(answer(stack, level, f"stranger-{level}@{tenant.org}", issued["password"]))
    assert code == NOT_AUTHORIZED[level]
    assert tenant.event("auth_failed", username=f"stranger-{level}")["reason"] == "wrong_org"
    assert other.events("auth_failed") == []


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("username", [None, "", "no-org", "a@b@c", "@", "A B@org_aaaaaaaaaaaa", "x" * 5_000])
def test_a_malformed_username_is_refused_and_no_tenant_sees_it(
    stack: Stack, tenant: Tenant, level: int, username: str | None
) -> None:
    before = refusals_without_organization(stack)
    password = None if username is None else "tkn_x"  # a password without a username is no MQTT 3.1.1 packet
    assert asyncio.run(answer(stack, level, username, password)) == BAD_USER[level]
    stack.eventually(lambda: refusals_without_organization(stack) > before, what="the refusal in the platform log")
    assert tenant.events("auth_failed", reason="malformed") == []
    assert tenant.events("auth_failed", username="A B") == []


def test_malformed_usernames_are_on_the_platform_log(stack: Stack) -> None:
    asyncio.run(answer(stack, 5, "no-org-here", "x"))

    def logged() -> bool:
        with stack.admin() as admin:
            row = admin.execute(
                "SELECT count(*) FROM audit_event "
                "WHERE org_id = 'platform' AND kind = 'auth_failed' AND reason = 'malformed'"
            ).fetchone()
        return bool(row and row[0])

    stack.eventually(logged, what="the malformed sign-in in the platform log")


def test_refusals_take_the_same_time_whether_the_user_exists_or_not(stack: Stack, tenant: Tenant) -> None:
    """Medians of interleaved refusals differ by less than a client could tell from the spread within each kind."""
    issued = tenant.issue("timing")
    usernames = {"exists": issued["username"], "does not": f"nobody@{tenant.org}"}

    async def seconds(username: str) -> float:
        client = await WireClient.open(stack.host, stack.mqtts_port, stack.ca, level=5)
        start = time.perf_counter()
        assert await client.connect(username, "tkn_wrong", client_id="timing") == 0x86
        taken = time.perf_counter() - start
        await client.close(clean=False)
        return taken

    async def rounds() -> dict[str, list[float]]:
        taken: dict[str, list[float]] = {name: [] for name in usernames}
        for _ in range(12):
            for name, username in usernames.items():
                taken[name].append(await seconds(username))
        return taken

    taken = asyncio.run(rounds())
    medians = {name: statistics.median(values) for name, values in taken.items()}
    spread = max(statistics.pstdev(values) for values in taken.values())
    difference = abs(medians["exists"] - medians["does not"])
    assert difference < max(spread, 0.2 * medians["exists"])


@pytest.mark.parametrize("level", LEVELS)
def test_a_session_ends_when_its_credential_does(stack: Stack, tenant: Tenant, level: int) -> None:
    issued = tenant.issue_ending(f"short-{level}", seconds=5)

    async def stay() -> int | None:
        client = await WireClient.open(stack.host, stack.mqtts_port, stack.ca, level=level)
        assert await client.connect(issued["username"], issued["password"], client_id=f"short-{level}") == 0
        return await client.until_closed(seconds=20)

    assert asyncio.run(stay()) == (0x87 if level == 5 else None)
    assert tenant.event("session_closed", username=f"short-{level}")["reason"] == "expired"


@pytest.mark.parametrize("level", LEVELS)
def test_revoking_closes_the_live_session(stack: Stack, tenant: Tenant, level: int) -> None:
    issued = tenant.issue(f"live-{level}")

    async def stay() -> int | None:
        client = await WireClient.open(stack.host, stack.mqtts_port, stack.ca, level=level)
        assert await client.connect(issued["username"], issued["password"], client_id=f"live-{level}") == 0
        await asyncio.to_thread(tenant.revoke, issued["token_id"])
        return await client.until_closed(seconds=10)

    assert asyncio.run(stay()) == (0x87 if level == 5 else None)
    assert tenant.event("session_closed", username=f"live-{level}")["reason"] == "revoked"
