"""``/v2/command-line/...``: the program's half of ``cloudsignal login``, and ``logout``."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from cloudsignal.api.bodies import valid
from orgs.access.api.authentication import address_of
from orgs.access.api.endpoint import KeyEndpoint, PublicEndpoint
from orgs.api_keys import cli_login, keys
from orgs.api_keys.api.keys import ApiKeySerializer, NewApiKeySerializer

TAGS = ["command line"]


class RedeemSerializer(serializers.Serializer[Any]):
    """The code from the browser, and its PKCE verifier (RFC 7636 s4.5)."""

    code = serializers.CharField(max_length=200)
    code_verifier = serializers.CharField(
        max_length=200, help_text="43 to 128 characters; its S256 challenge was sent to the page."
    )
    redirect_uri = serializers.CharField(max_length=100, help_text="Exactly as it was sent to the page.")


class SignedInSerializer(NewApiKeySerializer):
    """The API key of a CLI session; its secret is shown this once."""

    organization_id = serializers.CharField(source="org_id", read_only=True)
    organization = serializers.CharField(source="org.name", read_only=True)

    class Meta(NewApiKeySerializer.Meta):
        fields: ClassVar = [*NewApiKeySerializer.Meta.fields, "organization_id", "organization"]


class CommandLineLogin(PublicEndpoint):
    """A code for a key."""

    needs: ClassVar = {"POST": None}

    @extend_schema(
        operation_id="command_line_login", tags=TAGS, auth=[], request=RedeemSerializer,
        responses={201: SignedInSerializer},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Exchange the code of an approved sign-in for the API key of the CLI session. Once, within a minute."""
        wanted = valid(RedeemSerializer, request)
        made = cli_login.redeem_code(
            wanted["code"],
            verifier=wanted["code_verifier"],
            redirect_uri=wanted["redirect_uri"],
            ip=address_of(request),
        )
        return Response(SignedInSerializer(made.key, context={"secret": made.secret}).data, status=201)


class CommandLineLogout(KeyEndpoint):
    """The end of one's own key."""

    needs: ClassVar = {"POST": None}

    @extend_schema(operation_id="command_line_logout", tags=TAGS, request=None, responses={200: ApiKeySerializer})
    def post(self, request: Request) -> Response:
        """End the key that calls. For keys of CLI sessions only; members revoke the keys of programs."""
        return Response(ApiKeySerializer(keys.end_own_key(self.use(request))).data)
