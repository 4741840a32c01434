"""A browser that goes to an identity provider and comes back, and the single sign-on it goes through."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from orgs.access.grants import Access
from orgs.models import SingleSignOn
from orgs.sso.connections import WantedSignOn, add_sign_on, approve_domains
from tests.support.issuer import CLIENT_ID, CLIENT_SECRET, Issuer
from tests.support.world import person

DOMAIN = "acme.example"


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Do not follow: the test looks where it leads."""


def add_oidc(access: Access, issuer: Issuer, *, approved: bool = True, **changes: Any) -> SingleSignOn:
    """A single sign-on through the issuer, whose domain an operator has approved unless said otherwise."""
    wanted: dict[str, Any] = {
        "name": "Acme staff", "issuer": issuer.url, "client_id": CLIENT_ID, "secret": CLIENT_SECRET,
        "domains": [DOMAIN], "role": "viewer", "enabled": True, **changes,
    }  # fmt: skip
    made = add_sign_on(access, "oidc", WantedSignOn(**wanted))
    if approved:
        return approve_domains(person(operator=True), access.org_id, made.pk, domains=[DOMAIN])
    return made


@dataclass
class Browser:
    """One browser at the door of one single sign-on."""

    sign_on: SingleSignOn
    client: Client = field(default_factory=Client)

    def url(self, name: str = "orgs:sign-on-start") -> str:
        """A page of this single sign-on."""
        return reverse(name, args=[self.sign_on.org_id, self.sign_on.pk])

    def leave(self, query: str = "") -> str:
        """Go to the provider; returns where the browser is then."""
        answer = self.client.get(f"{self.url()}{query}")
        assert answer.status_code == 302, answer.content.decode()
        return str(answer.headers["Location"])

    def at_provider(self, url: str) -> str:
        """Sign in there; returns the path it sends the browser back to."""
        try:
            urllib.request.build_opener(_Stay).open(url, timeout=20)
        except urllib.error.HTTPError as answer:
            back = urlsplit(str(answer.headers["Location"]))
            return f"{back.path}?{back.query}"
        raise AssertionError("the provider did not send the browser back")

    def sign_in(self, query: str = "") -> HttpResponse:
        """The whole way."""
        return self.client.get(self.at_provider(self.leave(query)))  # type: ignore[return-value]

    def status(self, access: Access) -> int:
        """What the home of an organization answers."""
        return self.client.get(reverse("platform:home", args=[access.org_id])).status_code


def cast(**claims: Any) -> dict[str, Any]:
    """Somebody of the approved domain, as the provider knows them."""
    return {"sub": "s-1", "email": f"eve@{DOMAIN}", "email_verified": True, "name": "Eve Example", **claims}
