"""Who: people, organizations, memberships, invitations, MQTT identities and credentials, API keys, providers."""

from orgs.models.api_key import ApiKey
from orgs.models.credential import Credential, MqttIdentity
from orgs.models.invitation import Invitation
from orgs.models.organization import Membership, Organization
from orgs.models.provider import IdentityProvider
from orgs.models.user import User

__all__ = [
    "ApiKey",
    "Credential",
    "IdentityProvider",
    "Invitation",
    "Membership",
    "MqttIdentity",
    "Organization",
    "User",
]
