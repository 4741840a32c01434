"""``/v2/sessions``: MQTT clients that are connected right now."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from cloudsignal.api.pages import page, page_serializer
from cloudsignal.wire.report import LiveSession
from orgs.access.api.endpoint import OrgEndpoint
from orgs.access.api.schema import ORGANIZATION
from orgs.permissions import Permission
from orgs.sessions.closing import close_session
from orgs.sessions.reads import live_sessions


class SessionSerializer(serializers.Serializer[LiveSession]):
    """A connected client."""

    session = serializers.CharField()
    username = serializers.CharField()
    client_id = serializers.CharField(allow_blank=True)
    node = serializers.CharField()
    ip = serializers.CharField(allow_blank=True)
    transport = serializers.CharField()
    mqtt_version = serializers.CharField()
    tls_version = serializers.CharField(allow_blank=True)
    tls_cipher = serializers.CharField(allow_blank=True)
    token_id = serializers.CharField(allow_blank=True)
    connected_at = serializers.SerializerMethodField()

    def get_connected_at(self, session: LiveSession) -> datetime:
        """ISO 8601 time."""
        return datetime.fromtimestamp(session.connected_at, UTC)


class Sessions(OrgEndpoint):
    """A connected client."""

    needs: ClassVar = {"GET": Permission.ORG_READ}

    @extend_schema(
        operation_id="list_sessions", tags=["sessions"], parameters=[ORGANIZATION],
        responses={200: page_serializer(SessionSerializer)},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """List the live MQTT sessions, newest first."""
        return page(live_sessions(self.access), SessionSerializer)


class OneSession(OrgEndpoint):
    """One of them."""

    needs: ClassVar = {"DELETE": Permission.SESSIONS_CLOSE}

    @extend_schema(
        operation_id="close_session", tags=["sessions"], parameters=[ORGANIZATION], responses={200: SessionSerializer}
    )
    def delete(self, request: Request, session: str) -> Response:
        """Close a live session; the client may sign in again. To prevent that, revoke its credential."""
        return Response(SessionSerializer(close_session(self.access, session)).data)
