"""``/v2/audit/log``: the transparency log of an organization, as C2SP tlog-tiles lays it out, and packs of rows."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from audit import proofs
from audit.api.events import key_of
from cloudsignal.api.times import query_time
from orgs.access.api.endpoint import OrgEndpoint
from orgs.access.api.schema import ORGANIZATION
from orgs.permissions import Permission

NOTE = "text/plain; charset=utf-8"
FOREVER = "private, max-age=31536000, immutable"
"""Cache header of a whole tile, which never changes."""


class LogKeySerializer(serializers.Serializer[dict[str, object]]):
    """Origin and verifier keys, with which an organization's log is verified."""

    origin = serializers.CharField(help_text="The first line of every checkpoint.")
    keys = serializers.ListField(
        child=serializers.CharField(), help_text="Verifier keys, newest first. Keep them apart from what they verify."
    )
    platform_keys = serializers.ListField(
        child=serializers.CharField(), help_text="Verifier keys of the platform's log of checkpoints, for witnesses."
    )


class LogKey(OrgEndpoint):
    """The verifier keys of the log."""

    needs: ClassVar = {"GET": Permission.AUDIT_READ}

    @extend_schema(
        operation_id="get_audit_log_key", tags=["audit"], parameters=[ORGANIZATION], responses={200: LogKeySerializer}
    )
    def get(self, request: Request) -> Response:
        """Show the origin and the verifier keys of the log."""
        origin, keys = proofs.verifier_keys(self.access)
        return Response({"origin": origin, "keys": keys, "platform_keys": proofs.platform_keys(self.access)})


class LogCheckpoint(OrgEndpoint):
    """The newest checkpoint."""

    needs: ClassVar = {"GET": Permission.AUDIT_READ}

    @extend_schema(
        operation_id="get_audit_log_checkpoint", tags=["audit"], parameters=[ORGANIZATION],
        responses={(200, "text/plain"): OpenApiTypes.STR},
    )  # fmt: skip
    def get(self, request: Request) -> HttpResponse:
        """Show the newest signed checkpoint (C2SP tlog-checkpoint)."""
        return HttpResponse(proofs.checkpoint(self.access), content_type=NOTE)


class LogWitnessed(OrgEndpoint):
    """The proof that the organization's checkpoint was seen outside."""

    needs: ClassVar = {"GET": Permission.AUDIT_READ}

    @extend_schema(
        operation_id="get_audit_log_witnessed", tags=["audit"], parameters=[ORGANIZATION],
        responses={(200, "text/plain"): OpenApiTypes.STR},
    )  # fmt: skip
    def get(self, request: Request) -> HttpResponse:
        """Download the proof that a checkpoint is in the platform's log, with the cosignatures of its witnesses."""
        return HttpResponse(proofs.platform_proof(self.access), content_type=NOTE)


class LogTile(OrgEndpoint):
    """A tile of hashes, or a bundle of entries."""

    needs: ClassVar = {"GET": Permission.AUDIT_READ}

    @extend_schema(
        operation_id="get_audit_log_tile", tags=["audit"], parameters=[ORGANIZATION],
        responses={(200, "application/octet-stream"): OpenApiTypes.BINARY},
    )  # fmt: skip
    def get(self, request: Request, tile: str) -> HttpResponse:
        """Show a tile by its path (C2SP tlog-tiles): LEVEL/INDEX or entries/INDEX, with .p/WIDTH when it is partial."""
        content, whole = proofs.tile(self.access, tile)
        headers = {"Cache-Control": FOREVER} if whole else {}
        return HttpResponse(content, content_type="application/octet-stream", headers=headers)


class LogPack(OrgEndpoint):
    """A pack of rows with the tiles that prove them."""

    needs: ClassVar = {"GET": Permission.AUDIT_READ}

    @extend_schema(
        operation_id="get_audit_log_pack", tags=["audit"],
        parameters=[
            ORGANIZATION,
            OpenApiParameter("since", OpenApiTypes.DATETIME, description="From this time on; a day ago by default."),
            OpenApiParameter("until", OpenApiTypes.DATETIME, description="Before this time; now by default."),
        ],
        responses={(200, "application/zip"): OpenApiTypes.BINARY},
    )  # fmt: skip
    def get(self, request: Request) -> HttpResponse:
        """Download at most 10,000 events with their proofs; `cloudsignal audit verify` verifies the archive offline."""
        until = query_time("until", request.query_params.get("until", "")) or timezone.now()
        since = query_time("since", request.query_params.get("since", "")) or until - timedelta(days=1)
        return HttpResponse(
            proofs.pack(self.access, since, until),
            content_type="application/zip",
            headers={"Content-Disposition": f'attachment; filename="{self.access.org_id}-audit.zip"'},
        )


class EventProof(OrgEndpoint):
    """The proof of one event."""

    needs: ClassVar = {"GET": Permission.AUDIT_READ}

    @extend_schema(
        operation_id="get_audit_event_proof", tags=["audit"], parameters=[ORGANIZATION],
        responses={(200, "text/plain"): OpenApiTypes.STR},
    )  # fmt: skip
    def get(self, request: Request, cursor: str) -> HttpResponse:
        """Download the proof that the event is in the transparency log (C2SP tlog-proof)."""
        ts, event_id = key_of(cursor)
        return HttpResponse(proofs.row_proof(self.access, ts, event_id), content_type=NOTE)
