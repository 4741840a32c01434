"""The simulator: an unsaved text, the decision of the core, and requests no client could make."""

from __future__ import annotations

import pytest
from django.utils import timezone

from acl.access import get_draft
from acl.policy import Identity, compile_policy, parse
from acl.services.simulate import simulate
from cloudsignal.errors import Forbidden, Invalid
from orgs.access.grants import Access
from orgs.credentials.issuing import issue_credential
from orgs.permissions import Role
from tests.support.world import member, organization

pytestmark = pytest.mark.django_db

TEXT = """
version: "3"
rules:
  - {id: no-secrets, effect: deny, topic: "dev/+/secret"}
  - {id: own, topic: "dev/{username}/#", qos: 1}
  - {id: team, who: {claims: {team: red}}, topic: "team/red", action: sub}
"""


@pytest.fixture
def access() -> Access:
    return organization()


def test_the_verdict_on_an_unsaved_text_is_that_of_the_core(access: Access) -> None:
    found = simulate(access, text=TEXT, username="pump", action="pub", topic="dev/pump/x", qos=1)
    policy = parse(TEXT).policy
    assert found.verdict is not None
    assert policy is not None
    assert (found.verdict.decision.allowed, found.verdict.decision.rule) == (True, "own")
    identity = Identity(org=access.org_id, username="pump")
    same = compile_policy(policy).publish(identity, "dev/pump/x", qos=1, retain=False, now=timezone.now())
    assert same.rule == found.verdict.decision.rule
    assert get_draft(access).revision == 1


@pytest.mark.parametrize(
    ("request_", "allowed", "rule"),
    [
        ({"action": "pub", "topic": "dev/pump/secret", "qos": 0, "claims": {}}, False, "no-secrets"),
        ({"action": "pub", "topic": "dev/other/x", "qos": 0, "claims": {}}, False, None),
        ({"action": "pub", "topic": "dev/pump/x", "qos": 2, "claims": {}}, False, None),
        ({"action": "sub", "topic": "dev/pump/#", "qos": 0, "claims": {}}, True, "own"),
        ({"action": "receive", "topic": "dev/pump/x", "qos": 0, "claims": {}}, True, "own"),
        ({"action": "sub", "topic": "team/red", "qos": 0, "claims": {"team": "red"}}, True, "team"),
        ({"action": "sub", "topic": "team/red", "qos": 0, "claims": {"team": "blue"}}, False, None),
    ],
)
def test_verdicts(access: Access, request_: dict[str, object], allowed: bool, rule: str | None) -> None:
    verdict = simulate(access, text=TEXT, username="pump", **request_).verdict  # type: ignore[arg-type]
    assert verdict is not None
    assert (verdict.decision.allowed, verdict.decision.rule) == (allowed, rule)


def test_the_full_username_works_as_well(access: Access) -> None:
    verdict = simulate(access, text=TEXT, username=f"pump@{access.org_id}", action="pub", topic="dev/pump/x").verdict
    assert verdict is not None
    assert verdict.decision.allowed


def test_a_text_with_errors_has_findings_and_no_verdict(access: Access) -> None:
    found = simulate(access, text="rules: [", username="pump", action="pub", topic="a")
    assert found.verdict is None
    assert any(finding.level == "error" for finding in found.findings)


@pytest.mark.parametrize(
    ("field", "request_"),
    [
        ("topic", {"topic": ""}),
        ("topic", {"topic": "a/#"}),
        ("topic", {"topic": "a/+/b"}),
        ("topic", {"topic": "a\0b"}),
        ("topic", {"topic": "a\x01b"}),
        ("topic", {"topic": "a/\ufffe/#", "action": "sub"}),
        ("topic", {"topic": "é" * 32_768}),
        ("topic", {"topic": "a/#/b", "action": "sub"}),
        ("topic", {"topic": "a/b+", "action": "sub"}),
        ("action", {"action": "read"}),
        ("qos", {"qos": 3}),
        ("username", {"username": ""}),
        ("username", {"username": "a\x7f"}),
        ("client_id", {"client_id": "a\x01"}),
        ("claims", {"claims": {"a": {"b": 1}}}),
    ],
)
def test_a_request_that_no_client_could_make_is_refused(
    access: Access, field: str, request_: dict[str, object]
) -> None:
    good: dict[str, object] = {"text": TEXT, "username": "pump", "action": "pub", "topic": "dev/pump/x"}
    with pytest.raises(Invalid) as refused:
        simulate(access, **{**good, **request_})  # type: ignore[arg-type]
    assert refused.value.field == field
    assert simulate(access, **good).verdict is not None  # type: ignore[arg-type]


@pytest.mark.parametrize("role", list(Role))
def test_who_may_simulate(role: Role) -> None:
    access = member(organization().org, role)
    if role in {Role.OWNER, Role.ADMIN, Role.DEVELOPER}:
        assert simulate(access, text=TEXT, username="pump", action="pub", topic="a").verdict is not None
    else:
        with pytest.raises(Forbidden):
            simulate(access, text=TEXT, username="pump", action="pub", topic="a")


def test_without_claims_those_of_the_identity_are_used_and_it_is_said_when_none_are_known(access: Access) -> None:
    issue_credential(access, username="pump", claims={"team": "red"})
    ask = {"text": TEXT, "action": "sub", "topic": "team/red"}
    known = simulate(access, username="pump", **ask)  # type: ignore[arg-type]
    assert known.verdict is not None
    assert (known.source, dict(known.claims), known.verdict.decision.allowed) == ("stored", {"team": "red"}, True)
    for claims, username, source in (({}, "pump", "given"), (None, "pum", "none")):
        found = simulate(access, username=username, claims=claims, **ask)  # type: ignore[arg-type]
        assert found.verdict is not None
        assert (found.source, dict(found.claims), found.verdict.decision.allowed) == (source, {}, False)
