"""Sign-in through SSO: map an identity provider's assertion to an account and membership, or refuse it.

Whoever runs an organization's identity provider can assert any address there is. So its word opens an account only if
the account was made or linked through the same sign-on, or if the address lies in a domain that an operator approved
for it and the person belongs to that organization and to no other. A session that came this way reaches that
organization only (``User.reaches``), changes nothing about the account, and is never an owner's or an operator's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from allauth.account.models import EmailAddress
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import send_mail
from django.core.validators import validate_email
from django.db import IntegrityError
from django.urls import reverse
from django.utils import timezone

from audit import kinds
from audit.kinds import SignOnReason
from audit.services.record import record
from cloudsignal import ids, outbox
from cloudsignal.errors import NotFound
from cloudsignal.task_names import SEND_LINKED
from cloudsignal.tenancy.scopes import org_scope, platform_scope, user_scope
from orgs.access.grants import Access
from orgs.access.rows import get_or_404
from orgs.models import Invitation, Membership, Organization, SignOnAccount, SingleSignOn, SsoSession, User
from orgs.people.members import add_member
from orgs.permissions import PERMISSIONS, Role
from orgs.sso import saml
from orgs.sso.connections import target_of
from orgs.sso.protocol import Asserted, Refused


@dataclass(frozen=True, slots=True)
class Entry:
    """The outcome of an assertion: the account that signs in, and what is created or linked for it."""

    address: str
    user: User | None
    """None: an account is created."""
    link: bool
    """Whether to link the provider's subject to the account."""
    invitation: Invitation | None
    role: str
    """The role of a new membership; empty for a person who is a member already."""
    verified: bool
    """Whether the address lies in an approved domain."""


@dataclass(frozen=True, slots=True)
class _AnonymousActor:
    """The audit actor of an SSO event before anybody is signed in."""

    org_id: str
    actor: str
    ip: str


def find_sign_on(org_id: str, sign_on_id: str) -> SingleSignOn:
    """Get an SSO connection and its organization for an anonymous visitor; raises :class:`NotFound`."""
    if not ids.ORG.match(org_id):
        raise NotFound("The SSO connection")
    with org_scope(org_id):
        return get_or_404(SingleSignOn, org_id, "The SSO connection", related=["org"], pk=sign_on_id)


def enabled_connections(org_id: str) -> tuple[SingleSignOn, ...]:
    """List the enabled SSO connections of an organization by name; empty for an unknown organization."""
    if not ids.ORG.match(org_id):
        return ()
    with org_scope(org_id):
        rows = SingleSignOn.objects.filter(org_id=org_id, enabled=True).select_related("org").order_by("name")
        return tuple(filter(_works_here, rows))


def ways_for_domain(domain: str) -> tuple[SingleSignOn, ...]:
    """List the enabled SSO connections that an email domain is approved for, with their organizations."""
    if not domain or "\0" in domain:
        return ()
    with platform_scope():
        rows = SingleSignOn.objects.filter(enabled=True, approved_domains__contains=[domain.lower()])
        return tuple(filter(_works_here, rows.select_related("org").order_by("org__name", "name")[:20]))


def _works_here(sign_on: SingleSignOn) -> bool:
    """Whether this installation can speak the connection's protocol: SAML is an extra."""
    return sign_on.kind != SingleSignOn.Kind.SAML or saml.available()


def foresee(sign_on: SingleSignOn, asserted: Asserted) -> Entry:
    """Compute the outcome of a sign-in without signing in; raises :class:`Refused`."""
    with org_scope(sign_on.org_id):
        return _decide(sign_on, asserted)


def enter(sign_on: SingleSignOn, asserted: Asserted, *, ip: str = "") -> User:
    """Resolve an assertion to its user; create account and membership if due. Raises :class:`Refused`."""
    try:
        with org_scope(sign_on.org_id):
            sign_on = _lock_unchanged(sign_on)
            entry = _decide(sign_on, asserted)
            user = entry.user or _make_account(entry, asserted)
            if entry.link:
                _link(sign_on, user, asserted, ip)
                if entry.user is not None:
                    _tell(sign_on, user)
            if entry.role:
                _join(sign_on, user, entry, ip)
    except IntegrityError:
        raise Refused(SignOnReason.ACCOUNT_EXISTS, "This account was just created; sign in again.") from None
    return user


def link(sign_on: SingleSignOn, asserted: Asserted, user: User, *, ip: str = "") -> None:
    """Link the provider's subject to the account of a member who asked for it in a session of their own.

    Raises :class:`Refused` for a subject that is linked to another account, and for a person who is not a member.
    """
    if user.sso_session is not None or user.is_operator or not user.is_active:
        raise Refused(SignOnReason.NOT_ALLOWED, "This account cannot be linked to an SSO connection.")
    with org_scope(sign_on.org_id):
        sign_on = _lock_unchanged(sign_on)
        if not _is_member(sign_on, user):
            raise Refused(SignOnReason.NOT_MEMBER, "You are not a member of this organization.")
        known = SignOnAccount.objects.filter(org_id=sign_on.org_id, sign_on=sign_on)
        if known.filter(subject=asserted.subject).exclude(user=user).exists():
            raise Refused(SignOnReason.LINKED_TO_ANOTHER, "This identity is already linked to another account.")
        _link(sign_on, user, asserted, ip)
        _tell(sign_on, user)


def send_linked(org_id: str, sign_on_id: str, user_id: int) -> bool:
    """Email a person that an SSO connection was linked to their account; False when the link no longer exists.

    For the worker: mail servers are slow.
    """
    with org_scope(org_id):
        known = SignOnAccount.objects.filter(org_id=org_id, sign_on=sign_on_id, user=user_id)
        found = known.select_related("user", "sign_on__org").first()
    if found is None:
        return False
    name, org, address = found.sign_on.name, found.sign_on.org.name, found.user.email
    send_mail(
        subject=f"{name} now signs you in to {org} on CloudSignal",
        message=(
            f"Your account {address} is now linked to {name}, an SSO connection of {org}. {name} can sign you in to "
            f"{org}, to none of your other organizations, and cannot change your account.\n\n"
            f"If that was not you, tell an administrator of {org} and change your password:\n\n"
            f"{settings.PUBLIC_URL}{reverse('account_change_password')}\n"
        ),
        from_email=None,
        recipient_list=[address],
    )
    return True


def refuse(sign_on: SingleSignOn, refused: Refused, asserted: Asserted | None = None, *, ip: str = "") -> None:
    """Record a refused SSO sign-in, and why, in the organization's audit log."""
    after: Mapping[str, object] = {"message": refused.message}
    if asserted is not None:
        after = {**after, "subject": asserted.subject, "email": asserted.email}
    with org_scope(sign_on.org_id):
        actor = _AnonymousActor(sign_on.org_id, target_of(sign_on), ip)
        record(actor, kinds.SIGN_ON_REFUSED, target=target_of(sign_on), after=after, reason=str(refused.reason))


def record_sign_in(session: SsoSession, user: User, *, ip: str = "") -> None:
    """Record a completed SSO sign-in, second factor included, in the organization's audit log."""
    with org_scope(session.org_id):
        sign_on = SingleSignOn.objects.filter(org_id=session.org_id, pk=session.sign_on_id).first()
        if sign_on is not None:
            actor = _AnonymousActor(session.org_id, f"user:{user.email}", ip)
            record(actor, kinds.SIGN_ON_USED, target=target_of(sign_on))


def _decide(sign_on: SingleSignOn, asserted: Asserted) -> Entry:
    known = SignOnAccount.objects.filter(org_id=sign_on.org_id, sign_on=sign_on, subject=asserted.subject)
    account = known.select_related("user").first()
    if account is not None:
        return _returning(sign_on, account.user)
    address = _address(asserted)
    domain = address.rpartition("@")[2]
    approved = domain in sign_on.approved_domains
    existing = User.objects.filter(email__iexact=address).first()
    if existing is not None and approved and _belongs_here_alone(sign_on, existing):
        _check_may(existing)
        return Entry(address, existing, link=True, invitation=None, role="", verified=approved)
    invitation = _invitation(sign_on, address)
    role = invitation.role if invitation else sign_on.role if approved else ""
    if not role and not (existing is not None and _is_member(sign_on, existing)):
        # Said before it is looked whether there is an account: a tenant is not to find out who has one.
        raise Refused(
            SignOnReason.NOT_INVITED, f"{address} is not invited; ask an administrator of {sign_on.org.name}."
        )
    if existing is not None or EmailAddress.objects.filter(email__iexact=address).exists():
        raise Refused(
            SignOnReason.ACCOUNT_EXISTS,
            f"An account for {address} already exists. Sign in to it as usual, then link this SSO connection to it.",
        )
    return Entry(address, None, link=True, invitation=invitation, role=role, verified=approved)


def _returning(sign_on: SingleSignOn, user: User) -> Entry:
    _check_may(user)
    if _is_member(sign_on, user):
        return Entry(user.email, user, link=False, invitation=None, role="", verified=False)
    invitation = _invitation(sign_on, user.email)
    if invitation is None:
        raise Refused(SignOnReason.NOT_MEMBER, f"You are no longer a member of {sign_on.org.name}.")
    return Entry(user.email, user, link=False, invitation=invitation, role=invitation.role, verified=False)


def _lock_unchanged(sign_on: SingleSignOn) -> SingleSignOn:
    """Lock the connection as it is now, until the transaction ends; raises :class:`Refused` unless it is unchanged.

    While the browser was at the provider, an administrator may have disabled, changed or removed the connection, and
    an operator may have withdrawn a domain.
    """
    Organization.objects.select_for_update().get(pk=sign_on.org_id)
    rows = SingleSignOn.objects.select_for_update(of=("self",)).select_related("org")
    found = rows.filter(org_id=sign_on.org_id, pk=sign_on.pk).first()
    if found is None or not found.enabled:
        raise Refused(SignOnReason.NOT_ALLOWED, "This SSO connection is disabled. Ask an administrator to enable it.")
    if found.updated_at != sign_on.updated_at:  # its issuer, client, secret or certificates may be others
        raise Refused(SignOnReason.NOT_ALLOWED, "This SSO connection was changed in the meantime. Sign in again.")
    return found


def _check_may(user: User) -> None:
    """Refuse inactive users, and operators: they reach every organization, so no tenant's provider signs them in."""
    if not user.is_active or user.is_operator:
        raise Refused(SignOnReason.NOT_ALLOWED, "This account cannot sign in through SSO. Use its own sign-in.")


def _address(asserted: Asserted) -> str:
    local, _, domain = asserted.email.strip().rpartition("@")
    address = f"{local}@{domain.lower()}"
    try:
        validate_email(address)
    except ValidationError:
        raise Refused(
            SignOnReason.EMAIL_MISSING,
            "The identity provider sent no email address; configure it to send the email claim.",
        ) from None
    if len(address) > 254 or not address.isprintable():
        raise Refused(SignOnReason.EMAIL_MISSING, "The identity provider sent an invalid email address.")
    if not asserted.email_verified:
        raise Refused(
            SignOnReason.EMAIL_UNVERIFIED,
            f"The identity provider does not say that {address} is verified (email_verified).",
        )
    return address


def _belongs_here_alone(sign_on: SingleSignOn, user: User) -> bool:
    """Whether the user is a member of this organization only, so that signing in as them reaches nothing else."""
    if not _is_member(sign_on, user):
        return False
    with user_scope(user.pk):
        return not Membership.objects.filter(user=user).exclude(org_id=sign_on.org_id).exists()


def _is_member(sign_on: SingleSignOn, user: User) -> bool:
    rows = Membership.objects.filter(org_id=sign_on.org_id, user=user)
    return rows.exclude(ends_at__lte=timezone.now()).exists()


def _invitation(sign_on: SingleSignOn, address: str) -> Invitation | None:
    """Get the open invitation of an address; an invitation as owner must be accepted by its link."""
    rows = Invitation.objects.filter(org_id=sign_on.org_id, email__iexact=address, accepted_at=None, revoked_at=None)
    return rows.filter(expires_at__gt=timezone.now()).exclude(role=Role.OWNER).first()


def _make_account(entry: Entry, asserted: Asserted) -> User:
    """Create an account without a password. Its address is verified if an operator approved the domain."""
    user = User.objects.create_user(entry.address, name=asserted.name)
    EmailAddress.objects.create(user=user, email=user.email, verified=entry.verified, primary=True)
    return user


def _link(sign_on: SingleSignOn, user: User, asserted: Asserted, ip: str) -> None:
    """Link a subject to an account; a person recreated at the provider gets the new subject instead of the old one."""
    theirs = SignOnAccount.objects.filter(org_id=sign_on.org_id, sign_on=sign_on, user=user)
    before = theirs.values("subject").first()
    theirs.delete()
    SignOnAccount.objects.create(org_id=sign_on.org_id, sign_on=sign_on, user=user, subject=asserted.subject)
    actor = _AnonymousActor(sign_on.org_id, f"user:{user.email}", ip)
    after = {"email": user.email, "subject": asserted.subject, "asserted": asserted.email}
    record(actor, kinds.SIGN_ON_LINKED, target=target_of(sign_on), before=before, after=after)


def _tell(sign_on: SingleSignOn, user: User) -> None:
    """Enqueue the email about a link to an account that existed before the sign-in."""
    payload = {"org": sign_on.org_id, "sign_on": sign_on.pk, "user": str(user.pk)}
    outbox.enqueue(SEND_LINKED, org=sign_on.org_id, key=f"{sign_on.pk}/{user.pk}", payload=payload)


def _join(sign_on: SingleSignOn, user: User, entry: Entry, ip: str) -> None:
    role = Role(entry.role)
    access = Access(sign_on.org, user, role, PERMISSIONS[role], f"user:{user.email}", ip)
    invitation = entry.invitation
    add_member(access, user, role=role, ends_at=invitation.ends_at if invitation else None)
    if invitation is not None:
        invitation.accepted_at = timezone.now()
        invitation.save(update_fields=["accepted_at"])
