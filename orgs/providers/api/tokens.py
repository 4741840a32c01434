"""The token service: ``/v2/tokens/*``, ``GET /v2/providers`` and the claims of a user.

A contract that client libraries in the field speak: JSON only, errors as ``{error, error_description}``, CORS. It knows
no session: callers bring a key, a provider's token, or the password they have.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, ClassVar

from django.db.utils import InterfaceError, OperationalError
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import ParseError
from rest_framework.request import Request
from rest_framework.response import Response

from cloudsignal.api import problems
from cloudsignal.api.bodies import valid
from cloudsignal.errors import Unauthenticated
from cloudsignal.limits import take
from orgs.access.api.authentication import address_of, bearer, checked_key, network_of_caller
from orgs.access.api.endpoint import Endpoint
from orgs.access.api_keys import AuthenticatedKey
from orgs.access.grants import origin_allowed
from orgs.credentials import identities
from orgs.credentials.issuing import Issued
from orgs.models import ApiKey, Organization
from orgs.permissions import Permission
from orgs.providers import token_exchange
from orgs.providers.api import cors
from orgs.providers.api.shapes import (
    ClaimsSerializer,
    CreateSerializer,
    ExchangeSerializer,
    PublicProviderSerializer,
    PublicProvidersSerializer,
    RefreshSerializer,
    RevokedSerializer,
    RevokeSerializer,
    TokenSerializer,
)
from orgs.providers.providers import enabled_providers

TAGS = ["tokens"]
OWN_ERRORS = {"x-token-errors": True}
CODES = frozenset(
    {"unauthorized", "token_expired", "org_not_found", "provider_not_found", "email_claim_required", "rate_limited",
     "user_not_found", "claim_not_found"}
)  # fmt: skip


class TokenEndpoint(Endpoint):
    """One operation of the token service: own authentication, own errors, CORS."""

    scope = "token"
    authentication_classes = ()
    http_method_names = ("get", "head", "post", "patch", "delete", "options")
    org: Organization | None = None

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """A preflight asks nothing of the caller."""
        if request.method == "OPTIONS":
            take("public", network_of_caller(request))
            return
        super().initial(request, *args, **kwargs)

    def admit(self, request: Request, method: str) -> None:
        """Each operation authenticates by itself: the proof may stand in the body."""

    def options(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # type: ignore[override]
        """Answer a preflight."""
        origin = request.headers.get("Origin", "")
        allowed = bool(origin) and origin_allowed(origin, cors.named_organization(request))
        methods = ", ".join((*self.needs, "OPTIONS"))
        headers = {"Allow": methods, **cors.preflight_headers(origin, methods, allowed=allowed)}
        return Response(status=HTTPStatus.NO_CONTENT, headers=headers)

    def key(self, request: Request, *, secret: str | None = None) -> AuthenticatedKey:
        """The API key of the request; raises :class:`Unauthenticated` without one. Counts against its limit.

        Anybody can read a publishable key from a page: it is counted by network, or they could use it up for all.
        """
        found = bearer(request) or secret
        if not found:
            raise Unauthenticated("unauthorized", "Send an API key as `Authorization: Bearer sk_...`.")
        use = checked_key(found, ip=address_of(request))
        self.org = use.access.org
        if use.key.kind == ApiKey.Kind.PUBLISHABLE:
            take("tokens_of_address", network_of_caller(request))
        else:
            take("tokens_of_key", f"key {use.key.pk}")
        return use

    def handle_exception(self, exc: Exception) -> Response:
        """Every refusal in the service's own shape, with the service's own codes."""
        problem = problems.problem_of(exc)
        status, code = _own(problem)
        return Response(
            {"error": code, "error_description": problem.detail}, status=status, headers=problems.headers(problem)
        )

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Let the pages of allowed origins read the answer."""
        response = super().finalize_response(request, response, *args, **kwargs)
        origin = self.request.headers.get("Origin", "")
        if origin and request.method != "OPTIONS":
            try:
                allowed = origin_allowed(origin, self.org)
            except (OperationalError, InterfaceError):  # then the answer says so, and is JSON all the same
                allowed = False
            for name, value in cors.answer_headers(origin, allowed=allowed).items():
                response.headers[name] = value
        return response


class CreateToken(TokenEndpoint):
    """Issue on the word of an API key."""

    needs: ClassVar = {"POST": Permission.CREDENTIALS_MANAGE}

    @extend_schema(
        operation_id="create_token", tags=TAGS, request=CreateSerializer, responses={200: TokenSerializer},
        extensions=OWN_ERRORS,
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Issue a short-lived MQTT credential for one of your users, identified by email address."""
        wanted = valid(CreateSerializer, request, lenient=True)
        named = wanted.get("organization_id")
        if named is None and bearer(request) is None:
            raise ParseError("organization_id: This field is required.")
        org = token_exchange.find_organization(named) if named is not None else None
        use = self.key(request, secret=wanted.get("secret_key"))
        if org is not None and org.pk != use.access.org_id:
            self.org = org
            raise Unauthenticated("unauthorized", "The API key is not one of this organization.")
        issued = token_exchange.create_token(
            use.access,
            email=wanted["user_email"],
            integration=wanted.get("integration_id") or "",
            ttl=wanted["ttl"],
            claims=wanted["claims"],
        )
        return Response(token_body(issued))


class ExchangeToken(TokenEndpoint):
    """Issue on the word of an identity provider."""

    needs: ClassVar = {"POST": None}

    @extend_schema(
        operation_id="exchange_token", tags=TAGS, request=ExchangeSerializer, responses={200: TokenSerializer},
        extensions=OWN_ERRORS, auth=[],
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Exchange the JSON Web Token of one of the organization's identity providers for an MQTT credential."""
        wanted = valid(ExchangeSerializer, request, lenient=True)
        named, actor = wanted.get("organization_id"), ""
        if bearer(request) is not None:
            use = self.key(request)
            actor = use.access.actor
            if named is not None and named != use.access.org_id:
                token_exchange.find_organization(named)
                raise Unauthenticated("unauthorized", "The API key is not one of this organization.")
            self.org = use.access.org
        elif named is None:
            raise ParseError("organization_id: This field is required without an API key.")
        else:
            take("tokens_of_address", network_of_caller(request))
            self.org = token_exchange.find_organization(named)
        issued = token_exchange.exchange_token(
            self.org,
            token=wanted["token"],
            provider=_one_provider(wanted),
            ttl=wanted["ttl"],
            ip=address_of(request),
            actor=actor,
        )
        return Response(token_body(issued))


class RefreshToken(TokenEndpoint):
    """A new password for the same identity."""

    needs: ClassVar = {"POST": None}

    @extend_schema(
        operation_id="refresh_token", tags=TAGS, request=RefreshSerializer, responses={200: TokenSerializer},
        extensions=OWN_ERRORS, auth=[],
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Issue a further password in exchange for the current one, which stays valid until its own expiry."""
        wanted = valid(RefreshSerializer, request, lenient=True)
        take("tokens_of_address", network_of_caller(request))
        issued = token_exchange.refresh_token(
            wanted["token_id"], wanted["current_token_password"], ip=address_of(request)
        )
        self.org = token_exchange.find_organization(issued.username.rpartition("@")[2])
        return Response(token_body(issued))


class RevokeToken(TokenEndpoint):
    """End a token."""

    needs: ClassVar = {"POST": Permission.CREDENTIALS_MANAGE}

    @extend_schema(
        operation_id="revoke_token", tags=TAGS, request=RevokeSerializer, responses={200: RevokedSerializer},
        extensions=OWN_ERRORS,
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        """Revoke a token: its live sessions are closed at once."""
        use = self.key(request)
        wanted = valid(RevokeSerializer, request, lenient=True)
        found = token_exchange.revoke_token(use.access, wanted["token_id"])
        return Response({"token_id": found.token_id, "revoked": True, "revoked_at": found.revoked_at})


class PublicProviders(TokenEndpoint):
    """The settings that a sign-in page needs."""

    needs: ClassVar = {"GET": None}

    @extend_schema(
        operation_id="list_public_providers", tags=TAGS, responses={200: PublicProvidersSerializer}, auth=[],
        parameters=[OpenApiParameter("organization_id", str, required=True)], extensions=OWN_ERRORS,
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        """List the identity providers whose tokens the organization exchanges: public fields only."""
        take("tokens_of_address", network_of_caller(request))
        named = request.query_params.get("organization_id", "")
        if not named:
            raise ParseError("organization_id: This parameter is required.")
        self.org = token_exchange.find_organization(named)
        found = enabled_providers(self.org.pk)
        return Response({"providers": PublicProviderSerializer(found, many=True).data})


class Claims(TokenEndpoint):
    """The claims of one user."""

    needs: ClassVar = {"PATCH": Permission.CREDENTIALS_MANAGE}

    @extend_schema(
        operation_id="merge_claims", tags=TAGS, responses={200: ClaimsSerializer}, extensions=OWN_ERRORS,
        request={"application/json": {"type": "object", "additionalProperties": True}},
    )  # fmt: skip
    def patch(self, request: Request, username: str) -> Response:
        """Set the claims in the body, as `{name: value}` or `{"claims": {name: value}}`, and keep the others.

        A claim is a string, a number, a boolean or a list of strings. It applies to live sessions at once.
        """
        use = self.key(request)
        body = request.data
        if not isinstance(body, dict):
            raise ParseError("The body is an object of claims.")
        wrapped = body.get("claims")
        claims = wrapped if isinstance(wrapped, dict) and len(body) == 1 else body
        return Response(ClaimsSerializer(identities.merge_claims(use.access, username, claims)).data)


class OneClaim(TokenEndpoint):
    """One claim of one user."""

    needs: ClassVar = {"DELETE": Permission.CREDENTIALS_MANAGE}

    @extend_schema(operation_id="remove_claim", tags=TAGS, responses={200: ClaimsSerializer}, extensions=OWN_ERRORS)
    def delete(self, request: Request, username: str, name: str) -> Response:
        """Remove one claim."""
        use = self.key(request)
        return Response(ClaimsSerializer(identities.remove_claim(use.access, username, name)).data)


def _one_provider(wanted: dict[str, Any]) -> str:
    """The provider that an exchange names, by either of the two names; they must not differ."""
    named = {wanted.get(name) for name in ("integration_id", "provider")} - {None, ""}
    if len(named) > 1:
        raise ParseError("provider: integration_id names another provider; send one of the two.")
    return str(named.pop()) if named else ""


def token_body(issued: Issued) -> dict[str, Any]:
    """The answer of the contract."""
    assert issued.expires_at is not None  # noqa: S101 - tokens are never static
    return {
        "access_token": issued.password,
        "token_type": "Bearer",
        "expires_in": issued.expires_in,
        "mqtt_credentials": {"username": issued.username, "password": issued.password},
        "token_id": issued.token_id,
        "user_email": issued.email,
        "provider": issued.provider,
        "expires_at": issued.expires_at,
        "refresh_recommended_at": issued.refresh_recommended_at,
    }


def _own(problem: problems.Problem) -> tuple[int, str]:
    """Status and code as CONTRACTS.md lists them; everything else that is wrong with a request is its 400."""
    if problem.status == HTTPStatus.TOO_MANY_REQUESTS:
        return 429, "rate_limited"
    if problem.status == HTTPStatus.FORBIDDEN:
        return 401, "unauthorized"
    if problem.code in CODES or problem.status == HTTPStatus.METHOD_NOT_ALLOWED:
        return int(problem.status), problem.code
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        away = problem.status == HTTPStatus.SERVICE_UNAVAILABLE
        return int(problem.status), "temporarily_unavailable" if away else "internal"
    return 400, "invalid_request"
