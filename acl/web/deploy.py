"""Pages: compare the draft with the active version, deploy it, and follow the nodes' acknowledgements."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render

from acl import bench
from acl.access import current_deployment, deployment_progress, get_draft
from acl.forms import DeployForm
from acl.services import examination
from acl.services.deployments import deploy
from acl.web.textdiff import diff
from cloudsignal.errors import DomainError
from cloudsignal.web.confirm import Impact
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.permissions import Permission
from orgs.sessions.reads import sessions_or_none

STOP_POLLING = 286
"""htmx stops a poll that is answered with this status."""


@org_page(Permission.ORG_READ)
def review(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Show what a deployment would change: difference, findings, tests and impact."""
    return _review(request, access, DeployForm())


@org_page(Permission.POLICY_DEPLOY, methods=("POST",))
def deploy_view(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Deploy the draft that was reviewed; then its progress."""
    form = DeployForm(request.POST)
    if not form.is_valid():
        return _review(request, access, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    try:
        deployment = deploy(
            access, note=form.value("note"), if_match=form.value("etag") or None, over=form.value("deployment")
        )
    except DomainError as error:
        form.refuse(error)
        return _review(request, access, form, status=error.status)
    return redirect("acl:deployment", access.org_id, deployment.pk)


@org_page(Permission.ORG_READ)
def deployment(request: HttpRequest, access: Access, deployment_id: str) -> HttpResponseBase:
    """A deployment node by node; htmx asks again until nothing more is awaited."""
    progress = deployment_progress(access, deployment_id)
    context = {"progress": progress, "deployment": progress.deployment}
    if request.headers.get("HX-Request"):
        status = STOP_POLLING if progress.finished else HTTPStatus.OK
        return render(request, "acl/deployment.html#progress", context, status=status)
    return render(request, "acl/deployment.html", context)


def _review(request: HttpRequest, access: Access, form: DeployForm, *, status: int = HTTPStatus.OK) -> HttpResponseBase:
    draft, current = get_draft(access), current_deployment(access)
    before = current.version.source if current else ""
    found = examination.review(access, before, draft.text)
    context: dict[str, Any] = {
        "form": form,
        "draft": draft,
        "current": current,
        "examined": found.after,
        "diff": bench.run(access.org_id, diff, before, draft.text),
        "meaning": found.change,
        "impact": impact_of(access, found.before.rules, found.after.rules),
        "may_deploy": access.may(Permission.POLICY_DEPLOY),
        "may_edit": access.may(Permission.POLICY_EDIT),
    }
    return render(request, "acl/review.html", context, status=status)


def impact_of(access: Access, before: int, after: int) -> list[Impact]:
    """The impact, in figures, of going from ``before`` to ``after`` rules."""
    sessions = sessions_or_none(access)
    current = current_deployment(access)
    nodes = [node for node in deployment_progress(access, current.pk).nodes if node.online] if current else []
    checked = Impact("?", "live sessions checked again (the number is unavailable)")
    if sessions is not None:
        checked = Impact(f"{len(sessions):,}", "live sessions checked again; what is no longer granted stops at once")
    return [Impact(f"{before} → {after}", "rules"), checked, Impact(f"{len(nodes):,}", "nodes updated")]
