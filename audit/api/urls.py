"""``/v2/``: URLs of the audit API."""

from __future__ import annotations

from django.urls import path

from audit.api import events, log

urlpatterns = [
    path("audit/events", events.Events.as_view(), name="api-audit-events"),
    path("audit/events/<str:cursor>", events.OneEvent.as_view(), name="api-audit-event"),
    path("audit/events/<str:cursor>/proof", log.EventProof.as_view(), name="api-audit-event-proof"),
    path("audit/log/key", log.LogKey.as_view(), name="api-audit-log-key"),
    path("audit/log/checkpoint", log.LogCheckpoint.as_view(), name="api-audit-log-checkpoint"),
    path("audit/log/witnessed", log.LogWitnessed.as_view(), name="api-audit-log-witnessed"),
    path("audit/log/tile/<path:tile>", log.LogTile.as_view(), name="api-audit-log-tile"),
    path("audit/log/pack", log.LogPack.as_view(), name="api-audit-log-pack"),
]
