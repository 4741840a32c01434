"""The sealed credential: a copied, edited or renamed record verifies for nobody."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudsignal.wire.codec import WireError
from cloudsignal.wire.credential import Credential, Secret, open_credential, seal_credential, secret_mac

PEPPER = b"p" * 32
ORG = "org_aaaaaaaaaaaa"
RECORD = Credential(
    org=ORG,
    username="lamp-1",
    revision=3,
    secrets=(Secret(token_id="tok_1", mac=b"m" * 32, expires_at=1_700_000_000),),
    claims={"email": "a@example.com", "rooms": ["12", "14"], "level": 3, "ratio": 0.5, "beta": True},
)


def test_a_sealed_record_comes_back_as_it_was() -> None:
    assert open_credential(seal_credential(RECORD, PEPPER), PEPPER, org=ORG, username="lamp-1") == RECORD


def test_a_record_sealed_under_another_pepper_is_refused() -> None:
    with pytest.raises(WireError, match="seal"):
        open_credential(seal_credential(RECORD, b"q" * 32), PEPPER, org=ORG, username="lamp-1")


@pytest.mark.parametrize(("org", "username"), [("org_bbbbbbbbbbbb", "lamp-1"), (ORG, "lamp-2")])
def test_a_record_copied_to_another_name_is_refused(org: str, username: str) -> None:
    with pytest.raises(WireError, match="another name"):
        open_credential(seal_credential(RECORD, PEPPER), PEPPER, org=org, username=username)


def test_every_single_changed_byte_is_noticed() -> None:
    sealed = seal_credential(RECORD, PEPPER)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        try:
            opened = open_credential(bytes(changed), PEPPER, org=ORG, username="lamp-1")
        except WireError:
            continue
        assert opened == RECORD, f"byte {position} changed the meaning"


@given(st.lists(st.text(max_size=8), min_size=3, max_size=3), st.lists(st.text(max_size=8), min_size=3, max_size=3))
def test_no_two_different_inputs_run_into_the_same_hash(first: list[str], second: list[str]) -> None:
    def mac(parts: list[str]) -> bytes:
        org, username, secret = parts
        return secret_mac(PEPPER, org=org, username=username, secret=secret, expires_at=1)

    assert (mac(first) == mac(second)) == (first == second)


def test_the_hash_depends_on_the_expiry() -> None:
    def mac(expires_at: int) -> bytes:
        return secret_mac(PEPPER, org=ORG, username="lamp-1", secret="s", expires_at=expires_at)

    assert mac(1) != mac(2)
