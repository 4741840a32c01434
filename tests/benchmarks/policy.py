"""How fast the policy core decides, held against pycasbin, Cedar and itself. Prints one JSON object last.

    python tests/benchmarks/policy.py          # QUICK=1 for a run under a minute

Rates are decisions per second of CPU time of this process (``time.process_time``), so that other work on the machine
does not count; every figure is the median of at least five rounds, and what is compared is measured in turns, round by
round. Identities have asked before, as a session has at an edge; ``first_ask_ms_hostile`` is what the first ask costs.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from acl.policy import CompiledPolicy, Effect, Identity, Policy, Rule, Who, compile_policy
from acl.policy.engine.verdicts import MAX_REGIONS

QUICK = os.environ.get("QUICK") == "1"
ROUNDS = 5 if QUICK else 9
NOW = datetime(2026, 6, 1, tzinfo=UTC)
ORG = "org_abcdefghijkl"
AREAS = ("sensors", "devices", "fleet", "agents", "chat")
TAILS = ("state", "cmd", "card", "telemetry", "log")
PEOPLE = tuple(Identity(ORG, f"user-{number}", f"client-{number}") for number in range(50))


@dataclass(frozen=True, slots=True)
class Ask:
    identity: Identity
    topic: str
    action: str


def mixed_policy(size: int, rng: random.Random) -> Policy:
    """55 % literal, 20 % with variables, 20 % with ``+``, 5 % with ``#``; 15 % deny; a fifth speak of somebody."""
    rules = []
    for number in range(size):
        area, tail, kind = rng.choice(AREAS), rng.choice(TAILS), rng.random()
        if kind < 0.55:
            topic = f"{area}/d{rng.randrange(size)}/{tail}"
        elif kind < 0.75:
            topic = f"{area}/room-{number % 50}/{{username}}/{tail}"
        elif kind < 0.95:
            topic = f"{area}/+/g{rng.randrange(size)}/{tail}"
        else:
            topic = f"{area}/s{number}/#"
        who = Who((rng.choice(("user-1*", f"user-{number % 50}")),)) if rng.random() < 0.2 else Who()
        effect = Effect.DENY if rng.random() < 0.15 else Effect.ALLOW
        rules.append(Rule(f"r{number}", (topic,), rng.choice(("pub", "sub", "pub+sub")), effect, who))
    return Policy(tuple(rules))


def asks(policy: Policy, count: int, rng: random.Random) -> list[Ask]:
    """60 % aimed at a rule, the rest anywhere."""
    made = []
    for _ in range(count):
        identity = rng.choice(PEOPLE)
        if rng.random() < 0.6:
            topic = rng.choice(policy.rules).topics[0].replace("{username}", identity.username)
            topic = topic.replace("+", "x").replace("#", "y/z")
        else:
            topic = "/".join(rng.choice((*AREAS, *TAILS, "x", "d1")) for _ in range(rng.randint(2, 5)))
        made.append(Ask(identity, topic, rng.choice(("pub", "sub"))))
    return made


def rate(run: Callable[[], object], count: int) -> float:
    """Calls per second of CPU time of ``run``, which makes ``count`` of them."""
    start = time.process_time()
    run()
    return count / max(time.process_time() - start, 1e-9)


def deciding(compiled: CompiledPolicy, some: Sequence[Ask]) -> Callable[[], object]:
    """Publish for half of the requests, receive for the others, through the public API."""

    def run() -> None:
        publish, receive = compiled.publish, compiled.receive
        for ask in some:
            if ask.action == "pub":
                publish(ask.identity, ask.topic, qos=0, retain=False, now=NOW)
            else:
                receive(ask.identity, ask.topic, now=NOW)

    run()
    return run


def publishing(compiled: CompiledPolicy, some: Sequence[Ask]) -> Callable[[], object]:
    def run() -> None:
        for ask in some:
            compiled.publish(ask.identity, ask.topic, qos=0, retain=False, now=NOW)

    run()
    return run


def subscribing(compiled: CompiledPolicy, some: Sequence[tuple[Identity, str]]) -> Callable[[], object]:
    def run() -> None:
        for identity, asked in some:
            compiled.subscribe(identity, asked, now=NOW)

    run()
    return run


# --- pycasbin: the same rules, a matcher in Python, first match wins -------------------------------------------------

CASBIN_MODEL = """
[request_definition]
r = sub, obj, act
[policy_definition]
p = sub, obj, act, eft
[policy_effect]
e = priority(p.eft) || deny
[matchers]
m = (p.act == "pub+sub" || p.act == r.act) && speaks(r.sub, p.sub) && reaches(r.obj, p.obj, r.sub)
"""


def casbin_judge(policy: Policy) -> Callable[[Ask], bool]:
    import casbin
    from casbin.persist.adapters import StringAdapter

    lines = [
        f"p, {rule.who.username[0]}, {rule.topics[0]}, {rule.action}, {rule.effect.value}" for rule in policy.rules
    ]
    model = casbin.Enforcer.new_model(text=CASBIN_MODEL)
    enforcer = casbin.Enforcer(model, StringAdapter("\n".join(lines)))
    enforcer.add_function("speaks", _speaks)
    enforcer.add_function("reaches", _reaches)
    return lambda ask: bool(enforcer.enforce(ask.identity.username, ask.topic, ask.action))


def _speaks(username: str, glob: str) -> bool:
    return glob in ("*", username) or (glob.endswith("*") and username.startswith(glob[:-1]))


def _reaches(topic: str, topic_filter: str, username: str) -> bool:
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at >= len(levels) or level not in ("+", levels[at], "{username}"):
            return False
        if level == "{username}" and levels[at] != username:
            return False
    return len(wanted) == len(levels)


# --- Cedar: the same rules as policies over the context, a parsed PolicySet, one batch ------------------------------


def cedar_judge(policy: Policy, some: Sequence[Ask]) -> Callable[[], list[bool]]:
    """Cedar on ``some`` as one batch. The requests, topics split into levels, are made before the clock starts.

    Cedar has no order of rules: a deny overrides.
    """
    import cedarpy

    policies = cedarpy.PolicySet.from_str("\n".join(_cedar_rule(rule) for rule in policy.rules))
    entities = cedarpy.Entities.from_json_str("[]")
    requests: list[dict[str, Any]] = [
        {
            "principal": f'User::"{ask.identity.username}"',
            "action": f'Action::"{ask.action}"',
            "resource": 'Broker::"it"',
            "context": {"topic": ask.topic, "username": ask.identity.username, **_cedar_levels(ask.topic)},
        }
        for ask in some
    ]
    return lambda: [answer.allowed for answer in cedarpy.is_authorized_batch(requests, policies, entities)]


def _cedar_levels(topic: str) -> dict[str, object]:
    levels = topic.split("/")
    return {"depth": len(levels), **{f"l{at}": level for at, level in enumerate(levels)}}


def _cedar_rule(rule: Rule) -> str:
    effect = "permit" if rule.effect is Effect.ALLOW else "forbid"
    action = "action" if rule.action == "pub+sub" else f'action == Action::"{rule.action}"'
    levels = rule.topics[0].split("/")
    prefix = levels[:-1] if levels[-1] == "#" else levels
    tests = [f"context.depth {'>=' if levels[-1] == '#' else '=='} {len(prefix)}"]
    for at, level in enumerate(prefix):
        if level == "{username}":
            tests.append(f"context.l{at} == context.username")
        elif level != "+":
            tests.append(f'context.l{at} == "{level}"')
    if rule.who.username != ("*",):
        tests.append(f'context.username like "{rule.who.username[0]}"')
    return f"{effect} (principal, {action}, resource) when {{ {' && '.join(tests)} }};"


# --- figures --------------------------------------------------------------------------------------------------------


def turns(runs: dict[str, tuple[Callable[[], object], int]]) -> dict[str, float]:
    """The median rate of each of ``runs``, measured round by round in turns."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, (run, count) in runs.items():
            rates[name].append(rate(run, count))
    return {name: statistics.median(some) for name, some in rates.items()}


def versus_others(size: int, rng: random.Random) -> dict[str, float]:
    """Rates of the core, pycasbin and Cedar on the same rules and the same requests; answers are checked first."""
    policy = mixed_policy(size, rng)
    compiled = compile_policy(policy)
    some = asks(policy, max(50 if QUICK else 200, 2000 // size), rng)
    casbin, cedar = casbin_judge(policy), cedar_judge(policy, some)
    assert allowed(policy, some) == [casbin(ask) for ask in some], "pycasbin answers differently"
    permits, forbids = (
        Policy(tuple(replace(rule, effect=Effect.ALLOW) for rule in policy.rules if rule.effect is effect))
        for effect in (Effect.ALLOW, Effect.DENY)
    )
    overridden = [one and not other for one, other in zip(allowed(permits, some), allowed(forbids, some), strict=True)]
    assert overridden == cedar(), "Cedar answers differently, a deny overriding"
    again = list(some) * (4000 // len(some))
    return turns(
        {
            "core": (deciding(compiled, again), len(again)),
            "casbin": (lambda: [casbin(ask) for ask in some], len(some)),
            "cedar": (cedar, len(some)),
        }
    )


def allowed(policy: Policy, some: Sequence[Ask]) -> list[bool]:
    """What the core answers to ``some``."""
    compiled = compile_policy(policy)
    return [
        (
            compiled.publish(ask.identity, ask.topic, qos=0, retain=False, now=NOW)
            if ask.action == "pub"
            else compiled.receive(ask.identity, ask.topic, now=NOW)
        ).allowed
        for ask in some
    ]


def hostile_policies(rng: random.Random) -> dict[str, tuple[Policy, list[tuple[Identity, str]], list[str]]]:
    """Policies at the limits, made to be slow: what to publish to, and what to subscribe to."""
    somebody = PEOPLE[0]
    deep = "/".join("a" * 1 for _ in range(120))
    corpus: dict[str, tuple[Policy, list[tuple[Identity, str]], list[str]]] = {}
    subsets = ["/".join(levels) for levels in product(("a", "+"), repeat=13)]
    rng.shuffle(subsets)
    corpus["every subset of +"] = (
        _policy([f"{topic}/z" for topic in subsets]),
        [(somebody, "/".join("a" * 13) + "/y"), (somebody, "/".join("a" * 13) + "/z")],
        ["/".join("a" * 13) + "/+", "+/" + "/".join("a" * 12) + "/#", "#"],
    )
    corpus["deep #"] = (
        _policy([("a/" * (1 + number % 60)) + f"{number}/#" for number in range(10_000)]),
        [(somebody, deep), (somebody, "a/" * 60 + "x")],
        [deep, "a/" * 100 + "#", "#"],
    )
    globs = [f"*{'u' * (1 + number % 4)}*{number % 7}*{number}*" for number in range(5_000)]
    globs += [f"*user*{'e' * (number % 3)}*" for number in range(5_000)]
    corpus["overlapping globs"] = (
        Policy(tuple(Rule(f"g{at}", ("a/b",), "pub+sub", Effect.ALLOW, Who((glob,))) for at, glob in enumerate(globs))),
        [(somebody, "a/b"), (somebody, "a/c")],
        ["a/b", "a/#", "#"],
    )
    corpus["denies before an allow"] = (
        Policy(
            (
                *(Rule(f"d{at}", (f"+/{at}/#",), "pub+sub", Effect.DENY) for at in range(9_999)),
                Rule("all", ("#",)),
            )
        ),
        [(somebody, "a/1/b"), (somebody, "a/x/b")],
        ["#", "a/#", "+/5/#", "a/+"],
    )
    pairs = [
        Rule(f"r{at}", (f"+/{at // 2}/+",), "pub+sub", Effect.ALLOW if at % 2 else Effect.DENY) for at in range(9_998)
    ]
    corpus["pairs of deny and allow"] = (
        Policy((*pairs, Rule("one", ("a/+/+",)), Rule("all", ("#",)))),
        [(somebody, "a/1/b"), (somebody, "a/x/b")],
        ["#", "a/#", "a/+/+", "+/5/+"],
    )
    dead = [
        rule
        for at in range(MAX_REGIONS)
        for rule in (Rule(f"d{at}", (f"+/{at}/+/#",), effect=Effect.DENY), Rule(f"a{at}", (f"+/{at}/+/x/#",)))
    ]
    corpus["as many denies as are examined"] = (
        Policy((*dead, *(Rule(f"r{at}", (f"+/x{at}/+/#",)) for at in range(9_975)), Rule("all", ("#",)))),
        [(somebody, "a/1/b"), (somebody, "a/x/b")],
        ["#", "a/#", "a/+/+", "+/5/+"],
    )
    corpus |= _deep_and_many(somebody)
    corpus["near misses"] = (
        Policy(tuple(Rule(f"q{at}", ("a/#",), "pub", Effect.ALLOW, Who(), 0, False) for at in range(10_000))),
        [(somebody, "a/b")],
        ["a/#"],
    )
    corpus["variables"] = (
        _policy([f"x/{number}-{{username}}/+" for number in range(10_000)]),
        [(somebody, "x/77-user-0/y"), (somebody, "x/77/y")],
        ["x/+/+", "x/77-user-0/#", "#"],
    )
    corpus["expiries"] = (
        Policy(
            tuple(
                Rule(f"e{at}", ("a/#",), expires=NOW.replace(year=2027 + at % 900, minute=at % 60))
                for at in range(10_000)
            )
        ),
        [(somebody, "a/b")],
        ["a/#", "a/b"],
    )
    return corpus


def _deep_and_many(somebody: Identity) -> dict[str, tuple[Policy, list[tuple[Identity, str]], list[str]]]:
    """Filters of up to 128 levels that keep every length in question, and as many filters as a mebibyte holds."""
    plus = ["/".join("+" * length) for length in range(1, 128)]
    below = [tuple(f"+/{at}/{text}" for text in plus[:100]) for at in range(MAX_REGIONS)]
    six = [Rule(f"d{at}", (f"+/{at}/#",), effect=Effect.DENY) for at in range(MAX_REGIONS)]
    many = Rule("many", tuple(f"+/{number:x}/#" for number in range(80_000)))
    everything = Rule("all", ("#",))
    published = [(somebody, "a/" * 100 + "a"), (somebody, "a/1/b")]
    asked = ["#", "a/#", "+/a/#", "+/5/+", f"{plus[100]}/#", plus[110]]
    allows = [Rule(f"a{at}", (text,)) for at, text in enumerate(plus)]
    denies = [Rule(f"n{at}", (text,), effect=Effect.DENY) for at, text in enumerate(plus[3:])]
    exceptions = [Rule(f"b{at}", topics) for at, topics in enumerate(below)]
    policies = {
        "a length at a time": (*denies, *allows, many, everything),
        "a length at a time, late": (many, *denies, *allows, everything),
        "deep exceptions of denies": (*exceptions, *six, many, everything),
        "deep exceptions of denies, late": (many, *exceptions, *six, everything),
    }
    return {name: (Policy(tuple(rules)), published, asked) for name, rules in policies.items()}


def _policy(topics: Sequence[str]) -> Policy:
    return Policy(tuple(Rule(f"h{at}", (topic,)) for at, topic in enumerate(topics)))


def best_time(run: Callable[[], object], repeat: int = 20) -> float:
    """Median seconds of CPU time of one call."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        for _ in range(repeat):
            run()
        times.append((time.process_time() - start) / repeat)
    return statistics.median(times)


def hostile(median: float) -> dict[str, float | str]:
    """The worst decision over the hostile corpus, against ``median``, the seconds of a usual one at 10,000 rules."""
    worst, name, first_ask = 0.0, "", 0.0
    for title, (policy, published, subscribed) in hostile_policies(random.Random(4)).items():
        compiled = compile_policy(policy)
        start = time.process_time()
        compiled.publish(published[0][0], published[0][1], qos=0, retain=False, now=NOW)
        first_ask = max(first_ask, time.process_time() - start)
        timed = [best_time(run) for run in every_ask(compiled, published, subscribed)]
        print(f"  {title}: worst {max(timed) * 1e6:.1f} us, {max(timed) / median:.1f} x the median", flush=True)
        if max(timed) > worst:
            worst, name = max(timed), title
    return {
        "hostile_worst_vs_median": round(worst / median, 1),
        "hostile_worst_us": round(worst * 1e6, 1),
        "hostile_worst": name,
        "first_ask_ms_hostile": round(first_ask * 1e3, 2),
    }


def every_ask(
    compiled: CompiledPolicy, published: Sequence[tuple[Identity, str]], subscribed: Sequence[str]
) -> list[Callable[[], object]]:
    runs: list[Callable[[], object]] = []
    for identity, topic in published:
        runs += [
            partial(compiled.publish, identity, topic, qos=qos, retain=retain, now=NOW)
            for qos, retain in ((0, False), (2, True))
        ]
        runs.append(partial(compiled.receive, identity, topic, now=NOW))
    runs += [partial(compiled.subscribe, published[0][0], asked, now=NOW) for asked in subscribed]
    return runs


def main() -> None:
    rng = random.Random(1)
    figures: dict[str, float | str | int] = {}
    for size in (10, 1000):
        got = versus_others(size, rng)
        print(f"{size} rules: " + ", ".join(f"{name} {value:,.0f}/s" for name, value in got.items()), flush=True)
        figures[f"vs_casbin_{size}"] = round(got["core"] / got["casbin"], 1)
        figures[f"vs_cedar_{size}"] = round(got["core"] / got["cedar"], 1)
    count = 4_000 if QUICK else 20_000
    policies = {size: mixed_policy(size, rng) for size in (100, 10_000)}
    compiled = {size: compile_policy(policy) for size, policy in policies.items()}
    runs: dict[str, tuple[Callable[[], object], int]] = {}
    for size, policy in policies.items():
        some = asks(policy, count, rng)
        wild = [(ask.identity, _widened(ask.topic, number)) for number, ask in enumerate(some)]
        runs[f"publish_{size}"] = (publishing(compiled[size], some), count)
        runs[f"subscribe_{size}"] = (subscribing(compiled[size], wild), count)
    rates = turns(runs)
    for name, value in rates.items():
        print(f"{name}: {value:,.0f}/s", flush=True)
        figures[name] = round(value)
    figures["flat"] = round(rates["publish_10000"] / rates["publish_100"], 3)
    by_size = {size: rates[f"subscribe_{size}"] / rates[f"publish_{size}"] for size in policies}
    figures["subscribe_vs_publish"] = round(min(by_size.values()), 3)
    full = best_time(lambda: compile_policy(policies[10_000]), repeat=1)
    small = best_time(lambda: compile_policy(mixed_policy(1_000, random.Random(2))), repeat=1)
    changed = replace(policies[10_000].rules[5_000], topics=("fleet/changed/#",))
    rules = (*policies[10_000].rules[:5_000], changed, *policies[10_000].rules[5_001:])
    again = best_time(lambda: compile_policy(Policy(rules)), repeat=1)
    figures["compile_ms_10000"] = round(full * 1e3, 1)
    figures["compile_10000_vs_1000"] = round(full / small, 1)
    figures["incremental_vs_full"] = round(again / full, 3)
    figures |= hostile(1 / rates["publish_10000"])
    print(json.dumps(figures))


def _widened(topic: str, number: int) -> str:
    """A third of the requests as they are, a third for all below, a third for one level of it."""
    head, _, _ = topic.rpartition("/")
    return (topic, f"{head}/#", f"{head}/+")[number % 3]


if __name__ == "__main__":
    main()
