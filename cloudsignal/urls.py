"""Every URL of the web application."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, include, path

urlpatterns: list[URLPattern | URLResolver] = [
    path("", include("cloudsignal.health.urls")),
    path("v2/", include("cloudsignal.api.urls")),
    path("accounts/", include("allauth.urls")),
    path("", include("cloudsignal.console.urls")),
    path("", include("orgs.web_urls")),
    path("", include("acl.web.urls")),
    path("", include("audit.web.urls")),
]

handler400 = "cloudsignal.console.pages.bad_request"
handler403 = "cloudsignal.console.pages.forbidden"
handler404 = "cloudsignal.console.pages.not_found"
handler429 = "cloudsignal.console.pages.too_many_requests"  # django-allauth's name for it
handler500 = "cloudsignal.console.pages.server_error"
