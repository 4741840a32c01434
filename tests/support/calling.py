"""Callers of every kind, and an organization to call."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import Any

from allauth.account.authentication import AUTHENTICATION_METHODS_SESSION_KEY
from allauth.account.internal.flows.login import record_authentication
from django.http import HttpRequest
from django.test import Client

from orgs.access.grants import Access
from orgs.api_keys.keys import create_api_key
from orgs.models import User
from orgs.permissions import Role
from tests.support.world import member


@dataclass
class Answer:
    """What the API answered."""

    status: int
    body: Any
    headers: dict[str, str]
    text: str
    content: bytes = b""

    @property
    def code(self) -> str:
        """The stable word of a problem."""
        return str(self.body.get("code") or self.body.get("error"))


def authenticate(client: Client, user: User | None, *, at: float | None = None) -> None:
    """Note in a signed-in browser that the person showed a password ``at`` (seconds since the epoch), else now."""
    request = HttpRequest()
    request.session = client.session
    record_authentication(request, user, "password")
    for record in request.session[AUTHENTICATION_METHODS_SESSION_KEY]:
        record["at"] = at or time.time()
    request.session.save()


@dataclass
class Caller:
    """Somebody who calls the API: by key, by session, or as nobody."""

    key: str = ""
    user: User | None = None
    client: Client = field(default_factory=Client)

    def __post_init__(self) -> None:
        if self.user is not None:
            self.client.force_login(self.user)
            self.confirm()

    def confirm(self, *, at: float | None = None) -> None:
        """Show the password again, as step-up asks for; ``at`` is when (seconds since the epoch), now by default."""
        authenticate(self.client, self.user, at=at)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request; keyword arguments are headers, with ``_`` for ``-``."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.key:
            sent.setdefault("Authorization", f"Bearer {self.key}")
        content_type = sent.pop("content-type", "application/json")
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = self.client.generic(method, path, data, content_type=content_type, headers=sent)
        text = answer.content.decode(errors="replace")
        is_json = "json" in answer.headers.get("Content-Type", "")
        parsed = json.loads(text) if text and is_json else None
        return Answer(answer.status_code, parsed, dict(answer.headers.items()), text, answer.content)

    def get(self, path: str, **headers: str) -> Answer:
        """GET."""
        return self("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: str) -> Answer:
        """POST; an empty object unless a body is given."""
        return self("POST", path, {} if body is None else body, **headers)

    def patch(self, path: str, body: Any, **headers: str) -> Answer:
        """PATCH."""
        return self("PATCH", path, body, **headers)

    def put(self, path: str, body: Any, **headers: str) -> Answer:
        """PUT."""
        return self("PUT", path, body, **headers)

    def delete(self, path: str, body: Any = None, **headers: str) -> Answer:
        """DELETE."""
        return self("DELETE", path, body, **headers)


@dataclass
class World:
    """One organization with its owner, and callers on its behalf."""

    owner: Access

    @property
    def id(self) -> str:
        """The organization's id."""
        return self.owner.org_id

    def key(self, kind: str = "sk", *scopes: str) -> str:
        """A new key."""
        return create_api_key(self.owner, kind=kind, name="test", scopes=scopes).secret

    def caller(self, kind: str = "sk", *scopes: str) -> Caller:
        """A program with a new key."""
        return Caller(self.key(kind, *scopes))

    def person(self, role: Role = Role.OWNER) -> Caller:
        """A member who is signed in."""
        access = self.owner if role is Role.OWNER else member(self.owner.org, role)
        return Caller(user=access.user)
