"""One examination: what page, API and CLI say of a document is what a deployment goes by."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from acl.examining import examine, simulate
from acl.policy import Identity, Request, canonical, parse
from acl.policy.language.presets import PRESETS
from acl.services.examination import examine_to_deploy
from cloudsignal.errors import Invalid

ORG = "org_aaaaaaaaaaaa"
NOW = datetime(2026, 11, 30, tzinfo=UTC)
HEAD = 'version: "3"\n'
RULE = "rules:\n- {id: read, who: x, action: sub, topic: a/#}\n"
TEXTS = {
    "nothing": "",
    "no rules": HEAD + "rules: []\n",
    "warnings": HEAD + RULE + "- {id: again, who: x, action: sub, topic: a/b}\n",
    "one error": HEAD + "rules:\n- id: x\n  effect: perhaps\n",
    "errors out of order": "rules:\n- id: x\n  effect: perhaps\n  topic: 7\nversion: 9\nunknown: 1\n",
    "not YAML": "a: [",
    "a test that fails": HEAD + RULE + "tests:\n- {name: t, as: {username: x}, do: pub, topic: a/b, expect: allow}\n",
    **{preset.name: preset.starting(NOW) for preset in PRESETS},
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_deployment_takes_exactly_what_is_called_deployable(name: str) -> None:
    text = TEXTS[name]
    told = examine(text, org=ORG, now=NOW)
    if told.deployable:
        taken = examine_to_deploy(ORG, text, ours=True)
        policy = parse(text).policy
        assert policy is not None
        assert (taken.digest, taken.tests, taken.document) == (told.digest, told.tests, canonical(policy))
        return
    with pytest.raises(Invalid) as refused:
        examine_to_deploy(ORG, text, ours=True)
    if told.is_policy:
        assert [detail.message for detail in refused.value.details] == [
            f"{test.name}: {test.message}" for test in told.failing
        ]
    else:
        assert [(detail.path, detail.line) for detail in refused.value.details] == [
            (finding.path, finding.line) for finding in told.errors
        ]


def test_there_is_every_kind_of_document() -> None:
    told = [examine(text, org=ORG, now=NOW) for text in TEXTS.values()]
    assert {(each.is_policy, bool(each.failing), bool(each.warnings)) for each in told} >= {
        (True, False, False), (True, False, True), (True, True, False), (False, False, False),
    }  # fmt: skip
    assert any(len(each.errors) > 1 for each in told)


@pytest.mark.parametrize(
    ("holes", "told"), [(0, ""), (1, "except a/0/#"), (5, "except a/0/#, a/1/#, a/2/# and 2 more")]
)
def test_a_verdict_names_the_exceptions_to_a_subscription(holes: int, told: str) -> None:
    denied = "".join(f"- {{id: d{n}, effect: deny, who: x, action: sub, topic: a/{n}/#}}\n" for n in range(holes))
    text = HEAD + "rules:\n" + denied + "- {id: read, who: x, action: sub, topic: a/#}\n"
    request = Request(Identity(ORG, "x"), "sub", "a/#")
    verdict = simulate(text, request, now=NOW).verdict
    assert verdict is not None
    assert verdict.shown_reason == told
    assert verdict.decision.reason == "allowed by rule read" + (f", {told}" if told else "")
