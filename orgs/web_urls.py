"""URLs of the organization pages."""

from __future__ import annotations

from django.urls import path

from orgs.api_keys.web import cli_login, keys
from orgs.broker import web as broker
from orgs.credentials.web import bulk, credentials, expiry
from orgs.organizations.web import danger, organizations, settings
from orgs.people import web as people
from orgs.providers import web as providers
from orgs.sessions.web import clients, progress
from orgs.sso.web import login
from orgs.sso.web import settings as sign_on

app_name = "orgs"
urlpatterns = [
    path("orgs/", organizations.index, name="list"),
    path("orgs/new/", organizations.new, name="new"),
    path("o/<str:org_id>/clients/", clients.index, name="clients"),
    path("o/<str:org_id>/clients/<str:session_id>/close/", clients.close, name="session-close"),
    path("o/<str:org_id>/broker/", broker.index, name="broker"),
    path("o/<str:org_id>/broker/clear/", broker.clear, name="retained-clear"),
    path("o/<str:org_id>/broker/release/", broker.release, name="stored-release"),
    path("o/<str:org_id>/credentials/", credentials.index, name="credentials"),
    path("o/<str:org_id>/credentials/new/", credentials.new, name="credential-new"),
    path("o/<str:org_id>/credentials/<str:token_id>/revoke/", credentials.revoke, name="credential-revoke"),
    path("o/<str:org_id>/usernames/<str:username>/revoke/", credentials.revoke_username, name="username-revoke"),
    path("o/<str:org_id>/credentials/ending/", expiry.index, name="expiry"),
    path("o/<str:org_id>/credentials/bulk/", bulk.bulk, name="bulk"),
    path("o/<str:org_id>/usernames/<str:username>/", expiry.username_page, name="username"),
    path("o/<str:org_id>/closing/<str:token>/", progress.index, name="closing"),
    path("o/<str:org_id>/settings/", settings.settings_page, name="settings"),
    path("o/<str:org_id>/settings/members/", people.index, name="people"),
    path("o/<str:org_id>/settings/members/invite/", people.new, name="invite"),
    path("o/<str:org_id>/settings/members/leave/", people.leave, name="leave"),
    path("o/<str:org_id>/settings/members/two-step/", settings.two_step, name="two-step"),
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
    path("o/<str:org_id>/settings/sign-on/", sign_on.index, name="sign-ons"),
    path("o/<str:org_id>/settings/sign-on/new/<str:kind>/", sign_on.new, name="sign-on-new"),
    path("o/<str:org_id>/settings/sign-on/<str:sign_on_id>/", sign_on.change, name="sign-on"),
    path("o/<str:org_id>/settings/sign-on/<str:sign_on_id>/remove/", sign_on.remove, name="sign-on-remove"),
    path("o/<str:org_id>/settings/danger/", danger.index, name="danger"),
    path("o/<str:org_id>/settings/danger/export/", danger.export, name="export"),
    path("o/<str:org_id>/settings/danger/revoke/", danger.revoke_all, name="revoke-all"),
    path("o/<str:org_id>/settings/danger/delete/", danger.delete, name="delete"),
    path("o/<str:org_id>/settings/danger/keep/", danger.restore, name="restore"),
    path("command-line/", cli_login.cli_login, name="command-line"),
    path("accounts/sso/", login.find, name="sign-on-find"),
    path("accounts/sso/<str:org_id>/", login.door, name="sign-on-door"),
    path("accounts/sso/<str:org_id>/<str:sign_on_id>/", login.start, name="sign-on-start"),
    path("accounts/sso/<str:org_id>/<str:sign_on_id>/callback/", login.callback, name="sign-on-callback"),
    path("accounts/sso/<str:org_id>/<str:sign_on_id>/acs/", login.consume, name="sign-on-consume"),
    path("accounts/sso/<str:org_id>/<str:sign_on_id>/arrive/", login.arrive, name="sign-on-arrive"),
    path("accounts/sso/<str:org_id>/<str:sign_on_id>/metadata/", login.metadata, name="sign-on-metadata"),
    path("invitations/<str:token>/", people.accept, name="invitation"),
]
