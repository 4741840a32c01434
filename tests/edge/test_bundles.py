"""A bundle is read in its canonical form only: whatever else was signed is refused, and the edge goes on."""

from __future__ import annotations

import asyncio
import hashlib
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from acl.policy import canonical, parse
from cloudsignal.edge.control.desired_state import DesiredState, read_policy
from cloudsignal.edge.redis import Store
from cloudsignal.wire.bundle import Bundle, open_bundle, sign_bundle
from cloudsignal.wire.codec import WireError
from tests.support.parts import ALLOW_ALL, PEPPER, wait_for
from tests.support.rig import Rig
from tests.support.trail import ListSink

DENY = "version: '3'\nrules: []"

CANONICAL = canonical(parse(ALLOW_ALL).policy)  # type: ignore[arg-type]


def bundle(policy: bytes, *, digest: str | None = None) -> Bundle:
    """A bundle whose digest is right unless another is given."""
    digest = digest or f"sha256:{hashlib.sha256(policy).hexdigest()}"
    return Bundle("org_aaaaaaaaaaaa", 1, digest, policy, "active", time.time())


HOSTILE = {
    "empty": b"",
    "cut": CANONICAL[:-1],
    "with more behind it": CANONICAL + b" ",
    "twice": CANONICAL + CANONICAL,
    "no object": b"[]",
    "no version": b'{"rules":[]}',
    "no UTF-8": b"\xff\xfe",
    "a rule without a topic": b'{"rules":[{"id":"a"}],"version":"3"}',
    "a topic that is a number": b'{"rules":[{"id":"a","topic":5}],"version":"3"}',
    "an unknown key": b'{"rules":[{"and":1,"id":"a","topic":"a"}],"version":"3"}',
    "a key twice": b'{"rules":[],"rules":[{"id":"a","topic":"#"}],"version":"3"}',
    "a default written out": b'{"rules":[{"id":"a","qos":2,"topic":"a"}],"version":"3"}',
    "a moment without a zone": b'{"rules":[{"expires":"2030-01-01T00:00:00","id":"a","topic":"a"}],"version":"3"}',
    "too deep": b"[" * 100_000,
    "a number too long": b'{"rules":[{"id":"a","qos":' + b"9" * 10_000 + b',"topic":"a"}],"version":"3"}',
    "YAML": ALLOW_ALL.encode(),
}


@pytest.mark.parametrize("policy", HOSTILE.values(), ids=HOSTILE.keys())
def test_bytes_that_are_not_canonical_are_refused_though_their_digest_is_right(policy: bytes) -> None:
    with pytest.raises(WireError):
        read_policy(bundle(policy))


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:" + "0" * 64, "sha512:" + "0" * 128])
def test_a_digest_of_something_else_is_refused(digest: str) -> None:
    with pytest.raises(WireError):
        read_policy(bundle(CANONICAL, digest=digest or "none"))


def test_the_canonical_form_is_taken() -> None:
    assert len(read_policy(bundle(CANONICAL)).policy.rules) == 2


def test_a_signed_bundle_that_cannot_be_read_changes_nothing_and_the_next_one_is_enforced(rig: Rig) -> None:
    org = rig.org(DENY)
    client = rig.client(rig.plane.issue(org))
    signed = open_bundle(rig.plane.bundle(org), rig.plane.key.public_key(), org=org)
    policy = HOSTILE["a topic that is a number"]
    digest = f"sha256:{hashlib.sha256(policy).hexdigest()}"
    rig.plane.store_bundle(org, sign_bundle(replace(signed, policy=policy, digest=digest), rig.plane.key))
    report = wait_for(lambda: [r for r in rig.plane.reports(org) if r.status == "refused"], what="the refusal")[0]
    assert report.reason == "the policy of the bundle cannot be read"
    assert client.publish("a", qos=1) == 0x87
    rig.plane.enforced(org, rig.plane.deploy(org, ALLOW_ALL))
    assert client.publish("a", qos=1) in {0, 0x10}


def test_reading_every_bundle_anew_lets_clients_have_their_turn(rig: Rig, tmp_path: Path) -> None:
    """It happens every five minutes, with as many bundles as there are organizations, and each is verified."""
    orgs = [rig.plane.new_org() for _ in range(40)]
    for org in orgs:
        rig.plane.store_bundle(org, rig.plane.bundle(org))

    async def read_twice() -> int:
        desired = DesiredState(
            store=Store(rig.valkey.url),
            sink=ListSink(),
            node="n",
            folder=tmp_path,
            verify_key=rig.plane.key.public_key(),
            levels=128,
            pepper=PEPPER,
            changed=lambda _: None,
            report=lambda _: None,
        )
        await desired.fetch_heads()
        await desired.fetch_bundles(orgs)
        assert set(desired.organizations) == set(orgs)
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        for org in orgs:  # nothing is new: no policy is compiled, nobody waits for a thread
            await desired.apply(org, rig.plane.bundles[org])
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return turns

    assert asyncio.run(read_twice()) >= len(orgs)
