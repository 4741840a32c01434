"""The simulator: one request against a text that may be an unsaved draft, checked by the code the edge runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from django.conf import settings
from django.utils import timezone

from acl import bench, examining
from acl.examining import Simulation, Verdict
from acl.policy import Finding, Identity, Request
from acl.policy.engine.topics import unfit_character
from acl.services.examination import check_size
from cloudsignal.errors import Invalid
from cloudsignal.wire.credential import ClaimValue
from orgs.access.grants import Access
from orgs.credentials.claims import clean_claims
from orgs.credentials.reads import stored_claims
from orgs.permissions import Permission

ACTIONS = ("pub", "sub", "receive")
TOPIC_MAX = 65_535


@dataclass(frozen=True, slots=True)
class Simulated:
    """The result of a simulation, with the claims that were used."""

    found: Simulation
    claims: Mapping[str, ClaimValue]
    source: Literal["given", "stored", "none"]
    """Where they come from: the caller, the identity of that username, or nowhere: there is no such identity."""

    @property
    def verdict(self) -> Verdict | None:
        """The verdict; None when the text has errors."""
        return self.found.verdict

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings about the text."""
        return self.found.findings


def simulate(
    access: Access,
    *,
    text: str,
    username: str,
    client_id: str = "",
    claims: Mapping[str, ClaimValue] | None = None,
    action: str,
    topic: str,
    qos: int = 0,
    retain: bool = False,
) -> Simulated:
    """Parse ``text`` and explain the verdict on one request; the verdict is None when the text has errors.

    Without ``claims`` (None) those that the identity carries are used, as on the wire; an empty map is no claims.
    ``username`` is the local part (``@org`` is cut off). Raises :class:`Invalid` for a request no client could make.
    """
    access.require(Permission.POLICY_SIMULATE)
    check_size(text)
    if action not in ACTIONS:
        raise Invalid("bad_action", f"The action is one of {', '.join(ACTIONS)}.", field="action")
    if qos not in {0, 1, 2}:
        raise Invalid("bad_qos", "QoS is 0, 1 or 2.", field="qos")
    check_topic(topic, wildcards=action == "sub")
    local = username.removesuffix(f"@{access.org_id}")
    if not local:
        raise Invalid("username_missing", "Name the client to simulate.", field="username")
    for field, name in (("username", local), ("client_id", client_id)):
        unfit = unfit_character(name)
        if unfit:
            text = f"A client whose {field.replace('_', ' ')} contains {unfit} is refused at CONNECT."
            raise Invalid(f"bad_{field}", text, field=field)
    source: Literal["given", "stored", "none"] = "given"
    if claims is None:
        claims = stored_claims(access, local)
        source = "none" if claims is None else "stored"
    carried = clean_claims(claims or {}) if source == "given" else dict(claims or {})
    identity = Identity(org=access.org_id, username=local, client_id=client_id, claims=carried)
    request = Request(identity=identity, action=action, topic=topic, qos=qos, retain=retain)  # type: ignore[arg-type]
    now, levels = timezone.now(), settings.TOPIC_LEVELS
    found = bench.run(access.org_id, examining.simulate, text, request, now=now, levels=levels)
    return Simulated(found, carried, source)


def check_topic(topic: str, *, wildcards: bool) -> None:
    """Raise :class:`Invalid` unless ``topic`` is a topic name, or with ``wildcards`` a filter (MQTT 5 s4.7)."""
    if not topic:
        raise Invalid("topic_missing", "Give a topic, such as sensors/7/temperature.", field="topic")
    if "\0" in topic or len(topic.encode("utf-8", "replace")) > TOPIC_MAX:
        raise Invalid("bad_topic", "A topic has at most 65,535 bytes and no NUL.", field="topic")
    unfit = unfit_character(topic)
    if unfit:
        raise Invalid("bad_topic", f"The topic contains {unfit}: the edge ends a session that uses it.", field="topic")
    if not wildcards:
        if "+" in topic or "#" in topic:
            raise Invalid("bad_topic", "A message has one exact topic, without + and #.", field="topic")
        return
    levels = topic.split("/")
    for position, level in enumerate(levels):
        if ("#" in level and (level != "#" or position != len(levels) - 1)) or ("+" in level and level != "+"):
            raise Invalid(
                "bad_topic", "In a filter, + must be a whole level and # the whole last level.", field="topic"
            )
