"""Save the draft of a policy. Saving enforces nothing."""

from __future__ import annotations

import hashlib

from django.utils import timezone

from acl.models import PolicyDraft
from acl.policy.language.presets import preset
from acl.services.examination import check_size
from audit import kinds
from audit.services.record import record
from cloudsignal.errors import Conflict, NotFound
from cloudsignal.tenancy.scopes import org_scope
from orgs.access.grants import Access
from orgs.permissions import Permission


def save_draft(access: Access, *, text: str, if_match: str | None = None) -> PolicyDraft:
    """Save the draft's text, even with errors. With ``if_match``, only over the draft that has this ETag.

    Raises :class:`Conflict` when somebody else saved in between and :class:`Invalid` when the text is too large.
    """
    access.require(Permission.POLICY_EDIT)
    check_size(text)
    with org_scope(access.org_id):
        draft = PolicyDraft.objects.select_for_update().get(org=access.org)
        match(draft, if_match)
        if draft.text == text:
            return draft
        before = _summary(draft)
        draft.text = text
        draft.revision += 1
        draft.updated_at = timezone.now()
        draft.updated_by = access.actor
        draft.save()
        record(access, kinds.DRAFT_SAVED, target="policy:draft", before=before, after=_summary(draft))
    return draft


def load_preset(access: Access, name: str, *, if_match: str | None = None) -> PolicyDraft:
    """Replace the draft by a preset; raises :class:`NotFound` for an unknown name."""
    chosen = preset(name)
    if chosen is None:
        raise NotFound("The preset")
    return save_draft(access, text=chosen.starting(timezone.now()), if_match=if_match)


def match(draft: PolicyDraft, if_match: str | None) -> None:
    """Raise :class:`Conflict` unless ``if_match`` is absent, ``*`` or the draft's ETag (RFC 9110 s13.1.1)."""
    if if_match is None or if_match.strip() == "*":
        return
    if draft.etag not in {tag.strip().removeprefix("W/") for tag in if_match.split(",")}:
        raise Conflict(
            "draft_changed",
            f"The draft was changed by {draft.updated_by} in the meantime; load it again, then repeat your change.",
            field="if_match",
        )


def _summary(draft: PolicyDraft) -> dict[str, object]:
    data = draft.text.encode()
    return {"revision": draft.revision, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
