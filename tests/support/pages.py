"""Every page of the dashboard: who may open it, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass

from django.urls import URLPattern, URLResolver, get_resolver

from orgs.permissions import Permission


@dataclass(frozen=True)
class Row:
    """What a URL asks for, and how: ``get`` and ``post`` say which methods it takes."""

    scope: str
    permission: Permission | None = None
    get: bool = True
    post: bool = False
    write: Permission | None = None


READ, EDIT, DEPLOY = Permission.ORG_READ, Permission.POLICY_EDIT, Permission.POLICY_DEPLOY
CREDS, AUDIT, SIMULATE = Permission.CREDENTIALS_MANAGE, Permission.AUDIT_READ, Permission.POLICY_SIMULATE
PEOPLE, KEYS, PROVIDERS = Permission.MEMBERS_MANAGE, Permission.API_KEYS_MANAGE, Permission.PROVIDERS_MANAGE
TABLE: dict[str, Row] = {
    "platform:start": Row("person"),
    "platform:help": Row("person"),
    "platform:session": Row("public"),
    "platform:theme": Row("public", get=False, post=True),
    "platform:ca": Row("public"),
    "platform:operator-organizations": Row("operator"),
    "platform:operator-nodes": Row("operator"),
    "audit:log": Row("operator"),
    "platform:operator-mail": Row("operator"),
    "platform:operator-domains": Row("operator"),
    "platform:operator-approve": Row("operator", get=False, post=True),
    "platform:operator-suspend": Row("operator", post=True),
    "platform:operator-resume": Row("operator", get=False, post=True),
    "orgs:list": Row("person"),
    "orgs:new": Row("person", post=True),
    "platform:home": Row("org", READ),
    "platform:pulse": Row("org", READ),
    "orgs:clients": Row("org", READ),
    "orgs:session-close": Row("org", Permission.SESSIONS_CLOSE, post=True),
    "orgs:broker": Row("org", READ),
    "orgs:retained-clear": Row("org", Permission.RETAINED_CLEAR, post=True),
    "orgs:stored-release": Row("org", Permission.SESSIONS_CLOSE, post=True),
    "orgs:credentials": Row("org", READ),
    "orgs:credential-new": Row("org", CREDS, post=True),
    "orgs:credential-revoke": Row("org", CREDS, post=True),
    "orgs:username-revoke": Row("org", CREDS, post=True),
    "orgs:expiry": Row("org", READ),
    "orgs:bulk": Row("org", CREDS, post=True),
    "orgs:closing": Row("org", READ),
    "orgs:username": Row("org", READ, post=True, write=CREDS),
    "orgs:people": Row("org", READ),
    "orgs:invite": Row("org", PEOPLE, post=True),
    "orgs:leave": Row("org", READ, post=True),
    "orgs:two-step": Row("org", Permission.ORG_UPDATE, post=True),
    "orgs:member": Row("org", PEOPLE, post=True),
    "orgs:member-remove": Row("org", PEOPLE, post=True),
    "orgs:member-transfer": Row("org", Permission.ORG_TRANSFER, post=True),
    "orgs:invitation-resend": Row("org", PEOPLE, get=False, post=True),
    "orgs:invitation-revoke": Row("org", PEOPLE, post=True),
    "orgs:invitation": Row("public", post=True),
    "orgs:keys": Row("org", READ),
    "orgs:key-new": Row("org", KEYS, post=True),
    "orgs:key-rotate": Row("org", KEYS, post=True),
    "orgs:key-revoke": Row("org", READ, post=True),  # one's own command line's; the service asks for KEYS else
    "orgs:command-line": Row("person", post=True),
    "orgs:providers": Row("org", READ, post=True, write=Permission.ORG_UPDATE),
    "orgs:provider-choose": Row("org", PROVIDERS),
    "orgs:provider-new": Row("org", PROVIDERS, post=True),
    "orgs:provider": Row("org", PROVIDERS, post=True),
    "orgs:provider-remove": Row("org", PROVIDERS, post=True),
    "orgs:provider-try": Row("org", PROVIDERS, post=True),
    "orgs:sign-ons": Row("org", READ),
    "orgs:sign-on-new": Row("org", PROVIDERS, post=True),
    "orgs:sign-on": Row("org", PROVIDERS, post=True),
    "orgs:sign-on-remove": Row("org", PROVIDERS, post=True),
    "orgs:sign-on-find": Row("public"),
    "orgs:sign-on-door": Row("public"),
    "orgs:sign-on-start": Row("public"),
    "orgs:sign-on-callback": Row("public"),
    "orgs:sign-on-consume": Row("public", get=False, post=True),
    "orgs:sign-on-arrive": Row("public"),
    "orgs:sign-on-metadata": Row("public"),
    "orgs:danger": Row("org", Permission.ORG_UPDATE),
    "orgs:export": Row("org", Permission.ORG_UPDATE),
    "orgs:revoke-all": Row("org", Permission.ORG_UPDATE, post=True, write=CREDS),
    "orgs:delete": Row("org", Permission.ORG_DELETE, post=True),
    "orgs:restore": Row("org", Permission.ORG_DELETE, get=False, post=True),
    "orgs:settings": Row("org", READ, post=True, write=Permission.ORG_UPDATE),
    "acl:schema": Row("public"),
    "acl:policy": Row("org", READ),
    "acl:save": Row("org", EDIT, get=False, post=True),
    "acl:check": Row("org", EDIT, get=False, post=True),
    "acl:simulate": Row("org", SIMULATE, get=False, post=True),
    "acl:presets": Row("org", READ),
    "acl:preset": Row("org", EDIT, post=True),
    "acl:review": Row("org", READ),
    "acl:deploy": Row("org", DEPLOY, get=False, post=True),
    "acl:deployment": Row("org", READ),
    "acl:versions": Row("org", READ),
    "acl:version": Row("org", READ),
    "acl:rollback": Row("org", DEPLOY, post=True),
    "audit:list": Row("org", AUDIT),
    "audit:event": Row("org", AUDIT),
    "audit:proof": Row("org", AUDIT),
}


FOREIGN = {"v2/", "accounts/"}
"""The API and django-allauth's pages: not ours, and tested elsewhere."""


def _patterns(patterns: list[URLPattern | URLResolver], namespace: str = "") -> list[tuple[str, URLPattern]]:
    found: list[tuple[str, URLPattern]] = []
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            inner = pattern.namespace or namespace
            if str(pattern.pattern) in FOREIGN:
                continue
            found += _patterns(pattern.url_patterns, inner)
        else:
            found.append(
                (f"{namespace}:{pattern.name}" if namespace else str(pattern.name or pattern.pattern), pattern)
            )
    return found


PAGES = {
    name: pattern
    for name, pattern in _patterns(get_resolver().url_patterns)
    if not name.startswith(("healthz", "readyz", "health"))
}
