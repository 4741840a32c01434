"""URLs of the organization pages."""

from __future__ import annotations

from django.urls import path

from orgs.web import clients, credentials, home, organizations, settings

app_name = "orgs"
urlpatterns = [
    path("orgs/", organizations.index, name="list"),
    path("orgs/new/", organizations.new, name="new"),
    path("o/<str:org_id>/", home.home, name="home"),
    path("o/<str:org_id>/pulse/", home.pulse, name="pulse"),
    path("o/<str:org_id>/clients/", clients.index, name="clients"),
    path("o/<str:org_id>/clients/<str:session_id>/close/", clients.close, name="session-close"),
    path("o/<str:org_id>/credentials/", credentials.index, name="credentials"),
    path("o/<str:org_id>/credentials/new/", credentials.new, name="credential-new"),
    path("o/<str:org_id>/credentials/<str:token_id>/revoke/", credentials.revoke, name="credential-revoke"),
    path("o/<str:org_id>/usernames/<str:username>/revoke/", credentials.revoke_username, name="username-revoke"),
    path("o/<str:org_id>/settings/", settings.settings_page, name="settings"),
]
