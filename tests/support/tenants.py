"""Organizations on the running system, made through the services, in a process that acts as the application."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.support.system import Stack

PASSWORD = "correct horse battery staple"

_PRELUDE = """
import json, sys
from datetime import UTC, datetime, timedelta
from django.utils import timezone
from acl.services.deployments import deploy
from acl.services.drafts import save_draft
from cloudsignal.secrets.keyring import pepper
from cloudsignal.wire.credential import make_secret, secret_mac
from orgs.access.grants import access_org
from orgs.models import Credential, MqttIdentity, Organization, User
from orgs.credentials import issuing as credentials
from orgs.credentials.edges import tell_edges
from orgs.organizations import lifecycle as organizations
from cloudsignal.tenancy.scopes import org_scope
given = json.loads(sys.argv[1])
def owner():
    return access_org(User.objects.get(email=given["email"]), given["org"])
def show(issued):
    print(json.dumps({"username": issued.username, "password": issued.password, "token_id": issued.token_id}))
"""


@dataclass(frozen=True)
class Tenant:
    """An organization and the person who owns it."""

    stack: Stack
    org: str
    email: str

    def issue(self, username: str, *, ttl: int = 3600, claims: dict[str, Any] | None = None) -> dict[str, Any]:
        """Issue a short-lived credential: ``username``, ``password``, ``token_id``."""
        return self.run(
            "issued = credentials.issue_credential(owner(), username=given['username'], ttl=given['ttl'],"
            " claims=given['claims'])\n"
            "show(issued)",
            username=username,
            ttl=ttl,
            claims=claims or {},
        )

    def issue_ending(self, username: str, *, seconds: int) -> dict[str, Any]:
        """A credential that ends ``seconds`` from now, sooner than the service would issue one (or has ended)."""
        return self.run(
            "issued = credentials.issue_credential(owner(), username=given['username'], ttl=60)\n"
            "ends = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=given['seconds'])\n"
            "with org_scope(given['org']):\n"
            "    row = Credential.objects.get(token_id=issued.token_id)\n"
            "    row.expires_at = ends\n"
            "    row.mac = secret_mac(pepper(), org=given['org'], username=given['username'],"
            " secret=issued.password, expires_at=int(ends.timestamp()))\n"
            "    row.save()\n"
            "    tell_edges(MqttIdentity.objects.select_for_update().get(pk=row.identity_id))\n"
            "show(issued)",
            username=username,
            seconds=seconds,
        )

    def revoke(self, token_id: str) -> None:
        """Revoke one credential."""
        self.run("credentials.revoke_credential(owner(), given['token_id']); print('{}')", token_id=token_id)

    def deploy(self, policy: str) -> None:
        """Save and deploy a policy, and wait until every edge enforces it."""
        revision = self.run(
            "save_draft(owner(), text=given['policy'])\nprint(json.dumps({'revision': deploy(owner()).revision}))",
            policy=policy,
        )["revision"]
        self.until_enforcing(revision)

    def until_enforcing(self, revision: int) -> None:
        """Wait until every edge has reported that it enforces ``revision``."""

        def all_acknowledged() -> bool:
            with self.stack.admin() as admin:
                row = admin.execute(
                    "SELECT count(*) FROM acl_target t JOIN acl_deployment d ON d.id = t.deployment_id "
                    "WHERE d.org_id = %s AND d.revision = %s AND t.status = 'enforcing'",
                    [self.org, revision],
                ).fetchone()
            return row is not None and row[0] >= len(self.stack.nodes)

        self.stack.eventually(all_acknowledged, what=f"enforcement of revision {revision} on every node")

    def run(self, code: str, **given: Any) -> dict[str, Any]:
        """Run code against the system as the application; its last line of output is JSON."""
        arguments = json.dumps({"org": self.org, "email": self.email, **given})
        answer: dict[str, Any] = json.loads(self.stack.django(_PRELUDE + code, arguments).strip().splitlines()[-1])
        return answer

    def events(self, kind: str, **columns: Any) -> list[dict[str, Any]]:
        """The audit events of this organization of one kind whose columns have these values, oldest first."""
        conditions = " AND ".join(f"{name} = %s" for name in columns)
        query = "SELECT * FROM audit_event WHERE org_id = %s AND kind = %s"
        query += f" AND {conditions}" if conditions else ""
        with self.stack.admin() as admin:
            cursor = admin.execute(query + " ORDER BY ts, id", [self.org, kind, *columns.values()])  # type: ignore[arg-type]
            names = [column.name for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def event(self, kind: str, **columns: Any) -> dict[str, Any]:
        """The newest such event, once it is there."""
        found: list[dict[str, Any]] = self.stack.eventually(
            lambda: self.events(kind, **columns), what=f"the audit event {kind} with {columns}"
        )
        return found[-1]


_numbers = iter(range(1, 1_000))


def make_tenant(stack: Stack, name: str = "Acme", policy: str | None = None) -> Tenant:
    """A new organization whose owner can sign in with :data:`PASSWORD`; with ``policy``, deployed everywhere."""
    email = f"owner-{next(_numbers)}@example.com"
    tenant = Tenant(stack, "", email)
    org = tenant.run(
        "user = User.objects.create_user(given['email'], given['password'])\n"
        "org = organizations.create_organization(user, name=given['name'])\n"
        "from allauth.account.models import EmailAddress\n"
        "EmailAddress.objects.create(user=user, email=user.email, verified=True, primary=True)\n"
        "print(json.dumps({'org': org.pk}))",
        name=name,
        password=PASSWORD,
    )["org"]
    tenant = Tenant(stack, org, email)
    tenant.until_enforcing(1)
    if policy is not None:
        tenant.deploy(policy)
    return tenant
