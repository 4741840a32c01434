"""API keys as services: who makes which, how many, what they may do at each use, and what each step leaves behind.

What ends with a revoked key and what a key may make is in ``test_key_revocation.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.utils import timezone

from cloudsignal.errors import DomainError, Unauthenticated
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.api_keys import use_api_key
from orgs.access.grants import Access
from orgs.api_keys import keys
from orgs.api_keys.keys import OVERLAP_MAX, NewKey, create_api_key, create_personal_key, end_own_key, rotate_api_key
from orgs.api_keys.reads import get_api_key, list_api_keys
from orgs.api_keys.revocation import revoke_api_key
from orgs.models import ApiKey, Membership, Organization
from orgs.permissions import CLI_SESSION, Permission, Role
from tests.support.races import meanwhile
from tests.support.traces import events
from tests.support.world import member, organization

pytestmark = pytest.mark.django_db

IP = "192.0.2.7"


@pytest.fixture
def acme() -> Access:
    return organization()


def code(call: Callable[[], object]) -> str:
    with pytest.raises(DomainError) as refused:
        call()
    return refused.value.code


def secret_key(access: Access, name: str = "ci") -> NewKey:
    return create_api_key(access, kind="sk", name=name)


@pytest.mark.parametrize("role", [Role.DEVELOPER, Role.AUDITOR, Role.VIEWER])
def test_who_does_not_manage_keys_makes_and_rotates_none(acme: Access, role: Role) -> None:
    made, asking = secret_key(acme), member(acme.org, role)
    for call in (lambda: secret_key(asking), lambda: rotate_api_key(asking, made.key.pk)):
        assert code(call) == "forbidden"
    assert [key.pk for key in list_api_keys(asking)] == [made.key.pk]
    assert secret_key(member(acme.org, Role.ADMIN)).key.kind == "sk"


def test_a_key_is_stored_as_its_hash_and_named_in_the_audit_by_its_mask(acme: Access) -> None:
    made = create_api_key(acme, kind="rk", name=" ci  bot ", scopes=["org.read"], ip_allow=["192.0.2.9/24"])
    stored = get_api_key(acme, made.key.pk)
    assert (stored.name, stored.scopes, stored.ip_allow) == ("ci bot", ["org.read"], ["192.0.2.0/24"])
    assert made.secret not in str(vars(stored))
    (event,) = events(acme, "api_key.created")
    assert (event.target, event.actor) == (f"api_key:rk_...{made.secret[-4:]}", acme.actor)
    assert made.secret not in str(event.after)
    assert event.after is not None
    assert (event.after["scopes"], event.after["ip_allow"]) == (["org.read"], ["192.0.2.0/24"])


@pytest.mark.parametrize(
    ("wanted", "refusal"),
    [
        ({"kind": "xk"}, "bad_kind"),
        ({"kind": "rk"}, "scopes_missing"),
        ({"kind": "sk", "scopes": ["org.read"]}, "scopes_not_taken"),
        ({"kind": "rk", "scopes": ["org.delete"]}, "scope_not_for_keys"),
        ({"name": ""}, "name_missing"),
        ({"ip_allow": ["192.0.2.0/33"]}, "bad_network"),
        ({"ip_allow": ["192.0.2.1"] * 51}, "too_many_networks"),
        ({"expires_at": timezone.now() - timedelta(days=1)}, "expiry_past"),
    ],
)
def test_wrong_input_is_refused_and_nothing_is_made(acme: Access, wanted: dict[str, object], refusal: str) -> None:
    assert code(lambda: create_api_key(acme, **{"kind": "sk", "name": "ci", **wanted})) == refusal  # type: ignore[arg-type]
    assert (list_api_keys(acme), events(acme, "api_key.created")) == ((), ())


def test_a_key_of_each_kind_may_what_its_kind_says_and_no_more(acme: Access) -> None:
    def held(made: NewKey) -> frozenset[Permission]:
        return use_api_key(made.secret, ip=IP).access.permissions

    secret = held(secret_key(acme))
    assert not {Permission.ORG_DELETE, Permission.ORG_TRANSFER} & secret
    assert Permission.API_KEYS_MANAGE in secret
    scopes = ["org.read", "policy.deploy"]
    assert held(create_api_key(acme, kind="rk", name="r", scopes=scopes)) == {Permission(scope) for scope in scopes}
    assert held(create_api_key(acme, kind="pk", name="p")) == frozenset()


def test_a_key_works_until_it_is_revoked_or_expires_and_from_its_networks_only(acme: Access) -> None:
    soon = timezone.now() + timedelta(hours=1)
    bound = create_api_key(acme, kind="sk", name="bound", ip_allow=["192.0.2.0/24", "2001:db8::/32"], expires_at=soon)
    for address in ("192.0.2.200", "2001:db8::1", "::ffff:192.0.2.1"):
        assert use_api_key(bound.secret, ip=address).key.pk == bound.key.pk
    for address in ("192.0.3.1", "2001:db9::1", "", "nonsense"):
        assert code(lambda address=address: use_api_key(bound.secret, ip=address)) == "ip_not_allowed"  # type: ignore[misc]
    with org_scope(acme.org_id):
        ApiKey.objects.filter(pk=bound.key.pk).update(expires_at=timezone.now())
    gone = secret_key(acme)
    revoke_api_key(acme, gone.key.pk)
    for secret, word in ((bound.secret, "expired"), (gone.secret, "revoked"), ("sk_" + "0" * 27, "not valid")):
        with pytest.raises(Unauthenticated, match=word):
            use_api_key(secret, ip="192.0.2.1")


def test_the_working_keys_are_bounded_and_command_lines_count_apart(
    acme: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys, "KEYS_MAX", 2)
    monkeypatch.setattr(keys, "PERSONAL_MAX", 1)
    first, _ = secret_key(acme), secret_key(acme)
    assert code(lambda: secret_key(acme)) == "too_many_keys"
    assert code(lambda: rotate_api_key(acme, first.key.pk)) == "too_many_keys"
    mine = create_personal_key(acme, machine="laptop")
    assert code(lambda: create_personal_key(acme, machine="desk")) == "too_many_keys"
    assert create_personal_key(member(acme.org, Role.VIEWER), machine="laptop").key.person_id is not None
    revoke_api_key(acme, first.key.pk)
    end_own_key(use_api_key(mine.secret, ip=IP))
    assert secret_key(acme)
    assert create_personal_key(acme, machine="desk")


def test_rotating_makes_one_successor_and_both_work_until_the_overlap_ends(acme: Access) -> None:
    old = create_api_key(acme, kind="rk", name="ci", scopes=["org.read"], ip_allow=[f"{IP}/32"])
    assert code(lambda: rotate_api_key(acme, old.key.pk, overlap=OVERLAP_MAX + 1)) == "bad_overlap"
    new = rotate_api_key(acme, old.key.pk, overlap=3600)
    assert (new.key.name, new.key.scopes, new.key.ip_allow) == ("ci", ["org.read"], [f"{IP}/32"])
    assert use_api_key(old.secret, ip=IP).access.permissions == use_api_key(new.secret, ip=IP).access.permissions
    assert code(lambda: rotate_api_key(acme, old.key.pk)) == "rotated_already"
    (event,) = events(acme, "api_key.rotated")
    former = get_api_key(acme, old.key.pk).expires_at
    assert former is not None
    assert event.target == f"api_key:{new.key}"
    assert event.before == {"key": str(old.key), "id": old.key.pk, "expires_at": None}
    assert event.after is not None
    assert event.after["former_expires_at"] == former.isoformat()
    with org_scope(acme.org_id):
        ApiKey.objects.filter(pk=old.key.pk).update(expires_at=timezone.now())
    assert code(lambda: use_api_key(old.secret, ip=IP)) == "unauthorized"
    assert code(lambda: rotate_api_key(acme, old.key.pk)) == "key_not_active"


def test_a_command_line_may_what_its_person_may_at_this_moment(acme: Access) -> None:
    person = member(acme.org, Role.DEVELOPER)
    made = create_personal_key(person, machine="laptop")
    rights = use_api_key(made.secret, ip=IP).access.permissions
    assert rights <= CLI_SESSION & person.permissions
    assert Permission.POLICY_DEPLOY in rights
    with org_scope(acme.org_id):
        Membership.objects.filter(user=person.user).update(role=Role.VIEWER)
    assert Permission.POLICY_DEPLOY not in use_api_key(made.secret, ip=IP).access.permissions
    assert code(lambda: rotate_api_key(acme, made.key.pk)) == "personal_key"
    with org_scope(acme.org_id):
        Organization.objects.update(status=Organization.Status.SUSPENDED)
    assert code(lambda: use_api_key(made.secret, ip=IP)) == "org_not_active"
    with org_scope(acme.org_id):
        Organization.objects.update(status=Organization.Status.ACTIVE)
        Membership.objects.filter(user=person.user).update(ends_at=timezone.now())
    assert code(lambda: use_api_key(made.secret, ip=IP)) == "unauthorized"


def test_only_a_command_line_ends_itself(acme: Access) -> None:
    program, mine = secret_key(acme), create_personal_key(acme, machine="laptop")
    assert code(lambda: end_own_key(use_api_key(program.secret, ip=IP))) == "needs_command_line"
    end_own_key(use_api_key(mine.secret, ip=IP))
    assert code(lambda: use_api_key(mine.secret, ip=IP)) == "unauthorized"
    (event,) = events(acme, "api_key.revoked")
    assert event.target == f"api_key:{mine.key}"
    key = use_api_key(program.secret, ip=IP).access
    assert code(lambda: create_personal_key(key, machine="laptop")) == "needs_member"


def test_keys_of_another_organization_do_not_exist_here(acme: Access) -> None:
    theirs = secret_key(organization("Rival"))
    for call in (
        lambda: get_api_key(acme, theirs.key.pk),
        lambda: rotate_api_key(acme, theirs.key.pk),
        lambda: revoke_api_key(acme, theirs.key.pk),
    ):
        assert code(call) == "not_found"
    assert use_api_key(theirs.secret, ip=IP).key.pk == theirs.key.pk


@pytest.mark.django_db(transaction=True)
def test_two_that_make_the_last_key_at_once_make_one(acme: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KEYS_MAX", 1)
    with ThreadPoolExecutor(1) as pool:
        with org_scope(acme.org_id):
            secret_key(acme)
            second = meanwhile(lambda: secret_key(acme), pool)
        with pytest.raises(DomainError) as refused:
            second.result(60)
    assert refused.value.code == "too_many_keys"
    assert len(list_api_keys(acme)) == 1


@pytest.mark.django_db(transaction=True)
def test_two_that_rotate_one_key_at_once_make_one_successor(acme: Access) -> None:
    old = secret_key(acme)
    with ThreadPoolExecutor(1) as pool:
        with org_scope(acme.org_id):
            rotate_api_key(acme, old.key.pk)
            second = meanwhile(lambda: rotate_api_key(acme, old.key.pk), pool)
        with pytest.raises(DomainError) as refused:
            second.result(60)
    assert refused.value.code == "rotated_already"
    assert len(events(acme, "api_key.rotated")) == 1
