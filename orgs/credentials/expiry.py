"""Expiring credentials, and whether their clients will be disconnected or are likely to refresh."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Max, Q
from django.utils import timezone

from cloudsignal.cursors import read_cursor, write_cursor
from cloudsignal.errors import Invalid
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access
from orgs.models import Credential, MqttIdentity
from orgs.models.credential import signing_in
from orgs.permissions import Permission

WITHIN: dict[str, timedelta] = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}
PAGE = 50


@dataclass(frozen=True, slots=True)
class Ending:
    """A credential that expires soon."""

    credential: Credential
    covered_until: datetime | None
    """The latest expiry among the username's credentials that outlive this one; None if none of them expires."""
    covered: bool
    """Whether the username has a credential that outlives this one."""
    refreshed: bool
    """Whether the client has ever refreshed a credential."""


@dataclass(frozen=True, slots=True)
class EndingPage:
    """Credentials by expiry. ``next_cursor`` continues after the last row; None at the end."""

    rows: tuple[Ending, ...]
    next_cursor: str | None


def count_ending(access: Access) -> dict[str, int]:
    """Count live credentials that expire within each window of :data:`WITHIN`."""
    access.require(Permission.ORG_READ)
    now = timezone.now()
    windows = {name: Count("id", filter=Q(expires_at__lte=now + span)) for name, span in WITHIN.items()}
    with org_scope(access.org_id):
        live = Credential.objects.filter(org=access.org, revoked_at=None, retired_at=None, expires_at__gt=now)
        return {name: int(count) for name, count in live.aggregate(**windows).items()}


def list_ending(access: Access, *, within: str, cursor: str = "") -> EndingPage:
    """List credentials that expire within a window of :data:`WITHIN`, the next first. Raises :class:`Invalid`."""
    access.require(Permission.ORG_READ)
    if within not in WITHIN:
        raise Invalid("bad_window", f"The window is one of {', '.join(WITHIN)}.", field="within")
    now = timezone.now()
    with org_scope(access.org_id):
        live = Credential.objects.filter(org=access.org, revoked_at=None, retired_at=None, expires_at__gt=now)
        found = live.filter(expires_at__lte=now + WITHIN[within])
        if cursor:
            ends, pk = read_cursor(cursor)
            found = found.filter(Q(expires_at__gt=ends) | Q(expires_at=ends, id__gt=pk))
        rows = list(found.select_related("identity").order_by("expires_at", "id")[: PAGE + 1])
        page = rows[:PAGE]
        # Asked for this page alone: an organization may have a million secrets.
        names = [row.identity_id for row in page]
        own = Credential.objects.filter(org=access.org, identity__in=names)
        refreshed = set(own.exclude(refreshed_from="").values_list("identity_id", flat=True))
        working = own.filter(signing_in(now))
        figures = {
            one["identity"]: (one["last"], bool(one["static"]))
            for one in working.values("identity").annotate(
                last=Max("expires_at"), static=Count("id", filter=Q(expires_at=None))
            )
        }
    endings = tuple(_ending(row, figures.get(row.identity_id, (None, False)), refreshed) for row in page)
    last = page[-1] if len(rows) > PAGE else None
    return EndingPage(endings, write_cursor(last.expires_at, last.pk) if last and last.expires_at else None)


def count_identities_of(access: Access, provider: str) -> int:
    """Count the active usernames of an identity provider."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return MqttIdentity.objects.filter(org=access.org, provider=provider, revoked_at=None).count()


def _ending(row: Credential, figures: tuple[datetime | None, bool], refreshed: set[int]) -> Ending:
    last, static = figures
    later = last if last and row.expires_at and last > row.expires_at else None
    return Ending(row, None if static else later, static or later is not None, row.identity_id in refreshed)
