"""Asking for every page of an organization with ids that are somebody else's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.test import Client
from django.urls import reverse

from cloudsignal.tenancy.scopes import org_scope
from orgs.models import Membership
from orgs.permissions import Role
from tests.support.calling import World
from tests.support.pages import PAGES, TABLE
from tests.support.world import member, person

FORM = {
    "confirm": "Acme", "name": "stolen", "text": "username\nstolen\n", "claims": "stolen = yes", "role": "viewer",
    "email": "thief@example.com", "reason": "stolen", "overlap": "0", "kind": "pk", "scopes": "org.read",
    "username": "stolen", "ttl": "3600", "token": "a.b.c", "issuer": "https://id.example.com", "audience": "x",
    "allowed_origins": "https://thief.example.com", "credentials": "on", "note": "stolen", "digest": "x",
    "action": "pub", "topic": "a/b", "enabled": "on",
}  # fmt: skip
"""What every form asks for, at once."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: ``own`` when the organization in the address is the asker's."""

    method: str
    url: str
    name: str
    own: bool


def asks(victim: dict[str, str], own: dict[str, str]) -> Iterator[Ask]:
    """Every page of the victim with its ids and with the asker's, and every page of the asker with the victim's ids."""
    for name, row in sorted(TABLE.items()):
        wanted = PAGES[name].pattern.converters
        if row.scope != "org":
            continue
        for org, ids in ((victim, victim), (victim, own), (own, victim)):
            if org is own and set(wanted) == {"org_id"}:
                continue
            values = {**_named(ids), "org_id": org["organization_id"]}
            url = reverse(name, kwargs={key: values[key] for key in wanted})
            for method in [method for method, taken in (("get", row.get), ("post", row.post)) if taken]:
                yield Ask(method, url, name, org is own)


def _named(ids: dict[str, str]) -> dict[str, object]:
    """The ids by the names that addresses of pages use."""
    return {
        **ids, "session_id": ids["session"], "key": ids["cursor"], "number": 1, "kind": "oidc", "name": "blank",
        "token": "forged", "member_id": int(ids["member_id"]), "key_id": int(ids["key_id"]),
    }  # fmt: skip


def send(client: Client, ask: Ask) -> tuple[int, str, str]:
    """Status, text and where it leads."""
    answer = getattr(client, ask.method)(ask.url, FORM if ask.method == "post" else None)
    text = answer.getvalue().decode("utf-8", "replace")
    return answer.status_code, text, answer.headers.get("Location", "")


def thieves(victim: World, rival: World) -> dict[str, Client]:
    """The rival's people by role, a stranger, nobody, and somebody whose membership of the victim has ended."""
    found = {role.value: rival.person(role).client for role in Role}
    former = member(victim.owner.org, Role.OWNER)
    with org_scope(victim.id):
        Membership.objects.filter(user=former.user).update(ends_at=datetime.now(UTC) - timedelta(seconds=1))
    for name, user in (("former member", former.user), ("stranger", person())):
        assert user is not None
        found[name] = Client()
        found[name].force_login(user)
    return {**found, "nobody": Client()}
