"""Models: users, organizations, members, invitations, MQTT identities, credentials, API keys, providers, SSO."""

from orgs.models.api_key import ApiKey
from orgs.models.credential import Credential, MqttIdentity
from orgs.models.invitation import Invitation
from orgs.models.organization import Membership, Organization
from orgs.models.provider import IdentityProvider
from orgs.models.sign_on import SignOnAccount, SingleSignOn
from orgs.models.user import SsoSession, User

__all__ = [
    "ApiKey",
    "Credential",
    "IdentityProvider",
    "Invitation",
    "Membership",
    "MqttIdentity",
    "Organization",
    "SignOnAccount",
    "SingleSignOn",
    "SsoSession",
    "User",
]
