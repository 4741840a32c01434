"""``/v2/``: who. Organizations, people, keys, credentials, and the token service."""

from __future__ import annotations

from django.urls import path

from orgs.api import api_keys, tokens
from orgs.api import schema as _schema  # noqa: F401 - tells drf-spectacular of our authentication

urlpatterns = [
    path("tokens/create", tokens.CreateToken.as_view(), name="api-token-create"),
    path("tokens/exchange", tokens.ExchangeToken.as_view(), name="api-token-exchange"),
    path("tokens/refresh", tokens.RefreshToken.as_view(), name="api-token-refresh"),
    path("tokens/revoke", tokens.RevokeToken.as_view(), name="api-token-revoke"),
    path("providers", tokens.PublicProviders.as_view(), name="api-public-providers"),
    path("users/<str:username>/claims", tokens.Claims.as_view(), name="api-claims"),
    path("users/<str:username>/claims/<path:name>", tokens.OneClaim.as_view(), name="api-claim"),
    path("api-keys", api_keys.ApiKeys.as_view(), name="api-api-keys"),
    path("api-keys/<int:key_id>", api_keys.OneApiKey.as_view(), name="api-api-key"),
    path("api-keys/<int:key_id>/rotate", api_keys.RotateApiKey.as_view(), name="api-api-key-rotate"),
]
