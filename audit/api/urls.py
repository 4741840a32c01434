"""``/v2/``: URLs of the audit API."""

from __future__ import annotations

from django.urls import path

from audit.api import events

urlpatterns = [
    path("audit/events", events.Events.as_view(), name="api-audit-events"),
    path("audit/events/<str:cursor>", events.OneEvent.as_view(), name="api-audit-event"),
]
