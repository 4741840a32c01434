"""``/v2/api-keys``: keys with which programs use the API."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from cloudsignal.api.bodies import valid
from cloudsignal.api.pages import page, page_serializer
from cloudsignal.api.times import TimeField
from orgs.access.api.endpoint import OrgEndpoint
from orgs.access.api.schema import ORGANIZATION
from orgs.access.api_keys import state
from orgs.api_keys import reads, revocation
from orgs.api_keys.keys import OVERLAP_DEFAULT, OVERLAP_MAX, create_api_key, rotate_api_key
from orgs.models import ApiKey
from orgs.permissions import Permission

TAGS = ["api-keys"]


class ApiKeySerializer(serializers.ModelSerializer[ApiKey]):
    """An API key, masked."""

    key = serializers.CharField(source="__str__", read_only=True, help_text="Masked, such as sk_...x7m4.")
    scopes = serializers.ListField(child=serializers.CharField(), read_only=True)
    ip_allow = serializers.ListField(child=serializers.CharField(), read_only=True)
    person = serializers.CharField(
        source="person.email",
        allow_null=True,
        read_only=True,
        help_text="The person whose CLI session it is; null: the key of a program.",
    )
    state = serializers.SerializerMethodField(help_text="active, expired or revoked.")

    class Meta:
        model = ApiKey
        fields: ClassVar = [
            "id", "key", "kind", "name", "person", "scopes", "ip_allow", "state",
            "created_at", "created_by", "expires_at", "revoked_at", "last_used_at",
        ]  # fmt: skip

    def get_state(self, key: ApiKey) -> str:
        """Whether it works now."""
        return state(key, timezone.now())


class NewApiKeySerializer(ApiKeySerializer):
    """A key that was just created. Its secret is shown in this response only."""

    secret = serializers.SerializerMethodField(help_text="Shown in this response only.")

    class Meta(ApiKeySerializer.Meta):
        fields: ClassVar = [*ApiKeySerializer.Meta.fields, "secret"]

    def get_secret(self, key: ApiKey) -> str:
        """The key itself."""
        return str(self.context["secret"])


class EndedWithKeySerializer(serializers.Serializer[Any]):
    """Everything that is revoked with a key: all it created, directly or through keys it created."""

    keys = serializers.ListField(child=serializers.CharField(), help_text="Masked.")
    providers = serializers.ListField(
        child=serializers.CharField(), help_text="Names of the identity providers that are disabled."
    )
    invitations = serializers.ListField(child=serializers.CharField(), help_text="Addresses.")
    identities = serializers.IntegerField()
    credentials = serializers.IntegerField()
    sessions = serializers.IntegerField(allow_null=True, help_text="Live sessions that close; null: unavailable.")
    joined = serializers.IntegerField(help_text="People who joined by an invitation of this key. They stay members.")


class RevokedApiKeySerializer(ApiKeySerializer):
    """A revoked key, and what was revoked with it."""

    ended = serializers.SerializerMethodField()

    class Meta(ApiKeySerializer.Meta):
        fields: ClassVar = [*ApiKeySerializer.Meta.fields, "ended"]

    @extend_schema_field(EndedWithKeySerializer)
    def get_ended(self, key: ApiKey) -> dict[str, Any]:
        """The key, and how many of each kind ended or would end."""
        made, reach = self.context["ended"]
        return {
            "keys": [str(each) for each in made.keys],
            "providers": [each.name for each in made.providers],
            "invitations": [each.email for each in made.invitations],
            "identities": reach.identities,
            "credentials": reach.credentials,
            "sessions": reach.sessions,
            "joined": made.joined,
        }


class CreateApiKeySerializer(serializers.Serializer[Any]):
    """The key to create."""

    kind = serializers.ChoiceField(ApiKey.Kind.choices)
    name = serializers.CharField(max_length=80)
    scopes = serializers.ListField(
        child=serializers.CharField(max_length=40), default=list, help_text="Permissions of a restricted key (rk)."
    )
    ip_allow = serializers.ListField(
        child=serializers.CharField(max_length=64), default=list, help_text="Networks in CIDR form; empty allows all."
    )
    expires_at = TimeField(default=None, allow_null=True)


class RotateSerializer(serializers.Serializer[Any]):
    """How long both keys are active."""

    overlap = serializers.IntegerField(
        default=OVERLAP_DEFAULT, min_value=0, max_value=OVERLAP_MAX, help_text="Seconds."
    )


class ApiKeys(OrgEndpoint):
    """The keys of an organization."""

    needs: ClassVar = {"GET": Permission.ORG_READ, "POST": Permission.API_KEYS_MANAGE}

    @extend_schema(
        operation_id="list_api_keys", tags=TAGS, parameters=[ORGANIZATION],
        responses={200: page_serializer(ApiKeySerializer)},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """List the keys of the organization, newest first, masked."""
        return page(reads.list_api_keys(self.access), ApiKeySerializer)

    @extend_schema(
        operation_id="create_api_key", tags=TAGS, parameters=[ORGANIZATION],
        request=CreateApiKeySerializer, responses={201: NewApiKeySerializer},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Create a key. Its secret is shown in this response only."""
        self.step_up(request)
        wanted = valid(CreateApiKeySerializer, request)
        made = create_api_key(self.access, **wanted)
        return Response(NewApiKeySerializer(made.key, context={"secret": made.secret}).data, status=201)


class OneApiKey(OrgEndpoint):
    """One key."""

    needs: ClassVar = {"GET": Permission.ORG_READ, "DELETE": Permission.API_KEYS_MANAGE}

    @extend_schema(operation_id="get_api_key", tags=TAGS, parameters=[ORGANIZATION], responses={200: ApiKeySerializer})
    def get(self, request: Request, key_id: int) -> Response:
        """Show one key, masked."""
        return Response(ApiKeySerializer(reads.get_api_key(self.access, key_id)).data)

    @extend_schema(
        operation_id="revoke_api_key", tags=TAGS, responses={200: RevokedApiKeySerializer},
        parameters=[ORGANIZATION, OpenApiParameter("dry_run", bool, description="Only show what would be revoked.")],
    )  # fmt: skip
    def delete(self, request: Request, key_id: int) -> Response:
        """Revoke a key and what it has created at once: keys, identity providers, invitations, credentials, sessions.

        With `dry_run` nothing is revoked; the response shows what would be. To replace a key and keep what it has
        created, rotate it.
        """
        key, made, reach = revocation.foresee(self.access, key_id)
        if request.query_params.get("dry_run", "").lower() not in {"1", "true"}:
            revoked = revocation.revoke_api_key(self.access, key_id)
            ended = revoked.ended
            key, made = revoked.key, revoked.made
            reach = replace(reach, identities=ended.identities, credentials=ended.credentials)
        return Response(RevokedApiKeySerializer(key, context={"ended": (made, reach)}).data)


class RotateApiKey(OrgEndpoint):
    """The successor of a key."""

    needs: ClassVar = {"POST": Permission.API_KEYS_MANAGE}

    @extend_schema(
        operation_id="rotate_api_key", tags=TAGS, parameters=[ORGANIZATION],
        request=RotateSerializer, responses={201: NewApiKeySerializer},
    )  # fmt: skip
    def post(self, request: Request, key_id: int) -> Response:
        """Create a key with the same scopes to replace this one; the old key stays active for the overlap."""
        self.step_up(request)
        wanted = valid(RotateSerializer, request)
        made = rotate_api_key(self.access, key_id, overlap=wanted["overlap"])
        return Response(NewApiKeySerializer(made.key, context={"secret": made.secret}).data, status=201)
