"""A revoked key takes with it all it has made, transitively; and a key makes nothing that is more than itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone

from audit.access import AuditQuery, search
from cloudsignal.errors import DomainError, Forbidden, Unauthenticated
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.api_keys import use_api_key
from orgs.access.grants import Access
from orgs.api_keys.keys import NewKey, create_api_key, rotate_api_key
from orgs.api_keys.reads import list_api_keys
from orgs.api_keys.revocation import foresee, revoke_api_key
from orgs.credentials.bulk import issue_all
from orgs.credentials.csv_file import Entry
from orgs.credentials.issuing import External, issue_credential, refresh_credential
from orgs.credentials.reads import get_credential
from orgs.models import Invitation
from orgs.people.invitations import invite
from orgs.people.members import change_member
from orgs.permissions import Role
from orgs.providers.providers import Wanted, add_provider, change_provider, enabled_providers
from tests.support.world import member, organization

pytestmark = pytest.mark.django_db

IP = "192.0.2.7"
WANTED = Wanted(name="shop", kind="oidc", issuer="https://issuer.example.com", audience="a", secret="s" * 40)


@pytest.fixture
def acme() -> Access:
    return organization()


def by(key: NewKey) -> Access:
    """What a request with this key may do."""
    return use_api_key(key.secret, ip=IP).access


def test_a_revoked_key_takes_its_children_their_children_and_all_they_made(acme: Access) -> None:
    leaked = create_api_key(acme, kind="sk", name="leaked")
    child = create_api_key(by(leaked), kind="sk", name="child")
    grandchild = create_api_key(by(child), kind="rk", name="grandchild", scopes=["credentials.manage"])
    bystander = create_api_key(acme, kind="sk", name="bystander")
    mine = issue_credential(acme, username="mine")
    theirs = issue_credential(by(bystander), username="theirs")
    device = issue_credential(by(grandchild), username="device", static=True)
    renewed = refresh_credential(by(grandchild), issue_credential(by(grandchild), username="phone").token_id)
    add_provider(by(child), WANTED)
    exchanged = issue_credential(
        Access(acme.org, None, None, acme.permissions, "provider:shop"), external=External("shop", "user-1")
    )
    invite(by(child), email="friend@example.com", role="admin")

    key, made, reach = foresee(acme, leaked.key.pk)
    assert (key.pk, [each.name for each in made.keys]) == (leaked.key.pk, ["child", "grandchild"])
    assert [one.name for one in made.providers] == ["shop"]
    assert [one.email for one in made.invitations] == ["friend@example.com"]
    assert (reach.identities, reach.credentials) == (3, 4)

    ended = revoke_api_key(acme, leaked.key.pk).ended
    assert (ended.identities, ended.credentials) == (3, 4)
    for each in (leaked, child, grandchild):
        with pytest.raises(Unauthenticated):
            use_api_key(each.secret, ip=IP)
    assert enabled_providers(acme.org_id) == ()
    with org_scope(acme.org_id):
        assert Invitation.objects.get().state == "revoked"
    for gone in (device, renewed, exchanged):
        assert get_credential(acme, gone.token_id).state == "revoked"
    for kept in (mine, theirs):
        assert get_credential(acme, kept.token_id).state == "active"
    use_api_key(bystander.secret, ip=IP)
    told = {
        event.target: (event.after or {}).get("because")
        for event in search(acme, AuditQuery(kind="api_key.revoked")).events
    }
    assert told == {
        f"api_key:{leaked.key}": None,
        f"api_key:{child.key}": str(leaked.key),
        f"api_key:{grandchild.key}": str(leaked.key),
    }


def test_what_a_child_that_is_over_has_made_ends_too(acme: Access) -> None:
    leaked = create_api_key(acme, kind="sk", name="leaked")
    child = create_api_key(by(leaked), kind="sk", name="child")
    last = create_api_key(by(child), kind="sk", name="last")
    with org_scope(acme.org_id):
        child.key.expires_at = timezone.now()
        child.key.save()
    revoke_api_key(acme, leaked.key.pk)
    with pytest.raises(Unauthenticated):
        use_api_key(last.secret, ip=IP)


def test_a_key_that_was_rotated_by_the_leaked_one_ends_with_it(acme: Access) -> None:
    leaked, other = (create_api_key(acme, kind="sk", name=name) for name in ("leaked", "other"))
    successor = rotate_api_key(by(leaked), other.key.pk)
    revoke_api_key(acme, leaked.key.pk)
    with pytest.raises(Unauthenticated):
        use_api_key(successor.secret, ip=IP)


def test_a_provider_that_a_key_has_changed_is_switched_off_until_a_person_looks(acme: Access) -> None:
    provider = add_provider(acme, WANTED)
    leaked = create_api_key(acme, kind="sk", name="leaked")
    changed = Wanted(name="shop", kind="oidc", issuer="https://mallory.example.com", audience="a", secret="m" * 40)
    change_provider(by(leaked), provider.pk, changed)
    revoke_api_key(acme, leaked.key.pk)
    assert enabled_providers(acme.org_id) == ()
    change_provider(acme, provider.pk, WANTED)
    assert [one.name for one in enabled_providers(acme.org_id)] == ["shop"]


def test_rotating_replaces_a_key_and_keeps_what_it_made(acme: Access) -> None:
    old = create_api_key(acme, kind="sk", name="backend")
    issued = issue_credential(by(old), username="device")
    rotate_api_key(acme, old.key.pk, overlap=0)
    with pytest.raises(Unauthenticated):
        use_api_key(old.secret, ip=IP)
    assert get_credential(acme, issued.token_id).state == "active"


def test_who_may_not_manage_keys_revokes_none_and_sees_nothing_of_them(acme: Access) -> None:
    key = create_api_key(acme, kind="sk", name="backend").key
    developer = member(acme.org, Role.DEVELOPER)
    for act in (foresee, revoke_api_key):
        with pytest.raises(Forbidden):
            act(developer, key.pk)


# --- what a key may make ---------------------------------------------------------------------------------------------

SOON = timedelta(days=1)


def refusal(maker: Access, **wanted: object) -> str:
    before = len(list_api_keys(maker))
    with pytest.raises(DomainError) as refused:
        create_api_key(maker, **{"kind": "sk", "name": "more", **wanted})  # type: ignore[arg-type]
    assert len(list_api_keys(maker)) == before
    return refused.value.code


def test_a_key_makes_none_that_works_longer_than_itself(acme: Access) -> None:
    ends = timezone.now() + SOON
    maker = by(create_api_key(acme, kind="sk", name="maker", expires_at=ends))
    assert refusal(maker) == "outlives_maker"
    assert refusal(maker, expires_at=ends + timedelta(seconds=1)) == "outlives_maker"
    assert create_api_key(maker, kind="sk", name="as long", expires_at=ends).key.expires_at == ends
    forever = create_api_key(acme, kind="sk", name="forever")
    with pytest.raises(Forbidden, match="must expire by then"):
        rotate_api_key(maker, forever.key.pk)
    use_api_key(forever.secret, ip=IP)
    assert rotate_api_key(acme, forever.key.pk).key.expires_at is None


def test_a_key_makes_none_that_works_from_further_away(acme: Access) -> None:
    maker = by(create_api_key(acme, kind="sk", name="maker", ip_allow=["192.0.2.0/24", "2001:db8::/48"]))
    assert refusal(maker) == "beyond_own_networks"
    assert refusal(maker, ip_allow=["192.0.2.0/23"]) == "beyond_own_networks"
    assert refusal(maker, ip_allow=["192.0.2.0/25", "198.51.100.1"]) == "beyond_own_networks"
    made = create_api_key(maker, kind="sk", name="within", ip_allow=["192.0.2.128/25", "2001:db8:0:1::/64"])
    assert made.key.ip_allow == ["192.0.2.128/25", "2001:db8:0:1::/64"]


def test_a_key_makes_no_provider_that_is_more_than_itself(acme: Access) -> None:
    narrow = create_api_key(acme, kind="rk", name="narrow", scopes=["providers.manage", "org.read"])
    ending = create_api_key(acme, kind="sk", name="ending", expires_at=timezone.now() + SOON)
    bound = create_api_key(acme, kind="sk", name="bound", ip_allow=["192.0.2.0/24"])
    present = add_provider(acme, WANTED)
    for key in (narrow, ending, bound):
        with pytest.raises(Forbidden):
            add_provider(by(key), Wanted(name="x", kind="oidc", issuer=WANTED.issuer, audience="a", secret="s" * 40))
        with pytest.raises(Forbidden):
            change_provider(by(key), present.pk, WANTED)
    add_provider(
        by(create_api_key(acme, kind="sk", name="wide")),
        Wanted(name="y", kind="oidc", issuer=WANTED.issuer, audience="a", secret="s" * 40),
    )


def test_a_key_makes_nobody_more_than_itself(acme: Access) -> None:
    maker = by(create_api_key(acme, kind="rk", name="maker", scopes=["members.manage", "org.read"]))
    with pytest.raises(Forbidden, match="do not hold yourself"):
        invite(maker, email="friend@example.com", role="admin")
    viewer = member(acme.org, Role.VIEWER)
    with org_scope(acme.org_id):
        membership = viewer.org.memberships.get(user=viewer.user)
    with pytest.raises(Forbidden, match="do not hold yourself"):
        change_member(maker, membership.pk, role="admin")
    invite(maker, email="friend@example.com", role="viewer")


@pytest.mark.parametrize(
    "make",
    [
        lambda access: create_api_key(access, kind="rk", name="Child", scopes=["org.read"]),
        lambda access: issue_credential(access, username="late"),
        lambda access: issue_all(access, [Entry(1, "late", 600, False, "", {})]),
        lambda access: invite(access, email="late@example.com", role="viewer"),
        lambda access: add_provider(access, Wanted("late", "oidc", "https://id.example.com", "mqtt", secret="x" * 32)),
    ],
)
def test_a_key_that_is_revoked_while_its_request_runs_makes_nothing_any_more(
    make: Callable[[Access], object],
) -> None:
    owner = organization()
    made = create_api_key(owner, kind="sk", name="Leaked")
    under_way = use_api_key(made.secret, ip="192.0.2.7").access
    revoke_api_key(owner, made.key.pk)
    with pytest.raises(Unauthenticated, match="revoked"):
        make(under_way)
