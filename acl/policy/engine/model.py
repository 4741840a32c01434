"""The values of the policy core: identities, rules, policies, requests and decisions.

Plain immutable dataclasses; nothing here decides anything. Times are aware ``datetime`` values in UTC.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

VERSION = "3"
MAX_RULES = 10_000
MAX_DOCUMENT_BYTES = 1024 * 1024

ActionName = Literal["pub", "sub", "pub+sub"]
RequestAction = Literal["pub", "sub", "receive"]
ClaimValue = str | Sequence[str] | int | float | bool


class Effect(StrEnum):
    """The effect of a rule or decision: allow or deny."""

    ALLOW = "allow"
    DENY = "deny"


def claim_texts(value: object) -> tuple[str, ...]:
    """The texts that a claim's globs are matched with: one for a scalar, one per element of a list.

    Numbers and booleans appear as JSON writes them. A value without such a text (null, a mapping, NaN) has none.
    """
    if isinstance(value, str):
        return (value,)
    if isinstance(value, bool) or (isinstance(value, float) and math.isfinite(value)):
        return (json.dumps(value),)
    if isinstance(value, int):
        try:
            return (str(value),)
        except ValueError:  # more digits than Python converts
            return ()
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(sorted(text for element in value if not _is_list(element) for text in claim_texts(element)))
    return ()


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | set | frozenset)


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """The identity that a decision is about: one signed-in client with its username, client ID and claims.

    ``username`` is the local part, without ``@org``. Two identities are equal when every policy must treat them
    alike; ``key`` is the hashable value that is compared.
    """

    org: str
    username: str
    client_id: str = ""
    claims: Mapping[str, ClaimValue] = field(default_factory=dict)
    key: tuple[object, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        claims = tuple(sorted((name, _is_list(value), claim_texts(value)) for name, value in self.claims.items()))
        object.__setattr__(self, "claims", dict(self.claims))
        object.__setattr__(self, "key", (self.org, self.username, self.client_id, claims))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def claim(self, name: str) -> tuple[str, ...]:
        """The texts of the claim ``name``; empty when it is missing."""
        return claim_texts(self.claims.get(name))

    def scalar_claim(self, name: str) -> str | None:
        """The text of the claim ``name`` when it is a single value: lists name nothing in a topic."""
        value = self.claims.get(name)
        texts = () if _is_list(value) else claim_texts(value)
        return texts[0] if texts else None


@dataclass(frozen=True, slots=True)
class Who:
    """The identities that a rule applies to: for every part and every named claim, globs of which one must match."""

    username: tuple[str, ...] = ("*",)
    client_id: tuple[str, ...] = ("*",)
    claims: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def is_everyone(self) -> bool:
        """Whether every identity matches."""
        return "*" in self.username and "*" in self.client_id and not self.claims


EVERYONE = Who()


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a policy. ``qos``, ``retain`` limit allow rules only (MQTT 5 s3.3.1.2, s3.3.1.3)."""

    id: str
    topics: tuple[str, ...]
    action: ActionName = "pub+sub"
    effect: Effect = Effect.ALLOW
    who: Who = EVERYONE
    qos: int = 2
    retain: bool = True
    expires: datetime | None = None
    note: str = ""

    def acts_on(self, action: Literal["pub", "sub"]) -> bool:
        """Whether the rule speaks of publishing (``pub``) or of subscribing and receiving (``sub``)."""
        return self.action in (action, "pub+sub")

    def expired(self, now: datetime) -> bool:
        """Whether ``now`` is at or past ``expires``: the rule then does not apply."""
        return self.expires is not None and self.expires <= now


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """One policy test: a request and the expected effect. ``rule`` is a rule ID, ``"none"``, or ``None`` for any."""

    name: str
    username: str
    do: Literal["pub", "sub"]
    topic: str
    expect: Effect
    client_id: str = ""
    claims: tuple[tuple[str, ClaimValue | tuple[str, ...]], ...] = ()
    rule: str | None = None
    qos: int = 0
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """An ordered list of rules and the tests that document it. The first rule that decides wins."""

    rules: tuple[Rule, ...] = ()
    tests: tuple[PolicyTest, ...] = ()
    version: Literal["3"] = "3"


EMPTY_POLICY = Policy()


@dataclass(frozen=True, slots=True)
class NearMiss:
    """An allow rule that matches the request but does not decide it, and the reason: QoS or retain."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision on one request.

    ``rule`` is ``None`` when no rule decided. ``holes`` are the denied parts of a granted subscription, as filters; of
    those in ``partial`` earlier rules allow something, which is delivered.
    ``qos`` is the highest QoS granted (0 for a denial). ``valid_until`` is when an expiry could change the effect.
    """

    effect: Effect
    rule: str | None
    reason: str
    near_misses: tuple[NearMiss, ...] = ()
    holes: tuple[str, ...] = ()
    qos: int = 0
    valid_until: datetime | None = None
    partial: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the request is granted (with exceptions or without)."""
        return self.effect is Effect.ALLOW


@dataclass(frozen=True, slots=True)
class Request:
    """One request: may ``identity`` do ``action`` on ``topic`` (a filter, for ``sub``)?"""

    identity: Identity
    action: RequestAction
    topic: str
    qos: int = 0
    retain: bool = False


def as_utc(moment: datetime) -> datetime:
    """``moment`` as an aware UTC time; a naive one is taken to be UTC already."""
    if moment.tzinfo is None:
        return moment.replace(tzinfo=UTC)
    return moment
