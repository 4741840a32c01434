"""The cast of the demo does what its policies allow, and here and there what they do not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from acl.policy import CompiledPolicy, Decision, Identity, compile_policy, parse
from acl.policy.language.presets import preset
from cloudsignal.demo.cast import TROUPES, Device, Publish, Subscribe, Troupe

NOW = datetime.now(UTC)
ORG = "org_aaaaaaaaaaaa"


def policy(troupe: Troupe) -> CompiledPolicy:
    found = preset(troupe.preset)
    assert found is not None
    parsed = parse(found.text)
    assert parsed.policy is not None
    return compile_policy(parsed.policy)


def decide(compiled: CompiledPolicy, device: Device, action: Publish | Subscribe) -> Decision:
    identity = Identity(ORG, device.username, device.username, dict(device.claims))
    if isinstance(action, Publish):
        topic = action.topic.replace("{n}", "7")
        return compiled.publish(identity, topic, qos=action.qos, retain=action.retain, now=NOW)
    return compiled.subscribe(identity, action.topic, now=NOW)


@pytest.mark.parametrize("troupe", TROUPES, ids=lambda troupe: troupe.slug)
def test_traffic_is_partly_allowed_and_partly_denied(troupe: Troupe) -> None:
    compiled = policy(troupe)
    verdicts = [decide(compiled, device, action).allowed for device in troupe.devices for action in device.actions]
    denied = verdicts.count(False)
    assert 0.02 < denied / len(verdicts) < 0.2, (denied, len(verdicts))
    for device in troupe.devices:
        assert any(decide(compiled, device, action).allowed for action in device.actions), device.username


@pytest.mark.parametrize("troupe", TROUPES, ids=lambda troupe: troupe.slug)
def test_the_printed_commands_are_allowed_and_refused_as_they_say(troupe: Troupe) -> None:
    compiled = policy(troupe)
    visitor = Device(troupe.visitor, "5", ())
    assert decide(compiled, visitor, Subscribe(troupe.listen)).allowed
    assert not decide(compiled, visitor, Publish(troupe.refused, every=1, qos=1)).allowed


@pytest.mark.parametrize("troupe", TROUPES, ids=lambda troupe: troupe.slug)
def test_a_few_dozen_devices_of_both_versions_with_names_of_their_own(troupe: Troupe) -> None:
    names = [device.username for device in troupe.devices] + [troupe.visitor]
    assert len(set(names)) == len(names)
    assert 20 <= len(troupe.devices) <= 48
    assert {device.version for device in troupe.devices} == {"3.1.1", "5"}
    assert {role for _, role in troupe.people} >= {"owner"}
