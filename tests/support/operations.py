"""Every operation of the API, with who may call it: the permissions table.

A new endpoint that is missing here fails ``test_permissions``. ``{...}`` in a path is filled from a world's own ids.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orgs.permissions import Permission

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
)
