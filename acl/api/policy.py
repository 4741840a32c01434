"""``/v2/policy``: draft, validation, simulation, comparison, versions, deployments."""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from acl import access
from acl.api import shapes
from acl.services import deployments, drafts, simulate
from acl.services.examination import Side, compare, validate
from cloudsignal.api import problems
from cloudsignal.api.bodies import valid
from cloudsignal.api.pages import PARAMETERS, first_page, limit_of, number_cursor, page_serializer
from cloudsignal.errors import Conflict
from orgs.access.api.endpoint import OrgEndpoint
from orgs.access.api.schema import ORGANIZATION
from orgs.permissions import Permission

TAGS = ["policy"]
ETAG = OpenApiParameter("ETag", str, OpenApiParameter.HEADER, response=[200], description="Validator of the draft.")
IF_MATCH = OpenApiParameter(
    "If-Match", str, OpenApiParameter.HEADER, description="Only over the draft with this ETag; else 412."
)


class PolicyEndpoint(OrgEndpoint):
    """Base of the policy endpoints: a draft that was changed meanwhile fails the precondition (RFC 9110 s13.1.1)."""

    needs: ClassVar = {}

    def handle_exception(self, exc: Exception) -> Response:
        """Answer 412 instead of 409 where the request names the expected state."""
        if isinstance(exc, Conflict) and exc.code in {"draft_changed", "deployment_changed"}:
            response = problems.handle(exc, {})
            response.status_code = response.data["status"] = 412
            response.data["title"] = "Precondition Failed"
            return response
        return super().handle_exception(exc)


class Draft(PolicyEndpoint):
    """The draft of the policy."""

    needs: ClassVar = {"GET": Permission.ORG_READ, "PUT": Permission.POLICY_EDIT}

    @extend_schema(
        operation_id="get_draft", tags=TAGS, parameters=[ORGANIZATION, ETAG], responses={200: shapes.DraftSerializer}
    )
    def get(self, request: Request) -> Response:
        """Read the draft. It is not enforced."""
        draft = access.get_draft(self.access)
        return Response(shapes.DraftSerializer(draft).data, headers={"ETag": draft.etag})

    @extend_schema(
        operation_id="save_draft", tags=TAGS, parameters=[ORGANIZATION, ETAG, IF_MATCH],
        request=shapes.TextSerializer, responses={200: shapes.DraftSerializer},
    )  # fmt: skip
    def put(self, request: Request) -> Response:
        """Save the draft as it is, errors and all."""
        text = valid(shapes.TextSerializer, request)["text"]
        draft = drafts.save_draft(self.access, text=text, if_match=request.headers.get("If-Match"))
        return Response(shapes.DraftSerializer(draft).data, headers={"ETag": draft.etag})


class Validate(PolicyEndpoint):
    """Validation of a policy document."""

    needs: ClassVar = {"POST": Permission.POLICY_SIMULATE}
    changes = False

    @extend_schema(
        operation_id="validate_policy", tags=TAGS, parameters=[ORGANIZATION], request=shapes.OptionalTextSerializer,
        responses={200: shapes.ValidationSerializer},
    )  # fmt: skip
    def post(self, request: Request) -> HttpResponse:
        """Check a document (or the draft) and run its own tests. Nothing is stored."""
        text = with_draft(self, valid(shapes.OptionalTextSerializer, request))["text"]
        return HttpResponse(validate(self.access, text), content_type="application/json")


class Simulate(PolicyEndpoint):
    """Simulation of one request."""

    needs: ClassVar = {"POST": Permission.POLICY_SIMULATE}
    changes = False

    @extend_schema(
        operation_id="simulate", tags=TAGS, parameters=[ORGANIZATION], request=shapes.SimulateSerializer,
        responses={200: shapes.VerdictSerializer},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Ask a document (or the draft) what one client may do, rule by rule, by the code that the edge runs."""
        wanted = with_draft(self, valid(shapes.SimulateSerializer, request))
        found = simulate.simulate(self.access, **wanted)
        decision = found.verdict.decision if found.verdict else None
        verdict = {
            "allowed": decision.allowed if decision else None,
            "rule": decision.rule if decision else None,
            "reason": decision.reason if decision else "the document has errors",
            "qos": decision.qos if decision else 0,
            "holes": decision.holes if decision else (),
            "partial_holes": decision.partial if decision else (),
            "rules": found.verdict.rules if found.verdict else (),
            "rules_not_listed": found.verdict.hidden if found.verdict else 0,
            "claims": found.claims,
            "claims_source": found.source,
            "findings": found.findings,
        }
        return Response(shapes.VerdictSerializer(verdict).data)


class Diff(PolicyEndpoint):
    """Comparison of two documents by meaning."""

    needs: ClassVar = {"POST": Permission.POLICY_SIMULATE}
    changes = False

    @extend_schema(
        operation_id="diff_policies", tags=TAGS, parameters=[ORGANIZATION], request=shapes.DiffSerializer,
        responses={200: shapes.ComparisonSerializer},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Compare two documents by what they allow, with an example request for every difference."""
        wanted = valid(shapes.DiffSerializer, request)
        old = Side(text=wanted.get("old_text"), version=wanted.get("old_version"))
        new = Side(text=wanted.get("new_text"), version=wanted.get("new_version"))
        return Response(shapes.ComparisonSerializer(compare(self.access, old, new)).data)


class Versions(PolicyEndpoint):
    """The list of policy versions."""

    needs: ClassVar = {"GET": Permission.ORG_READ}

    @extend_schema(
        operation_id="list_versions", tags=TAGS, parameters=[ORGANIZATION, *PARAMETERS],
        responses={200: page_serializer(shapes.VersionSerializer)},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """List the versions, newest first."""
        limit = limit_of(request)
        found = access.list_versions(self.access, before=number_cursor(request), limit=limit + 1)
        return first_page(found, shapes.VersionSerializer, limit=limit, cursor=lambda version: version.number)


class OneVersion(PolicyEndpoint):
    """One policy version with its text."""

    needs: ClassVar = {"GET": Permission.ORG_READ}

    @extend_schema(
        operation_id="get_version", tags=TAGS, parameters=[ORGANIZATION], responses={200: shapes.FullVersionSerializer}
    )
    def get(self, request: Request, number: int) -> Response:
        """Show one version with its text."""
        return Response(shapes.FullVersionSerializer(access.get_version(self.access, number)).data)


class Deployments(PolicyEndpoint):
    """The list of deployments, and deploying the draft."""

    needs: ClassVar = {"GET": Permission.ORG_READ, "POST": Permission.POLICY_DEPLOY}

    @extend_schema(
        operation_id="list_deployments", tags=TAGS, parameters=[ORGANIZATION, *PARAMETERS],
        responses={200: page_serializer(shapes.DeploymentSerializer)},
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """List the deployments, newest first. The first is active."""
        limit = limit_of(request)
        found = access.list_deployments(self.access, before=number_cursor(request), limit=limit + 1)
        return first_page(found, shapes.DeploymentSerializer, limit=limit, cursor=lambda one: one.revision)

    @extend_schema(
        operation_id="deploy", tags=TAGS, parameters=[ORGANIZATION, IF_MATCH], request=shapes.DeploySerializer,
        responses={201: OpenApiResponse(shapes.DeploymentSerializer, "Sent to every node.")},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Make the draft the next version and send it to every node. Refused if it has errors or failing tests."""
        wanted = valid(shapes.DeploySerializer, request)
        made = deployments.deploy(self.access, **wanted, if_match=request.headers.get("If-Match"))
        return Response(shapes.DeploymentSerializer(made).data, status=201)


class OneDeployment(PolicyEndpoint):
    """One deployment, node by node."""

    needs: ClassVar = {"GET": Permission.ORG_READ}

    @extend_schema(
        operation_id="get_deployment", tags=TAGS, parameters=[ORGANIZATION], responses={200: shapes.ProgressSerializer}
    )
    def get(self, request: Request, deployment_id: str) -> Response:
        """Show which nodes enforce a deployment, and how long each took."""
        return Response(shapes.ProgressSerializer(access.deployment_progress(self.access, deployment_id)).data)


class Rollback(PolicyEndpoint):
    """Rollback to an earlier version."""

    needs: ClassVar = {"POST": Permission.POLICY_DEPLOY}

    @extend_schema(
        operation_id="rollback", tags=TAGS, parameters=[ORGANIZATION], request=shapes.RollbackSerializer,
        responses={201: shapes.DeploymentSerializer},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Send an earlier version to every node again."""
        wanted = valid(shapes.RollbackSerializer, request)
        made = deployments.rollback(self.access, number=wanted["version"], note=wanted["note"], over=wanted["over"])
        return Response(shapes.DeploymentSerializer(made).data, status=201)


def with_draft(endpoint: OrgEndpoint, wanted: dict[str, Any]) -> dict[str, Any]:
    """Fill in the draft's text where the body has none."""
    if wanted["text"] is None:
        wanted["text"] = access.get_draft(endpoint.access).text
    return wanted
