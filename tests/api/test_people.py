"""Members and invitations: joining, changing, leaving, handing over; and organizations from creation to their end."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from allauth.account.models import EmailAddress
from django.core import mail
from pytest_django.fixtures import Settings
from redis import Redis

from audit.models import Event
from cloudsignal.errors import Conflict, DomainError, Forbidden, Invalid, Limit, NotFound
from cloudsignal.models import OutboxRow
from cloudsignal.redis import client as redis_client
from cloudsignal.secrets.keyring import signing_key
from cloudsignal.tenancy.scopes import org_scope, platform_scope
from cloudsignal.wire import keys
from cloudsignal.wire.bundle import open_bundle
from orgs import tasks
from orgs.access.grants import access_org
from orgs.credentials.issuing import issue_credential
from orgs.models import Invitation, Membership, Organization, User
from orgs.organizations import deletion
from orgs.people import invitations, members
from orgs.permissions import Role
from tests.support.calling import Caller, World
from tests.support.databases import Databases
from tests.support.world import member, person

SOON = datetime.now(UTC) + timedelta(days=30)


@pytest.fixture
def sent(settings: Settings) -> list[mail.EmailMessage]:
    """The e-mails that were sent."""
    settings.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    mail.outbox = []
    return mail.outbox


def confirm_address(user: User) -> None:
    """As the link in a confirmation mail does."""
    EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)


def link(world: World, invitation: Invitation, sent: list[mail.EmailMessage]) -> str:
    """Send the e-mail as the worker does, and read the token out of it."""
    assert invitations.send_invitation(world.id, invitation.pk)
    found = re.search(r"/invitations/(\S+)/\n", str(sent[-1].body))
    assert found
    return found[1]


def test_an_invited_person_joins_with_the_role_and_the_end(acme: World, sent: list[mail.EmailMessage]) -> None:
    made = acme.person().post(
        f"/v2/invitations?organization_id={acme.id}",
        {"email": "Eve@Example.com", "role": "auditor", "ends_at": SOON.isoformat()},
    )
    assert made.status == 201, made.text
    with org_scope(acme.id):
        invitation = Invitation.objects.get()
    token = link(acme, invitation, sent)
    assert token.rpartition(".")[2] not in made.text
    assert sent[0].to == ["Eve@example.com"] or sent[0].to == ["Eve@Example.com"]
    eve = person("eve@example.com")
    confirm_address(eve)
    joined = Caller(user=eve).post("/v2/invitations/accept", {"token": token})
    assert joined.status == 200, joined.text
    access = access_org(eve, acme.id)
    assert access.role is Role.AUDITOR
    with org_scope(acme.id):
        membership = Membership.objects.get(user=eve)
        assert membership.ends_at is not None
        membership.ends_at = datetime.now(UTC) - timedelta(seconds=1)
        membership.save()
    with pytest.raises(NotFound):
        access_org(eve, acme.id)


def test_a_link_opens_once_for_the_invited_person_only(acme: World, sent: list[mail.EmailMessage]) -> None:
    invitation = invitations.invite(acme.owner, email="eve@example.com", role="viewer")
    token = link(acme, invitation, sent)
    with pytest.raises(Forbidden, match=r"eve@example\.com"):
        invitations.accept_invitation(person("mallory@example.com"), token)
    eve = person("eve@example.com")
    confirm_address(eve)
    invitations.accept_invitation(eve, token)
    with pytest.raises(Conflict):
        invitations.accept_invitation(eve, token)


def test_a_link_alone_makes_nobody_a_member_whose_address_nobody_has_confirmed(
    acme: World, sent: list[mail.EmailMessage], settings: Settings
) -> None:
    """Whoever gets hold of the link can sign up under the address where no mail server asks whose it is."""
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "invitation_codes": "3/60"}
    made = acme.person().post(
        f"/v2/invitations?organization_id={acme.id}", {"email": "eve@example.com", "role": "admin"}
    )
    code = made.body["code"]
    with org_scope(acme.id):
        invitation = Invitation.objects.get()
    token = link(acme, invitation, sent)
    assert code
    assert code not in str(sent[-1].body)
    mallory = Caller(user=person("eve@example.com"))
    assert mallory.post("/v2/invitations/accept", {"token": token}).code == "code_missing"
    for wrong in ("aaaa-aaaa", "x", "2222-2222"):
        assert mallory.post("/v2/invitations/accept", {"token": token, "code": wrong}).code == "wrong_code"
    assert mallory.post("/v2/invitations/accept", {"token": token, "code": code}).status == 429  # guessing is bounded
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "invitation_codes": "1000/6000"}  # as when time has passed
    joined = mallory.post("/v2/invitations/accept", {"token": token, "code": code.upper().replace("-", " ")})
    assert (joined.status, joined.body["role"]) == (200, "admin")


def test_a_code_is_for_who_manages_members_goes_with_its_link_and_only_where_it_is_needed(
    acme: World, settings: Settings
) -> None:
    invitation = invitations.invite(acme.owner, email="eve@example.com", role="viewer")
    former = invitations.code_of(invitation)
    present = invitations.code_of(invitations.resend_invitation(acme.owner, invitation.pk))
    assert present != former
    url = f"/v2/invitations?organization_id={acme.id}"
    [shown] = acme.person().get(url).body["data"]
    assert shown["code"] == present
    [hidden] = acme.person(Role.VIEWER).get(url).body["data"]
    assert hidden["code"] is None
    settings.ACCOUNT_EMAIL_VERIFICATION = "mandatory"
    [needless] = acme.person().get(url).body["data"]
    assert needless["code"] is None


def test_forged_resent_revoked_and_expired_links_do_not_open(acme: World, sent: list[mail.EmailMessage]) -> None:
    invitation = invitations.invite(acme.owner, email="eve@example.com", role="viewer")
    old = link(acme, invitation, sent)
    changed = old[:-1] + ("0" if old[-1] != "0" else "1")
    for forged in (changed, old.rpartition(".")[0] + ".", "x", "inv_a.b", "\u00e9."):
        with pytest.raises(NotFound):
            invitations.read_link(forged)
    invitation = invitations.resend_invitation(acme.owner, invitation.pk)
    with pytest.raises(NotFound):
        invitations.read_link(old)
    new = link(acme, invitation, sent)
    assert invitations.read_link(new).organization == "Acme"
    invitations.revoke_invitation(acme.owner, invitation.pk)
    with pytest.raises(Conflict, match="revoked"):
        invitations.read_link(new)
    again = invitations.invite(acme.owner, email="eve@example.com", role="viewer")
    with org_scope(acme.id):
        Invitation.objects.filter(pk=again.pk).update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
        again.refresh_from_db()
    with pytest.raises(DomainError):
        invitations.read_link(invitations.link_of(again).rstrip("/").rpartition("/")[2])


def test_nobody_invites_beyond_their_own_role_or_twice(acme: World, limit: Callable[[str, str], None]) -> None:
    admin = member(acme.owner.org, Role.ADMIN)
    with pytest.raises(Forbidden):
        invitations.invite(admin, email="eve@example.com", role="owner")
    invitations.invite(admin, email="eve@example.com", role="admin")
    with pytest.raises(Conflict):
        invitations.invite(admin, email="EVE@example.com", role="viewer")
    assert admin.user is not None
    with pytest.raises(Conflict):
        invitations.invite(acme.owner, email=admin.user.email, role="viewer")
    for email, role in (("nonsense", "viewer"), ("x@example.com", "king")):
        with pytest.raises(Invalid):
            invitations.invite(acme.owner, email=email, role=role)
    redis_client().flushall()
    limit("invitations", "1/3600")
    invitations.invite(acme.owner, email="first@example.com", role="viewer")
    with pytest.raises(Limit):
        invitations.invite(acme.owner, email="second@example.com", role="viewer")


def test_members_are_changed_by_those_who_may(acme: World) -> None:
    owner, admin = acme.person(), acme.person(Role.ADMIN)
    viewer = member(acme.owner.org, Role.VIEWER)
    with org_scope(acme.id):
        ids = {row.user_id: row.pk for row in Membership.objects.all()}
    assert acme.owner.user is not None
    assert viewer.user is not None
    assert admin.user is not None
    first, other = ids[acme.owner.user.pk], ids[viewer.user.pk]
    query = f"?organization_id={acme.id}"
    assert admin.patch(f"/v2/members/{other}{query}", {"role": "developer"}).body["role"] == "developer"
    assert admin.patch(f"/v2/members/{other}{query}", {"role": "owner"}).code == "owners_only"
    assert admin.patch(f"/v2/members/{first}{query}", {"role": "viewer"}).code == "owners_only"
    assert admin.delete(f"/v2/members/{first}{query}").code == "owners_only"
    assert owner.patch(f"/v2/members/{first}{query}", {"role": "viewer"}).code == "own_role"
    assert owner.delete(f"/v2/members/{first}{query}").code == "last_owner"
    assert owner.patch(f"/v2/members/{other}{query}", {"ends_at": "2001-01-01T00:00:00Z"}).code == "end_past"
    assert owner.patch(f"/v2/members/{other}{query}", {"ends_at": SOON.isoformat()}).body["ends_at"]
    assert Caller(user=viewer.user).delete(f"/v2/members/{other}{query}").status == 204
    assert Caller(user=viewer.user).get(f"/v2/members{query}").status == 404
    with org_scope(acme.id):
        kinds = list(Event.objects.order_by("ts").values_list("kind", flat=True))
    assert kinds.count("member.changed") == 2
    assert kinds.count("member.removed") == 1


def test_ownership_is_handed_over_by_a_person_who_confirms(acme: World) -> None:
    heir = member(acme.owner.org, Role.VIEWER)
    with org_scope(acme.id):
        pk = Membership.objects.get(user=heir.user).pk
    owner = acme.person()
    owner.confirm(at=time.time() - 400)
    url = f"/v2/organizations/{acme.id}/transfer"
    assert owner.post(url, {"member_id": pk}).code == "reauthentication_required"
    owner.confirm()
    assert owner.post(url, {"member_id": pk}).status == 200
    assert heir.user is not None
    assert acme.owner.user is not None
    assert access_org(heir.user, acme.id).role is Role.OWNER
    assert access_org(acme.owner.user, acme.id).role is Role.ADMIN
    with pytest.raises(Conflict):
        members.transfer_ownership(access_org(heir.user, acme.id), pk)


def test_an_organization_is_created_changed_and_listed(acme: World) -> None:
    owner = acme.person()
    made = owner.post("/v2/organizations", {"name": "Second"})
    assert made.status == 201
    assert re.fullmatch(r"org_[a-z2-7]{12}", made.body["id"])
    assert {row["name"] for row in owner.get("/v2/organizations").body["data"]} == {"Acme", "Second"}
    change = {"name": "Renamed", "allowed_origins": ["https://app.example.com/", "http://localhost:3000"]}
    changed = owner.patch(f"/v2/organizations/{made.body['id']}", change)
    assert changed.body["allowed_origins"] == ["http://localhost:3000", "https://app.example.com"]
    assert changed.body["name"] == "Renamed"
    assert changed.body["publish_while_split"] == "accept"
    changed = owner.patch(f"/v2/organizations/{made.body['id']}", {"publish_while_split": "refuse"})
    assert changed.body["publish_while_split"] == "refuse"
    assert owner.patch(f"/v2/organizations/{acme.id}", {"publish_while_split": "maybe"}).status == 422
    for wrong in (
        "*",
        "http://example.com",
        "https://x.com/path",
        "null",
        "https://a b.com",
        "ftp://x.com",
        "https://",
    ):
        assert owner.patch(f"/v2/organizations/{acme.id}", {"allowed_origins": [wrong]}).code == "bad_origin", wrong


def test_operators_suspend_and_limit_and_it_stands_in_the_audit(acme: World, operator: Caller) -> None:
    url = f"/v2/organizations/{acme.id}"
    assert operator.post(f"{url}/suspend", {"reason": "unpaid"}).body["status"] == "suspended"
    token = acme.caller().post("/v2/tokens/create", {"user_email": "ada@example.com"})
    assert (token.status, token.code) == (401, "unauthorized")
    assert operator.post(f"{url}/resume").body["status"] == "active"
    assert operator.patch(f"{url}/quotas", {"connections": 5}).body["connections"] == 5
    assert acme.caller().get("/v2/quotas").body["connections"] == 5
    assert acme.person().patch(f"{url}/quotas", {"connections": 6}).status == 404
    with org_scope(acme.id):
        actors = set(Event.objects.filter(kind__in=["org.suspended", "org.updated"]).values_list("actor", flat=True))
    assert {actor.partition(":")[0] for actor in actors} == {"operator"}


def test_deletion_waits_can_be_undone_and_then_leaves_nothing(
    acme: World, rival: World, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, url = acme.person(), f"/v2/organizations/{acme.id}"
    issue_credential(acme.owner, username="device")
    issue_credential(rival.owner, username="device")
    assert owner.delete(url, {"confirm": "Wrong"}).code == "not_confirmed"
    begun = owner.delete(url, {"confirm": "Acme"})
    assert (begun.status, begun.body["status"]) == (202, "deleting")
    assert owner.post(f"{url}/restore").body["status"] == "active"
    owner.delete(url, {"confirm": "Acme"})
    exported = owner.get(f"{url}/export").body
    assert [user["username"] for user in exported["users"]] == ["device"]
    assert deletion.purge_due() == 0
    with org_scope(acme.id):
        Organization.objects.update(delete_after=datetime.now(UTC) - timedelta(seconds=1))
    nowhere = Redis.from_url("redis://127.0.0.1:1/0", socket_connect_timeout=0.2)
    with monkeypatch.context() as away:
        away.setattr("orgs.tasks.client", lambda: nowhere)
        away.setattr("cloudsignal.outbox._send", lambda task, payload: (_ for _ in ()).throw(OSError("away")))
        assert deletion.purge_due() == 0
        with databases.admin() as admin:
            admin.execute("UPDATE orgs_deletion SET noticed_at = now() - interval '7 days'")
        assert deletion.purge_due() == 1
    assert deletion.purge_due() == 0
    assert list(redis_client().scan_iter(match=keys.credential(acme.id, "*")))
    with platform_scope():
        row = OutboxRow.objects.get(task="orgs.tasks.forget_organization")
    tasks.forget_organization.run(**row.payload)  # as a worker does once Redis is back
    assert owner.get(url).status == 404
    assert not list(redis_client().scan_iter(match=keys.credential(acme.id, "*")))
    last = open_bundle(redis_client().hget(keys.bundle(acme.id), keys.FIELD), signing_key().public_key(), org=acme.id)
    assert (last.status, last.policy) == ("deleted", b"")
    assert list(redis_client().scan_iter(match=keys.credential(rival.id, "*")))
    with platform_scope():
        assert not Event.objects.filter(org_id=acme.id).exists()
        left = Event.objects.get(org_id="platform", kind="org.deleted")
        assert left.before == {"id": acme.id, "name": "Acme"}
        assert Event.objects.filter(org_id=rival.id).exists()
