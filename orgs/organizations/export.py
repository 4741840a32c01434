"""Export of an organization: one JSON document, or a ZIP archive with credentials and audit log.

No secret is in either, and no hash of one.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.utils import timezone

from acl.models import PolicyDraft, PolicyVersion
from audit import kinds
from audit.models import Event
from audit.services.record import record
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access
from orgs.models import (
    ApiKey,
    Credential,
    IdentityProvider,
    Invitation,
    Membership,
    MqttIdentity,
    Organization,
    SingleSignOn,
)
from orgs.permissions import Permission

PAGE = 2_000
"""Rows read per query: an organization may have a million."""
WINDOW = timedelta(days=7)
"""Time span of the audit log read per query, so that PostgreSQL reads few partitions."""
SETTINGS = (
    "mfa_required", "allowed_origins", "connections", "messages_per_minute", "packet_bytes",
    "subscriptions_per_session", "retained_messages", "retained_bytes", "stored_sessions",
    "publish_while_split",
)  # fmt: skip
PROVIDER = ("name", "kind", "issuer", "audience", "jwks_url", "algorithms", "enabled")
SIGN_ON = (
    "name", "kind", "issuer", "client_id", "algorithms", "metadata", "domains", "approved_domains", "role", "required",
    "enabled",
)  # fmt: skip
IDENTITY = ("username", "static", "provider", "external_id", "email", "claims", "note", "created_at", "revoked_at")
CREDENTIAL = (
    "token_id", "identity__username", "hint", "issued_at", "expires_at", "revoked_at", "refreshed_from", "created_by",
)  # fmt: skip
EVENT = tuple(field.name for field in Event._meta.concrete_fields if field.name not in {"log_leaf", "salt"})


def export_organization(access: Access) -> dict[str, Any]:
    """Export an organization without its audit log as plain data.

    Raises ``Forbidden`` for those who may not update the organization.
    """
    document = _document(access)
    return {
        **document,
        "users": list(_rows(access, MqttIdentity, IDENTITY)),
        "credentials": [_plain(row) for row in _rows(access, Credential, CREDENTIAL)],
    }


def export_archive(access: Access) -> Iterator[bytes]:
    """Stream a ZIP archive in chunks: ``organization.json``, and a JSON object a line in ``usernames.jsonl``,
    ``credentials.jsonl`` and ``audit.jsonl`` (oldest first).

    Raises ``Forbidden`` before the first piece for those who may not update the organization and export its audit. That
    it was taken stands in the audit.
    """
    access.require(Permission.AUDIT_EXPORT)
    document = _document(access)
    with org_scope(access.org_id):
        record(access, kinds.ORG_EXPORTED, target=f"org:{access.org_id}", after={"archive": True})
    return _archive(access, document)


def _archive(access: Access, document: dict[str, Any]) -> Iterator[bytes]:
    out = _Outgoing()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("organization.json", _json(document, indent=2))
        yield out.taken()
        lines: tuple[tuple[str, Iterable[dict[str, Any]]], ...] = (
            ("usernames.jsonl", _rows(access, MqttIdentity, IDENTITY)),
            ("credentials.jsonl", map(_plain, _rows(access, Credential, CREDENTIAL))),
            ("audit.jsonl", _events(access)),
        )
        for name, rows in lines:
            with archive.open(name, "w", force_zip64=True) as member:
                for number, row in enumerate(rows):
                    member.write(_json(row) + b"\n")
                    if number % PAGE == 0:
                        yield out.taken()
            yield out.taken()
    yield out.taken()


def _document(access: Access) -> dict[str, Any]:
    access.require(Permission.ORG_UPDATE)
    with org_scope(access.org_id):
        org = Organization.objects.get(pk=access.org_id)
        draft = PolicyDraft.objects.filter(org=org).first()
        versions = PolicyVersion.objects.filter(org=org).order_by("number")
        providers = IdentityProvider.objects.filter(org=org).order_by("name")
        invitations = Invitation.objects.filter(org=org).order_by("created_at")
        return {
            "organization": {
                "id": org.pk, "name": org.name, "created_at": org.created_at,
                **{name: getattr(org, name) for name in SETTINGS},
            },
            "members": list(
                Membership.objects.filter(org=org)
                .order_by("pk")
                .values("user__email", "role", "ends_at", "created_at")
            ),
            "invitations": list(
                invitations.values("email", "role", "ends_at", "invited_by", "created_at", "accepted_at", "revoked_at")
            ),
            "api_keys": [
                {
                    "key": str(key), "name": key.name, "scopes": key.scopes, "ip_allow": key.ip_allow,
                    "created_at": key.created_at, "expires_at": key.expires_at, "revoked_at": key.revoked_at,
                }
                for key in ApiKey.objects.filter(org=org).order_by("pk")
            ],
            "providers": list(providers.values(*PROVIDER)),
            "sign_ons": list(SingleSignOn.objects.filter(org=org).order_by("name").values(*SIGN_ON)),
            "draft": draft.text if draft else "",
            "versions": list(versions.values("number", "digest", "source", "note", "created_at", "created_by")),
        }  # fmt: skip


def _rows(access: Access, model: type[MqttIdentity | Credential], columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Iterate over rows of the organization by primary key, in pages with a transaction each."""
    last = 0
    while True:
        with org_scope(access.org_id):
            found = model._default_manager.filter(org=access.org, pk__gt=last).order_by("pk")
            page = list(found.values("pk", *columns)[:PAGE])
        for row in page:
            last = row.pop("pk")
            yield row
        if len(page) < PAGE:
            return


def _events(access: Access) -> Iterator[dict[str, Any]]:
    """Iterate over the audit log of the organization, oldest event first."""
    since, end = access.org.created_at - timedelta(days=1), timezone.now()
    while since < end:
        yield from _window(access, since, min(since + WINDOW, end))
        since += WINDOW


def _window(access: Access, since: datetime, until: datetime) -> Iterator[dict[str, Any]]:
    after: tuple[Any, ...] = ()
    while True:
        with org_scope(access.org_id):
            found = Event.objects.filter(org_id=access.org_id, ts__gte=since, ts__lt=until)
            if after:
                found = found.filter(pk__gt=(access.org_id, *after))
            page = list(found.order_by("ts", "id").values(*EVENT)[:PAGE])
        yield from page
        if len(page) < PAGE:
            return
        after = (page[-1]["ts"], page[-1]["id"])


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {"username" if name == "identity__username" else name: value for name, value in row.items()}


def _json(value: object, *, indent: int | None = None) -> bytes:
    return json.dumps(value, cls=DjangoJSONEncoder, ensure_ascii=False, indent=indent).encode()


class _Outgoing(io.RawIOBase):
    """An unseekable buffer between ``zipfile`` and the HTTP response."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Append to the buffer."""
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> bytes:
        """Take the buffered bytes."""
        found, self._parts = b"".join(self._parts), []
        return found
