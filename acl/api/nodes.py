"""``/v2/clusters`` and ``/v2/nodes``: for operators."""

from __future__ import annotations

from typing import ClassVar

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from acl.access import list_clusters, list_nodes
from acl.api.shapes import ClusterSerializer, NodeSerializer
from cloudsignal.api.pages import page, page_serializer
from orgs.access.api.endpoint import OperatorEndpoint


class Clusters(OperatorEndpoint):
    """The clusters."""

    needs: ClassVar = {"GET": None}

    @extend_schema(
        operation_id="list_clusters", tags=["operators"], responses={200: page_serializer(ClusterSerializer)}
    )
    def get(self, request: Request) -> Response:
        """List the broker clusters by name."""
        return page(list_clusters(self.person(request)), ClusterSerializer)


class Nodes(OperatorEndpoint):
    """The nodes."""

    needs: ClassVar = {"GET": None}

    @extend_schema(operation_id="list_nodes", tags=["operators"], responses={200: page_serializer(NodeSerializer)})
    def get(self, request: Request) -> Response:
        """List the edge nodes of every cluster."""
        return page(list_nodes(self.person(request)), NodeSerializer)
