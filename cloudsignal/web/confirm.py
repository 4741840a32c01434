"""Confirmation of an action: a page, or a dialog for htmx, that shows the action's impact first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render


@dataclass(frozen=True, slots=True)
class Impact:
    """One line of an action's impact: a figure and what it counts."""

    count: str
    text: str


@dataclass(frozen=True, slots=True)
class Download:
    """A file offered for download before the action."""

    text: str
    url: str


@dataclass(frozen=True, slots=True)
class Question:
    """A confirmation page's content. ``url`` takes the POST, ``cancel`` is the page to return to."""

    title: str
    text: str
    impact: Sequence[Impact]
    action: str
    url: str
    cancel: str
    danger: bool = True
    first: Download | None = None


def confirm(request: HttpRequest, question: Question, form: Form | None = None) -> HttpResponse:
    """Render the question, with the fields of ``form`` and what was wrong in them."""
    template = "components/confirm.html#dialog" if request.headers.get("HX-Request") else "components/confirm.html"
    status = HTTPStatus.UNPROCESSABLE_ENTITY if form is not None and form.errors else HTTPStatus.OK
    return render(request, template, {"question": question, "impact": question.impact, "form": form}, status=status)
