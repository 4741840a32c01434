"""The access check of every API operation: authentication, organization, permission, rate limit.

An operation is a method of a subclass; ``needs`` names the permission each method asks for, and the permissions test
walks it. The organization is the key's own; a person names it by ``organization_id``.
"""

from __future__ import annotations

import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, cast

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import MethodNotAllowed, ParseError
from rest_framework.negotiation import BaseContentNegotiation
from rest_framework.parsers import BaseParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from cloudsignal.api import idempotency
from cloudsignal.api.parsers import JsonParser, is_storable
from cloudsignal.errors import Forbidden, Invalid, NotFound, Unauthenticated
from cloudsignal.limits import take
from orgs.access.api.authentication import ApiKeyAuthentication, PersonAuthentication, address_of, network_of_caller
from orgs.access.api_keys import AuthenticatedKey
from orgs.access.grants import Access, access_org
from orgs.access.step_up import require_recent
from orgs.models import User
from orgs.permissions import Permission

Scope = Literal["org", "person", "key", "operator", "public", "token"]
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class AlwaysJson(BaseContentNegotiation):
    """Content negotiation: responses are JSON whatever ``Accept`` says; Content-Type selects the parser."""

    def select_parser(self, request: Request, parsers: Any) -> BaseParser | None:
        """Select the parser for the request's Content-Type."""
        sent = request.content_type.partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == sent), None)

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Select the JSON renderer."""
        return renderers[0], renderers[0].media_type


class Endpoint(APIView, ABC):
    """An API resource. Subclasses declare its ``scope`` and the permission that each method needs."""

    scope: ClassVar[Scope]
    needs: ClassVar[Mapping[str, Permission | None]]
    changes: ClassVar[bool] = True
    """Whether POST changes anything; a POST that only computes ignores ``Idempotency-Key``."""
    authentication_classes: Sequence[type[BaseAuthentication]] = (ApiKeyAuthentication, PersonAuthentication)
    permission_classes = ()
    throttle_classes = ()
    parser_classes: Sequence[type[BaseParser]] = (JsonParser,)
    renderer_classes = (JSONRenderer,)
    content_negotiation_class = AlwaysJson
    http_method_names = ("get", "head", "post", "put", "patch", "delete")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Make each POST that changes anything idempotent (``Idempotency-Key``); check ``needs`` for completeness."""
        super().__init_subclass__(**kwargs)
        if "post" in cls.__dict__ and cls.changes and cls.scope not in {"token", "public"}:
            cls.post = _idempotent(cls.__dict__["post"])  # type: ignore[attr-defined]
        written = {method for method in METHODS if hasattr(cls, method.lower())}
        if written and written != set(cls.needs):
            raise TypeError(f"{cls.__name__} has the methods {sorted(written)}, but needs names {sorted(cls.needs)}")

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Validate the URL and query, then authorize the request; raises the refusal."""
        self.format_kwarg = None
        method = self.operation(request)
        if method not in self.needs:
            raise MethodNotAllowed(request.method or "")
        request.accepted_renderer, request.accepted_media_type = self.perform_content_negotiation(request)
        for name, value in kwargs.items():
            if not is_storable(str(value)):
                raise NotFound(name.replace("_", " ").capitalize())
        for name, values in request.query_params.lists():
            if not all(is_storable(text) for text in (name, *values)):
                raise ParseError("The query contains NUL or is not valid Unicode.")
        self.admit(request, method)

    def operation(self, request: Request) -> str:
        """The HTTP method whose requirements apply: HEAD counts as GET."""
        return "GET" if request.method == "HEAD" else str(request.method)

    @abstractmethod
    def admit(self, request: Request, method: str) -> None:
        """Authorize the caller and count the request, or raise."""

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Forbid caching of every response."""
        response = super().finalize_response(request, response, *args, **kwargs)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @property
    def principal(self) -> str:
        """The caller's identity for rate limits and idempotency keys."""
        auth, user = self.request.auth, self.request.user
        if isinstance(auth, AuthenticatedKey):
            return f"key {auth.key.pk}"
        return f"user {user.pk}" if isinstance(user, User) else network_of_caller(self.request)

    def person(self, request: Request) -> User:
        """The signed-in person; raises for API keys and anonymous requests."""
        user = request.user
        if isinstance(request.auth, AuthenticatedKey):
            raise Forbidden(
                "needs_person", "This needs a signed-in person; an API key cannot do it. Use the dashboard."
            )
        if not isinstance(user, User):
            raise Unauthenticated("unauthorized", "Sign in, or send an API key as `Authorization: Bearer sk_...`.")
        return user


class OrgEndpoint(Endpoint):
    """A resource of one organization. ``access`` is resolved, authorized and rate-limited before the method runs."""

    scope = "org"
    access: Access

    def admit(self, request: Request, method: str) -> None:
        """Resolve the organization and require the permission of the method."""
        self.access = self._resolve(request)
        take("api", self.principal)
        if permission := self.needs[method]:
            self.access.require(permission)

    def step_up(self, request: Request) -> None:
        """Require a recent authentication of a person for a dangerous action. API keys pass."""
        if not isinstance(request.auth, AuthenticatedKey):
            require_recent(request._request)

    def _resolve(self, request: Request) -> Access:
        named = self.kwargs.get("organization_id") or request.query_params.get("organization_id", "")
        use = request.auth
        if isinstance(use, AuthenticatedKey):
            if named and named != use.access.org_id:
                raise NotFound("The organization")
            return use.access
        user = self.person(request)
        if not named:
            raise Invalid("organization_missing", "Send organization_id.", field="organization_id")
        return access_org(user, named, ip=address_of(request))


class PersonEndpoint(Endpoint):
    """A resource of a signed-in person, outside any organization."""

    scope = "person"

    def admit(self, request: Request, method: str) -> None:
        """Require a person."""
        self.person(request)
        take("api", self.principal)


class KeyEndpoint(Endpoint):
    """A resource about the API key that calls."""

    scope = "key"

    def admit(self, request: Request, method: str) -> None:
        """Require an API key."""
        self.use(request)
        take("api", self.principal)

    def use(self, request: Request) -> AuthenticatedKey:
        """The key of the request; raises :class:`Unauthenticated` without one."""
        if not isinstance(request.auth, AuthenticatedKey):
            raise Unauthenticated("unauthorized", "Send an API key as `Authorization: Bearer ...`.")
        return request.auth


class OperatorEndpoint(Endpoint):
    """A resource for operators; everybody else gets 404."""

    scope = "operator"

    def admit(self, request: Request, method: str) -> None:
        """Require an operator."""
        if not self.person(request).is_operator:
            raise NotFound
        take("api", self.principal)


class PublicEndpoint(Endpoint):
    """A public resource. The class is explicit, so that no resource is public by accident."""

    scope = "public"
    authentication_classes = ()

    def admit(self, request: Request, method: str) -> None:
        """Apply the rate limit of the caller's network."""
        take("public", self.principal)


def _idempotent(handler: Callable[..., Response]) -> Callable[..., Response]:
    @functools.wraps(handler)
    def inner(self: Endpoint, request: Request, *args: Any, **kwargs: Any) -> Response:
        key = request.headers.get(idempotency.HEADER)
        if key is None:
            return handler(self, request, *args, **kwargs)
        claim = idempotency.begin(key, who=self.principal, owner=_owner(self), fingerprint=_fingerprint(request))
        if isinstance(claim, idempotency.Stored):
            return Response(claim.body, status=claim.status, headers={**claim.headers, "Idempotent-Replayed": "true"})
        try:
            response = handler(self, request, *args, **kwargs)
        except BaseException:
            claim.release()
            raise
        body = json.loads(JSONRenderer().render(response.data) or b"null")
        kept = {name: value for name, value in response.headers.items() if name in {"ETag", "Location"}}
        claim.finish(idempotency.Stored(response.status_code, body, kept))
        return response

    return inner


def _owner(endpoint: Endpoint) -> str:
    """The owner of a stored idempotent response: the organization, or outside of one the caller."""
    access, auth = getattr(endpoint, "access", None), endpoint.request.auth
    if isinstance(auth, AuthenticatedKey):
        access = auth.access
    return access.org_id if isinstance(access, Access) else endpoint.principal


def _fingerprint(request: Request) -> str:
    body = json.dumps(cast("Any", request.data), sort_keys=True, default=str)
    return hashlib.sha256(f"{request.method} {request.get_full_path()}\n{body}".encode()).hexdigest()
