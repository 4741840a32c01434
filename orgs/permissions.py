"""Roles inside an organization and what each may do: the one registry (CONTRACTS: "Roles inside an org"). Pure Python.

Services check it, pages show it, and the permissions test walks it. A permission that no role has explodes at import.
"""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """The role of a member in an organization, most powerful first."""

    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    AUDITOR = "auditor"
    VIEWER = "viewer"


class Permission(StrEnum):
    """One thing a member may do. The value is the word the API and the audit use."""

    ORG_DELETE = "org.delete"
    ORG_TRANSFER = "org.transfer"
    ORG_UPDATE = "org.update"
    MEMBERS_MANAGE = "members.manage"
    API_KEYS_MANAGE = "api_keys.manage"
    PROVIDERS_MANAGE = "providers.manage"
    CREDENTIALS_MANAGE = "credentials.manage"
    POLICY_EDIT = "policy.edit"
    POLICY_SIMULATE = "policy.simulate"
    POLICY_DEPLOY = "policy.deploy"
    SESSIONS_CLOSE = "sessions.close"
    RETAINED_CLEAR = "retained.clear"
    ORG_READ = "org.read"
    AUDIT_READ = "audit.read"
    AUDIT_EXPORT = "audit.export"


TITLES: dict[Permission, str] = {
    Permission.ORG_READ: "Read everything except the audit log",
    Permission.CREDENTIALS_MANAGE: "Issue and revoke credentials, change claims",
    Permission.SESSIONS_CLOSE: "Close live sessions, release stored sessions",
    Permission.RETAINED_CLEAR: "Clear retained messages",
    Permission.POLICY_EDIT: "Edit the policy draft",
    Permission.POLICY_SIMULATE: "Simulate",
    Permission.POLICY_DEPLOY: "Deploy and roll back",
    Permission.AUDIT_READ: "Search the audit log",
    Permission.AUDIT_EXPORT: "Export the audit log",
    Permission.ORG_UPDATE: "Rename the organization, change its settings",
    Permission.MEMBERS_MANAGE: "Invite, change and remove members",
    Permission.API_KEYS_MANAGE: "Create and revoke API keys",
    Permission.PROVIDERS_MANAGE: "Change identity providers",
    Permission.ORG_TRANSFER: "Transfer ownership",
    Permission.ORG_DELETE: "Delete the organization",
}
"""The label of each permission on pages and in errors, in the order of the forms."""

_READ = frozenset({Permission.ORG_READ})
_AUDIT = frozenset({Permission.AUDIT_READ, Permission.AUDIT_EXPORT})
_BUILD = frozenset(
    {
        Permission.CREDENTIALS_MANAGE,
        Permission.POLICY_EDIT,
        Permission.POLICY_SIMULATE,
        Permission.POLICY_DEPLOY,
        Permission.SESSIONS_CLOSE,
    }
)
_ADMINISTER = frozenset(
    {
        Permission.ORG_UPDATE,
        Permission.MEMBERS_MANAGE,
        Permission.API_KEYS_MANAGE,
        Permission.PROVIDERS_MANAGE,
    }
)
_OWN = frozenset({Permission.ORG_DELETE, Permission.ORG_TRANSFER, Permission.RETAINED_CLEAR})

PERMISSIONS: dict[Role, frozenset[Permission]] = {
    Role.OWNER: _READ | _AUDIT | _BUILD | _ADMINISTER | _OWN,
    Role.ADMIN: _READ | _AUDIT | _BUILD | _ADMINISTER,
    Role.DEVELOPER: _READ | _BUILD,
    Role.AUDITOR: _READ | _AUDIT,
    Role.VIEWER: _READ,
}

OPERATOR = _READ | _AUDIT | {Permission.RETAINED_CLEAR}
"""Permissions of operators inside an organization they are no member of: look, and clear retained messages, which
fill the broker that all share. What else they change (suspend, resume) are services of their own."""

CLI_SESSION = _READ | _AUDIT | _BUILD
"""The most that a CLI session may do, whatever the person's role. Members, keys, providers and the organization
itself stay out: with them a stolen key could make itself a lasting one."""

if _untitled := set(Permission) - set(TITLES):
    raise ValueError(f"no title for {sorted(_untitled)}")
if _unheld := set(Permission) - frozenset().union(*PERMISSIONS.values()):
    raise ValueError(f"no role holds {sorted(_unheld)}")


def may(role: Role, permission: Permission) -> bool:
    """Whether ``role`` holds ``permission``."""
    return permission in PERMISSIONS[role]


def roles_with(permission: Permission) -> tuple[Role, ...]:
    """The roles that hold ``permission``, most powerful first: what a refusal names."""
    return tuple(role for role in Role if may(role, permission))
