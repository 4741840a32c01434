"""Pages: list the presets, and load one as the draft."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib import messages
from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone

from acl.access import current_deployment, get_draft
from acl.examining import Examined, examine
from acl.forms import PresetForm
from acl.policy.language.presets import PRESETS, Preset, preset
from acl.services.drafts import load_preset
from cloudsignal.errors import NotFound
from cloudsignal.web.confirm import Impact, Question, confirm
from cloudsignal.web.formatting import actor
from orgs.access.grants import Access
from orgs.access.web.gate import org_page
from orgs.permissions import Permission


@dataclass(frozen=True, slots=True)
class Choice:
    """A preset with its examined policy."""

    preset: Preset
    text: str
    """The document that choosing it would make the draft."""
    examined: Examined
    is_draft: bool


@org_page(Permission.ORG_READ)
def index(request: HttpRequest, access: Access) -> HttpResponseBase:
    """The presets side by side, each with its rules to read."""
    draft, now = get_draft(access), timezone.now()
    texts = [(each, each.starting(now)) for each in PRESETS]
    choices = [
        Choice(each, text, examine(text, org=access.org_id, now=now), text == draft.text) for each, text in texts
    ]
    context = {
        "choices": choices,
        "draft": draft,
        "precious": _precious(access, draft.text),
        "may_edit": access.may(Permission.POLICY_EDIT),
    }
    return render(request, "acl/presets.html", context)


@org_page(Permission.POLICY_EDIT, methods=("GET", "POST"))
def load(request: HttpRequest, access: Access, name: str) -> HttpResponseBase:
    """Replace the draft by a preset, after a confirmation when the draft would be lost."""
    form = PresetForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        load_preset(access, name, if_match=form.value("etag") or None)
        messages.success(request, "The draft is now this preset. Simulate it, then review and deploy.")
        return redirect("acl:policy", access.org_id)
    chosen = preset(name)
    if chosen is None:
        raise NotFound("The preset")
    draft = get_draft(access)
    lines = len(draft.text.splitlines())
    question = Question(
        title=f'Replace the draft with "{chosen.title}"?',
        text="The current draft is neither deployed nor a preset, and will be lost. What is enforced does not change.",
        impact=[Impact(f"{lines:,}", f"lines of the draft replaced, last saved by {actor(draft.updated_by)}")],
        action="Replace the draft",
        url=reverse("acl:preset", args=[access.org_id, name]),
        cancel=reverse("acl:presets", args=[access.org_id]),
    )
    return confirm(request, question, PresetForm(initial={"etag": draft.etag}))


def _precious(access: Access, text: str) -> bool:
    """Whether the draft would be lost if it were replaced: it is neither a preset nor the active version."""
    current = current_deployment(access)
    deployed = current is not None and current.version.source == text
    return bool(text.strip()) and not deployed and all(each.starting(timezone.now()) != text for each in PRESETS)
