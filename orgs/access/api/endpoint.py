"""The gate of every API operation: who asks, of which organization, may they, how often. Nothing is served around it.

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
    """Answers are JSON whatever ``Accept`` says; the body is parsed by what it says it is."""

    def select_parser(self, request: Request, parsers: Any) -> BaseParser | None:
        """The parser for the body's content type."""
        sent = request.content_type.partition(";")[0].strip().lower()
        return next((parser for parser in parsers if parser.media_type == sent), None)

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """JSON."""
        return renderers[0], renderers[0].media_type


class Endpoint(APIView, ABC):
    """One resource. Subclasses say whose it is (``scope``) and what each method needs."""

    scope: ClassVar[Scope]
    needs: ClassVar[Mapping[str, Permission | None]]
    changes: ClassVar[bool] = True
    """Whether POST changes anything. One that only works something out is done again when it is sent again."""
    authentication_classes: Sequence[type[BaseAuthentication]] = (ApiKeyAuthentication, PersonAuthentication)
    permission_classes = ()
    throttle_classes = ()
    parser_classes: Sequence[type[BaseParser]] = (JsonParser,)
    renderer_classes = (JSONRenderer,)
    content_negotiation_class = AlwaysJson
    http_method_names = ("get", "head", "post", "put", "patch", "delete")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let each POST that changes anything honor ``Idempotency-Key``; compare the methods with ``needs``."""
        super().__init_subclass__(**kwargs)
        if "post" in cls.__dict__ and cls.changes and cls.scope not in {"token", "public"}:
            cls.post = _idempotent(cls.__dict__["post"])  # type: ignore[attr-defined]
        written = {method for method in METHODS if hasattr(cls, method.lower())}
        if written and written != set(cls.needs):
            raise TypeError(f"{cls.__name__} has the methods {sorted(written)}, but needs names {sorted(cls.needs)}")

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Everything that comes before the method itself; raises what refuses it."""
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
        """The method whose rules hold."""
        return "GET" if request.method == "HEAD" else str(request.method)

    @abstractmethod
    def admit(self, request: Request, method: str) -> None:
        """Let the caller in, or raise."""

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Nothing the API says is for a cache."""
        response = super().finalize_response(request, response, *args, **kwargs)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @property
    def principal(self) -> str:
        """Who calls, for limits and idempotency keys."""
        auth, user = self.request.auth, self.request.user
        if isinstance(auth, AuthenticatedKey):
            return f"key {auth.key.pk}"
        return f"user {user.pk}" if isinstance(user, User) else network_of_caller(self.request)

    def person(self, request: Request) -> User:
        """The person behind the session; raises for keys and for nobody."""
        user = request.user
        if isinstance(request.auth, AuthenticatedKey):
            raise Forbidden(
                "needs_person", "This needs a signed-in person; an API key cannot do it. Use the dashboard."
            )
        if not isinstance(user, User):
            raise Unauthenticated("unauthorized", "Sign in, or send an API key as `Authorization: Bearer sk_...`.")
        return user


class OrgEndpoint(Endpoint):
    """A resource of one organization. ``access`` is resolved, permitted and counted before the method runs."""

    scope = "org"
    access: Access

    def admit(self, request: Request, method: str) -> None:
        """Resolve the organization and require the permission of the method."""
        self.access = self._resolve(request)
        take("api", self.principal)
        if permission := self.needs[method]:
            self.access.require(permission)

    def step_up(self, request: Request) -> None:
        """For dangerous acts: a person must have shown their password or second factor a moment ago. Keys pass."""
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
    """For people who are signed in, outside any organization."""

    scope = "person"

    def admit(self, request: Request, method: str) -> None:
        """Nobody but a person."""
        self.person(request)
        take("api", self.principal)


class KeyEndpoint(Endpoint):
    """For programs, about the very key they call with."""

    scope = "key"

    def admit(self, request: Request, method: str) -> None:
        """Nobody without a key."""
        self.use(request)
        take("api", self.principal)

    def use(self, request: Request) -> AuthenticatedKey:
        """The key of the request; raises :class:`Unauthenticated` without one."""
        if not isinstance(request.auth, AuthenticatedKey):
            raise Unauthenticated("unauthorized", "Send an API key as `Authorization: Bearer ...`.")
        return request.auth


class OperatorEndpoint(Endpoint):
    """For operators; for everybody else it does not exist."""

    scope = "operator"

    def admit(self, request: Request, method: str) -> None:
        """Nobody but an operator."""
        if not self.person(request).is_operator:
            raise NotFound
        take("api", self.principal)


class PublicEndpoint(Endpoint):
    """For everybody. Asked for by name, so that nothing is public by accident."""

    scope = "public"
    authentication_classes = ()

    def admit(self, request: Request, method: str) -> None:
        """Count by network."""
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
    """The organization that a kept answer counts for; outside of one, whoever asks."""
    access, auth = getattr(endpoint, "access", None), endpoint.request.auth
    if isinstance(auth, AuthenticatedKey):
        access = auth.access
    return access.org_id if isinstance(access, Access) else endpoint.principal


def _fingerprint(request: Request) -> str:
    body = json.dumps(cast("Any", request.data), sort_keys=True, default=str)
    return hashlib.sha256(f"{request.method} {request.get_full_path()}\n{body}".encode()).hexdigest()
