"""``/v2/``: the API. What is not there is answered in the API's own shape, never with a page."""

from __future__ import annotations

from importlib.util import find_spec

from django.urls import URLPattern, URLResolver, include, path, re_path

from cloudsignal.api import views

PARTS = ("orgs.api_urls", "acl.api.urls", "audit.api.urls")

urlpatterns: list[URLPattern | URLResolver] = [
    path("schema/", views.schema, name="api-schema"),
    path("docs/", views.docs, name="api-docs"),
    *[path("", include(name)) for name in PARTS if find_spec(name)],
    re_path("", views.unknown),
]
