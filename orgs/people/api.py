"""``/v2/members`` and ``/v2/invitations``: the people of an organization."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from cloudsignal.api.bodies import valid
from cloudsignal.api.pages import page, page_serializer
from cloudsignal.api.times import TimeField
from orgs.access.api.authentication import address_of
from orgs.access.api.endpoint import OrgEndpoint, PersonEndpoint
from orgs.access.api.schema import ORGANIZATION
from orgs.models import Invitation, Membership
from orgs.people import invitations, members
from orgs.people.reads import list_members
from orgs.permissions import Permission, Role

ROLES = [role.value for role in Role]


class MemberSerializer(serializers.ModelSerializer[Membership]):
    """A person in an organization."""

    email = serializers.CharField(source="user.email", read_only=True)
    name = serializers.CharField(source="user.name", read_only=True, allow_blank=True)

    class Meta:
        model = Membership
        fields: ClassVar = ["id", "email", "name", "role", "ends_at", "created_at"]
        read_only_fields = fields


class ChangeMemberSerializer(serializers.Serializer[Any]):
    """The fields to change; missing fields do not change."""

    role = serializers.ChoiceField(ROLES, required=False)
    ends_at = TimeField(required=False, allow_null=True, help_text="null: it does not expire.")


class InvitationSerializer(serializers.ModelSerializer[Invitation]):
    """An invitation. Its link is in the email and nowhere else."""

    state = serializers.CharField(read_only=True, help_text="open, expired, accepted or revoked.")
    code = serializers.SerializerMethodField(
        help_text="Where no mail server confirms addresses: give it to the person, separately from the link. Shown to "
        "those who manage members, while the invitation is open; else null."
    )

    class Meta:
        model = Invitation
        fields: ClassVar = ["id", "email", "role", "ends_at", "state", "invited_by", "created_at", "expires_at", "code"]
        read_only_fields = fields

    def get_code(self, invitation: Invitation) -> str | None:
        """The code, for those whose view asked for it."""
        shown = self.context.get("codes") and invitations.codes_are_needed() and invitation.state == "open"
        return invitations.code_of(invitation) if shown else None


class InviteSerializer(serializers.Serializer[Any]):
    """The address and the role of an invitation."""

    email = serializers.CharField(max_length=254)
    role = serializers.ChoiceField(ROLES)
    ends_at = TimeField(default=None, allow_null=True, help_text="When the membership expires.")


class AcceptSerializer(serializers.Serializer[Any]):
    """The last part of the link, and the invitation code where no mail server has confirmed the address."""

    token = serializers.CharField(max_length=200)
    code = serializers.CharField(max_length=20, default="", allow_blank=True)


class Members(OrgEndpoint):
    """The members."""

    needs: ClassVar = {"GET": Permission.ORG_READ}

    @extend_schema(
        operation_id="list_members", tags=["members"], parameters=[ORGANIZATION],
        responses={200: page_serializer(MemberSerializer)},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """List the members by email address, expired ones included."""
        return page(list_members(self.access), MemberSerializer)


class OneMember(OrgEndpoint):
    """One member."""

    needs: ClassVar = {"GET": Permission.ORG_READ, "PATCH": Permission.MEMBERS_MANAGE, "DELETE": None}

    @extend_schema(
        operation_id="get_member", tags=["members"], parameters=[ORGANIZATION], responses={200: MemberSerializer}
    )
    def get(self, request: Request, member_id: int) -> Response:
        """Show one member."""
        return Response(MemberSerializer(members.get_member(self.access, member_id)).data)

    @extend_schema(
        operation_id="change_member", tags=["members"], parameters=[ORGANIZATION],
        request=ChangeMemberSerializer, responses={200: MemberSerializer},
    )  # fmt: skip
    def patch(self, request: Request, member_id: int) -> Response:
        """Change a member's role or expiry."""
        wanted = valid(ChangeMemberSerializer, request)
        if wanted.get("role") == Role.OWNER:
            self.step_up(request)
        changed = members.change_member(
            self.access,
            member_id,
            role=wanted.get("role"),
            ends_at=wanted.get("ends_at"),
            keep_end="ends_at" not in wanted,
        )
        return Response(MemberSerializer(changed).data)

    @extend_schema(operation_id="remove_member", tags=["members"], parameters=[ORGANIZATION], responses={204: None})
    def delete(self, request: Request, member_id: int) -> Response:
        """Remove a member; members can remove themselves."""
        members.remove_member(self.access, member_id)
        return Response(status=204)


class Invitations(OrgEndpoint):
    """The invitations."""

    needs: ClassVar = {"GET": Permission.ORG_READ, "POST": Permission.MEMBERS_MANAGE}

    @extend_schema(
        operation_id="list_invitations", tags=["members"], parameters=[ORGANIZATION],
        responses={200: page_serializer(InvitationSerializer)},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """List the invitations, newest first."""
        context = {"codes": self.access.may(Permission.MEMBERS_MANAGE)}
        return page(invitations.list_invitations(self.access), InvitationSerializer, context=context)

    @extend_schema(
        operation_id="invite", tags=["members"], parameters=[ORGANIZATION], request=InviteSerializer,
        responses={201: InvitationSerializer},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Invite a member by email. The link works for a week, for that address only."""
        wanted = valid(InviteSerializer, request)
        if wanted["role"] == Role.OWNER:
            self.step_up(request)
        made = invitations.invite(self.access, **wanted)
        return Response(InvitationSerializer(made, context={"codes": True}).data, status=201)


class OneInvitation(OrgEndpoint):
    """One invitation."""

    needs: ClassVar = {"DELETE": Permission.MEMBERS_MANAGE}

    @extend_schema(
        operation_id="revoke_invitation", tags=["members"], parameters=[ORGANIZATION],
        responses={200: InvitationSerializer},
    )  # fmt: skip
    def delete(self, request: Request, invitation_id: str) -> Response:
        """Revoke an invitation."""
        return Response(InvitationSerializer(invitations.revoke_invitation(self.access, invitation_id)).data)


class ResendInvitation(OrgEndpoint):
    """One invitation, again."""

    needs: ClassVar = {"POST": Permission.MEMBERS_MANAGE}

    @extend_schema(
        operation_id="resend_invitation", tags=["members"], parameters=[ORGANIZATION], request=None,
        responses={200: InvitationSerializer},
    )  # fmt: skip
    def post(self, request: Request, invitation_id: str) -> Response:
        """Resend an invitation with a new link; earlier links stop working."""
        again = invitations.resend_invitation(self.access, invitation_id)
        return Response(InvitationSerializer(again, context={"codes": True}).data)


class AcceptInvitation(PersonEndpoint):
    """Joining."""

    needs: ClassVar = {"POST": None}

    @extend_schema(
        operation_id="accept_invitation", tags=["members"], request=AcceptSerializer, responses={200: MemberSerializer}
    )
    def post(self, request: Request) -> Response:
        """Join the organization that an invitation's link names. Only for the address that was invited."""
        wanted = valid(AcceptSerializer, request)
        joined = invitations.accept_invitation(
            self.person(request), wanted["token"], code=wanted["code"], ip=address_of(request)
        )
        return Response(MemberSerializer(joined).data)
