"""The shell around every page: organization switcher, navigation, command palette, color theme."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from acl.brokers import BrokerHealth, broker_health
from orgs.access.grants import Access, OrganizationEntry, list_organizations
from orgs.access.web.gate import again
from orgs.api_keys.reads import cli_sessions_of
from orgs.models import ApiKey, User
from orgs.permissions import Permission

THEME_COOKIE = "theme"
THEMES = (("", "System"), ("light", "Light"), ("dark", "Dark"))


@dataclass(frozen=True, slots=True)
class Link:
    """One entry of the navigation. ``key`` goes there after ``g``."""

    title: str
    url: str
    icon: str
    key: str
    current: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """One entry of the command palette: a page to go to, or a form of the page to send."""

    title: str
    where: str
    icon: str
    url: str = ""
    form: str = ""


ORG_PAGES: tuple[tuple[str, str, str, str, Permission], ...] = (
    ("Home", "platform:home", "home", "h", Permission.ORG_READ),
    ("Clients", "orgs:clients", "clients", "c", Permission.ORG_READ),
    ("Credentials", "orgs:credentials", "key", "k", Permission.ORG_READ),
    ("Access control", "acl:policy", "shield", "a", Permission.ORG_READ),
    ("Audit", "audit:list", "audit", "l", Permission.AUDIT_READ),
    ("Settings", "orgs:settings", "settings", "s", Permission.ORG_READ),
)
BESIDE = {"orgs:clients": "broker/", "orgs:credentials": "usernames/"}
"""Paths of an organization that belong to a page of the navigation without standing below its own."""
OPERATOR_PAGES: tuple[tuple[str, str, str, str], ...] = (
    ("Organizations", "platform:operator-organizations", "orgs", "o"),
    ("Email domains", "platform:operator-domains", "check", "e"),
    ("Nodes", "platform:operator-nodes", "server", "n"),
    ("Log", "audit:log", "audit", "l"),
)
ACCOUNT_PAGES: tuple[tuple[str, str, str], ...] = (
    ("Two-factor authentication", "mfa_index", "shield"),
    ("Password", "account_change_password", "key"),
    ("Sessions", "usersessions_list", "clients"),
    ("Email addresses", "account_email", "mail"),
)
DEMO_PAGE = ("Mail", "platform:operator-mail", "mail", "m")
ORG_ACTIONS: tuple[tuple[str, str, str, Permission], ...] = (
    ("Issue a credential", "orgs:credential-new", "plus", Permission.CREDENTIALS_MANAGE),
    ("Start from a preset", "acl:presets", "shield", Permission.POLICY_EDIT),
    ("Simulate a publish or subscribe", "acl:policy", "flask", Permission.POLICY_SIMULATE),
    ("Review and deploy the draft", "acl:review", "check", Permission.POLICY_DEPLOY),
    ("Issue credentials from CSV", "orgs:bulk", "plus", Permission.CREDENTIALS_MANAGE),
    ("Retained messages and stored sessions", "orgs:broker", "server", Permission.ORG_READ),
    ("Expiring credentials", "orgs:expiry", "history", Permission.ORG_READ),
    ("Members and invitations", "orgs:people", "orgs", Permission.ORG_READ),
    ("Invite a member", "orgs:invite", "plus", Permission.MEMBERS_MANAGE),
    ("API keys", "orgs:keys", "key", Permission.ORG_READ),
    ("Create an API key", "orgs:key-new", "plus", Permission.API_KEYS_MANAGE),
    ("Identity providers", "orgs:providers", "server", Permission.ORG_READ),
    ("Single sign-on", "orgs:sign-ons", "shield", Permission.ORG_READ),
    ("Danger zone", "orgs:danger", "warning", Permission.ORG_UPDATE),
    ("Versions and rollback", "acl:versions", "history", Permission.ORG_READ),
)


class Shell:
    """The shell of one page; each property is computed when a template uses it."""

    def __init__(self, request: HttpRequest) -> None:
        self._request = request

    @cached_property
    def access(self) -> Access | None:
        """The resolved access to the organization; None outside one."""
        return getattr(self._request, "access", None)

    @cached_property
    def organizations(self) -> Sequence[OrganizationEntry]:
        """The person's organizations, by name."""
        user = getattr(self._request, "user", None)
        return list_organizations(user) if isinstance(user, User) else ()

    @property
    def org_id(self) -> str:
        """The organization of this page; empty outside one."""
        return self.access.org_id if self.access else ""

    @property
    def here(self) -> str:
        """The name of the reader's place: the organization or the area."""
        if self.access:
            return self.access.org.name
        return "Operator" if self._request.path.startswith("/operator/") else "CloudSignal"

    @property
    def role(self) -> str:
        """The reader's role in this organization."""
        return str(self.access.role) if self.access and self.access.role else ""

    @property
    def operator(self) -> bool:
        """Whether the reader is an operator."""
        return bool(getattr(getattr(self._request, "user", None), "is_operator", False))

    @property
    def sso_session(self) -> bool:
        """Whether the reader signed in through SSO, and so reaches one organization and no account page."""
        return getattr(getattr(self._request, "user", None), "sso_session", None) is not None

    @cached_property
    def brokers(self) -> BrokerHealth | None:
        """The health of the brokers as edge nodes report it; on operators' pages only."""
        return broker_health() if self.operator and self._request.path.startswith("/operator/") else None

    @cached_property
    def cli_sessions(self) -> Sequence[ApiKey]:
        """The CLI sessions of the reader."""
        user = getattr(self._request, "user", None)
        return cli_sessions_of(user) if isinstance(user, User) else ()

    @property
    def initial(self) -> str:
        """The first letter of the reader's address."""
        return str(getattr(self._request.user, "email", "") or "?")[0].upper()

    @cached_property
    def nav(self) -> list[Link]:
        """The pages that the reader's role may open; while the reader is unknown, those of the address."""
        match = self._request.resolver_match
        named = match.kwargs.get("org_id") if match is not None else None
        if named and getattr(self._request, "away", False):
            return [
                self._link(title, reverse(name, args=[named]), icon, key) for title, name, icon, key, _ in ORG_PAGES
            ]
        if access := self.access:
            return [
                self._link(title, reverse(name, args=[access.org_id]), icon, key, BESIDE.get(name))
                for title, name, icon, key, permission in ORG_PAGES
                if access.may(permission)
            ]
        if self.operator and self._request.path.startswith("/operator/"):
            return [self._link(title, reverse(name), icon, key) for title, name, icon, key in self._operator_pages]
        return [self._link("Organizations", reverse("orgs:list"), "orgs", "o")]

    @property
    def keys(self) -> list[tuple[str, str]]:
        """The shortcuts after ``g``, with those of an organization's pages also outside one."""
        if access := self.access:
            return [(key, title) for title, _, _, key, permission in ORG_PAGES if access.may(permission)]
        within = [(key, f"{title}, in an organization") for title, _, _, key, _ in ORG_PAGES]
        return [*((link.key, link.title) for link in self.nav), *within]

    @property
    def _operator_pages(self) -> tuple[tuple[str, str, str, str], ...]:
        return (*OPERATOR_PAGES, DEMO_PAGE) if self.demo else OPERATOR_PAGES

    def _link(self, title: str, url: str, icon: str, key: str, beside: str | None = None) -> Link:
        path = self._request.path
        home = reverse("platform:home", args=[self.org_id]) if self.access else None
        current = path == url if url == home else path.startswith((url, f"{home}{beside}") if beside else url)
        return Link(title, url, icon, key, current)

    @cached_property
    def commands(self) -> list[Command]:
        """The commands of the palette: actions, pages, other organizations."""
        found: list[Command] = []
        if access := self.access:
            found += [
                Command(title, "Action", icon, reverse(name, args=[access.org_id]))
                for title, name, icon, permission in ORG_ACTIONS
                if access.may(permission)
            ]
        found += [Command(link.title, "Page", link.icon, link.url) for link in self.nav]
        found += [
            Command(entry.org.name, "Organization", "orgs", reverse("platform:home", args=[entry.org.pk]))
            for entry in self.organizations
            if entry.org.pk != self.org_id
        ]
        if self.operator:
            found += [
                Command(f"Operator: {title}", "Page", icon, reverse(name))
                for title, name, icon, _ in self._operator_pages
            ]
        if not self.sso_session:
            found.append(Command("New organization", "Action", "plus", reverse("orgs:new")))
            found += [Command(title, "Account", icon, reverse(name)) for title, name, icon in ACCOUNT_PAGES]
        found.append(Command("Help and shortcuts", "Page", "help", reverse("platform:help")))
        found.append(Command("Sign out", "Action", "logout", form="sign-out"))
        return found

    @property
    def again(self) -> str:
        """The URL of this page."""
        return again(self._request)

    @property
    def theme(self) -> str:
        """The color theme: ``light``, ``dark``, or empty for the system's."""
        chosen = self._request.COOKIES.get(THEME_COOKIE, "")
        return chosen if chosen in dict(THEMES) else ""

    @property
    def demo(self) -> bool:
        """Whether this installation is a demo."""
        return bool(settings.DEMO)

    themes = THEMES


def context(request: HttpRequest) -> dict[str, Any]:
    """Context processor: ``shell``."""
    return {"shell": Shell(request)}
