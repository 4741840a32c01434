"""``/v2/identity-providers``: whose tokens are exchanged for MQTT credentials."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from cloudsignal.api.bodies import valid
from cloudsignal.api.pages import page, page_serializer
from orgs.access.api.endpoint import OrgEndpoint
from orgs.access.api.schema import ORGANIZATION
from orgs.models import IdentityProvider
from orgs.permissions import Permission
from orgs.providers import providers

TAGS = ["identity-providers"]


class ProviderSerializer(serializers.ModelSerializer[IdentityProvider]):
    """A provider, without its secret."""

    algorithms = serializers.ListField(child=serializers.CharField(), read_only=True)
    shared_secret = serializers.SerializerMethodField(help_text="Whether it signs with a shared secret.")

    class Meta:
        model = IdentityProvider
        fields: ClassVar = [
            "id", "name", "kind", "issuer", "audience", "jwks_url", "algorithms", "shared_secret", "enabled",
            "created_at", "created_by", "updated_at",
        ]  # fmt: skip
        read_only_fields = fields

    def get_shared_secret(self, provider: IdentityProvider) -> bool:
        """Whether there is one; never which."""
        return provider.secret is not None


class WantedSerializer(serializers.Serializer[Any]):
    """The fields of a provider."""

    name = serializers.CharField(
        max_length=63, help_text="a-z, 0-9, - and _. Part of the name of its users; cannot be changed."
    )
    kind = serializers.ChoiceField(IdentityProvider.Kind.choices)
    issuer = serializers.CharField(max_length=255, help_text="Exactly the iss claim of the tokens.")
    audience = serializers.CharField(max_length=255, help_text="The required aud claim (Clerk: azp).")
    jwks_url = serializers.CharField(max_length=500, default="", allow_blank=True)
    secret = serializers.CharField(max_length=1000, default="", allow_blank=True, help_text="In place of a JWKS URL.")
    algorithms = serializers.ListField(child=serializers.CharField(max_length=10), default=list)
    enabled = serializers.BooleanField(default=True)


class TrySerializer(serializers.Serializer[Any]):
    """A token of the provider."""

    token = serializers.CharField(max_length=20_000)


class CheckSerializer(serializers.Serializer[Any]):
    """One check."""

    name = serializers.CharField()
    passed = serializers.BooleanField()
    detail = serializers.CharField()


class TrialSerializer(serializers.Serializer[Any]):
    """Whether the token would be accepted, and every check."""

    accepted = serializers.BooleanField()
    checks = CheckSerializer(many=True)


class Providers(OrgEndpoint):
    """The providers."""

    needs: ClassVar = {"GET": Permission.ORG_READ, "POST": Permission.PROVIDERS_MANAGE}

    @extend_schema(
        operation_id="list_identity_providers", tags=TAGS, parameters=[ORGANIZATION],
        responses={200: page_serializer(ProviderSerializer)},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """List the identity providers by name."""
        return page(providers.list_providers(self.access), ProviderSerializer)

    @extend_schema(
        operation_id="add_identity_provider", tags=TAGS, parameters=[ORGANIZATION], request=WantedSerializer,
        responses={201: ProviderSerializer},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Add a provider. Algorithms are pinned; without a JWKS URL the kind's own or discovery is used."""
        self.step_up(request)
        made = providers.add_provider(self.access, providers.Wanted(**valid(WantedSerializer, request)))
        return Response(ProviderSerializer(made).data, status=201)


class OneProvider(OrgEndpoint):
    """One provider."""

    needs: ClassVar = {
        "GET": Permission.ORG_READ, "PUT": Permission.PROVIDERS_MANAGE, "DELETE": Permission.PROVIDERS_MANAGE,
    }  # fmt: skip

    @extend_schema(
        operation_id="get_identity_provider", tags=TAGS, parameters=[ORGANIZATION], responses={200: ProviderSerializer}
    )
    def get(self, request: Request, provider_id: str) -> Response:
        """Show one provider."""
        return Response(ProviderSerializer(providers.get_provider(self.access, provider_id)).data)

    @extend_schema(
        operation_id="change_identity_provider", tags=TAGS, parameters=[ORGANIZATION], request=WantedSerializer,
        responses={200: ProviderSerializer},
    )  # fmt: skip
    def put(self, request: Request, provider_id: str) -> Response:
        """Replace everything but the name; an empty secret keeps the current one."""
        self.step_up(request)
        wanted = providers.Wanted(**valid(WantedSerializer, request))
        return Response(ProviderSerializer(providers.change_provider(self.access, provider_id, wanted)).data)

    @extend_schema(operation_id="remove_identity_provider", tags=TAGS, parameters=[ORGANIZATION], responses={204: None})
    def delete(self, request: Request, provider_id: str) -> Response:
        """Stop accepting its tokens. Credentials that were issued stay valid until they expire."""
        providers.remove_provider(self.access, provider_id)
        return Response(status=204)


class TryToken(OrgEndpoint):
    """Would it be exchanged?"""

    needs: ClassVar = {"POST": Permission.PROVIDERS_MANAGE}
    changes = False

    @extend_schema(
        operation_id="try_token", tags=TAGS, parameters=[ORGANIZATION], request=TrySerializer,
        responses={200: TrialSerializer},
    )  # fmt: skip
    def post(self, request: Request, provider_id: str) -> Response:
        """Check a token step by step, and issue nothing."""
        verdict = providers.try_token(self.access, provider_id, valid(TrySerializer, request)["token"])
        return Response(TrialSerializer({"accepted": verdict.failed is None, "checks": verdict.checks}).data)
