"""Every URL of the web application."""

from __future__ import annotations

from importlib.util import find_spec

from django.urls import URLPattern, URLResolver, include, path

WEB = ("cloudsignal.web.urls", "orgs.web.urls", "acl.web.urls", "audit.web.urls")

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("cloudsignal.health.urls")),
    path("v2/", include("cloudsignal.api.urls")),
    path("accounts/", include("allauth.urls")),
    *[path("", include(name)) for name in WEB if find_spec(name.removesuffix(".urls")) and find_spec(name)],
]

handler400 = "cloudsignal.web.pages.bad_request"
handler403 = "cloudsignal.web.pages.forbidden"
handler404 = "cloudsignal.web.pages.not_found"
handler500 = "cloudsignal.web.pages.server_error"
