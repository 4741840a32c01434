"""Who: people, organizations, memberships, MQTT identities and credentials, API keys."""

from orgs.models.api_key import ApiKey
from orgs.models.credential import Credential, MqttIdentity
from orgs.models.organization import Membership, Organization
from orgs.models.user import User

__all__ = ["ApiKey", "Credential", "Membership", "MqttIdentity", "Organization", "User"]
