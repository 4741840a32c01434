"""``/v2/``: who. Organizations, people, keys, credentials, and the token service."""

from __future__ import annotations

from django.urls import path

from orgs.api import api_keys
from orgs.api import schema as _schema  # noqa: F401 - tells drf-spectacular of our authentication

urlpatterns = [
    path("api-keys", api_keys.ApiKeys.as_view(), name="api-api-keys"),
    path("api-keys/<int:key_id>", api_keys.OneApiKey.as_view(), name="api-api-key"),
    path("api-keys/<int:key_id>/rotate", api_keys.RotateApiKey.as_view(), name="api-api-key-rotate"),
]
