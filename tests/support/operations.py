"""Every operation of the API, with who may call it: the permissions table.

A new endpoint that is missing here fails ``test_permissions``. ``{...}`` in a path is filled from a world's own ids.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from acl.models import Deployment
from audit.access import AuditQuery, cursor_of, search
from audit.transparency.growing import grow
from cloudsignal.redis import client as redis_client
from cloudsignal.tenancy.scopes import org_scope
from cloudsignal.wire import keys
from cloudsignal.wire.report import LiveSession
from orgs.credentials.issuing import issue_credential
from orgs.models import ApiKey, Membership
from orgs.people.invitations import invite
from orgs.permissions import Permission, Role
from orgs.providers.providers import Wanted, add_provider
from orgs.sso.connections import WantedSignOn, add_sign_on
from tests.support.calling import Answer, Caller, World
from tests.support.databases import Databases
from tests.support.sessions import publish
from tests.support.world import member

P = Permission


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    ``gate``: a permission, or ``person``, ``key`` (a command line's own), ``operator``, ``anybody``, ``token`` (its own
    proof).
    """

    method: str
    path: str
    gate: Permission | str
    body: Any = None
    by_key: bool = True
    """Whether a secret key that holds the permission may; some acts need a person."""

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.method} {self.path}"


ORG = "/v2/organizations/{organization_id}"
PROVIDER = {"name": "crawled", "kind": "oidc", "issuer": "https://id.example.com", "audience": "x"}
TEXT = {"text": 'version: "3"\nrules: []\n'}
ASK = {"username": "device", "action": "pub", "topic": "a/b"}

OPERATIONS = (
    Operation("POST", "/v2/tokens/create", "token", {"user_email": "ada@example.com"}),
    Operation("POST", "/v2/tokens/exchange", "token", {"token": "a.b.c"}),
    Operation("POST", "/v2/tokens/refresh", "token", {"token_id": "{token_id}", "current_token_password": "tkn_x"}),
    Operation("POST", "/v2/tokens/revoke", "token", {"token_id": "{token_id}"}),
    Operation("GET", "/v2/providers", "token"),
    Operation("PATCH", "/v2/users/{username}/claims", "token", {"crawled": "yes"}),
    Operation("DELETE", "/v2/users/{username}/claims/{name}", "token"),
    Operation("GET", "/v2/me", "anybody"),
    Operation("GET", "/v2/organizations", "anybody"),
    Operation("POST", "/v2/organizations", "person", {"name": "New"}),
    Operation("GET", ORG, P.ORG_READ),
    Operation("PATCH", ORG, P.ORG_UPDATE, {"mfa_required": False}),
    Operation("DELETE", ORG, P.ORG_DELETE, {"confirm": "not its name"}, by_key=False),
    Operation("POST", f"{ORG}/restore", P.ORG_DELETE, by_key=False),
    Operation("GET", f"{ORG}/export", P.ORG_UPDATE),
    Operation("POST", f"{ORG}/transfer", P.ORG_TRANSFER, {"member_id": 2_000_000_000}, by_key=False),
    Operation("POST", f"{ORG}/suspend", "operator", {"reason": "crawl"}),
    Operation("POST", f"{ORG}/resume", "operator"),
    Operation("PATCH", f"{ORG}/quotas", "operator", {"connections": 1000}),
    Operation("GET", "/v2/quotas", P.ORG_READ),
    Operation("GET", "/v2/usage", P.ORG_READ),
    Operation("GET", "/v2/members", P.ORG_READ),
    Operation("GET", "/v2/members/{member_id}", P.ORG_READ),
    Operation("PATCH", "/v2/members/{member_id}", P.MEMBERS_MANAGE, {"role": "viewer"}),
    Operation("DELETE", "/v2/members/{member_id}", P.MEMBERS_MANAGE),
    Operation("GET", "/v2/invitations", P.ORG_READ),
    Operation("POST", "/v2/invitations", P.MEMBERS_MANAGE, {"email": "new@example.com", "role": "viewer"}),
    Operation("POST", "/v2/invitations/accept", "person", {"token": "inv_x.y"}),
    Operation("DELETE", "/v2/invitations/{invitation_id}", P.MEMBERS_MANAGE),
    Operation("POST", "/v2/invitations/{invitation_id}/resend", P.MEMBERS_MANAGE),
    Operation("GET", "/v2/api-keys", P.ORG_READ),
    Operation("POST", "/v2/api-keys", P.API_KEYS_MANAGE, {"kind": "pk", "name": "x"}),
    Operation("GET", "/v2/api-keys/{key_id}", P.ORG_READ),
    Operation("DELETE", "/v2/api-keys/{key_id}", P.API_KEYS_MANAGE),
    Operation("POST", "/v2/api-keys/{key_id}/rotate", P.API_KEYS_MANAGE, {"overlap": 60}),
    Operation("POST", "/v2/command-line/login", "anybody", {"code": "x", "code_verifier": "x", "redirect_uri": "x"}),
    Operation("POST", "/v2/command-line/logout", "key"),
    Operation("GET", "/v2/identity-providers", P.ORG_READ),
    Operation("POST", "/v2/identity-providers", P.PROVIDERS_MANAGE, PROVIDER),
    Operation("GET", "/v2/identity-providers/{provider_id}", P.ORG_READ),
    Operation("PUT", "/v2/identity-providers/{provider_id}", P.PROVIDERS_MANAGE, PROVIDER),
    Operation("DELETE", "/v2/identity-providers/{provider_id}", P.PROVIDERS_MANAGE),
    Operation("POST", "/v2/identity-providers/{provider_id}/try", P.PROVIDERS_MANAGE, {"token": "a.b.c"}),
    Operation("GET", "/v2/users", P.ORG_READ),
    Operation("GET", "/v2/users/{username}", P.ORG_READ),
    Operation("DELETE", "/v2/users/{username}", P.CREDENTIALS_MANAGE),
    Operation("GET", "/v2/credentials", P.ORG_READ),
    Operation("POST", "/v2/credentials", P.CREDENTIALS_MANAGE, {"ttl": 60}),
    Operation("POST", "/v2/credentials/bulk", P.CREDENTIALS_MANAGE, "username,ttl\n,60\n"),
    Operation("POST", "/v2/credentials/revoke", P.CREDENTIALS_MANAGE, {"issued_by": "user:nobody@example.com"}),
    Operation("GET", "/v2/credentials/{token_id}", P.ORG_READ),
    Operation("DELETE", "/v2/credentials/{token_id}", P.CREDENTIALS_MANAGE),
    Operation("GET", "/v2/sessions", P.ORG_READ),
    Operation("DELETE", "/v2/sessions/{session}", P.SESSIONS_CLOSE),
    Operation("GET", "/v2/retained", P.ORG_READ),
    Operation("POST", "/v2/retained/clear", P.RETAINED_CLEAR, {"topics": ["a/b"]}),
    Operation("GET", "/v2/stored-sessions", P.ORG_READ),
    Operation("POST", "/v2/stored-sessions/release", P.SESSIONS_CLOSE, {"client_id": "nobody"}),
    Operation("GET", "/v2/policy/draft", P.ORG_READ),
    Operation("PUT", "/v2/policy/draft", P.POLICY_EDIT, TEXT),
    Operation("POST", "/v2/policy/validate", P.POLICY_SIMULATE, TEXT),
    Operation("POST", "/v2/policy/simulate", P.POLICY_SIMULATE, ASK),
    Operation("POST", "/v2/policy/diff", P.POLICY_SIMULATE),
    Operation("GET", "/v2/policy/versions", P.ORG_READ),
    Operation("GET", "/v2/policy/versions/{number}", P.ORG_READ),
    Operation("GET", "/v2/policy/deployments", P.ORG_READ),
    Operation("POST", "/v2/policy/deployments", P.POLICY_DEPLOY, {"note": "crawl"}),
    Operation("GET", "/v2/policy/deployments/{deployment_id}", P.ORG_READ),
    Operation("POST", "/v2/policy/rollback", P.POLICY_DEPLOY, {"version": 1}),
    Operation("GET", "/v2/clusters", "operator"),
    Operation("GET", "/v2/nodes", "operator"),
    Operation("GET", "/v2/audit/events", P.AUDIT_READ),
    Operation("GET", "/v2/audit/events/{cursor}", P.AUDIT_READ),
    Operation("GET", "/v2/audit/events/{cursor}/proof", P.AUDIT_READ),
    Operation("GET", "/v2/audit/log/key", P.AUDIT_READ),
    Operation("GET", "/v2/audit/log/checkpoint", P.AUDIT_READ),
    Operation("GET", "/v2/audit/log/witnessed", P.AUDIT_READ),
    Operation("GET", "/v2/audit/log/tile/{tile}", P.AUDIT_READ),
    Operation("GET", "/v2/audit/log/pack", P.AUDIT_READ),
)


MARKER = "zebra-crossing"
"""Stands in everything of the victim's that could be read."""


def fill(world: World, marker: str = MARKER) -> dict[str, str]:
    """Give an organization one of everything; returns the ids by the names that paths use."""
    owner = world.owner
    with_marker = member(owner.org, Role.VIEWER)
    issued = issue_credential(owner, username=f"{marker}-device", claims={"name": marker})
    invitation = invite(owner, email=f"{marker}@example.com", role="viewer")
    provider = add_provider(owner, Wanted(marker, "oidc", "https://id.example.com", marker))
    sign_on = add_sign_on(owner, "oidc", WantedSignOn(marker, issuer="https://id.example.com", client_id=marker))
    world.key()
    session = LiveSession(
        session=f"s-{world.id}", org=world.id, username=marker, client_id=marker, node="n1", ip="", port=0,
        transport="mqtts", mqtt_version="5", tls_version="", tls_cipher="", token_id="", connected_at=0.0, expires_at=0,
    )  # fmt: skip
    publish(redis_client(), session)
    redis_client().hset(keys.retained(world.id), f"{marker}/topic", "10 1700000000 0 device")
    redis_client().zadd(keys.stored(world.id), {f"{marker}-client": 4_000_000_000})
    with org_scope(world.id):
        key = ApiKey.objects.filter(org=owner.org).first()
        deployment = Deployment.objects.get(org=owner.org)
        membership = Membership.objects.get(org=owner.org, user=with_marker.user)
    assert key is not None
    grow()
    event = search(owner, AuditQuery()).events[0]
    return {
        "organization_id": world.id, "token_id": issued.token_id, "username": issued.local, "name": "name",
        "member_id": str(membership.pk), "invitation_id": invitation.pk, "key_id": str(key.pk),
        "provider_id": provider.pk, "sign_on_id": sign_on.pk, "session": session.session, "number": "1",
        "deployment_id": deployment.pk, "cursor": cursor_of(event), "tile": "0/000.p/1",
    }  # fmt: skip


def call(caller: Caller, operation: Operation, ids: dict[str, str], org_id: str) -> Answer:
    """Ask, with the ids filled in."""
    path = operation.path.format(**ids)
    body: Any = operation.body
    if isinstance(body, str):
        headers, body = {"content_type": "text/csv"}, body.encode()
    else:
        headers = {}
        if operation.method != "GET":
            body = json.loads(re.sub(r'"\{(\w+)\}"', lambda found: json.dumps(ids[found[1]]), json.dumps(body or {})))
        if operation.gate == "token" and operation.method == "POST":
            body = {**body, "organization_id": org_id}
    separator = "&" if "?" in path else "?"
    if not operation.path.startswith("/v2/tokens"):
        path += f"{separator}organization_id={org_id}"
    return caller(operation.method, path, body, **{name.replace("_", "-"): value for name, value in headers.items()})


def fingerprint(databases: Databases, org_id: str) -> str:
    """A hash over every row of an organization, in every table: seen as the superuser, past row-level security."""
    digest = hashlib.sha256()
    with databases.admin() as admin:
        tables = admin.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid WHERE a.attname = 'org_id' "
            "AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace "
            "AND c.relname <> 'cloudsignal_outboxrow' ORDER BY 1"
        ).fetchall()
        for (table,) in [*tables, ("orgs_organization",)]:
            column = "id" if table == "orgs_organization" else "org_id"
            statement = f"SELECT md5(t::text) FROM {table} t WHERE {column} = %s ORDER BY 1"  # noqa: S608
            rows = admin.execute(statement, [org_id])
            digest.update(repr((table, rows.fetchall())).encode())
    return digest.hexdigest()
