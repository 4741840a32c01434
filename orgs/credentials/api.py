"""``/v2/users`` and ``/v2/credentials``: MQTT identities and their credentials."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from cloudsignal.api.bodies import valid
from cloudsignal.api.pages import PARAMETERS, limit_of, page, page_serializer
from cloudsignal.api.parsers import CsvParser
from cloudsignal.errors import Invalid
from orgs.access.api.endpoint import OrgEndpoint
from orgs.access.api.schema import ORGANIZATION
from orgs.credentials import bulk, identities
from orgs.credentials.csv_file import read_roster
from orgs.credentials.issuing import (
    TTL_DEFAULT,
    TTL_MAX,
    TTL_MIN,
    Issued,
    issue_credential,
    revoke_credential,
    revoke_identity,
)
from orgs.credentials.reads import get_credential, list_credentials, list_identities
from orgs.models import Credential, MqttIdentity
from orgs.permissions import Permission


class UserSerializer(serializers.ModelSerializer[MqttIdentity]):
    """An MQTT identity."""

    username = serializers.CharField(read_only=True, help_text="The local part.")
    mqtt_username = serializers.CharField(source="__str__", read_only=True, help_text="local@organization")
    claims = serializers.DictField(read_only=True)

    class Meta:
        model = MqttIdentity
        fields: ClassVar = [
            "username", "mqtt_username", "static", "provider", "email", "claims", "note", "created_at", "created_by",
            "revoked_at",
        ]  # fmt: skip
        read_only_fields = fields


class CredentialSerializer(serializers.ModelSerializer[Credential]):
    """A credential, without its password."""

    username = serializers.CharField(source="identity.username", read_only=True)
    state = serializers.CharField(read_only=True, help_text="active, static, retired, expired or revoked.")

    class Meta:
        model = Credential
        fields: ClassVar = [
            "token_id", "username", "hint", "state", "issued_at", "expires_at", "renewed_until", "retired_at",
            "revoked_at", "refreshed_from", "created_by",
        ]  # fmt: skip
        read_only_fields = fields


class IssuedSerializer(serializers.Serializer[Issued]):
    """A credential that was just issued. Its password is shown in this response only."""

    token_id = serializers.CharField()
    username = serializers.CharField(help_text="Full MQTT username.")
    password = serializers.CharField(help_text="Shown in this response only.")
    static = serializers.BooleanField(help_text="It does not expire.")
    issued_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    refresh_recommended_at = serializers.DateTimeField(allow_null=True)


class IssueSerializer(serializers.Serializer[Any]):
    """The credential to issue."""

    username = serializers.CharField(
        max_length=63,
        default=None,
        allow_null=True,
        help_text="The local part; if missing, a new opaque one is generated.",
    )
    ttl = serializers.IntegerField(default=TTL_DEFAULT, min_value=TTL_MIN, max_value=TTL_MAX, help_text="Seconds.")
    static = serializers.BooleanField(default=False, help_text="A static credential: it does not expire.")
    claims = serializers.DictField(default=dict)
    note = serializers.CharField(max_length=200, default="", allow_blank=True)
    replace_existing = serializers.BooleanField(
        default=False, help_text="Revoke the other credentials of the username and close their sessions."
    )


class SkippedSerializer(serializers.Serializer[bulk.Skipped]):
    """A line that no credential was issued for."""

    line = serializers.IntegerField()
    username = serializers.CharField()
    reason = serializers.CharField()


class BulkSerializer(serializers.Serializer[Any]):
    """The credentials issued from a file, in its order."""

    count = serializers.IntegerField()
    issued = IssuedSerializer(many=True)
    skipped = SkippedSerializer(many=True)


class RevokeManySerializer(serializers.Serializer[Any]):
    """The credentials to revoke: all that one key or person has issued, or all."""

    issued_by = serializers.CharField(
        max_length=320,
        required=False,
        help_text="As in the audit log: key:sk_...x7m4, key:rk_...x7m4 of EMAIL, user:EMAIL.",
    )
    everything = serializers.BooleanField(default=False)
    dry_run = serializers.BooleanField(default=False, help_text="Only count what would be revoked.")


class EndedSerializer(serializers.Serializer[Any]):
    """The numbers of what was revoked."""

    identities = serializers.IntegerField()
    credentials = serializers.IntegerField()
    sessions = serializers.IntegerField(allow_null=True, help_text="Live sessions that close; null: unavailable.")


class Users(OrgEndpoint):
    """The identities."""

    needs: ClassVar = {"GET": Permission.ORG_READ}

    @extend_schema(
        operation_id="list_users", tags=["users"],
        parameters=[ORGANIZATION, *PARAMETERS, OpenApiParameter("search", str, description="Beginning of the name.")],
        responses={200: page_serializer(UserSerializer)},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """List the MQTT identities by username."""
        asked = request.query_params
        found = list_identities(
            self.access, search=asked.get("search", ""), cursor=asked.get("cursor", ""), limit=limit_of(request)
        )
        return page([row.identity for row in found.rows], UserSerializer, next_cursor=found.next_cursor)


class OneUser(OrgEndpoint):
    """One identity."""

    needs: ClassVar = {"GET": Permission.ORG_READ, "DELETE": Permission.CREDENTIALS_MANAGE}

    @extend_schema(operation_id="get_user", tags=["users"], parameters=[ORGANIZATION], responses={200: UserSerializer})
    def get(self, request: Request, username: str) -> Response:
        """Show one MQTT identity with its claims."""
        return Response(UserSerializer(identities.get_identity(self.access, username)).data)

    @extend_schema(
        operation_id="revoke_user", tags=["users"], parameters=[ORGANIZATION], responses={200: UserSerializer}
    )
    def delete(self, request: Request, username: str) -> Response:
        """Revoke every credential of a username and close its live sessions."""
        return Response(UserSerializer(revoke_identity(self.access, username)).data)


class Credentials(OrgEndpoint):
    """The secrets."""

    needs: ClassVar = {"GET": Permission.ORG_READ, "POST": Permission.CREDENTIALS_MANAGE}

    @extend_schema(
        operation_id="list_credentials", tags=["credentials"],
        parameters=[
            ORGANIZATION, *PARAMETERS,
            OpenApiParameter("state", str, enum=["active", "static", "retired", "expired", "revoked"]),
            OpenApiParameter("username", str, description="Beginning of the name."),
        ],
        responses={200: page_serializer(CredentialSerializer)},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """List credentials, newest first."""
        asked = request.query_params
        found = list_credentials(
            self.access,
            state=asked.get("state", ""),
            username=asked.get("username", ""),
            cursor=asked.get("cursor", ""),
            limit=limit_of(request),
        )
        return page(found.rows, CredentialSerializer, next_cursor=found.next_cursor)

    @extend_schema(
        operation_id="issue_credential", tags=["credentials"], parameters=[ORGANIZATION],
        request=IssueSerializer, responses={201: IssuedSerializer},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Issue a credential. The password is shown in this response only, and is active at every edge."""
        issued = issue_credential(self.access, **valid(IssueSerializer, request))
        return Response(IssuedSerializer(issued).data, status=201)


class OneCredential(OrgEndpoint):
    """One secret."""

    needs: ClassVar = {"GET": Permission.ORG_READ, "DELETE": Permission.CREDENTIALS_MANAGE}

    @extend_schema(
        operation_id="get_credential", tags=["credentials"], parameters=[ORGANIZATION],
        responses={200: CredentialSerializer},
    )  # fmt: skip
    def get(self, request: Request, token_id: str) -> Response:
        """Show one credential, without its password."""
        return Response(CredentialSerializer(get_credential(self.access, token_id)).data)

    @extend_schema(
        operation_id="revoke_credential", tags=["credentials"], parameters=[ORGANIZATION],
        responses={200: CredentialSerializer},
    )  # fmt: skip
    def delete(self, request: Request, token_id: str) -> Response:
        """Revoke one credential and close the live sessions that signed in with it."""
        return Response(CredentialSerializer(revoke_credential(self.access, token_id)).data)


class BulkCredentials(OrgEndpoint):
    """Many at once."""

    needs: ClassVar = {"POST": Permission.CREDENTIALS_MANAGE}
    parser_classes = (CsvParser,)

    @extend_schema(
        operation_id="issue_credentials", tags=["credentials"], parameters=[ORGANIZATION],
        request={"text/csv": {"type": "string", "description": "Columns: username, ttl, static, note, claim.NAME."}},
        responses={201: BulkSerializer},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Issue a credential for every line of a CSV file (up to 10,000). One wrong line refuses the whole file.

        If the request is interrupted, credentials issued so far are revoked within a minute.
        """
        text: object = request.data
        if not isinstance(text, str):
            raise Invalid("empty_csv", "Send a CSV file as the body.", field="file")
        entries = read_roster(text)
        made = bulk.issue_all(self.access, entries)
        body = {
            "count": len(made.issued),
            "issued": [IssuedSerializer(each.issued).data for each in made.issued],
            "skipped": [SkippedSerializer(each).data for each in made.skipped],
        }
        return Response(body, status=201)


class RevokeCredentials(OrgEndpoint):
    """The end of many."""

    needs: ClassVar = {"POST": Permission.CREDENTIALS_MANAGE}

    @extend_schema(
        operation_id="revoke_credentials", tags=["credentials"], parameters=[ORGANIZATION],
        request=RevokeManySerializer, responses={200: EndedSerializer},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Revoke all credentials that one key or person has issued, or all of the organization.

        With `dry_run` nothing is revoked; the response shows what would be.
        """
        wanted = valid(RevokeManySerializer, request)
        issued_by = wanted.get("issued_by", "")
        if bool(issued_by) == wanted["everything"]:
            raise Invalid("say_which", "Give either issued_by or everything=true.", field="issued_by")
        reach = identities.reach_of(self.access, issued_by=[issued_by] if issued_by else ())
        if wanted["dry_run"]:
            return Response(EndedSerializer(reach).data)
        if wanted["everything"]:
            self.step_up(request)
        if issued_by:
            ended = identities.revoke_issued_by(self.access, [issued_by])
        else:
            ended = identities.revoke_everything(self.access)
        body = {"identities": ended.identities, "credentials": ended.credentials, "sessions": reach.sessions}
        return Response(body)
