"""URLs of the organization pages."""

from __future__ import annotations

from django.urls import path

from orgs.web import (
    bulk,
    clients,
    closing,
    credentials,
    danger,
    expiry,
    home,
    keys,
    organizations,
    people,
    providers,
    settings,
)

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
    path("o/<str:org_id>/credentials/ending/", expiry.index, name="expiry"),
    path("o/<str:org_id>/credentials/bulk/", bulk.bulk, name="bulk"),
    path("o/<str:org_id>/usernames/<str:username>/", expiry.username_page, name="username"),
    path("o/<str:org_id>/closing/<str:token>/", closing.index, name="closing"),
    path("o/<str:org_id>/settings/", settings.settings_page, name="settings"),
    path("o/<str:org_id>/settings/members/", people.index, name="people"),
    path("o/<str:org_id>/settings/members/invite/", people.new, name="invite"),
    path("o/<str:org_id>/settings/members/leave/", people.leave, name="leave"),
    path("o/<str:org_id>/settings/members/two-step/", people.two_step, name="two-step"),
    path("o/<str:org_id>/settings/members/<int:member_id>/", people.change, name="member"),
    path("o/<str:org_id>/settings/members/<int:member_id>/remove/", people.remove, name="member-remove"),
    path("o/<str:org_id>/settings/members/<int:member_id>/transfer/", people.transfer, name="member-transfer"),
    path("o/<str:org_id>/settings/invitations/<str:invitation_id>/resend/", people.resend, name="invitation-resend"),
    path("o/<str:org_id>/settings/invitations/<str:invitation_id>/revoke/", people.revoke, name="invitation-revoke"),
    path("o/<str:org_id>/settings/keys/", keys.index, name="keys"),
    path("o/<str:org_id>/settings/keys/new/", keys.new, name="key-new"),
    path("o/<str:org_id>/settings/keys/<int:key_id>/rotate/", keys.rotate, name="key-rotate"),
    path("o/<str:org_id>/settings/keys/<int:key_id>/revoke/", keys.revoke, name="key-revoke"),
    path("o/<str:org_id>/settings/providers/", providers.index, name="providers"),
    path("o/<str:org_id>/settings/providers/new/", providers.choose, name="provider-choose"),
    path("o/<str:org_id>/settings/providers/new/<str:kind>/", providers.new, name="provider-new"),
    path("o/<str:org_id>/settings/providers/<str:provider_id>/", providers.change, name="provider"),
    path("o/<str:org_id>/settings/providers/<str:provider_id>/remove/", providers.remove, name="provider-remove"),
    path("o/<str:org_id>/settings/providers/<str:provider_id>/try/", providers.try_page, name="provider-try"),
    path("o/<str:org_id>/settings/danger/", danger.index, name="danger"),
    path("o/<str:org_id>/settings/danger/export/", danger.export, name="export"),
    path("o/<str:org_id>/settings/danger/revoke/", danger.revoke_all, name="revoke-all"),
    path("o/<str:org_id>/settings/danger/delete/", danger.delete, name="delete"),
    path("o/<str:org_id>/settings/danger/keep/", danger.restore, name="restore"),
    path("invitations/<str:token>/", people.accept, name="invitation"),
]
