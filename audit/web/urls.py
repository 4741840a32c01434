"""URLs of the audit pages."""

from __future__ import annotations

from django.urls import path

from audit.web import events, log

app_name = "audit"
urlpatterns = [
    path("o/<str:org_id>/audit/", events.index, name="list"),
    path("o/<str:org_id>/audit/<str:key>/", events.event, name="event"),
    path("o/<str:org_id>/audit/<str:key>/proof/", events.proof, name="proof"),
    path("operator/log/", log.log, name="log"),
]
