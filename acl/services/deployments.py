"""Deploy a policy version to every node, or roll back to an earlier one.

One transaction holds the version, the deployment with its targets, the organization's next revision, the audit row and
the outbox row. The organization's row is locked first, so revisions and version numbers have one order.
"""

from __future__ import annotations

from django.db.models import Max

from acl.examining import Examined
from acl.models import Deployment, Node, PolicyDraft, PolicyVersion, Target
from acl.models.deployment import in_force
from acl.policy.language.presets import PRESETS
from acl.services.drafts import match
from acl.services.examination import examine_to_deploy
from audit import kinds
from audit.services.record import record
from cloudsignal.errors import Conflict, Invalid
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access
from orgs.access.rows import get_or_404
from orgs.models import Organization
from orgs.permissions import Permission
from orgs.publishing import publish_organization

NOTE_MAX = 200
BLANK = next(preset for preset in PRESETS if preset.name == "blank")
"""The policy of a new organization: no rules, so everything is denied."""


def deploy(access: Access, *, note: str = "", if_match: str | None = None, over: str = "") -> Deployment:
    """Make the draft the next version and send it to every node.

    Refused with :class:`Invalid` (findings in ``details``) when the draft has errors or a test in it fails, and with
    :class:`Conflict` when it is what is in force already, was changed since ``if_match``, or another deployment than
    ``over`` is in force.
    """
    access.require(Permission.POLICY_DEPLOY)
    _check_note(note)
    with org_scope(access.org_id):
        draft = PolicyDraft.objects.get(org=access.org)
        match(draft, if_match)
    # Parsing may take a while and needs no lock; the draft is compared again under one.
    checked = examine_to_deploy(access.org_id, draft.text)
    with org_scope(access.org_id):
        org = Organization.objects.select_for_update().get(pk=access.org_id)
        now = PolicyDraft.objects.get(org=org)
        match(now, draft.etag)
        current = in_force(org.pk)
        _match_current(current, over)
        if current and current.version.digest == checked.digest and current.version.source == draft.text:
            raise Conflict(
                "nothing_to_deploy", f"The draft equals version {current.version.number}, which is already active."
            )
        version = _add_version(access, checked, source=draft.text, note=note)
        return _begin(access, org, version, kind=Deployment.Kind.DEPLOY, note=note, before=current)


def rollback(access: Access, *, number: int, note: str = "", over: str = "") -> Deployment:
    """Send an earlier version to every node again.

    Raises :class:`NotFound`, and :class:`Conflict` when it is in force already or another deployment than ``over`` is.
    """
    access.require(Permission.POLICY_DEPLOY)
    _check_note(note)
    with org_scope(access.org_id):
        org = Organization.objects.select_for_update().get(pk=access.org_id)
        version = get_or_404(PolicyVersion, org.pk, f"Version {number}", number=number)
        current = in_force(org.pk)
        _match_current(current, over)
        if current and current.version_id == version.pk:
            raise Conflict("nothing_to_deploy", f"Version {number} is already active.")
        return _begin(access, org, version, kind=Deployment.Kind.ROLLBACK, note=note, before=current)


def begin_with_deny_all(access: Access) -> Deployment:
    """Deploy an empty version 1, which denies everything, for a new organization, and create its blank draft."""
    org = Organization.objects.select_for_update().get(pk=access.org_id)
    text = BLANK.text
    PolicyDraft.objects.create(org=org, text=text, updated_by=access.actor)
    checked = examine_to_deploy(org.pk, text, ours=True)
    version = _add_version(access, checked, source=text, note="deny everything")
    return _begin(access, org, version, kind=Deployment.Kind.DEPLOY, note=version.note, before=None)


def _add_version(access: Access, checked: Examined, *, source: str, note: str) -> PolicyVersion:
    last = PolicyVersion.objects.filter(org=access.org).aggregate(last=Max("number"))["last"] or 0
    return PolicyVersion.objects.create(
        org=access.org,
        number=last + 1,
        digest=checked.digest or "",
        document=checked.document,
        source=source,
        note=note,
        created_by=access.actor,
    )


def _begin(
    access: Access,
    org: Organization,
    version: PolicyVersion,
    *,
    kind: Deployment.Kind,
    note: str,
    before: Deployment | None,
) -> Deployment:
    publish_organization(org)
    _supersede(org)
    deployment = Deployment.objects.create(
        org=org,
        version=version,
        kind=kind,
        revision=org.revision,
        note=note,
        created_at=org.revised_at,
        created_by=access.actor,
    )
    nodes = Node.objects.filter(cluster_id=org.cluster_id, online=True, retired_at=None)
    Target.objects.bulk_create([Target(org=org, deployment=deployment, node=node) for node in nodes])
    record(
        access,
        kinds.POLICY_ROLLED_BACK if kind == Deployment.Kind.ROLLBACK else kinds.POLICY_DEPLOYED,
        target=f"deployment:{deployment.pk}",
        before={"version": before.version.number, "digest": before.version.digest} if before else None,
        after={"version": version.number, "digest": version.digest, "note": note, "revision": org.revision},
    )
    return deployment


def _supersede(org: Organization) -> None:
    """Mark every earlier deployment as superseded: at most one deployment is active.

    A refused one stays refused, and targets keep what nodes acknowledged; only those still awaited are superseded too.
    """
    earlier = Deployment.objects.filter(org=org, status__in=(Deployment.Status.PENDING, Deployment.Status.ENFORCING))
    Target.objects.filter(org=org, deployment__in=earlier, status=Target.Status.PENDING).update(
        status=Target.Status.SUPERSEDED
    )
    earlier.update(status=Deployment.Status.SUPERSEDED)


def _match_current(current: Deployment | None, over: str) -> None:
    """Raise :class:`Conflict` unless the deployment that was reviewed is still the active one."""
    if over and (current is None or current.pk != over):
        raise Conflict(
            "deployment_changed",
            f"Version {current.version.number if current else 0} was activated by "
            f"{current.created_by if current else 'somebody'} in the meantime; check the changes, then try again.",
            field="over",
        )


def _check_note(note: str) -> None:
    if len(note) > NOTE_MAX:
        raise Invalid("note_too_long", f"A note has at most {NOTE_MAX} characters.", field="note")
