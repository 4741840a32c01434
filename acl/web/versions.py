"""Pages: versions and their deployments, one version, and rollback."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse

from acl import bench
from acl.access import current_deployment, get_version, list_deployments, list_versions
from acl.forms import RollbackForm
from acl.services.deployments import rollback
from acl.services.examination import count_rules, examine
from acl.web.deploy import impact_of
from acl.web.textdiff import diff
from cloudsignal.errors import Conflict
from cloudsignal.web.confirm import Question, confirm
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.permissions import Permission

PAGE = 50


@org_page(Permission.ORG_READ)
def index(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Versions and deployments, newest first."""
    before = request.GET.get("before", "")
    number = int(before) if before.isdecimal() and len(before) < 10 else None
    versions = list_versions(access, before=number, limit=PAGE + 1)
    context = {
        "versions": versions[:PAGE],
        "older_url": f"?before={versions[PAGE - 1].number}" if len(versions) > PAGE else "",
        "newest_url": "" if number is None else request.path,
        "deployments": list_deployments(access, limit=20) if number is None else (),
        "current": current_deployment(access),
        "may_deploy": access.may(Permission.POLICY_DEPLOY),
        "may_edit": access.may(Permission.POLICY_EDIT),
    }
    return render(request, "acl/versions.html", context)


@org_page(Permission.ORG_READ)
def version(request: HttpRequest, access: Access, number: int) -> HttpResponseBase:
    """Show one version: its text, its tests, and how it differs from the active one."""
    found, current = get_version(access, number), current_deployment(access)
    context = {
        "version": found,
        "current": current,
        "in_force": bool(current and current.version.number == number),
        "examined": examine(access, found.source),
        "diff": bench.run(access.org_id, diff, current.version.source if current else "", found.source),
        "may_deploy": access.may(Permission.POLICY_DEPLOY),
        "may_edit": access.may(Permission.POLICY_EDIT),
    }
    return render(request, "acl/version.html", context)


@org_page(Permission.POLICY_DEPLOY, methods=("GET", "POST"))
def rollback_view(request: HttpRequest, access: Access, number: int) -> HttpResponseBase:
    """Send an earlier version to every node again, after showing what that touches."""
    found, current = get_version(access, number), current_deployment(access)
    form = RollbackForm(
        request.POST if request.method == "POST" else None, initial={"deployment": current.pk if current else ""}
    )
    if request.method == "POST" and form.is_valid():
        deployment = rollback(access, number=number, note=form.value("note"), over=form.value("deployment"))
        return redirect("acl:deployment", access.org_id, deployment.pk)
    if current and current.version.number == number:
        raise Conflict("nothing_to_deploy", f"Version {number} is already active.")
    rules = count_rules(access, current.version.source if current else "", found.source)
    verb = "Roll forward" if current and number > current.version.number else "Roll back"
    question = Question(
        title=f"{verb} to version {number}?",
        text=f"Version {number} is sent to every node again. The draft does not change, and you can undo this the "
        "same way.",
        impact=impact_of(access, rules[0], rules[1]),
        action=f"{verb} to version {number}",
        url=reverse("acl:rollback", args=[access.org_id, number]),
        cancel=reverse("acl:versions", args=[access.org_id]),
        danger=False,
    )
    return confirm(request, question, form)
