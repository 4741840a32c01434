"""Invitations: a signed link by email that expires and can be resent (earlier links stop working) or revoked.

The link's signature is made from the server's key and the invitation's row; nothing that opens it is stored.

An invitation is for an address. Where no mail server has confirmed that the address is the person's, anybody who comes
by the link could sign up under it: there the inviter sees a code, gives it to the person by another way, and it is
asked for beside the link.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from allauth.account.models import EmailAddress
from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.mail import send_mail
from django.core.validators import validate_email
from django.utils import timezone

from audit import kinds
from audit.services.record import record
from cloudsignal import ids, outbox
from cloudsignal.addresses import fold_address
from cloudsignal.errors import Conflict, Forbidden, Invalid, Limit, NotFound
from cloudsignal.limits import check, take
from cloudsignal.secrets.sealing import derive
from cloudsignal.task_names import SEND_INVITATION
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.acting_key import hold_acting_key
from orgs.access.grants import Access
from orgs.access.rows import get_or_404
from orgs.models import Invitation, Membership, Organization, User
from orgs.people.members import add_member, check_end, check_grant, clean_role
from orgs.permissions import PERMISSIONS, Permission, Role

LIFETIME = timedelta(days=7)
OPEN_MAX = 200
"""Maximum number of pending invitations of an organization."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The invitation behind a link, to show before it is accepted."""

    invitation: Invitation
    organization: str


def invite(access: Access, *, email: str, role: str, ends_at: datetime | None = None) -> Invitation:
    """Invite a person as ``role``; the membership expires at ``ends_at`` (time-boxed auditors).

    Raises :class:`Invalid`, :class:`Conflict` for members and the already invited, :class:`Forbidden` when the role is
    beyond what ``access`` may give, and :class:`Limit`.
    """
    access.require(Permission.MEMBERS_MANAGE)
    wanted = clean_role(role)
    check_grant(access, wanted)
    check_end(wanted, ends_at)
    address = _clean(email)
    take("invitations", access.org_id)
    now = timezone.now()
    with org_scope(access.org_id):
        hold_acting_key(access)
        Organization.objects.select_for_update().get(pk=access.org_id)
        _not_known(access, address, now)
        invitation = Invitation.objects.create(
            id=ids.invitation_id(access.org_id),
            org=access.org,
            email=address,
            role=wanted,
            ends_at=ends_at,
            invited_by=access.actor,
            expires_at=now + LIFETIME,
        )
        _announce(access, invitation)
    return invitation


def resend_invitation(access: Access, invitation_id: str) -> Invitation:
    """Resend an invitation with a new link and a new week; earlier links stop working."""
    access.require(Permission.MEMBERS_MANAGE)
    take("invitations", access.org_id)
    with org_scope(access.org_id):
        invitation = _locked(access.org_id, invitation_id)
        if invitation.state not in {"open", "expired"}:
            raise Conflict(f"invitation_{invitation.state}", f"This invitation is {invitation.state}.")
        invitation.round += 1
        invitation.expires_at = timezone.now() + LIFETIME
        invitation.save(update_fields=["round", "expires_at"])
        _announce(access, invitation)
    return invitation


def revoke_invitation(access: Access, invitation_id: str) -> Invitation:
    """Revoke the invitation: its link stops working. Revoking twice changes nothing."""
    access.require(Permission.MEMBERS_MANAGE)
    with org_scope(access.org_id):
        invitation = _locked(access.org_id, invitation_id)
        if invitation.accepted_at:
            raise Conflict("invitation_accepted", "It was already accepted; remove the member instead.")
        if invitation.revoked_at is None:
            invitation.revoked_at = timezone.now()
            invitation.save(update_fields=["revoked_at"])
            facts = _facts(invitation)
            record(access, kinds.INVITATION_REVOKED, target=f"invitation:{invitation.email}", before=facts)
    return invitation


def list_invitations(access: Access) -> tuple[Invitation, ...]:
    """List the invitations, newest first."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return tuple(Invitation.objects.filter(org=access.org).order_by("-created_at", "-id")[:500])


def get_invitation(access: Access, invitation_id: str) -> Invitation:
    """Get an invitation; raises :class:`NotFound`."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return get_or_404(Invitation, access.org_id, "The invitation", pk=invitation_id)


def read_link(token: str) -> Offer:
    """Resolve a link to its invitation.

    Raises :class:`NotFound` for a forged or outdated link, and :class:`Conflict` for an invitation that was accepted,
    has expired or was revoked.
    """
    invitation_id, _, signature = token.rpartition(".")
    org_id = ids.org_of_invitation(invitation_id)
    if org_id is None:
        raise NotFound("The invitation")
    with org_scope(org_id):
        found = Invitation.objects.filter(pk=invitation_id).select_related("org").first()
    if found is None or not hmac.compare_digest(_signature(found).encode(), signature.encode("utf-8", "replace")):
        raise NotFound("The invitation")
    if found.state != "open":
        raise Conflict(f"invitation_{found.state}", f"This invitation is {found.state}; request a new one.")
    return Offer(found, found.org.name)


def accept_invitation(user: User, token: str, *, code: str = "", ip: str = "") -> Membership:
    """Accept an invitation as the invited person: the link alone is not enough, it may have been passed on.

    ``code`` is the inviter's, for who :func:`needs_code`; raises :class:`Invalid` (``code_missing``, ``wrong_code``).
    """
    offer = read_link(token)
    owner = offer.invitation.role == Role.OWNER
    if not user.reaches(offer.invitation.org_id) or (owner and user.sso_session is not None):
        raise Forbidden(
            "came_through", "You are signed in through SSO. Sign out and sign in to your own account first."
        )
    if not is_for(offer.invitation, user):
        raise Forbidden(
            "other_address", f"This invitation is for {offer.invitation.email}; sign in with that address to accept it."
        )
    if needs_code(user):
        _check_code(offer.invitation, code)
    with org_scope(offer.invitation.org_id):
        invitation = _locked(offer.invitation.org_id, offer.invitation.pk)
        if invitation.state != "open" or invitation.round != offer.invitation.round:
            raise Conflict(
                "invitation_changed", "This invitation was used or changed in the meantime; request a new one."
            )
        role = clean_role(invitation.role)
        access = Access(invitation.org, user, role, PERMISSIONS[role], f"user:{user.email}", ip)
        membership = add_member(access, user, role=role, ends_at=invitation.ends_at)
        invitation.accepted_at = timezone.now()
        invitation.save(update_fields=["accepted_at"])
    return membership


def needs_code(user: User) -> bool:
    """Whether the person's email address is not yet confirmed."""
    confirmed = EmailAddress.objects.filter(user=user, email__iexact=user.email, verified=True)
    return not confirmed.exists()


def codes_are_needed() -> bool:
    """Whether this installation signs people in without confirmed addresses; then invitations need codes."""
    return bool(settings.ACCOUNT_EMAIL_VERIFICATION != "mandatory")


def code_of(invitation: Invitation) -> str:
    """The invitation code (``k7qm-2xfa``, 40 bits) of the present link; shown to inviters, never in the email."""
    digest = hmac.digest(derive("invitation code"), _signature(invitation).encode(), "sha256")
    text = base64.b32encode(digest).decode().lower()[:8]
    return f"{text[:4]}-{text[4:]}"


def _check_code(invitation: Invitation, code: str) -> None:
    check("invitation_codes", invitation.pk)
    offered = "".join(letter for letter in code.lower() if letter.isalnum())
    if not offered:
        raise Invalid(
            "code_missing",
            "Your email address is not confirmed. Ask the person who invited you for the code.",
            field="code",
        )
    if not hmac.compare_digest(offered.encode(), code_of(invitation).replace("-", "").encode()):
        take("invitation_codes", invitation.pk)
        raise Invalid("wrong_code", "The code is wrong. Ask the person who invited you for the code.", field="code")


def is_for(invitation: Invitation, user: User) -> bool:
    """Whether the invitation was sent to this person's address."""
    return fold_address(user.email) == fold_address(invitation.email)


def link_of(invitation: Invitation) -> str:
    """The secret link of an invitation, for its email only."""
    return f"{settings.PUBLIC_URL}/invitations/{invitation.pk}.{_signature(invitation)}/"


def send_invitation(org_id: str, invitation_id: str) -> bool:
    """Send the email of an invitation; False if it is no longer pending. For the worker: mail servers are slow."""
    with org_scope(org_id):
        found = Invitation.objects.filter(pk=invitation_id).select_related("org").first()
    if found is None or found.state != "open":
        return False
    until = f"{found.expires_at:%d %B %Y, %H:%M} UTC"
    send_mail(
        subject=f"Join {found.org.name} on CloudSignal",
        message=(
            f"You are invited to join {found.org.name} as {found.role}.\n\n{link_of(found)}\n\n"
            f"The link works until {until}, for {found.email} only. If you did not expect it, ignore this email.\n"
        ),
        from_email=None,
        recipient_list=[found.email],
    )
    return True


def _signature(invitation: Invitation) -> str:
    parts = (invitation.pk, invitation.email, invitation.role, str(invitation.round), invitation.expires_at.isoformat())
    message = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
    return hmac.digest(derive("invitation"), message, "sha256").hex()[:40]


def _announce(access: Access, invitation: Invitation) -> None:
    record(access, kinds.INVITATION_SENT, target=f"invitation:{invitation.email}", after=_facts(invitation))
    payload: Mapping[str, str] = {"org": access.org_id, "invitation": invitation.pk}
    outbox.enqueue(SEND_INVITATION, org=access.org_id, key=invitation.pk, payload=payload)


def _not_known(access: Access, address: str, now: datetime) -> None:
    members = Membership.objects.filter(org=access.org, user__email__iexact=address).exclude(ends_at__lte=now)
    if members.exists():
        raise Conflict("member_already", f"{address} is already a member.", field="email")
    waiting = Invitation.objects.filter(org=access.org, accepted_at=None, revoked_at=None)
    same = waiting.filter(email__iexact=address)
    if same.filter(expires_at__gt=now).exists():
        raise Conflict(
            "invited_already", f"{address} is already invited; resend the invitation instead.", field="email"
        )
    same.update(revoked_at=now)
    if waiting.filter(expires_at__gt=now).count() >= OPEN_MAX:
        raise Limit("too_many_invitations", f"At most {OPEN_MAX} invitations can be pending; revoke some first.")


def _locked(org_id: str, invitation_id: str) -> Invitation:
    return get_or_404(Invitation, org_id, "The invitation", lock=True, related=["org"], pk=invitation_id)


def _clean(email: str) -> str:
    address = email.strip()
    try:
        validate_email(address)
    except ValidationError:
        raise Invalid("bad_email", "This is not a valid email address.", field="email") from None
    return address


def _facts(invitation: Invitation) -> dict[str, object]:
    return {
        "id": invitation.pk,
        "email": invitation.email,
        "role": str(invitation.role),
        "ends_at": invitation.ends_at.isoformat() if invitation.ends_at else None,
        "expires_at": invitation.expires_at.isoformat(),
    }
