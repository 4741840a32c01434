"""Pages: members and invitations."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse

from cloudsignal.addresses import network_of
from cloudsignal.errors import DomainError, Forbidden, Invalid, NotFound, Unauthenticated
from cloudsignal.limits import take
from cloudsignal.web.confirm import Impact, Question, confirm
from cloudsignal.web.forms import Form
from orgs.access.grants import Access
from orgs.access.web.gate import address_of, org_page, public_page
from orgs.access.web.reauthentication import ask_again
from orgs.models import Invitation, Membership, User
from orgs.people.forms import ROLE_WORDS, CodeForm, InviteForm, MemberForm
from orgs.people.invitations import (
    accept_invitation,
    code_of,
    codes_are_needed,
    get_invitation,
    invite,
    is_for,
    list_invitations,
    needs_code,
    read_link,
    resend_invitation,
    revoke_invitation,
)
from orgs.people.members import change_member, get_member, remove_member, transfer_ownership
from orgs.people.reads import has_ended, list_members
from orgs.permissions import Permission, Role


@dataclass(frozen=True, slots=True)
class Row:
    """A member, with the actions that the viewer may take."""

    member: Membership
    ended: bool
    mine: bool
    may_change: bool
    may_transfer: bool


@dataclass(frozen=True, slots=True)
class Invited:
    """A pending invitation, with its code if the viewer may see it."""

    invitation: Invitation
    code: str


@org_page(Permission.ORG_READ)
def index(request: HttpRequest, access: Access) -> HttpResponseBase:
    """List members by email address, and pending invitations, newest first."""
    members = list_members(access)
    context = {
        "rows": [_row(access, member) for member in members],
        "invitations": [_invited(access, one) for one in list_invitations(access) if one.state in {"open", "expired"}],
        "may_manage": access.may(Permission.MEMBERS_MANAGE),
        "may_update": access.may(Permission.ORG_UPDATE),
        "two_step": access.org.mfa_required,
        "may_leave": any(_mine(access, member) for member in members),
        "roles": [(role.value.title(), words) for role, words in ROLE_WORDS.items()],
    }
    return render(request, "orgs/people.html", context)


@org_page(Permission.MEMBERS_MANAGE, methods=("GET", "POST"))
def new(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Invite a member by email."""
    form = InviteForm(access, request.POST if request.method == "POST" else None, initial={"role": Role.DEVELOPER})
    _ask_again_for_owners(request)
    if request.method == "POST" and form.is_valid():
        try:
            made = invite(access, email=form.value("email"), role=form.value("role"), ends_at=form.ends_at())
        except DomainError as error:
            _refuse(form, error)
        else:
            messages.success(
                request, f"{made.email} is invited as {made.role}. The link works for a week.{_code(made)}"
            )
            return redirect("orgs:people", access.org_id)
    return render(request, "orgs/people_invite.html", {"form": form}, status=422 if form.errors else 200)


@org_page(Permission.MEMBERS_MANAGE, methods=("POST",))
def resend(request: HttpRequest, access: Access, invitation_id: str) -> HttpResponseBase:
    """Resend an invitation; the earlier link stops working."""
    again = resend_invitation(access, invitation_id)
    messages.success(request, f"Sent to {again.email} again. Only the new link works, for a week.{_code(again)}")
    return redirect("orgs:people", access.org_id)


@org_page(Permission.MEMBERS_MANAGE, methods=("GET", "POST"))
def revoke(request: HttpRequest, access: Access, invitation_id: str) -> HttpResponseBase:
    """Revoke an invitation."""
    if request.method == "POST":
        gone = revoke_invitation(access, invitation_id)
        messages.success(request, f"The invitation of {gone.email} is revoked.")
        return redirect("orgs:people", access.org_id)
    found = get_invitation(access, invitation_id)
    question = Question(
        title=f"Revoke the invitation of {found.email}?",
        text="The link stops working at once. You can invite the same address again.",
        impact=[Impact("1", f"invitation as {found.role}")],
        action="Revoke the invitation",
        url=reverse("orgs:invitation-revoke", args=[access.org_id, invitation_id]),
        cancel=reverse("orgs:people", args=[access.org_id]),
    )
    return confirm(request, question)


@org_page(Permission.MEMBERS_MANAGE, methods=("GET", "POST"))
def change(request: HttpRequest, access: Access, member_id: int) -> HttpResponseBase:
    """Change a member's role and expiry."""
    member = get_member(access, member_id)
    if not _may_change(access, member):
        raise Forbidden("owners_only", "Only an owner can change an owner, and you cannot change your own role.")
    initial = {"role": member.role, "ends_on": member.ends_at.date() if member.ends_at else None}
    form = MemberForm(access, request.POST if request.method == "POST" else None, initial=initial)
    _ask_again_for_owners(request)
    if request.method == "POST" and form.is_valid():
        keep = "ends_on" not in form.changed_data
        try:
            after = change_member(access, member_id, role=form.value("role"), ends_at=form.ends_at(), keep_end=keep)
        except DomainError as error:
            _refuse(form, error)
        else:
            messages.success(request, f"{after.user.email} is {after.role} now.")
            return redirect("orgs:people", access.org_id)
    return render(
        request, "orgs/people_member.html", {"form": form, "member": member}, status=422 if form.errors else 200
    )


@org_page(Permission.MEMBERS_MANAGE, methods=("GET", "POST"))
def remove(request: HttpRequest, access: Access, member_id: int) -> HttpResponseBase:
    """Remove a member."""
    member = get_member(access, member_id)
    if request.method == "POST":
        remove_member(access, member_id)
        messages.success(request, f"{member.user.email} is no longer a member.")
        return redirect("orgs:list" if _mine(access, member) else "orgs:people", *_target(access, member))
    if not (_may_change(access, member) or _mine(access, member)):
        raise Forbidden("owners_only", "Only an owner can remove an owner.")
    return confirm(request, _going(access, member, reverse("orgs:member-remove", args=[access.org_id, member_id])))


@org_page(Permission.ORG_READ, methods=("GET", "POST"))
def leave(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Leave the organization; every member may, except the last owner."""
    member = next((one for one in list_members(access) if _mine(access, one)), None)
    if member is None:
        raise NotFound("Your membership")
    if request.method == "POST":
        remove_member(access, member.pk)
        messages.success(request, f"You have left {access.org.name}.")
        return redirect("orgs:list")
    return confirm(request, _going(access, member, reverse("orgs:leave", args=[access.org_id])))


@org_page(Permission.ORG_TRANSFER, methods=("GET", "POST"))
def transfer(request: HttpRequest, access: Access, member_id: int) -> HttpResponseBase:
    """Transfer ownership to another member."""
    member = get_member(access, member_id)
    ask_again(request)
    if request.method == "POST":
        heir = transfer_ownership(access, member_id)
        messages.success(request, f"{heir.user.email} owns {access.org.name} now; you are an administrator.")
        return redirect("orgs:people", access.org_id)
    question = Question(
        title=f"Make {member.user.email} the owner?",
        text="Only the new owner can undo this. You become an administrator, whom the owner can remove.",
        impact=[
            Impact("1", f"new owner, {member.role} until now"),
            Impact("1", "owner fewer: you become an administrator"),
        ],
        action="Transfer ownership",
        url=reverse("orgs:member-transfer", args=[access.org_id, member_id]),
        cancel=reverse("orgs:people", args=[access.org_id]),
    )
    return confirm(request, question)


@public_page(methods=("GET", "POST"))
def accept(request: HttpRequest, token: str) -> HttpResponseBase:
    """Show an invitation by its link, and accept it as the invited person. The link authenticates the request."""
    take("public", network_of(address_of(request)))
    offer = read_link(token)
    user = request.user if isinstance(request.user, User) else None
    if request.method == "POST":
        if user is None:
            raise Unauthenticated("not_signed_in", "Sign in first.")
        form = CodeForm(request.POST)
        try:
            joined = accept_invitation(user, token, code=str(form["code"].value() or ""), ip=address_of(request))
        except Invalid as error:
            form.refuse(error)
        else:
            messages.success(request, f"Welcome to {offer.organization}. Your role is {joined.role}.")
            return redirect("platform:home", joined.org_id)
    else:
        form = CodeForm()
    context = {
        "offer": offer,
        "words": ROLE_WORDS[Role(offer.invitation.role)],
        "person": user,
        "fits": user is not None and is_for(offer.invitation, user),
        "form": form if user is not None and needs_code(user) else None,
    }
    return render(request, "orgs/invitation.html", context, status=422 if form.errors else 200)


def _invited(access: Access, invitation: Invitation) -> Invited:
    shown = access.may(Permission.MEMBERS_MANAGE) and codes_are_needed() and invitation.state == "open"
    return Invited(invitation, code_of(invitation) if shown else "")


def _code(invitation: Invitation) -> str:
    if not codes_are_needed():
        return ""
    return f" No mail server confirms addresses here: give them the code {code_of(invitation)} too, separately."


def _ask_again_for_owners(request: HttpRequest) -> None:
    """Require step-up to make somebody an owner, as for a transfer of ownership."""
    if request.POST.get("role") == Role.OWNER:
        ask_again(request)


def _refuse(form: Form, error: DomainError) -> None:
    """Map the service's field ``ends_at`` to the form's field for a day."""
    if error.field == "ends_at":
        error.field = "ends_on"
    form.refuse(error)


def _row(access: Access, member: Membership) -> Row:
    may_change = access.may(Permission.MEMBERS_MANAGE) and _may_change(access, member)
    may_transfer = access.may(Permission.ORG_TRANSFER) and not _mine(access, member) and not has_ended(member)
    return Row(member, has_ended(member), _mine(access, member), may_change, may_transfer and member.role != Role.OWNER)


def _mine(access: Access, member: Membership) -> bool:
    return access.user is not None and access.user.pk == member.user_id


def _may_change(access: Access, member: Membership) -> bool:
    return not _mine(access, member) and (access.role is Role.OWNER or member.role != Role.OWNER)


def _target(access: Access, member: Membership) -> tuple[str, ...]:
    return () if _mine(access, member) else (access.org_id,)


def _going(access: Access, member: Membership, url: str) -> Question:
    mine = _mine(access, member)
    others = [one for one in list_members(access) if one.pk != member.pk and not has_ended(one)]
    owners = sum(one.role == Role.OWNER for one in others)
    left = "owner stays" if owners == 1 else "owners stay"
    impact = [Impact("1", f"membership as {member.role}"), Impact(f"{owners}", left)]
    return Question(
        title=f"Leave {access.org.name}?" if mine else f"Remove {member.user.email}?",
        text=("You lose access now" if mine else "They lose access now")
        + " and need a new invitation to come back. Their CLI sessions are closed. Credentials and API keys that they "
        "issued stay active: revoke those separately.",
        impact=impact,
        action="Leave the organization" if mine else "Remove the member",
        url=url,
        cancel=reverse("orgs:people", args=[access.org_id]),
    )
