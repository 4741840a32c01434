"""Pages of SSO sign-in: find the connection, redirect to the identity provider, handle its response.

A browser that leaves keeps what it was asked (state, nonce, PKCE verifier or SAML request) in its session, for ten
minutes and for one answer. Going to the provider is a link, never a form: the Content-Security-Policy keeps forms here.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from allauth.account.internal.flows.login import record_authentication
from allauth.account.utils import perform_login
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.csrf import csrf_exempt

from audit.kinds import SignOnReason
from cloudsignal.addresses import network_of
from cloudsignal.errors import Conflict, NotFound, Unauthenticated
from cloudsignal.limits import take
from cloudsignal.secrets.tickets import keep_facts, take_facts
from orgs.access.grants import access_org
from orgs.access.web.gate import address_of, public_page
from orgs.access.web.reauthentication import ask_again
from orgs.models import SingleSignOn, User
from orgs.permissions import Permission
from orgs.sso import oidc, saml
from orgs.sso.login import enabled_connections, enter, find_sign_on, foresee, link, refuse, ways_for_domain
from orgs.sso.protocol import Asserted, Begun, Refused
from orgs.sso.web.sessions import MARK

PENDING = "sign_on_pending"
PENDING_SECONDS = 600
PENDING_MAX = 5
"""Pending requests of one browser (tabs) at a time."""
TICKET, TICKET_SECONDS = "sign-on ticket", 60


@dataclass(frozen=True, slots=True)
class Pending:
    """A pending request to the identity provider: its user, purpose, and the values its response must match."""

    sign_on_id: str
    purpose: str
    """``sign_in``, ``link`` or ``try``."""
    state: str
    nonce: str
    verifier: str
    next: str
    again: bool
    user: int
    """The user who was signed in when the request began; 0 for nobody."""
    at: float


@public_page()
def find(request: HttpRequest) -> HttpResponseBase:
    """Find SSO connections by an organization's ID or by an email address of an approved domain."""
    asked = request.GET.get("who", "").strip()[:320]
    following = _next(request)
    if not asked:
        return render(request, "account/sign_on_find.html", {"asked": asked, "following": following})
    take("sign_ons", network_of(address_of(request)))
    ways = ways_for_domain(asked.rpartition("@")[2]) if "@" in asked else enabled_connections(asked)
    status = 200 if ways else 404
    context = {"asked": asked, "ways": ways, "following": following}
    return render(request, "account/sign_on_find.html", context, status=status)


@public_page()
def door(request: HttpRequest, org_id: str) -> HttpResponseBase:
    """List the SSO connections of one organization; an organization can link to this page from its intranet."""
    ways = enabled_connections(org_id)
    if not ways:
        raise NotFound("The SSO connection")
    user = request.user if isinstance(request.user, User) else None
    context = {"org": ways[0].org, "ways": ways, "following": _next(request), "person": user}
    return render(request, "account/sign_on_door.html", context)


@public_page()
def start(request: HttpRequest, org_id: str, sign_on_id: str) -> HttpResponseBase:
    """Redirect to the identity provider: to sign in, reauthenticate, link an account, or test the connection."""
    sign_on = find_sign_on(org_id, sign_on_id)
    purpose = _purpose(request, sign_on)
    if request.headers.get("Sec-Fetch-Site") in {"cross-site", "same-site"}:
        # Another site may lead people to the door, but not through it: it could swap the session they have.
        return redirect("orgs:sign-on-door", org_id)
    take("sign_ons", network_of(address_of(request)))
    again = request.GET.get("again") == "1"
    try:
        begun = (saml if sign_on.kind == SingleSignOn.Kind.SAML else oidc).begin(sign_on, again=again)
    except Refused as refused:
        return _refused_page(request, sign_on, refused)
    _keep(request, sign_on, begun, purpose=purpose, again=again)
    return redirect(begun.url)


@public_page()
def callback(request: HttpRequest, org_id: str, sign_on_id: str) -> HttpResponseBase:
    """Handle the redirect of an OpenID provider (the redirect URI)."""
    sign_on = find_sign_on(org_id, sign_on_id)
    pending = _take(request, sign_on, request.GET.get("state", ""))
    if sign_on.kind != SingleSignOn.Kind.OIDC or pending is None:
        return _no_pending_request(request, sign_on)
    answer = {name: request.GET.get(name, "") for name in ("code", "error", "iss") if name in request.GET}
    try:
        asserted = oidc.finish(sign_on, answer, nonce=pending.nonce, verifier=pending.verifier, again=pending.again)
    except Refused as refused:
        return _refused_page(request, sign_on, refused)
    return _arrive(request, sign_on, pending, asserted)


@csrf_exempt
@public_page(methods=("POST",))
def consume(request: HttpRequest, org_id: str, sign_on_id: str) -> HttpResponseBase:
    """Verify the SAML response that the browser posts; the next page completes the sign-in.

    The post comes from another site, so the session's cookie is not with it. A ticket for the verified answer goes to
    the page that has it; what does not verify is not kept.
    """
    sign_on = find_sign_on(org_id, sign_on_id)
    if sign_on.kind != SingleSignOn.Kind.SAML:
        raise NotFound("The SSO connection")
    take("sign_ons", network_of(address_of(request)))
    try:
        answer = saml.finish(sign_on, request.POST.get("SAMLResponse", ""))
    except Refused as refused:
        return _refused_page(request, sign_on, refused)
    ticket = secrets.token_urlsafe(32)
    facts = [*_state_of(sign_on), answer.in_response_to, answer.recent, asdict(answer.asserted)]
    keep_facts(TICKET, ticket, facts, seconds=TICKET_SECONDS)
    return redirect(f"{reverse('orgs:sign-on-arrive', args=[org_id, sign_on_id])}?ticket={ticket}")


@public_page()
def arrive(request: HttpRequest, org_id: str, sign_on_id: str) -> HttpResponseBase:
    """Complete the sign-in of a verified SAML response in the browser that requested it. Tickets work once."""
    sign_on = find_sign_on(org_id, sign_on_id)
    facts = take_facts(TICKET, request.GET.get("ticket", ""))
    if facts is None or facts[:2] != _state_of(sign_on):
        return _no_pending_request(request, sign_on)
    _, _, in_response_to, recent, said = facts
    asserted = Asserted(**said)
    pending = _take(request, sign_on, in_response_to)
    if pending is None:
        refused = Refused(
            SignOnReason.BAD_ASSERTION,
            "The response does not belong to a request of this browser. Start again at the sign-in page.",
        )
        return _refused_page(request, sign_on, refused, asserted)
    if pending.again and not recent:
        refused = Refused(
            SignOnReason.NOT_RECENT,
            "The identity provider did not authenticate you again. Sign out there and try again.",
        )
        return _refused_page(request, sign_on, refused, asserted)
    return _arrive(request, sign_on, pending, asserted)


@public_page()
def metadata(request: HttpRequest, org_id: str, sign_on_id: str) -> HttpResponseBase:
    """Serve our SAML metadata to the identity provider."""
    sign_on = find_sign_on(org_id, sign_on_id)
    if sign_on.kind != SingleSignOn.Kind.SAML:
        raise NotFound("The SSO connection")
    return HttpResponse(saml.our_metadata(sign_on), content_type="application/samlmetadata+xml")


def _state_of(sign_on: SingleSignOn) -> list[str]:
    """ID and last change of the connection that a SAML response was verified with; after a change it is void."""
    return [sign_on.pk, sign_on.updated_at.isoformat()]


def _arrive(request: HttpRequest, sign_on: SingleSignOn, pending: Pending, asserted: Asserted) -> HttpResponseBase:
    ip = address_of(request)
    try:
        if pending.purpose == "try":
            return _tried(request, sign_on, asserted)
        if pending.purpose == "link":
            link(sign_on, asserted, _same_person(request, pending), ip=ip)
            return render(request, "account/sign_on_linked.html", {"sign_on": sign_on, "org": sign_on.org})
        user = enter(sign_on, asserted, ip=ip)
    except Refused as refused:
        return _refused_page(request, sign_on, refused, asserted)
    # The time that the provider has proved, not this moment: it may have asked nobody. Step-up goes by it.
    proved_at = min(asserted.authenticated_at, time.time())
    record_authentication(request, user, method="sign_on", sign_on=sign_on.pk, at=proved_at)
    way = {"org_id": sign_on.org_id, "sign_on_id": sign_on.pk}
    following = pending.next or reverse("platform:home", args=[sign_on.org_id])
    response: HttpResponseBase = perform_login(
        request, user, email_verification="none", redirect_url=following, signal_kwargs={MARK: way}
    )
    return response


def _tried(request: HttpRequest, sign_on: SingleSignOn, asserted: Asserted) -> HttpResponseBase:
    refused, entry = None, None
    try:
        entry = foresee(sign_on, asserted)
    except Refused as error:
        refused = error
    context = {"sign_on": sign_on, "asserted": asserted, "entry": entry, "refused": refused, "org": sign_on.org}
    return render(request, "account/sign_on_tried.html", context)


def _purpose(request: HttpRequest, sign_on: SingleSignOn) -> str:
    """The purpose of a request. Testing needs permission to manage providers; linking needs step-up."""
    asked = request.GET.get("for", "")
    if asked not in {"try", "link"}:
        if not sign_on.enabled:
            raise NotFound("The SSO connection")
        return "sign_in"
    if not isinstance(request.user, User):
        raise Unauthenticated("not_signed_in", "Sign in first.")
    if asked == "try":
        access = access_org(request.user, sign_on.org_id, ip=address_of(request))
        access.require(Permission.PROVIDERS_MANAGE)
    else:
        if not sign_on.enabled or request.user.sso_session is not None:
            raise NotFound("The SSO connection")
        ask_again(request)
    return asked


def _same_person(request: HttpRequest, pending: Pending) -> User:
    if not isinstance(request.user, User) or request.user.pk != pending.user:
        raise Conflict("someone_else", "Another person has signed in since you left. Start again.")
    return request.user


def _keep(request: HttpRequest, sign_on: SingleSignOn, begun: Begun, *, purpose: str, again: bool) -> None:
    pending = Pending(
        sign_on_id=sign_on.pk, purpose=purpose, state=begun.state, nonce=begun.nonce, verifier=begun.verifier,
        next=_next(request), again=again, user=getattr(request.user, "pk", None) or 0, at=time.time(),
    )  # fmt: skip
    waiting = [one for one in request.session.get(PENDING, []) if one["state"] != begun.state]
    request.session[PENDING] = [*waiting, asdict(pending)][-PENDING_MAX:]


def _take(request: HttpRequest, sign_on: SingleSignOn, state: str) -> Pending | None:
    """Take the pending request of ``state`` from the session, once; None when it is unknown or expired."""
    waiting: list[Mapping[str, Any]] = request.session.get(PENDING, [])
    found = None
    for one in waiting:
        if state and hmac.compare_digest(str(one["state"]).encode(), state.encode("utf-8", "replace")):
            found = one
    if found is None:
        return None
    request.session[PENDING] = [one for one in waiting if one is not found]
    pending = Pending(**found)
    fresh = 0 <= time.time() - pending.at < PENDING_SECONDS
    return pending if fresh and pending.sign_on_id == sign_on.pk else None


def _refused_page(
    request: HttpRequest, sign_on: SingleSignOn, refused: Refused, asserted: Asserted | None = None
) -> HttpResponseBase:
    refuse(sign_on, refused, asserted, ip=address_of(request))
    context = {"refused": refused, "sign_on": sign_on, "org": sign_on.org}
    status = 503 if refused.reason is SignOnReason.PROVIDER_UNREACHABLE else 403
    return render(request, "account/sign_on_refused.html", context, status=status)


def _no_pending_request(request: HttpRequest, sign_on: SingleSignOn) -> HttpResponseBase:
    """Answer a response that has no pending request: an old tab, a reloaded page, or another person's link."""
    context = {"refused": None, "sign_on": sign_on, "org": sign_on.org}
    return render(request, "account/sign_on_refused.html", context, status=400)


def _next(request: HttpRequest) -> str:
    wanted = request.GET.get("next", "")
    return wanted if url_has_allowed_host_and_scheme(wanted, allowed_hosts=None) else ""
