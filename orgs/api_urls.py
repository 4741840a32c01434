"""URLs of the API below ``/v2/``: organizations, members, API keys, credentials, token service."""

from __future__ import annotations

from django.urls import path

from orgs.access.api import schema as _schema  # noqa: F401 - tells drf-spectacular of our authentication
from orgs.api_keys.api import cli_login, keys
from orgs.broker import api as broker
from orgs.credentials import api as credentials
from orgs.organizations import api as organizations
from orgs.people import api as members
from orgs.providers.api import providers, tokens
from orgs.sessions import api as sessions

ORG = "organizations/<str:organization_id>"

urlpatterns = [
    # The token service
    path("tokens/create", tokens.CreateToken.as_view(), name="api-token-create"),
    path("tokens/exchange", tokens.ExchangeToken.as_view(), name="api-token-exchange"),
    path("tokens/refresh", tokens.RefreshToken.as_view(), name="api-token-refresh"),
    path("tokens/revoke", tokens.RevokeToken.as_view(), name="api-token-revoke"),
    path("providers", tokens.PublicProviders.as_view(), name="api-public-providers"),
    path("users/<str:username>/claims", tokens.Claims.as_view(), name="api-claims"),
    path("users/<str:username>/claims/<path:name>", tokens.OneClaim.as_view(), name="api-claim"),
    # Management
    path("me", organizations.Me.as_view(), name="api-me"),
    path("organizations", organizations.Organizations.as_view(), name="api-organizations"),
    path(ORG, organizations.OneOrganization.as_view(), name="api-organization"),
    path(f"{ORG}/restore", organizations.RestoreOrganization.as_view(), name="api-organization-restore"),
    path(f"{ORG}/export", organizations.ExportOrganization.as_view(), name="api-organization-export"),
    path(f"{ORG}/transfer", organizations.TransferOrganization.as_view(), name="api-organization-transfer"),
    path(f"{ORG}/suspend", organizations.SuspendOrganization.as_view(), name="api-organization-suspend"),
    path(f"{ORG}/resume", organizations.ResumeOrganization.as_view(), name="api-organization-resume"),
    path(f"{ORG}/quotas", organizations.SetQuotas.as_view(), name="api-organization-quotas"),
    path("quotas", organizations.Quotas.as_view(), name="api-quotas"),
    path("usage", organizations.Usage.as_view(), name="api-usage"),
    path("members", members.Members.as_view(), name="api-members"),
    path("members/<int:member_id>", members.OneMember.as_view(), name="api-member"),
    path("invitations", members.Invitations.as_view(), name="api-invitations"),
    path("invitations/accept", members.AcceptInvitation.as_view(), name="api-invitation-accept"),
    path("invitations/<str:invitation_id>", members.OneInvitation.as_view(), name="api-invitation"),
    path("invitations/<str:invitation_id>/resend", members.ResendInvitation.as_view(), name="api-invitation-resend"),
    path("api-keys", keys.ApiKeys.as_view(), name="api-api-keys"),
    path("api-keys/<int:key_id>", keys.OneApiKey.as_view(), name="api-api-key"),
    path("api-keys/<int:key_id>/rotate", keys.RotateApiKey.as_view(), name="api-api-key-rotate"),
    path("command-line/login", cli_login.CommandLineLogin.as_view(), name="api-command-line-login"),
    path("command-line/logout", cli_login.CommandLineLogout.as_view(), name="api-command-line-logout"),
    path("identity-providers", providers.Providers.as_view(), name="api-identity-providers"),
    path("identity-providers/<str:provider_id>", providers.OneProvider.as_view(), name="api-identity-provider"),
    path("identity-providers/<str:provider_id>/try", providers.TryToken.as_view(), name="api-try-token"),
    path("users", credentials.Users.as_view(), name="api-users"),
    path("users/<str:username>", credentials.OneUser.as_view(), name="api-user"),
    path("credentials", credentials.Credentials.as_view(), name="api-credentials"),
    path("credentials/bulk", credentials.BulkCredentials.as_view(), name="api-credentials-bulk"),
    path("credentials/revoke", credentials.RevokeCredentials.as_view(), name="api-credentials-revoke"),
    path("credentials/<str:token_id>", credentials.OneCredential.as_view(), name="api-credential"),
    path("sessions", sessions.Sessions.as_view(), name="api-sessions"),
    path("sessions/<str:session>", sessions.OneSession.as_view(), name="api-session"),
    path("retained", broker.Retained.as_view(), name="api-retained"),
    path("retained/clear", broker.ClearRetained.as_view(), name="api-retained-clear"),
    path("stored-sessions", broker.StoredSessions.as_view(), name="api-stored-sessions"),
    path("stored-sessions/release", broker.ReleaseSession.as_view(), name="api-stored-release"),
]
