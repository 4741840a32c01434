"""Reading MQTT identities and credentials of an organization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from django.db.models import Count, Max, Model, Q, QuerySet
from django.utils import timezone

from cloudsignal.cursors import read_cursor, write_cursor
from cloudsignal.errors import Invalid
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access
from orgs.access.rows import get_or_404
from orgs.models import Credential, MqttIdentity
from orgs.models.credential import signing_in, unended
from orgs.permissions import Permission

PAGE = 50
PAGE_MAX = 200
Row = TypeVar("Row", bound=Model)


@dataclass(frozen=True, slots=True)
class IdentityRow:
    """A username with figures of its credentials."""

    identity: MqttIdentity
    active: int
    """Active credentials."""
    last_issued_at: datetime | None


@dataclass(frozen=True, slots=True)
class CredentialCounts:
    """The numbers of active, static and soon expiring credentials."""

    active: int
    static: int
    ends_in_hour: int
    ends_in_day: int
    identities: int


@dataclass(frozen=True, slots=True)
class CredentialPage:
    """Credentials, newest first. ``next_cursor`` continues after the last row; None at the end."""

    rows: tuple[Credential, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class IdentityPage:
    """Identities by name. ``next_cursor`` continues after the last row; None at the end."""

    rows: tuple[IdentityRow, ...]
    next_cursor: str | None


def list_identities(access: Access, *, search: str = "", cursor: str = "", limit: int = PAGE) -> IdentityPage:
    """List usernames of the organization in order, filtered by the prefix ``search``; ``cursor`` is a username."""
    access.require(Permission.ORG_READ)
    limit = _page(limit)
    with org_scope(access.org_id):
        found = _named(MqttIdentity.objects.filter(org=access.org, username__gt=cursor), "username", search)
        rows = list(found.order_by("username")[: limit + 1])
        # Counted for this page alone: an organization may have a million names.
        secrets = Credential.objects.filter(org=access.org, identity__in=[row.pk for row in rows])
        counted = secrets.values("identity").annotate(
            active=Count("id", filter=signing_in(timezone.now())), last=Max("issued_at")
        )
        figures = {one["identity"]: (one["active"], one["last"]) for one in counted}
    page = tuple(
        IdentityRow(row, 0 if row.revoked_at else figures.get(row.pk, (0, None))[0], figures.get(row.pk, (0, None))[1])
        for row in rows[:limit]
    )
    return IdentityPage(page, page[-1].identity.username if len(rows) > limit else None)


def stored_claims(access: Access, username: str) -> Mapping[str, Any] | None:
    """Get the claims of the identity ``username`` (the local part); None if there is no such identity."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        found = MqttIdentity.objects.filter(org=access.org, username=username).values_list("claims", flat=True).first()
    return None if found is None else dict(found)


def list_credentials(
    access: Access, *, state: str = "", username: str = "", cursor: str = "", limit: int = PAGE
) -> CredentialPage:
    """List credentials of the organization, newest first, each with its ``identity``.

    ``state`` is one of ``active``, ``static``, ``retired``, ``expired``, ``revoked`` or empty; ``username`` is a prefix
    of the local part; ``cursor`` comes from the page before. Raises :class:`Invalid` for anything else.
    """
    access.require(Permission.ORG_READ)
    limit = _page(limit)
    with org_scope(access.org_id):
        found = _in_state(Credential.objects.filter(org=access.org), state)
        if username:
            found = _named(found, "identity__username", username)
        if cursor:
            found = _after(found, cursor)
        rows = list(found.select_related("identity").order_by("-issued_at", "-id")[: limit + 1])
    page = tuple(rows[:limit])
    return CredentialPage(page, write_cursor(page[-1].issued_at, page[-1].pk) if len(rows) > limit else None)


def get_credential(access: Access, token_id: str) -> Credential:
    """Get a credential with its identity; raises :class:`NotFound`."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return get_or_404(Credential, access.org_id, "The credential", related=["identity"], token_id=token_id)


def credential_counts(access: Access) -> CredentialCounts:
    """Count credentials for the head of the credentials page."""
    access.require(Permission.ORG_READ)
    now = timezone.now()
    with org_scope(access.org_id):
        # The expired ones, by far the most, are left out by an index.
        active = Credential.objects.filter(signing_in(now), org=access.org)
        found = active.aggregate(
            active=Count("id"),
            static=Count("id", filter=Q(expires_at=None)),
            ends_in_hour=Count("id", filter=Q(expires_at__gt=now, expires_at__lte=now + timedelta(hours=1))),
            ends_in_day=Count("id", filter=Q(expires_at__gt=now, expires_at__lte=now + timedelta(days=1))),
        )
        identities = MqttIdentity.objects.filter(org=access.org, revoked_at=None).count()
    return CredentialCounts(**found, identities=identities)


def _named(found: QuerySet[Row], column: str, prefix: str) -> QuerySet[Row]:
    """Filter names by ``prefix`` as a range: under row-level security ``LIKE`` cannot use an index.

    Names are of a-z, 0-9, - and _, all of which come before ``~`` in the column's C collation.
    """
    return found.filter(**{f"{column}__gte": prefix, f"{column}__lt": f"{prefix}~"}) if prefix else found


def _in_state(found: QuerySet[Credential], state: str) -> QuerySet[Credential]:
    now = timezone.now()
    match state:
        case "":
            return found
        case "active":
            return found.filter(signing_in(now))
        case "static":
            return found.filter(revoked_at=None, expires_at=None)
        case "retired":
            return found.filter(unended(now)).exclude(retired_at=None)
        case "expired":
            renewed = Q(renewed_until__isnull=False, renewed_until__gt=now)
            return found.filter(~renewed, revoked_at=None, expires_at__lte=now)
        case "revoked":
            return found.exclude(revoked_at=None)
    raise Invalid("bad_state", "The state is one of active, static, retired, expired, revoked.", field="state")


def _after(found: QuerySet[Credential], cursor: str) -> QuerySet[Credential]:
    issued, pk = read_cursor(cursor)
    return found.filter(Q(issued_at__lt=issued) | Q(issued_at=issued, id__lt=pk))


def _page(limit: int) -> int:
    return max(1, min(limit, PAGE_MAX))
