"""Pages of dangerous actions: export, revoke everything, delete the organization, cancel its deletion."""

from __future__ import annotations

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone

from acl.access import list_versions
from audit.kinds import CloseCause
from cloudsignal.errors import DomainError
from cloudsignal.web.confirm import Download, Impact, Question, confirm
from cloudsignal.web.formatting import plural
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.access.web.reauthentication import ask_again
from orgs.credentials.identities import revoke_everything
from orgs.credentials.reads import credential_counts
from orgs.models import Organization
from orgs.organizations.deletion import GRACE, delete_organization, restore_organization
from orgs.organizations.export import export_archive
from orgs.organizations.forms import DeleteForm
from orgs.people.reads import list_members
from orgs.permissions import Permission
from orgs.sessions.reads import sessions_or_none
from orgs.sessions.web.progress import follow


@org_page(Permission.ORG_UPDATE)
def index(request: HttpRequest, access: Access) -> HttpResponseBase:
    """List the dangerous actions, each with the roles that may take it."""
    context = {
        "org": access.org,
        "grace_days": GRACE.days,
        "may_delete": access.may(Permission.ORG_DELETE),
        "may_transfer": access.may(Permission.ORG_TRANSFER),
        "operator": access.user is not None and access.user.is_operator,
    }
    return render(request, "orgs/danger.html", context)


@org_page(Permission.ORG_UPDATE, one_transaction=False)
def export(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Stream the export archive of the organization; it contains no secrets and no hashes of them."""
    answer = StreamingHttpResponse(export_archive(access), content_type="application/zip")
    answer.headers["Content-Disposition"] = f'attachment; filename="{access.org_id}.zip"'
    return answer


@org_page(Permission.ORG_UPDATE, write=Permission.CREDENTIALS_MANAGE, methods=("GET", "POST"), one_transaction=False)
def revoke_all(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Revoke every credential, which closes every session."""
    ask_again(request)
    if request.method == "POST":
        clicked_at, sessions = timezone.now(), sessions_or_none(access)
        ended = revoke_everything(access)
        what = f"Revoked {plural(ended.credentials, 'credential')} of {plural(ended.identities, 'username')}."
        live, cause = None if sessions is None else len(sessions), CloseCause.REVOKED
        return follow(request, access.org_id, what=what, clicked_at=clicked_at, sessions=live, cause=cause)
    counts = credential_counts(access)
    question = Question(
        title=f"Revoke every credential of {access.org.name}?",
        text="Every client is disconnected within a second and needs a new credential, static ones included. "
        "API keys and identity providers stay active and can issue new credentials.",
        impact=[
            _sessions(access),
            Impact(f"{counts.active:,}", "credential revoked" if counts.active == 1 else "credentials revoked"),
            Impact(f"{counts.static:,}", "of them static, usually in devices"),
        ],
        action="Revoke every credential",
        url=reverse("orgs:revoke-all", args=[access.org_id]),
        cancel=reverse("orgs:danger", args=[access.org_id]),
    )
    return confirm(request, question)


@org_page(Permission.ORG_DELETE, methods=("GET", "POST"))
def delete(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Schedule the deletion, after the impact was shown and the name was typed."""
    ask_again(request)
    form = DeleteForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            delete_organization(access, confirm=form.value("confirm"))
        except DomainError as error:
            form.refuse(error)
        else:
            messages.warning(
                request, f"{access.org.name} will be deleted in {GRACE.days} days. Until then you can cancel."
            )
            return redirect("orgs:danger", access.org_id)
    return confirm(request, _deletion(access), form)


@org_page(Permission.ORG_DELETE, methods=("POST",))
def restore(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Cancel the deletion."""
    org = restore_organization(access)
    suspended = org.status == Organization.Status.SUSPENDED
    clients = "It is still suspended, so its clients cannot connect." if suspended else "Its clients can connect again."
    messages.success(request, f"The deletion of {org.name} is canceled. {clients}")
    return redirect("orgs:danger", access.org_id)


def _deletion(access: Access) -> Question:
    counts, versions, members = credential_counts(access), list_versions(access), list_members(access)
    return Question(
        title=f"Delete {access.org.name}?",
        text=f"Clients are disconnected now. For {GRACE.days} days an owner can cancel the deletion; then all data is "
        "deleted: in the database, in Redis, at the edges and in the broker. Earlier backups keep it until they are "
        "deleted.",
        first=Download("Export data first", reverse("orgs:export", args=[access.org_id])),
        impact=[
            _sessions(access),
            Impact(f"{counts.active:,}", "credential that is revoked" if counts.active == 1 else
                    "credentials that are revoked"),
            Impact(f"{counts.identities:,}", "username deleted" if counts.identities == 1 else "usernames deleted"),
            Impact(f"{len(versions):,}", "policy version deleted" if len(versions) == 1 else
                    "policy versions deleted"),
            Impact(f"{len(members):,}", "member who loses access" if len(members) == 1 else "members who lose access"),
            Impact("all", "of its audit log deleted"),
        ],
        action="Delete the organization",
        url=reverse("orgs:delete", args=[access.org_id]),
        cancel=reverse("orgs:danger", args=[access.org_id]),
    )  # fmt: skip


def _sessions(access: Access) -> Impact:
    sessions = sessions_or_none(access)
    if sessions is None:
        return Impact("?", "live sessions closed (the number is unavailable)")
    return Impact(f"{len(sessions):,}", "live session closed now" if len(sessions) == 1 else "live sessions closed now")
