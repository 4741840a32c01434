"""Reading what belongs to an organization.

Every page and API call begins with :func:`access_org`, the tenancy gate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

from django.db.models import Count, Exists, Max, Model, OuterRef, Q, QuerySet
from django.utils import timezone
from redis.exceptions import RedisError

from cloudsignal import ids
from cloudsignal.errors import DomainError, Forbidden, Invalid, NotFound, Unavailable
from cloudsignal.redis import fast_client
from cloudsignal.tenancy.scopes import org_scope, platform_scope, user_scope
from cloudsignal.wire import keys
from cloudsignal.wire.codec import WireError, decode
from cloudsignal.wire.report import SESSIONS_SECONDS, LiveSession
from orgs.access.second_factor import has_second_factor
from orgs.models import (
    ApiKey,
    Credential,
    Membership,
    MqttIdentity,
    Organization,
    SignOnAccount,
    SingleSignOn,
    Through,
    User,
)
from orgs.models.credential import signing_in, unended
from orgs.permissions import OPERATOR, PERMISSIONS, Permission, Role, roles_with

PAGE = 50
PAGE_MAX = 200
THROUGH_LIFETIME = timedelta(hours=12)
"""How long what came through single sign-on lasts at most: whoever leaves the directory is out by the next day."""
SIGN_ON_REQUIRED = "sign_on_required"
"""The code of the refusal that signing in through the organization's own provider lifts."""

Row = TypeVar("Row", bound=Model)


@dataclass(frozen=True, slots=True)
class Access:
    """Proof that somebody may act in one organization, and as what. Services and access functions take it first."""

    org: Organization
    user: User | None
    role: Role | None
    """None for an operator, and for an API key that is not a person's command line."""
    permissions: frozenset[Permission]
    actor: str
    """How the audit names them: ``user:EMAIL``, ``operator:EMAIL``, ``ApiKey.actor`` or ``system``."""
    ip: str = ""
    key: ApiKey | None = None
    """The API key that asks, if one does: what it makes is bounded by it."""

    @property
    def org_id(self) -> str:
        """Id of the organization."""
        return self.org.pk

    def may(self, permission: Permission) -> bool:
        """Whether this access includes ``permission``."""
        return permission in self.permissions

    def require(self, permission: Permission) -> None:
        """Raise :class:`Forbidden`, naming who may, unless this access includes ``permission``."""
        if self.may(permission):
            return
        if self.role and permission in PERMISSIONS[self.role]:
            raise Forbidden("forbidden", f"The CLI cannot be granted {permission}: use the dashboard or an API key.")
        holders = ", ".join(roles_with(permission))
        who = f"The role {self.role}" if self.role else "This key" if self.user is None else "An operator"
        raise Forbidden("forbidden", f"{who} does not include {permission}. It needs one of: {holders}.")


@dataclass(frozen=True, slots=True)
class OrganizationEntry:
    """One line of the organization switcher."""

    org: Organization
    role: Role


@dataclass(frozen=True, slots=True)
class IdentityRow:
    """A username with what can be said of its secrets."""

    identity: MqttIdentity
    active: int
    """Active credentials."""
    last_issued_at: datetime | None


@dataclass(frozen=True, slots=True)
class CredentialCounts:
    """How many secrets sign in now, how many of them never expire, and how many end soon."""

    active: int
    static: int
    ends_in_hour: int
    ends_in_day: int
    identities: int


@dataclass(frozen=True, slots=True)
class CredentialPage:
    """Credentials, newest first. ``next_cursor`` continues after the last row; None at the end."""

    rows: tuple[Credential, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class IdentityPage:
    """Identities by name. ``next_cursor`` continues after the last row; None at the end."""

    rows: tuple[IdentityRow, ...]
    next_cursor: str | None


def access_org(user: User, org_id: str, ip: str = "") -> Access:
    """What ``user`` may do in the organization. Strangers and ended memberships get :class:`NotFound`, never a hint,
    and so does a session that came through another organization's single sign-on."""
    if not ids.ORG.match(org_id) or not user.reaches(org_id):
        raise NotFound("The organization")
    required = SingleSignOn.objects.filter(org=OuterRef("pk"), required=True, enabled=True)
    with org_scope(org_id):
        org = Organization.objects.annotate(sign_on_required=Exists(required)).filter(pk=org_id).first()
        if org is None:
            raise NotFound("The organization")
        membership = Membership.objects.filter(_current(), org=org, user=user).first()
    refused: DomainError = NotFound("The organization")
    if membership is not None:
        role = _role(user, membership)
        missing = _way_in_missing(user, org, role, sign_on_required=org.sign_on_required)
        if missing is None:
            return Access(org, user, role, PERMISSIONS[role], f"user:{user.email}", ip)
        refused = missing
    if user.is_operator:  # a membership leaves them with no less
        return Access(org, user, None, OPERATOR, f"operator:{user.email}", ip)
    raise refused


def _way_in_missing(user: User, org: Organization, role: Role, *, sign_on_required: bool) -> DomainError | None:
    """What an organization asks of members who sign in by themselves and this one does not meet. For those who come
    through its single sign-on its identity provider answers, second factor included.

    Owners are never shut out by a provider that is down or misconfigured: a second factor is what it takes them.
    """
    if user.through is not None:
        return None
    if sign_on_required and role is not Role.OWNER:
        return Forbidden(SIGN_ON_REQUIRED, f"{org.name} requires its members to sign in through SSO.")
    if (org.mfa_required or sign_on_required) and not has_second_factor(user):
        return Forbidden("mfa_required", f"{org.name} requires a second factor. Set one up in your account first.")
    return None


def way_is_open(through: Through, user: User) -> bool:
    """Whether what came through a single sign-on may go on: it is enabled, and the person is known there."""
    if user.is_operator or not ids.ORG.match(through.org_id):
        return False
    with org_scope(through.org_id):
        known = SignOnAccount.objects.filter(org_id=through.org_id, sign_on=through.sign_on_id, user=user)
        return known.filter(sign_on__enabled=True).exists()


def _role(user: User, membership: Membership) -> Role:
    """What a member is, the way they came in. Administrators choose the identity provider, and it can say that anybody
    is at the door: so an owner who comes through it is an administrator there."""
    role = Role(membership.role)
    return Role.ADMIN if user.through is not None and role is Role.OWNER else role


def list_organizations(user: User) -> tuple[OrganizationEntry, ...]:
    """The organizations ``user`` is a member of now and can reach the way they came in, by name."""
    with user_scope(user.pk):
        memberships = Membership.objects.filter(_current(), user=user).select_related("org").order_by("org__name", "id")
        return tuple(OrganizationEntry(row.org, _role(user, row)) for row in memberships if user.reaches(row.org_id))


def all_organizations(operator: User) -> tuple[Organization, ...]:
    """Every organization there is, by name. For operators; others get :class:`NotFound`."""
    if not operator.is_operator:
        raise NotFound()
    with platform_scope():
        return tuple(Organization.objects.order_by("name", "id"))


def list_members(access: Access) -> tuple[Membership, ...]:
    """The members of the organization with their people, by e-mail; ended memberships included."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        return tuple(Membership.objects.filter(org=access.org).select_related("user").order_by("user__email"))


def list_identities(access: Access, *, search: str = "", cursor: str = "", limit: int = PAGE) -> IdentityPage:
    """Usernames of the organization in order, those starting with ``search`` if given; ``cursor`` is a username."""
    access.require(Permission.ORG_READ)
    limit = _page(limit)
    with org_scope(access.org_id):
        found = _named(MqttIdentity.objects.filter(org=access.org, username__gt=cursor), "username", search)
        rows = list(found.order_by("username")[: limit + 1])
        # Counted for this page alone: an organization may have a million names.
        secrets = Credential.objects.filter(org=access.org, identity__in=[row.pk for row in rows])
        counted = secrets.values("identity").annotate(
            active=Count("id", filter=signing_in(timezone.now())), last=Max("issued_at")
        )
        figures = {one["identity"]: (one["active"], one["last"]) for one in counted}
    page = tuple(
        IdentityRow(row, 0 if row.revoked_at else figures.get(row.pk, (0, None))[0], figures.get(row.pk, (0, None))[1])
        for row in rows[:limit]
    )
    return IdentityPage(page, page[-1].identity.username if len(rows) > limit else None)


def stored_claims(access: Access, username: str) -> Mapping[str, Any] | None:
    """The claims that the identity ``username`` (the local part) carries; None when there is no such identity."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        found = MqttIdentity.objects.filter(org=access.org, username=username).values_list("claims", flat=True).first()
    return None if found is None else dict(found)


def list_credentials(
    access: Access, *, state: str = "", username: str = "", cursor: str = "", limit: int = PAGE
) -> CredentialPage:
    """Credentials of the organization, newest first, each with its ``identity``.

    ``state`` is one of ``active``, ``static``, ``retired``, ``expired``, ``revoked`` or empty; ``username`` is a prefix
    of the local part; ``cursor`` comes from the page before. Raises :class:`Invalid` for anything else.
    """
    access.require(Permission.ORG_READ)
    limit = _page(limit)
    with org_scope(access.org_id):
        found = _in_state(Credential.objects.filter(org=access.org), state)
        if username:
            found = _named(found, "identity__username", username)
        if cursor:
            found = _after(found, cursor)
        rows = list(found.select_related("identity").order_by("-issued_at", "-id")[: limit + 1])
    page = tuple(rows[:limit])
    return CredentialPage(page, write_cursor(page[-1].issued_at, page[-1].pk) if len(rows) > limit else None)


def get_credential(access: Access, token_id: str) -> Credential:
    """One credential with its identity; raises :class:`NotFound`."""
    access.require(Permission.ORG_READ)
    with org_scope(access.org_id):
        found = Credential.objects.filter(org=access.org, token_id=token_id).select_related("identity").first()
    if found is None:
        raise NotFound("The credential")
    return found


def credential_counts(access: Access) -> CredentialCounts:
    """The figures at the head of the credentials page."""
    access.require(Permission.ORG_READ)
    now = timezone.now()
    with org_scope(access.org_id):
        # The expired ones, by far the most, are left out by an index.
        active = Credential.objects.filter(signing_in(now), org=access.org)
        found = active.aggregate(
            active=Count("id"),
            static=Count("id", filter=Q(expires_at=None)),
            ends_in_hour=Count("id", filter=Q(expires_at__gt=now, expires_at__lte=now + timedelta(hours=1))),
            ends_in_day=Count("id", filter=Q(expires_at__gt=now, expires_at__lte=now + timedelta(days=1))),
        )
        identities = MqttIdentity.objects.filter(org=access.org, revoked_at=None).count()
    return CredentialCounts(**found, identities=identities)


def live_sessions(access: Access) -> tuple[LiveSession, ...]:
    """The organization's connected clients, newest first, as the edges publish them (seconds old at most).

    Raises :class:`Unavailable` when Redis does not answer in time.
    """
    access.require(Permission.ORG_READ)
    return sessions_of(access.org_id)


def sessions_of(org_id: str) -> tuple[LiveSession, ...]:
    """The same, for services that ask for a permission of their own."""
    try:
        sessions = _listed(org_id)
    except RedisError as error:
        raise Unavailable("sessions_unavailable", "Live sessions are unavailable; try again.") from error
    own = [session for session in sessions if session is not None and session.org == org_id]
    return tuple(sorted(own, key=lambda session: session.connected_at, reverse=True))


_TAKE_AWAY = """
for _, id in ipairs(ARGV) do
  if redis.call('HEXISTS', KEYS[2], id) == 0 then redis.call('HDEL', KEYS[1], id) end
end
"""
"""Take ids from the index that the node does not list: looked at once more, because it may list them by now."""

_ENDLESS = -1
"""What Redis answers to TTL of a key without an end."""


def _listed(org_id: str) -> list[LiveSession | None]:
    """What the nodes list of the organization; ids in its index that no node lists any more are taken away.

    A list ends within seconds unless its node goes on writing it. One that would lie longer counts for nothing.
    """
    redis = fast_client()
    index = cast("dict[bytes, bytes]", redis.hgetall(keys.live(org_id)))
    found: list[LiveSession | None] = []
    for node in sorted(set(index.values())):
        ids = [identifier for identifier, holder in index.items() if holder == node]
        name = keys.sessions(node.decode(errors="replace"))
        with redis.pipeline() as pipeline:
            pipeline.ttl(name)
            pipeline.hmget(name, ids)
            left, blobs = cast("tuple[int, list[bytes | None]]", pipeline.execute())
        if left == _ENDLESS or left > SESSIONS_SECONDS:
            continue  # no edge has written this
        stale = [identifier for identifier, blob in zip(ids, blobs, strict=True) if blob is None]
        if stale:
            redis.eval(_TAKE_AWAY, 2, keys.live(org_id), name, *stale)
        found += [_session(blob) for blob in blobs if blob is not None]
    return found


def _session(blob: bytes | str) -> LiveSession | None:
    try:
        return decode(blob.encode() if isinstance(blob, str) else blob, LiveSession)
    except WireError:
        return None


def _current() -> Q:
    return Q(ends_at=None) | Q(ends_at__gt=timezone.now())


def _named(found: QuerySet[Row], column: str, prefix: str) -> QuerySet[Row]:
    """Names beginning with ``prefix``, as a range: row-level security keeps ``LIKE`` from using an index.

    Names are of a-z, 0-9, - and _, all of which come before ``~`` in the column's C collation.
    """
    return found.filter(**{f"{column}__gte": prefix, f"{column}__lt": f"{prefix}~"}) if prefix else found


def _in_state(found: QuerySet[Credential], state: str) -> QuerySet[Credential]:
    now = timezone.now()
    match state:
        case "":
            return found
        case "active":
            return found.filter(signing_in(now))
        case "static":
            return found.filter(revoked_at=None, expires_at=None)
        case "retired":
            return found.filter(unended(now)).exclude(retired_at=None)
        case "expired":
            renewed = Q(renewed_until__isnull=False, renewed_until__gt=now)
            return found.filter(~renewed, revoked_at=None, expires_at__lte=now)
        case "revoked":
            return found.exclude(revoked_at=None)
    raise Invalid("bad_state", "The state is one of active, static, retired, expired, revoked.", field="state")


def _after(found: QuerySet[Credential], cursor: str) -> QuerySet[Credential]:
    issued, pk = read_cursor(cursor)
    return found.filter(Q(issued_at__lt=issued) | Q(issued_at=issued, id__lt=pk))


def write_cursor(at: datetime, pk: int) -> str:
    """The place of a row in a list that goes by a time and the primary key."""
    return f"{int(at.timestamp() * 1_000_000)}-{pk}"


def read_cursor(cursor: str) -> tuple[datetime, int]:
    """What :func:`write_cursor` was given; raises :class:`Invalid` for what it never gave out."""
    at, _, pk = cursor.partition("-")
    if not (cursor.isascii() and at.isdigit() and pk.isdigit() and len(at) < 18 and len(pk) < 19):
        raise Invalid("bad_cursor", "The cursor is not valid for this list; start from the first page.", field="cursor")
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(at)), int(pk)


def _page(limit: int) -> int:
    return max(1, min(limit, PAGE_MAX))


def permissions_of(names: Sequence[str]) -> frozenset[Permission]:
    """The permissions with these values; raises :class:`Invalid` for an unknown one."""
    known = {permission.value: permission for permission in Permission}
    for name in names:
        if name not in known:
            raise Invalid("unknown_scope", f"There is no scope {name!r}. Known: {', '.join(known)}.", field="scopes")
    return frozenset(known[name] for name in names)


def known_organization(org_id: str) -> Organization | None:
    """The organization with this id, for a caller who is nobody yet (the token service)."""
    if not ids.ORG.match(org_id):
        return None
    with org_scope(org_id):
        return Organization.objects.filter(pk=org_id).first()


def origin_allowed(origin: str, org: Organization | None) -> bool:
    """Whether pages of ``origin`` may read answers about ``org``; None asks about any organization."""
    if org is not None:
        return origin in org.allowed_origins
    with platform_scope():
        return Organization.objects.filter(allowed_origins__contains=[origin]).exists()
