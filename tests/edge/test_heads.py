"""Somebody who writes to Redis puts old bundles back: nodes that start afterwards are not taken in either."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from redis import Redis

from cloudsignal.wire import keys
from cloudsignal.wire.bundle import open_bundle, sign_bundle
from cloudsignal.wire.codec import WireError, decode, encode
from cloudsignal.wire.heads import AGE_MAX, SLACK, Heads, open_heads, sign_heads
from cloudsignal.wire.signed import Signed
from tests.support.parts import ALLOW_ALL, Edge, Plane, wait_for
from tests.support.rig import Rig

DENY = "version: '3'\nrules: []"
KEY = Ed25519PrivateKey.generate()


@pytest.fixture
def attacker(rig: Rig) -> Redis:
    """A client of Redis that is none of ours."""
    return Redis.from_url(rig.valkey.url)


@contextmanager
def second_node(rig: Rig, folder: Path, name: str) -> Iterator[Edge]:
    """A node that starts now, with what ``folder`` holds of earlier runs."""
    edge = Edge(
        folder,
        redis_url=rig.valkey.url,
        upstream=f"unix://{rig.broker.socket}",
        verify_key=rig.plane.verify_key,
        authority=rig.authority,
        node=name,
    )
    edge.start()
    try:
        yield edge
    finally:
        edge.stop(kill=True)


def said(plane: Plane, org: str, node: str) -> list[tuple[str, int, str]]:
    """What a node reported on the organization: status, revision, reason."""
    return [(one.status, one.revision, one.reason) for one in plane.reports(org) if one.node == node]


def answer(rig: Rig, org: str, node: str) -> tuple[str, int, str]:
    """The first thing it reported."""
    return wait_for(lambda: said(rig.plane, org, node), what=f"a report of {node} on {org}")[0]  # type: ignore[no-any-return]


def put(attacker: Redis, org: str, blob: bytes, claimed: int) -> None:
    """A record under an outer revision of somebody's choice."""
    attacker.hset(keys.bundle(org), mapping={"rev": claimed, "b": blob})


def test_a_fresh_node_refuses_old_bundles_put_back_under_a_new_revision_and_those_of_others(
    rig: Rig, attacker: Redis, tmp_path: Path
) -> None:
    plane = rig.plane
    old, other, gone, kept = rig.org(ALLOW_ALL), rig.org(ALLOW_ALL), plane.new_org(), rig.org(DENY)
    first = plane.bundles[old]
    plane.enforced(old, plane.deploy(old, DENY))
    # An organization that was deleted, and whose bundle somebody has kept.
    made = open_bundle(plane.bundle(gone), plane.key.public_key(), org=gone)
    ghost = sign_bundle(replace(made, issued_at=time.time() - SLACK - 60), plane.key)
    put(attacker, old, first, claimed=99)
    put(attacker, other, plane.bundles[kept], claimed=2)
    put(attacker, gone, ghost, claimed=1)
    with second_node(rig, tmp_path, "fresh-1"):
        status, revision, reason = answer(rig, old, "fresh-1")
        assert (status, revision) == ("refused", 1)
        assert reason == "revision 1 is older than 2, which the control plane calls the newest"
        assert answer(rig, other, "fresh-1")[::2] == ("refused", f"the bundle of {kept} was stored for {other}")
        assert answer(rig, gone, "fresh-1")[::2] == ("refused", "the control plane knows no such organization")
        assert answer(rig, kept, "fresh-1")[0] == "enforcing"
        plane.store_bundle(old, plane.bundles[old])  # the control plane's comparison sets it right
        wait_for(lambda: ("enforcing", 2, "") in said(plane, old, "fresh-1"), what="the newest bundle in force")


def test_a_fresh_node_believes_no_list_that_is_old_absent_or_forged_and_says_so(
    make_rig: Callable[..., Rig], tmp_path: Path
) -> None:
    rig = make_rig()
    plane, attacker = rig.plane, Redis.from_url(rig.valkey.url)
    org = rig.org(ALLOW_ALL)
    # Everything as it was some time ago: the list is genuine, and names this very bundle.
    plane.write_heads(at=time.time() - AGE_MAX - 60)
    with second_node(rig, tmp_path / "a", "stale"):
        status, _, reason = answer(rig, org, "stale")
        assert status == "refused"
        assert "list of newest bundles is" in reason
        assert f"after {AGE_MAX} it says nothing" in reason
        refused = plane.event(kind="policy_refused", node="stale")
        assert refused.reason == reason
        plane.write_heads()
        wait_for(lambda: ("enforcing", 1, "") in said(plane, org, "stale"), what="a fresh list believed")
    attacker.delete(keys.HEADS)
    with second_node(rig, tmp_path / "b", "bare"):
        assert answer(rig, org, "bare")[2] == (
            "the control plane's list of newest bundles is not there to say that it is the newest"
        )
        attacker.set(keys.HEADS, sign_heads(Heads(int(time.time() * 1000), plane.heads), KEY))
        plane.event(kind="policy_refused", reason="the signature of the list of heads does not verify", node="bare")
        attacker.hset(keys.HEADS + "x", "a", "b")
        attacker.rename(keys.HEADS + "x", keys.HEADS)  # a hash in its place stops nothing else
        plane.write_heads()
        wait_for(lambda: ("enforcing", 1, "") in said(plane, org, "bare"), what="the genuine list believed")


def test_a_node_that_comes_back_notices_a_list_that_was_rolled_back(
    make_rig: Callable[..., Rig], tmp_path: Path
) -> None:
    rig = make_rig()
    plane, attacker = rig.plane, Redis.from_url(rig.valkey.url)
    org = rig.org(DENY)
    desired = {name: attacker.dump(name) for name in (keys.HEADS, keys.bundle(org))}
    time.sleep(0.01)
    plane.write_heads()
    with second_node(rig, tmp_path, "returning"):
        plane.enforced(org, plane.deploy(org, ALLOW_ALL), nodes=2)
        time.sleep(1.5)  # what it has seen reaches its disk within a second
    attacker.flushall()
    for name, dump in desired.items():
        attacker.restore(name, 0, dump)  # type: ignore[arg-type]
    with second_node(rig, tmp_path, "returning"):
        reports = wait_for(
            lambda: [one for one in said(plane, org, "returning") if one[0] == "refused"], what="the refusal"
        )
        assert reports[0][1] == 1
        assert ("enforcing", 2, "") in said(plane, org, "returning")  # what it had on its disk, which is newer
        late = plane.event(kind="policy_refused", node="returning", org="")
        assert "older than one seen before" in late.reason


def test_a_record_of_the_wrong_type_hides_no_other(rig: Rig, attacker: Redis, tmp_path: Path) -> None:
    spoilt, sound = rig.org(ALLOW_ALL), rig.org(ALLOW_ALL)
    attacker.delete(keys.bundle(spoilt))
    attacker.set(keys.bundle(spoilt), "not a hash")
    with second_node(rig, tmp_path, "fresh-2"):
        assert answer(rig, sound, "fresh-2")[0] == "enforcing"
        assert not said(rig.plane, spoilt, "fresh-2")
    attacker.delete(keys.bundle(spoilt))


def test_a_list_that_was_changed_or_is_of_another_version_is_refused() -> None:
    heads = Heads(5, {"org_aaaaaaaaaaaa": (1, b"d" * 32)})
    assert open_heads(sign_heads(heads, KEY), KEY.public_key()) == heads
    envelope = decode(sign_heads(heads, KEY), Signed)
    other = encode(Signed(encode(Heads(6, heads.orgs)), envelope.signature))
    for blob in (other, sign_heads(Heads(5, heads.orgs, v=2), KEY), b"", b"garbage"):
        with pytest.raises(WireError):
            open_heads(blob, KEY.public_key())
