"""The home page of an organization: next step, active policy, connected clients, recent denials."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone

from acl.access import current_deployment, deployment_progress, get_draft
from acl.brokers import broker_health
from acl.policy.language.presets import PRESETS
from acl.services.examination import permits_all
from audit.access import AuditQuery, count_up_to, search
from audit.forms import REFUSALS
from audit.kinds import CONNECT
from audit.web.lines import line
from cloudsignal.console.onboarding import Progress, steps
from cloudsignal.web.filters import address
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.credentials.reads import credential_counts
from orgs.models import Organization
from orgs.permissions import Permission
from orgs.sessions.reads import sessions_or_none

RECENT = 8
COUNTED = 1_000


@org_page(Permission.ORG_READ)
def home(request: HttpRequest, access: Access) -> HttpResponseBase:
    """Show the home page of an organization."""
    return render(request, "orgs/home.html", _context(request, access))


@org_page(Permission.ORG_READ)
def pulse(request: HttpRequest, access: Access) -> HttpResponseBase:
    """The live part of the home page, refreshed by htmx."""
    return render(request, "orgs/home.html#pulse", _context(request, access))


def _context(request: HttpRequest, access: Access) -> dict[str, Any]:
    current = current_deployment(access)
    sessions = sessions_or_none(access)
    counts = credential_counts(access)
    audited = access.may(Permission.AUDIT_READ)
    refused: dict[str, Any] = {}
    if audited:
        hour = timezone.now() - timedelta(hours=1)
        refused = {
            "denials": [line(event) for event in search(access, AuditQuery(kind=REFUSALS, limit=RECENT)).events],
            "denied_count": count_up_to(access, AuditQuery(kind=REFUSALS, since=hour), COUNTED),
            "counted": COUNTED,
            "refusals_url": address(reverse("audit:list", args=[access.org_id]), {"kind": REFUSALS}),
        }
    connected = bool(sessions) or (audited and bool(search(access, AuditQuery(kind=CONNECT, limit=1)).events))
    version = current.version.number if current else 0
    drafted = version > 1 or _written(get_draft(access).text)
    deployed = version > 1
    progress = Progress(
        issued=counts.identities > 0,
        connected=connected,
        drafted=drafted,
        simulated=deployed or bool(request.session.get(f"simulated:{access.org_id}")),
        deployed=deployed,
    )
    taken = steps(progress)
    return {
        "org": access.org,
        "nag": permits_all(access, current.version) if current else None,
        "current": current,
        "brokers": broker_health(access.org.cluster_id),
        "progress": deployment_progress(access, current.pk) if current else None,
        "sessions": sessions,
        "newest": [(row, datetime.fromtimestamp(row.connected_at, UTC)) for row in (sessions or ())[:RECENT]],
        "counts": counts,
        "audited": audited,
        "steps": taken,
        "ready": all(step.state == "done" for step in taken),
        "may_build": access.may(Permission.POLICY_EDIT) and access.org.status == Organization.Status.ACTIVE,
        **refused,
    }


def _written(text: str) -> bool:
    """Whether a draft is more than the blank one every organization starts with."""
    return bool(text.strip()) and all(preset.text != text for preset in PRESETS if preset.name == "blank")
