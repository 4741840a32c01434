"""Keep a form that was refused because the sign-in changed, on a page that sends it again.

A sign-in in another tab replaces the CSRF token, and a session may end while somebody types. Neither may cost what was
typed. Only for forms that the browser says came from a page of ours: another site's form is refused as ever. And only
for what is done in an organization: what a person agrees to for themselves (a CLI session) was asked of
whoever was signed in then, and is asked again.

Who sends it now may be somebody else than who typed it, so the page says who that is and what is sent.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render

TOKEN_FIELD = "csrfmiddlewaretoken"  # noqa: S105 - the name of a field
SECRET_WORDS = ("password", "secret", "code", "token")
"""Fields with such a word in their name are never written into a page."""


def resend_page(request: HttpRequest, *, status: int) -> HttpResponseBase | None:
    """The page that keeps the form; None where it was not ours, holds a secret or a file, or cannot be read."""
    match = request.resolver_match
    in_organization = match is not None and "org_id" in match.kwargs
    if request.method != "POST" or not in_organization or request.headers.get("HX-Request"):
        return None
    if not from_our_page(request):
        return None
    fields = [
        (name, value) for name, values in request.POST.lists() if name != TOKEN_FIELD for value in map(str, values)
    ]
    secret = any(word in name.lower() for name, _ in fields for word in SECRET_WORDS)
    if not fields or secret or request.FILES:
        return None
    user = getattr(request, "user", None)
    person = user if getattr(user, "is_authenticated", False) else None
    context = {"fields": fields, "path": request.get_full_path(), "person": person}
    return render(request, "resend.html", context, status=status)


def from_our_page(request: HttpRequest) -> bool:
    """Whether the browser says that a page of this very origin sent the form."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site == "same-origin"
    origin = urlsplit(request.headers.get("Origin", ""))
    return origin.scheme == request.scheme and origin.netloc == request.get_host()
