"""API: retained messages and stored sessions."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from cloudsignal.api.bodies import valid
from cloudsignal.api.pages import PARAMETERS, first_page, limit_of, page_serializer
from orgs.access.api.endpoint import OrgEndpoint
from orgs.access.api.schema import ORGANIZATION
from orgs.broker import clearing
from orgs.broker.reads import RetainedMessage, StoredSession, list_retained, list_stored
from orgs.permissions import Permission

FIND = OpenApiParameter("find", str, description="Part of the topic, client ID or username.")


class RetainedMessageSerializer(serializers.Serializer[RetainedMessage]):
    """A retained message; its payload is never read."""

    topic = serializers.CharField()
    size = serializers.IntegerField(help_text="Bytes of the packet.")
    published_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(allow_null=True)
    username = serializers.CharField(allow_blank=True, help_text="The username that published it; empty if unknown.")


class ClearRetainedSerializer(serializers.Serializer[Any]):
    """The retained messages to clear: exactly one of the three fields."""

    topics = serializers.ListField(
        child=serializers.CharField(max_length=1_024, trim_whitespace=False), required=False, max_length=500
    )
    username = serializers.CharField(
        required=False, max_length=128, help_text="All messages that this username published."
    )
    everything = serializers.BooleanField(default=False)


class StoredSessionSerializer(serializers.Serializer[StoredSession]):
    """A session that outlives its connection."""

    client_id = serializers.CharField()
    username = serializers.CharField(allow_blank=True)
    ends_at = serializers.DateTimeField(help_text="When the broker drops it unless its client connects again.")
    connected = serializers.BooleanField()


class ReleaseSessionSerializer(serializers.Serializer[Any]):
    """The session to release."""

    client_id = serializers.CharField(max_length=65_535, trim_whitespace=False)


class Retained(OrgEndpoint):
    """The retained messages."""

    needs: ClassVar = {"GET": Permission.ORG_READ}

    @extend_schema(
        operation_id="list_retained", tags=["broker"], parameters=[ORGANIZATION, *PARAMETERS, FIND],
        responses={200: page_serializer(RetainedMessageSerializer)},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """List the retained messages by topic, with size and time, never the payload. The first 10,000 are searched."""
        found = list_retained(self.access, find=request.query_params.get("find", "")).rows
        cursor, limit = request.query_params.get("cursor", ""), limit_of(request)
        rows = [row for row in found if row.topic > cursor]
        return first_page(rows, RetainedMessageSerializer, limit=limit, cursor=lambda row: row.topic)


class ClearRetained(OrgEndpoint):
    """Their end."""

    needs: ClassVar = {"POST": Permission.RETAINED_CLEAR}

    @extend_schema(
        operation_id="clear_retained", tags=["broker"], parameters=[ORGANIZATION], request=ClearRetainedSerializer,
        responses={202: None},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Clear retained messages: on topics, of a username, or all. An edge does it shortly after."""
        wanted = valid(ClearRetainedSerializer, request)
        clearing.clear_retained(
            self.access,
            topics=wanted.get("topics", []),
            username=wanted.get("username", ""),
            everything=wanted["everything"],
        )
        return Response(status=202)


class StoredSessions(OrgEndpoint):
    """The sessions that the broker keeps."""

    needs: ClassVar = {"GET": Permission.ORG_READ}

    @extend_schema(
        operation_id="list_stored_sessions", tags=["broker"], parameters=[ORGANIZATION, *PARAMETERS, FIND],
        responses={200: page_serializer(StoredSessionSerializer)},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """List the sessions that outlive their connection by client ID. The first 10,000 are searched."""
        found = list_stored(self.access, find=request.query_params.get("find", "")).rows
        cursor, limit = request.query_params.get("cursor", ""), limit_of(request)
        rows = [row for row in found if row.client_id > cursor]
        return first_page(rows, StoredSessionSerializer, limit=limit, cursor=lambda row: row.client_id)


class ReleaseSession(OrgEndpoint):
    """The end of one of them."""

    needs: ClassVar = {"POST": Permission.SESSIONS_CLOSE}

    @extend_schema(
        operation_id="release_stored_session", tags=["broker"], parameters=[ORGANIZATION],
        request=ReleaseSessionSerializer, responses={202: StoredSessionSerializer},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Discard a stored session with its queued messages and release its client ID. The client must be offline."""
        wanted = valid(ReleaseSessionSerializer, request)
        return Response(
            StoredSessionSerializer(clearing.release_session(self.access, wanted["client_id"])).data, status=202
        )
