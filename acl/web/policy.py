"""Pages: the draft in its editor, the server's findings while typing, and the simulator on the unsaved text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django_htmx.http import reswap, retarget, trigger_client_event

from acl.access import current_deployment, get_draft, get_version
from acl.examining import Verdict
from acl.forms import DraftForm, SimulateForm
from acl.services.drafts import save_draft
from acl.services.examination import examine
from acl.services.simulate import simulate
from cloudsignal.errors import Conflict, DomainError, Invalid, Limit
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.credentials.reads import list_identities
from orgs.permissions import Permission


@dataclass(slots=True)
class Simulated:
    """The simulator's form and its verdict; none before the first request or while the text has errors."""

    form: SimulateForm
    verdict: Verdict | None = None
    stored_claims: Mapping[str, Any] | None = None
    """The claims of the known username that were used, because none were typed."""
    unknown: bool = False
    """Whether none were typed and there is no such username, so none are known."""


@org_page(Permission.ORG_READ)
def editor(request: HttpRequest, access: Access) -> HttpResponseBase:
    """The saved draft; or, unsaved, an earlier version (``?version=3``). A request in the address is simulated."""
    draft = get_draft(access)
    text, source = draft.text, ""
    if (number := request.GET.get("version", "")).isdecimal() and access.may(Permission.POLICY_EDIT):
        text, source = get_version(access, int(number[:9])).source, f"version {int(number[:9])}"
    form = DraftForm(initial={"text": text, "etag": draft.etag})
    simulated = Simulated(SimulateForm())
    if request.GET.get("topic") and access.may(Permission.POLICY_SIMULATE):
        simulated = _simulated(access, text, SimulateForm({"action": "pub", "qos": "0"} | request.GET.dict()))
    return _page(request, access, form, text, simulated, source=source)


@org_page(Permission.POLICY_EDIT, methods=("POST",))
def save(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Save the draft, errors and all. With ``next=review`` the review comes next."""
    form = DraftForm(request.POST)
    htmx = bool(request.headers.get("HX-Request"))
    if form.is_valid():
        text = form.value("text")
        try:
            draft = save_draft(access, text=text, if_match=form.value("etag") or None)
        except DomainError as error:
            form.refuse(error)
            theirs = get_draft(access) if isinstance(error, Conflict) else None
            return _kept(request, access, form, status=error.status, conflict=theirs)
        if request.POST.get("next") == "review":
            return redirect("acl:review", access.org_id)
        if not htmx:
            messages.success(request, "Draft saved. Nothing is enforced until you deploy it.")
            return redirect("acl:policy", access.org_id)
        response = render(request, "acl/policy.html#saved", {"draft": draft})
        return trigger_client_event(response, "draft-saved", {"etag": draft.etag})
    return _kept(request, access, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)


@org_page(Permission.POLICY_EDIT, methods=("POST",))
def check(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Findings and tests of the text as it stands in the editor. Nothing is stored."""
    form = DraftForm(request.POST)
    if not form.is_valid() or not request.headers.get("HX-Request"):
        return _kept(request, access, form)
    return render(request, "acl/policy.html#findings", _findings(access, form.value("text")))


@org_page(Permission.POLICY_SIMULATE, methods=("POST",))
def simulate_view(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Put one request to the text as it stands in the editor. Nothing is stored."""
    form = DraftForm(request.POST)
    if not form.is_valid():
        return _kept(request, access, form, status=HTTPStatus.UNPROCESSABLE_ENTITY)
    simulated = _simulated(access, form.value("text"), SimulateForm(request.POST))
    request.session[f"simulated:{access.org_id}"] = True
    if not request.headers.get("HX-Request"):
        return _page(request, access, form, form.value("text"), simulated)
    context = {"simulated": simulated, "simulate": simulated.form, **_findings(access, form.value("text"))}
    status = HTTPStatus.UNPROCESSABLE_ENTITY if simulated.form.errors else HTTPStatus.OK
    return render(request, "acl/policy.html#simulator", context, status=status)


def _simulated(access: Access, text: str, form: SimulateForm) -> Simulated:
    simulated = Simulated(form)
    if not form.is_valid():
        return simulated
    try:
        found = simulate(
            access,
            text=text,
            username=form.value("username"),
            client_id=form.value("client_id"),
            claims=form.cleaned_data["claims"] or None,
            action=form.value("action"),
            topic=form.value("topic"),
            qos=form.cleaned_data["qos"],
            retain=form.cleaned_data["retain"],
        )
    except DomainError as error:
        form.refuse(error)
        return simulated
    simulated.verdict = found.verdict
    simulated.unknown = found.source == "none"
    simulated.stored_claims = found.claims if found.source == "stored" and found.claims else None
    return simulated


def _findings(access: Access, text: str) -> dict[str, Any]:
    """The findings about ``text``, or why it could not be examined just now; neither prevents editing."""
    try:
        return {"examined": examine(access, text)}
    except (Limit, Invalid) as error:
        return {"unexamined": error.message}


def _kept(
    request: HttpRequest, access: Access, form: DraftForm, *, status: int = HTTPStatus.OK, conflict: Any = None
) -> HttpResponseBase:
    """Render the editor with everything that was typed; for htmx, only the notice above it."""
    if request.headers.get("HX-Request"):
        notice = render(request, "acl/policy.html#refused", {"form": form, "conflict": conflict}, status=status)
        return retarget(reswap(notice, "outerHTML"), "#draft-state")
    text = str(form.data.get("text", "")).replace("\r\n", "\n")
    asked = any(request.POST.get(name) for name in ("topic", "username"))
    simulated = Simulated(SimulateForm(request.POST if asked else None))
    return _page(request, access, form, text, simulated, status=status, conflict=conflict)


def _page(
    request: HttpRequest,
    access: Access,
    form: DraftForm,
    text: str,
    simulated: Simulated,
    *,
    status: int = HTTPStatus.OK,
    source: str = "",
    conflict: Any = None,
) -> HttpResponse:
    draft, current = get_draft(access), current_deployment(access)
    context: dict[str, Any] = {
        "form": form,
        "text": text,
        "draft": draft,
        "current": current,
        "in_force": bool(current and current.version.source == draft.text),
        "source": source,
        "conflict": conflict,
        "simulated": simulated,
        "simulate": simulated.form,
        "usernames": [row.identity.username for row in list_identities(access, limit=200).rows],
        "unsaved": text != draft.text,
        "may_edit": access.may(Permission.POLICY_EDIT),
        "may_simulate": access.may(Permission.POLICY_SIMULATE),
        "may_deploy": access.may(Permission.POLICY_DEPLOY),
        **_findings(access, text),
    }
    return render(request, "acl/policy.html", context, status=status)
