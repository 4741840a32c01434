"""The signed bundle: what verifies, and everything that must not."""

from __future__ import annotations

import dataclasses

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloudsignal.wire.bundle import Bundle, Quotas, open_bundle, sign_bundle
from cloudsignal.wire.codec import WireError, decode, encode
from cloudsignal.wire.signed import Signed

KEY = Ed25519PrivateKey.generate()
BUNDLE = Bundle(
    org="org_aaaaaaaaaaaa",
    revision=7,
    digest="sha256:" + "0" * 64,
    policy=b'{"rules":[],"version":"3"}',
    status="active",
    issued_at=1_700_000_000.25,
    deployment="dep_1",
    quotas=Quotas(connections=5),
    publish_while_split="refuse",
)


def test_a_signed_bundle_comes_back_as_it_was() -> None:
    assert open_bundle(sign_bundle(BUNDLE, KEY), KEY.public_key(), org=BUNDLE.org) == BUNDLE


def test_a_bundle_signed_by_another_key_is_refused() -> None:
    with pytest.raises(WireError, match="signature"):
        open_bundle(sign_bundle(BUNDLE, Ed25519PrivateKey.generate()), KEY.public_key(), org=BUNDLE.org)


def test_a_bundle_stored_for_another_organization_is_refused() -> None:
    with pytest.raises(WireError, match="was stored for"):
        open_bundle(sign_bundle(BUNDLE, KEY), KEY.public_key(), org="org_bbbbbbbbbbbb")


def test_a_bundle_of_another_version_is_refused() -> None:
    with pytest.raises(WireError, match="version"):
        open_bundle(sign_bundle(dataclasses.replace(BUNDLE, v=2), KEY), KEY.public_key(), org=BUNDLE.org)


def test_every_single_changed_byte_is_noticed() -> None:
    sealed = sign_bundle(BUNDLE, KEY)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        try:
            opened = open_bundle(bytes(changed), KEY.public_key(), org=BUNDLE.org)
        except WireError:
            continue
        assert opened == BUNDLE, f"byte {position} changed the meaning"


def test_a_payload_cannot_be_moved_under_another_signature() -> None:
    other = decode(sign_bundle(dataclasses.replace(BUNDLE, revision=8), KEY), Signed)
    mine = decode(sign_bundle(BUNDLE, KEY), Signed)
    forged = encode(Signed(payload=other.payload, signature=mine.signature))
    with pytest.raises(WireError):
        open_bundle(forged, KEY.public_key(), org=BUNDLE.org)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\xc1", b"{}", b"\x80", b"\xff" * 100, b"\x91" * 5000])
def test_bytes_that_are_no_bundle_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        open_bundle(data, KEY.public_key(), org=BUNDLE.org)
