"""The draft: saved as typed, guarded by its ETag, never enforced."""

from __future__ import annotations

import pytest
from django.utils import timezone

from acl.access import current_deployment, get_draft
from acl.policy.language.presets import PRESETS
from acl.services.drafts import load_preset, save_draft
from audit.access import AuditQuery, search
from cloudsignal.errors import Conflict, Forbidden, Invalid, NotFound
from orgs.permissions import Role
from tests.support.world import member, organization

pytestmark = pytest.mark.django_db


def test_a_draft_is_kept_as_typed_errors_and_all_and_nothing_is_deployed() -> None:
    access = organization()
    deployed = current_deployment(access)
    text = "rules:\n  - topic: [a/#\n\t# not yaml\r\n"
    draft = save_draft(access, text=text)
    assert (draft.text, draft.revision, draft.updated_by) == (text, 2, access.actor)
    assert get_draft(access).text == text
    assert current_deployment(access) == deployed


def test_saving_the_same_text_changes_nothing() -> None:
    access = organization()
    before = get_draft(access)
    assert save_draft(access, text=before.text).etag == before.etag
    assert search(access, AuditQuery(kind="draft.saved")).events == ()


def test_two_people_do_not_overwrite_each_other() -> None:
    access = organization()
    colleague = member(access.org, Role.DEVELOPER)
    etag = get_draft(access).etag
    saved = save_draft(colleague, text="version: '3'\n", if_match=etag)
    with pytest.raises(Conflict) as refused:
        save_draft(access, text="mine", if_match=etag)
    assert refused.value.code == "draft_changed"
    assert colleague.actor in refused.value.message
    assert get_draft(access).text == "version: '3'\n"
    assert save_draft(access, text="mine", if_match=saved.etag).text == "mine"
    assert save_draft(access, text="again", if_match="*").text == "again"


@pytest.mark.parametrize("text", ["x" * (1024 * 1024 + 1), "é" * (600 * 1024), "nul\0", "\ud800"])
def test_what_cannot_be_a_document_is_refused(text: str) -> None:
    access = organization()
    with pytest.raises(Invalid) as refused:
        save_draft(access, text=text)
    assert refused.value.field == "text"
    assert get_draft(access).revision == 1


def test_each_preset_loads_and_an_unknown_one_does_not() -> None:
    access = organization()
    for preset in PRESETS:
        now = timezone.now()
        assert load_preset(access, preset.name).text in {preset.starting(now), preset.starting(timezone.now())}
    with pytest.raises(NotFound):
        load_preset(access, "../blank")


@pytest.mark.parametrize("role", list(Role))
def test_who_may_edit(role: Role) -> None:
    owner = organization()
    access = member(owner.org, role)
    if role in {Role.OWNER, Role.ADMIN, Role.DEVELOPER}:
        save_draft(access, text="mine")
        assert get_draft(owner).text == "mine"
    else:
        with pytest.raises(Forbidden):
            save_draft(access, text="mine")
        assert get_draft(owner).revision == 1
    assert get_draft(access).org_id == owner.org_id


def test_the_audit_tells_what_changed_without_the_text() -> None:
    access = organization()
    save_draft(access, text="secret-plans")
    (event,) = search(access, AuditQuery(kind="draft.saved")).events
    assert event.before is not None
    assert event.after is not None
    assert (event.before["revision"], event.after["revision"], event.after["bytes"]) == (1, 2, 12)
    assert "secret-plans" not in str(event.after)
