"""The cast of the demo does what its policies allow, and here and there what they do not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from acl.policy import CompiledPolicy, Decision, Identity, compile_policy, parse
from acl.policy.language.presets import preset
from cloudsignal.demo.cast import SAMPLES, Device, Publish, SampleOrganization, Subscribe

NOW = datetime.now(UTC)
ORG = "org_aaaaaaaaaaaa"


def policy(sample: SampleOrganization) -> CompiledPolicy:
    found = preset(sample.preset)
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


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.slug)
def test_traffic_is_partly_allowed_and_partly_denied(sample: SampleOrganization) -> None:
    compiled = policy(sample)
    verdicts = [decide(compiled, device, action).allowed for device in sample.devices for action in device.actions]
    denied = verdicts.count(False)
    assert 0.02 < denied / len(verdicts) < 0.2, (denied, len(verdicts))
    for device in sample.devices:
        assert any(decide(compiled, device, action).allowed for action in device.actions), device.username


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.slug)
def test_the_printed_commands_are_allowed_and_refused_as_they_say(sample: SampleOrganization) -> None:
    compiled = policy(sample)
    visitor = Device(sample.visitor, "5", ())
    assert decide(compiled, visitor, Subscribe(sample.listen)).allowed
    assert not decide(compiled, visitor, Publish(sample.refused, every=1, qos=1)).allowed


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.slug)
def test_a_few_dozen_devices_of_both_versions_with_names_of_their_own(sample: SampleOrganization) -> None:
    names = [device.username for device in sample.devices] + [sample.visitor]
    assert len(set(names)) == len(names)
    assert 20 <= len(sample.devices) <= 48
    assert {device.version for device in sample.devices} == {"3.1.1", "5"}
    assert {role for _, role in sample.people} >= {"owner"}
