"""The same requests asked twice: of the simulator, and through a real client, the edge and a broker.

Verdict, deciding rule and reason must agree: reason codes and deliveries show the verdict on the wire, the audit events
on the stream show rule and reason.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from acl.policy import Decision, Effect, Identity, Policy, Request, Rule, Who, canonical, explain
from acl.policy.engine.model import RequestAction
from cloudsignal.wire.audit import AuditEvent
from tests.edge.conformance.harness.client import Client, Endpoint
from tests.edge.conformance.harness.packets import Will
from tests.edge.conformance.harness.servers import Edge, Tenant
from tests.support.policy_strategies import CLAIMS, random_policy

DIRECTOR = Rule("director", ("#", "$s/#"), action="pub", who=Who(("zz-director",)))
"""Lets the test publish anything; speaks of nobody else, so it changes no verdict."""

USERNAMES = ("a", "b", "ab", "xa")
TEXTS = ("a", "b", "a", "b", "", "$s", "xa", "other", "c1")

Key = tuple[str, str, str, str]
"""Username, client id, action, topic: unique within an organization, so that nothing is folded."""


@dataclass(frozen=True, slots=True)
class Told:
    """One answer: allowed or not, by which rule (``none``), with which reason."""

    allowed: bool
    rule: str
    reason: str


def told(decision: Decision) -> Told:
    """What the evaluator says, as an audit event would carry it."""
    return Told(decision.allowed, decision.rule or "none", decision.reason)


@dataclass(slots=True)
class Comparison:
    """What was expected and what was seen, over all organizations."""

    levels: int = 128
    """The edge's ``EDGE_TOPIC_LEVELS``."""
    cases: int = 0
    denied: int = 0
    holes: int = 0
    expected: dict[tuple[str, Key], Told] = field(default_factory=dict)
    wire: dict[tuple[str, Key], bool] = field(default_factory=dict)
    """The verdict as the client saw it, where the protocol shows it."""
    differences: list[str] = field(default_factory=list)

    def expect(self, org: str, key: Key, answer: Told) -> None:
        """Note what the evaluator says."""
        self.cases += 1
        self.denied += not answer.allowed
        self.expected[org, key] = answer

    def saw(self, org: str, key: Key, allowed: bool) -> None:
        """Note what the client saw."""
        self.wire[org, key] = allowed

    def settle(self, events: list[AuditEvent]) -> None:
        """Compare what was expected with the wire and with the audit events."""
        denials, grants = {}, {}
        for event in events:
            key = (event.org, (event.username, event.client_id, event.action, event.topic))
            if event.kind == "acl_denied":
                denials[key] = Told(False, event.rule, event.reason)
            elif event.kind == "subscribe":
                grants[key] = event.rule
        for key, answer in self.expected.items():
            if self.wire.get(key, answer.allowed) is not answer.allowed:
                self.differences.append(f"{key}: evaluator {answer}, wire {self.wire[key]}")
            if denials.get(key) != (None if answer.allowed else answer):
                self.differences.append(f"{key}: evaluator {answer}, audit {denials.get(key)}")
            if key[1][2] == "subscribe" and answer.allowed and grants.get(key) != answer.rule:
                self.differences.append(f"{key}: evaluator {answer}, audit granted by {grants.get(key)}")


class Country:
    """One organization with a random policy."""

    def __init__(self, edge: Edge, seed: str, found: Comparison, number: int) -> None:
        self.edge = edge
        self.found = found
        self.source = f"127.0.9.{1 + number % 250}"
        self.random = random.Random(seed)
        drawn = random_policy(self.random, size=self.random.randint(1, 10)).rules
        soon = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
        rules = [replace(rule, expires=soon) if rule.expires and self.random.random() < 0.5 else rule for rule in drawn]
        for wide in range(self.random.randint(0, 3)):
            rules.insert(self.random.randint(0, len(rules)), self.wide_rule(wide))
            rules.insert(self.random.randint(0, len(rules)), self.narrow_rule(wide))
        self.policy = Policy((DIRECTOR, *rules))
        self.tenant: Tenant = edge.org(canonical(self.policy).decode())

    def wide_rule(self, number: int) -> Rule:
        """An allow rule for much, so that both verdicts are common and grants have holes."""
        topics = self.random.sample(("#", "a/#", "b/#", "+/a/#", "{username}/#", "+/+", "$s/#"), 2)
        action = self.random.choice(("pub", "sub", "pub+sub"))
        return Rule(f"wide{number}", tuple(topics), action=action, qos=self.random.randint(0, 2))  # type: ignore[arg-type]

    def narrow_rule(self, number: int) -> Rule:
        """A deny rule for a little."""
        topics = self.random.sample(("a/b", "b/a/#", "a/+/b", "xa/#", "other/#"), 2)
        return Rule(f"narrow{number}", tuple(topics), effect=Effect.DENY)

    async def tour(self) -> None:
        """Ask everything of a few identities, one after the other."""
        director = await self.client("zz-director", "director", 5)
        for username in self.random.sample(USERNAMES, 3):
            await Visit(self, director, username).play()
        await director.drop()

    async def client(self, username: str, client_id: str, version: int, **options: object) -> Client:
        """Sign in; the CONNACK is in ``client.connack``."""
        end = self.edge.endpoint("tls")
        client = Client(Endpoint("tls", end.port, end.tls, source=self.source), version, username)  # type: ignore[arg-type]
        await client.open()
        known = f"{username}@{self.tenant.id}", self.tenant.passwords.get(username, "")
        name, password = known if known[1] else self.edge.user(self.tenant, username)
        await client.connect(client_id, username=name, password=password, **options)
        return client

    def topic(self) -> str:
        """A topic name of the small world of the policies."""
        return "/".join(self.random.choice(TEXTS) for _ in range(self.random.randint(1, 4))) or "a"

    def filter(self) -> str:
        """A topic filter likewise, sometimes shared."""
        levels = [self.random.choice((*TEXTS, "+", "+", "+")) for _ in range(self.random.randint(1, 3))]
        if self.random.random() < 0.5:
            levels = [*levels, "#"] if self.random.random() < 0.8 else ["#"]
        made = "/".join(levels) or "+"
        return f"$share/g/{made}" if self.random.random() < 0.15 else made


class Visit:
    """One identity's session."""

    def __init__(self, country: Country, director: Client, username: str) -> None:
        self.country = country
        self.director = director
        self.random = country.random
        self.found = country.found
        self.org = country.tenant.id
        self.version = self.random.choice((4, 5))
        claims = self.random.choice(CLAIMS)
        country.edge.user(country.tenant, username, claims=claims)  # type: ignore[arg-type]
        self.identity = Identity(self.org, username, self.random.choice(("c1", "a", "c2")), claims)  # type: ignore[arg-type]

    async def play(self) -> None:
        """A will, a handful of publishes, a handful of subscriptions, and deliveries on them."""
        await self.will()
        client = await self.sign_in()
        for topic in {self.country.topic() for _ in range(6)}:
            await self.publish(client, topic)
        granted = [name for name in {self.country.filter() for _ in range(5)} if await self.subscribe(client, name)]
        client.messages.clear()
        await self.receive(client, granted)
        await client.leave()

    async def sign_in(self, **options: object) -> Client:
        """A session of this identity."""
        return await self.country.client(self.identity.username, self.identity.client_id, self.version, **options)

    def key(self, action: str, topic: str) -> Key:
        """Under which name the question is compared."""
        return (self.identity.username, self.identity.client_id, action, topic)

    def simulate(self, action: RequestAction, topic: str, *, qos: int = 0, retain: bool = False) -> Decision:
        """The simulator's verdict."""
        request = Request(self.identity, action, topic, qos, retain)
        return explain(self.country.policy, request, now=datetime.now(UTC), levels=self.found.levels).decision

    @staticmethod
    def refusal(answer: Decision, deep: int) -> int:
        """The code of a refusal in MQTT 5: ``deep`` for a topic or filter of too many levels."""
        return deep if answer.reason.endswith(" levels") else 0x87

    async def will(self) -> None:
        """A will is judged as a publish, at CONNECT."""
        will = Will(self.country.topic(), qos=self.random.randint(0, 2), retain=self.random.random() < 0.3)
        answer = self.simulate("pub", str(will.topic), qos=will.qos, retain=will.retain)
        self.found.expect(self.org, self.key("will", str(will.topic)), told(answer))
        client = await self.sign_in(will=will)
        assert client.connack is not None
        allowed = client.connack.reason == 0
        assert allowed or client.connack.reason == (self.refusal(answer, 0x90) if self.version == 5 else 5), (
            client.connack
        )
        self.found.saw(self.org, self.key("will", str(will.topic)), allowed)
        if allowed:
            await client.leave()

    async def publish(self, client: Client, topic: str) -> None:
        """One publish, at any QoS, retained or not."""
        qos, retain = self.random.randint(0, 2), self.random.random() < 0.2
        answer = self.simulate("pub", topic, qos=qos, retain=retain)
        self.found.expect(self.org, self.key("publish", topic), told(answer))
        reply = await client.publish(topic, b"p", qos=qos, retain=retain)
        if reply is not None and self.version == 5:
            self.found.saw(self.org, self.key("publish", topic), reply.reason != self.refusal(answer, 0x90))

    async def subscribe(self, client: Client, topic_filter: str) -> bool:
        """One subscription; whether it is granted, and at which QoS."""
        answer = self.simulate("sub", topic_filter)
        self.found.expect(self.org, self.key("subscribe", topic_filter), told(answer))
        self.found.holes += bool(answer.holes)
        code = (await client.subscribe((topic_filter, 2))).reasons[0]
        refusal = self.refusal(answer, 0x8F) if self.version == 5 else 0x80
        if code != (answer.qos if answer.allowed else refusal):
            self.found.differences.append(f"{self.identity} {topic_filter}: evaluator {answer}, SUBACK {code:#x}")
        return code < 3

    async def receive(self, client: Client, granted: list[str]) -> None:
        """The director publishes; what a granted filter matches arrives if the policy lets it."""
        topics = {self.country.topic() for _ in range(10)}
        sent = {topic for topic in topics if topic.count("/") < self.found.levels}
        wanted = {topic for topic in sent if any(matches(name, topic) for name in granted)}
        for topic in topics:
            await self.director.publish(topic, b"d", qos=1)
        await client.ping()
        arrived = {message.topic for message in client.messages if message.payload == b"d"}
        if arrived - wanted:
            self.found.differences.append(f"{self.identity}: nobody asked for {arrived - wanted}")
        for topic in wanted:
            answer = self.simulate("receive", topic)
            self.found.expect(self.org, self.key("receive", topic), told(answer))
            self.found.saw(self.org, self.key("receive", topic), topic in arrived)


def matches(topic_filter: str, topic: str) -> bool:
    """MQTT 5 s4.7, written once more: neither the policy core's matcher nor the broker's."""
    if topic_filter.startswith("$share/"):
        topic_filter = topic_filter.split("/", 2)[2]
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(wanted) == len(levels)


async def compare(edge: Edge, *, cases: int, seed: int, levels: int = 128) -> Comparison:
    """Compare until ``cases`` requests have been asked."""
    found = Comparison(levels)
    number = 0
    while found.cases < cases:
        countries = [Country(edge, f"{seed}/{number + index}", found, number + index) for index in range(6)]
        number += len(countries)
        await asyncio.gather(*(country.tour() for country in countries))
    return found


def gather_events(edge: Edge, found: Comparison, *, seconds: float = 15.0) -> list[AuditEvent]:
    """Audit events until every expected denial is there, or time is up."""
    events = edge.events()
    end = time.monotonic() + seconds
    missing = {key for key, answer in found.expected.items() if not answer.allowed}
    while time.monotonic() < end:
        have = {(event.org, (event.username, event.client_id, event.action, event.topic)) for event in events}
        if missing <= have:
            break
        time.sleep(0.2)
        events += edge.events()
    time.sleep(0.5)
    return events + edge.events()
