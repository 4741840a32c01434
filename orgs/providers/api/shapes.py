"""The token service's questions and answers, as serializers."""

from __future__ import annotations

from typing import Any, ClassVar

from rest_framework import serializers

from orgs.credentials.issuing import TTL_DEFAULT, TTL_MAX, TTL_MIN
from orgs.models import IdentityProvider, MqttIdentity

REPLACE_EXISTING = (
    "Accepted and without effect: the new token is added to the user's others, which stay valid until they expire or "
    "are revoked, because another instance of the user may use them."
)


class Ttl(serializers.IntegerField):
    """Seconds to live."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(default=TTL_DEFAULT, min_value=TTL_MIN, max_value=TTL_MAX, help_text="Seconds.", **kwargs)


class CreateSerializer(serializers.Serializer[Any]):
    """The user to issue for; authorized by an API key."""

    organization_id = serializers.CharField(max_length=64, required=False)
    secret_key = serializers.CharField(max_length=200, required=False, help_text="Or `Authorization: Bearer sk_...`.")
    user_email = serializers.CharField(max_length=254)
    integration_id = serializers.CharField(max_length=64, required=False, allow_null=True, allow_blank=True)
    replace_existing = serializers.BooleanField(default=False, help_text=REPLACE_EXISTING)
    ttl = Ttl()
    claims = serializers.DictField(default=dict)


class ExchangeSerializer(serializers.Serializer[Any]):
    """A provider's JSON Web Token, for an MQTT credential."""

    organization_id = serializers.CharField(max_length=64, required=False, help_text="Required without an API key.")
    token = serializers.CharField(max_length=20_000)
    provider = serializers.CharField(max_length=64, required=False, allow_null=True, allow_blank=True)
    integration_id = serializers.CharField(max_length=64, required=False, allow_null=True, allow_blank=True)
    ttl = Ttl()


class RefreshSerializer(serializers.Serializer[Any]):
    """A token and its current password."""

    token_id = serializers.CharField(max_length=64)
    current_token_password = serializers.CharField(max_length=200)


class RevokeSerializer(serializers.Serializer[Any]):
    """The token to revoke."""

    token_id = serializers.CharField(max_length=64)


class MqttCredentialsSerializer(serializers.Serializer[Any]):
    """The username and password of an MQTT client."""

    username = serializers.CharField()
    password = serializers.CharField()


class TokenSerializer(serializers.Serializer[Any]):
    """A token that was just issued. Times are ISO 8601, UTC."""

    access_token = serializers.CharField()
    token_type = serializers.ChoiceField(["Bearer"])
    expires_in = serializers.IntegerField(help_text="Seconds.")
    mqtt_credentials = MqttCredentialsSerializer()
    token_id = serializers.CharField()
    user_email = serializers.CharField(allow_blank=True)
    provider = serializers.CharField(allow_blank=True)
    expires_at = serializers.DateTimeField()
    refresh_recommended_at = serializers.DateTimeField(help_text="At 90 % of the time to live.")


class RevokedSerializer(serializers.Serializer[Any]):
    """A revoked token."""

    token_id = serializers.CharField()
    revoked = serializers.BooleanField()
    revoked_at = serializers.DateTimeField()


class PublicProviderSerializer(serializers.ModelSerializer[IdentityProvider]):
    """The public fields of a provider."""

    type = serializers.CharField(source="kind")

    class Meta:
        model = IdentityProvider
        fields: ClassVar = ["id", "name", "type", "issuer"]


class PublicProvidersSerializer(serializers.Serializer[Any]):
    """The providers of an organization."""

    providers = PublicProviderSerializer(many=True)


class ClaimsSerializer(serializers.ModelSerializer[MqttIdentity]):
    """A user's claims."""

    username = serializers.CharField(source="__str__")
    claims = serializers.DictField()

    class Meta:
        model = MqttIdentity
        fields: ClassVar = ["username", "claims"]
