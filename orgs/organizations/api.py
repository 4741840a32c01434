"""``/v2/organizations`` and what belongs to one as a whole: settings, quotas, usage, its end; and ``/v2/me``."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from cloudsignal.api.bodies import valid
from cloudsignal.api.pages import page, page_serializer
from cloudsignal.errors import Invalid
from cloudsignal.limits import take
from orgs.access.api.authentication import address_of
from orgs.access.api.endpoint import OperatorEndpoint, OrgEndpoint, PersonEndpoint
from orgs.access.api.schema import ORGANIZATION
from orgs.access.api_keys import AuthenticatedKey
from orgs.access.grants import access_org, all_organizations, list_organizations
from orgs.credentials.reads import credential_counts
from orgs.models import Organization
from orgs.organizations import deletion, export, lifecycle
from orgs.organizations.settings import QUOTAS, change_quotas, change_settings
from orgs.people import members
from orgs.permissions import Permission
from orgs.sessions.reads import live_sessions

TAGS = ["organizations"]


class OrganizationSerializer(serializers.ModelSerializer[Organization]):
    """An organization."""

    allowed_origins = serializers.ListField(child=serializers.CharField(), read_only=True)

    class Meta:
        model = Organization
        fields: ClassVar = [
            "id", "name", "status", "created_at", "delete_after", "mfa_required", "allowed_origins",
            "publish_while_split",
        ]  # fmt: skip
        read_only_fields = fields


class MeSerializer(serializers.Serializer[Any]):
    """The caller: a person or an API key."""

    kind = serializers.ChoiceField(["person", "key"])
    name = serializers.CharField(help_text="Email address, or the masked key.")
    operator = serializers.BooleanField()
    organization_id = serializers.CharField(allow_null=True)
    organization = serializers.CharField(allow_null=True, help_text="Its name.")
    person = serializers.CharField(allow_null=True, help_text="The person whose CLI session the key is.")
    role = serializers.CharField(allow_null=True, help_text="That person's role now.")
    expires_at = serializers.DateTimeField(allow_null=True, help_text="When the key expires.")
    permissions = serializers.ListField(child=serializers.CharField())


class NameSerializer(serializers.Serializer[Any]):
    """A name."""

    name = serializers.CharField(max_length=200)


class ChangeSerializer(serializers.Serializer[Any]):
    """The fields to change; missing fields do not change."""

    name = serializers.CharField(max_length=200, required=False)
    allowed_origins = serializers.ListField(child=serializers.CharField(max_length=300), required=False)
    mfa_required = serializers.BooleanField(required=False)
    publish_while_split = serializers.ChoiceField(
        Organization.PublishWhileSplit.values,
        required=False,
        help_text="`refuse`: edges acknowledge no publish while they know that the broker's nodes are split.",
    )


class ConfirmSerializer(serializers.Serializer[Any]):
    """The name of the organization, so that it is not the wrong one."""

    confirm = serializers.CharField(max_length=200)


class TransferSerializer(serializers.Serializer[Any]):
    """The member who becomes the owner."""

    member_id = serializers.IntegerField(min_value=1)


class ReasonSerializer(serializers.Serializer[Any]):
    """Why."""

    reason = serializers.CharField(max_length=200, default="", allow_blank=True)


class QuotasSerializer(serializers.ModelSerializer[Organization]):
    """Limits that every edge node enforces."""

    class Meta:
        model = Organization
        fields: ClassVar = list(QUOTAS)
        read_only_fields = fields


class ChangeQuotasSerializer(serializers.Serializer[Any]):
    """The limits to change; missing limits do not change."""

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        """Each quota within its bounds."""
        return {
            name: serializers.IntegerField(min_value=low, max_value=high, required=False)
            for name, (low, high) in QUOTAS.items()
        }


class UsageSerializer(serializers.Serializer[Any]):
    """The current usage of an organization."""

    identities = serializers.IntegerField()
    credentials = serializers.IntegerField(help_text="Active credentials.")
    static_credentials = serializers.IntegerField(help_text="Those that never expire.")
    ends_in_hour = serializers.IntegerField()
    ends_in_day = serializers.IntegerField()
    sessions = serializers.IntegerField(help_text="Live MQTT sessions.")


class Me(PersonEndpoint):
    """The caller."""

    needs: ClassVar = {"GET": None}

    def admit(self, request: Request, method: str) -> None:
        """People and keys."""
        if isinstance(request.auth, AuthenticatedKey):
            take("api", self.principal)
        else:
            super().admit(request, method)

    @extend_schema(operation_id="whoami", tags=["me"], responses={200: MeSerializer})
    def get(self, request: Request) -> Response:
        """Say who is asking and what they may do."""
        use = request.auth
        if isinstance(use, AuthenticatedKey):
            return Response(MeSerializer(_key(use)).data)
        user = self.person(request)
        nothing = dict.fromkeys(("organization_id", "organization", "person", "role", "expires_at"))
        body = {"kind": "person", "name": user.email, "operator": user.is_operator, "permissions": []}
        return Response(MeSerializer({**body, **nothing}).data)


class Organizations(PersonEndpoint):
    """The organizations of whoever asks."""

    needs: ClassVar = {"GET": None, "POST": None}

    def admit(self, request: Request, method: str) -> None:
        """People; and keys, which see their own."""
        if method == "GET" and isinstance(request.auth, AuthenticatedKey):
            take("api", self.principal)
        else:
            super().admit(request, method)

    @extend_schema(
        operation_id="list_organizations", tags=TAGS, responses={200: page_serializer(OrganizationSerializer)}
    )
    def get(self, request: Request) -> Response:
        """List the organizations that you are in; an operator's `?all=true` lists every one."""
        if isinstance(request.auth, AuthenticatedKey):
            request.auth.access.require(Permission.ORG_READ)
            return page([request.auth.access.org], OrganizationSerializer)
        user = self.person(request)
        if request.query_params.get("all") == "true" and user.is_operator:
            return page(all_organizations(user), OrganizationSerializer)
        return page([entry.org for entry in list_organizations(user)], OrganizationSerializer)

    @extend_schema(
        operation_id="create_organization", tags=TAGS, request=NameSerializer, responses={201: OrganizationSerializer}
    )
    def post(self, request: Request) -> Response:
        """Create an organization that you own. Its policy is empty: everything is denied until a rule allows it."""
        take("organizations", self.principal)
        wanted = valid(NameSerializer, request)
        made = lifecycle.create_organization(self.person(request), name=wanted["name"], ip=address_of(request))
        return Response(OrganizationSerializer(made).data, status=201)


class OneOrganization(OrgEndpoint):
    """One organization."""

    needs: ClassVar = {
        "GET": Permission.ORG_READ, "PATCH": Permission.ORG_UPDATE, "DELETE": Permission.ORG_DELETE,
    }  # fmt: skip

    @extend_schema(operation_id="get_organization", tags=TAGS, responses={200: OrganizationSerializer})
    def get(self, request: Request, organization_id: str) -> Response:
        """Show the organization with its settings."""
        return Response(OrganizationSerializer(self.access.org).data)

    @extend_schema(
        operation_id="change_organization", tags=TAGS, request=ChangeSerializer, responses={200: OrganizationSerializer}
    )
    def patch(self, request: Request, organization_id: str) -> Response:
        """Change its name, the origins that may call the token service, whether members need a second factor, and
        whether publishes are acknowledged while the broker's nodes are split."""
        wanted = valid(ChangeSerializer, request)
        if wanted.get("mfa_required") is False and self.access.org.mfa_required:
            self.step_up(request)
        return Response(OrganizationSerializer(change_settings(self.access, **wanted)).data)

    @extend_schema(
        operation_id="delete_organization", tags=TAGS, request=ConfirmSerializer,
        responses={202: OrganizationSerializer},
    )  # fmt: skip
    def delete(self, request: Request, organization_id: str) -> Response:
        """Disconnect every client now and delete everything after the grace period; the body must contain its name."""
        self.step_up(request)
        wanted = valid(ConfirmSerializer, request)
        org = deletion.delete_organization(self.access, confirm=wanted["confirm"])
        return Response(OrganizationSerializer(org).data, status=202)


class RestoreOrganization(OrgEndpoint):
    """Back from the grace period."""

    needs: ClassVar = {"POST": Permission.ORG_DELETE}

    @extend_schema(
        operation_id="restore_organization", tags=TAGS, request=None, responses={200: OrganizationSerializer}
    )
    def post(self, request: Request, organization_id: str) -> Response:
        """Cancel the deletion."""
        return Response(OrganizationSerializer(deletion.restore_organization(self.access)).data)


class ExportOrganization(OrgEndpoint):
    """The data that can be exported."""

    needs: ClassVar = {"GET": Permission.ORG_UPDATE}

    @extend_schema(
        operation_id="export_organization", tags=TAGS, responses={200: {"type": "object", "additionalProperties": True}}
    )
    def get(self, request: Request, organization_id: str) -> Response:
        """Export the organization's data: members, users, credentials, providers, policy with its history.

        It contains no secrets. Read the audit log with `/v2/audit/events`; the dashboard exports both in one archive.
        """
        return Response(export.export_organization(self.access))


class TransferOrganization(OrgEndpoint):
    """Another owner."""

    needs: ClassVar = {"POST": Permission.ORG_TRANSFER}

    @extend_schema(
        operation_id="transfer_organization", tags=TAGS, request=TransferSerializer,
        responses={200: OrganizationSerializer},
    )  # fmt: skip
    def post(self, request: Request, organization_id: str) -> Response:
        """Make another member the owner; you become an administrator."""
        self.step_up(request)
        members.transfer_ownership(self.access, valid(TransferSerializer, request)["member_id"])
        return Response(OrganizationSerializer(self.access.org).data)


class SuspendOrganization(OperatorEndpoint):
    """Cut an organization off."""

    needs: ClassVar = {"POST": None}

    @extend_schema(
        operation_id="suspend_organization", tags=["operators"], request=ReasonSerializer,
        responses={200: OrganizationSerializer},
    )  # fmt: skip
    def post(self, request: Request, organization_id: str) -> Response:
        """Close every live session of the organization and refuse new ones; its data stays."""
        reason = valid(ReasonSerializer, request)["reason"]
        user = self.person(request)
        org = lifecycle.suspend_organization(user, organization_id, reason=reason, ip=address_of(request))
        return Response(OrganizationSerializer(org).data)


class ResumeOrganization(OperatorEndpoint):
    """Resume an organization."""

    needs: ClassVar = {"POST": None}

    @extend_schema(
        operation_id="resume_organization", tags=["operators"], request=None, responses={200: OrganizationSerializer}
    )
    def post(self, request: Request, organization_id: str) -> Response:
        """Resume a suspended organization: its clients can connect again."""
        org = lifecycle.resume_organization(self.person(request), organization_id, ip=address_of(request))
        return Response(OrganizationSerializer(org).data)


class SetQuotas(OperatorEndpoint):
    """The limits of an organization."""

    needs: ClassVar = {"PATCH": None}

    @extend_schema(
        operation_id="change_quotas", tags=["operators"], request=ChangeQuotasSerializer,
        responses={200: QuotasSerializer},
    )  # fmt: skip
    def patch(self, request: Request, organization_id: str) -> Response:
        """Change limits of an organization; the edges enforce them at once."""
        wanted = valid(ChangeQuotasSerializer, request)
        if not wanted:
            raise Invalid("nothing_to_change", f"Name at least one of {', '.join(QUOTAS)}.")
        access = access_org(self.person(request), organization_id, ip=address_of(request))
        return Response(QuotasSerializer(change_quotas(access, wanted)).data)


class Quotas(OrgEndpoint):
    """The limits, for the organization."""

    needs: ClassVar = {"GET": Permission.ORG_READ}

    @extend_schema(operation_id="get_quotas", tags=TAGS, parameters=[ORGANIZATION], responses={200: QuotasSerializer})
    def get(self, request: Request) -> Response:
        """Show the limits that every edge node enforces for the organization."""
        return Response(QuotasSerializer(self.access.org).data)


class Usage(OrgEndpoint):
    """The use of each quota."""

    needs: ClassVar = {"GET": Permission.ORG_READ}

    @extend_schema(operation_id="get_usage", tags=TAGS, parameters=[ORGANIZATION], responses={200: UsageSerializer})
    def get(self, request: Request) -> Response:
        """Count identities, credentials by expiry, and live sessions."""
        counts = credential_counts(self.access)
        return Response(
            {
                "identities": counts.identities,
                "credentials": counts.active,
                "static_credentials": counts.static,
                "ends_in_hour": counts.ends_in_hour,
                "ends_in_day": counts.ends_in_day,
                "sessions": len(live_sessions(self.access)),
            }
        )


def _key(use: AuthenticatedKey) -> dict[str, Any]:
    return {
        "kind": "key",
        "name": str(use.key),
        "operator": False,
        "organization_id": use.access.org_id,
        "organization": use.access.org.name,
        "person": use.key.person.email if use.key.person else None,
        "role": use.access.role,
        "expires_at": use.key.expires_at,
        "permissions": sorted(use.access.permissions),
    }
