"""``/v2/audit/events``: searching the audit of an organization."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from audit import access
from audit.access import AuditQuery
from audit.models import Event
from cloudsignal.api.pages import PARAMETERS, limit_of, page, page_serializer
from cloudsignal.api.times import query_time
from cloudsignal.errors import Invalid, NotFound
from orgs.access.api.endpoint import OrgEndpoint
from orgs.access.api.schema import ORGANIZATION
from orgs.permissions import Permission

TEXTS = {
    "kind": "Event kinds, separated by commas.",
    "client_id": "The MQTT client ID.",
    "username": "The MQTT username.",
    "topic_prefix": "Beginning of the topic.",
    "reason": "A reason code.",
    "ip": "Where it came from.",
    "session": "Id of an MQTT session.",
    "action": "publish, subscribe, unsubscribe, receive or will.",
    "rule": "Id of the deciding rule, or none.",
}
FILTERS = [
    *(OpenApiParameter(name, str, description=text) for name, text in TEXTS.items()),
    OpenApiParameter("folded", bool, description="false: each row as it is stored, repetitions of a denial too."),
    OpenApiParameter("since", datetime, description="From this time on; 30 days ago by default."),
    OpenApiParameter("until", datetime, description="Before this time."),
]


class EventSerializer(serializers.ModelSerializer[Event]):
    """An audit event. It never contains a payload."""

    before = serializers.DictField(allow_null=True, read_only=True)
    after = serializers.DictField(allow_null=True, read_only=True)
    details = serializers.DictField(allow_null=True, read_only=True)
    count = serializers.IntegerField(
        source="total", read_only=True, help_text="How many times it happened, with the rows that repeat it."
    )
    cursor = serializers.SerializerMethodField(help_text="Identifies this event: GET /v2/audit/events/{cursor}.")

    class Meta:
        model = Event
        fields: ClassVar = [
            "cursor", "ts", "id", "kind", "node", "session", "username", "client_id", "ip", "port", "transport",
            "mqtt_version", "tls_version", "tls_cipher", "reason", "action", "topic", "qos", "retain", "size", "rule",
            "policy_digest", "count", "actor", "target", "before", "after", "details", "repeats",
        ]  # fmt: skip
        read_only_fields = fields

    def get_cursor(self, event: Event) -> str:
        """The event's place in the list."""
        return access.cursor_of(event)


class Events(OrgEndpoint):
    """The search of audit events."""

    needs: ClassVar = {"GET": Permission.AUDIT_READ}

    @extend_schema(
        operation_id="search_audit", tags=["audit"], parameters=[ORGANIZATION, *PARAMETERS, *FILTERS],
        responses={200: page_serializer(EventSerializer)},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """Search the audit log, newest first."""
        asked = request.query_params
        query = AuditQuery(
            kind=asked.get("kind", ""),
            client_id=asked.get("client_id", ""),
            username=asked.get("username", ""),
            topic_prefix=asked.get("topic_prefix", ""),
            reason=asked.get("reason", ""),
            ip=asked.get("ip", ""),
            session=asked.get("session", ""),
            action=asked.get("action", ""),
            rule=asked.get("rule", ""),
            since=query_time("since", asked.get("since", "")),
            until=query_time("until", asked.get("until", "")),
            cursor=asked.get("cursor", ""),
            folded=_folded(asked.get("folded", "")),
            limit=limit_of(request),
        )
        found = access.search(self.access, query)
        return page(found.events, EventSerializer, next_cursor=found.next_cursor)


class OneEvent(OrgEndpoint):
    """One audit event."""

    needs: ClassVar = {"GET": Permission.AUDIT_READ}

    @extend_schema(
        operation_id="get_audit_event", tags=["audit"], parameters=[ORGANIZATION], responses={200: EventSerializer}
    )
    def get(self, request: Request, cursor: str) -> Response:
        """Show one event."""
        ts, event_id = key_of(cursor)
        return Response(EventSerializer(access.get_event(self.access, ts, event_id)).data)


def _folded(text: str) -> bool:
    if text not in {"", "true", "false"}:
        raise Invalid("bad_folded", "folded is true or false.", field="folded")
    return text != "false"


def key_of(cursor: str) -> tuple[datetime, uuid.UUID]:
    """Parse the cursor in a path; raises :class:`NotFound`."""
    try:
        return access.parse_cursor(cursor)
    except Invalid:
        raise NotFound("The event") from None
