"""``/v2/``: the API."""

from __future__ import annotations

from importlib.util import find_spec

from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularAPIView

PARTS = ("orgs.api.urls", "acl.api.urls", "audit.api.urls")

urlpatterns: list[URLPattern | URLResolver] = [
    path("schema/", SpectacularAPIView.as_view(), name="api-schema"),
    *[path("", include(name)) for name in PARTS if find_spec(name)],
]
