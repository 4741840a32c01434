"""Secrets and sealed credential records: what verifies, and for whom."""

from __future__ import annotations

import re

import pytest

from cloudsignal.wire.codec import WireError
from cloudsignal.wire.credential import (
    Credential,
    Origin,
    Secret,
    make_secret,
    open_credential,
    seal_credential,
    secret_belongs_to,
    secret_mac,
    secret_origin,
)

PEPPER = b"p" * 32
ORG = "org_aaaaaaaaaaaa"
OTHER = "org_bbbbbbbbbbbb"


def test_a_made_secret_has_the_published_form_and_is_never_repeated() -> None:
    made = {make_secret(PEPPER, ORG) for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(r"tkn_[0-9A-Za-z]{34}", secret) for secret in made)


def test_a_secret_tells_the_organization_it_was_made_for() -> None:
    secret = make_secret(PEPPER, ORG)
    assert secret_origin(PEPPER, ORG, secret) is Origin.OWN
    assert secret_origin(PEPPER, OTHER, secret) is Origin.OTHER_ORG
    assert secret_belongs_to(PEPPER, ORG, secret)
    assert not secret_belongs_to(PEPPER, OTHER, secret)


@pytest.mark.parametrize("secret", ["", "tkn_", "tkn_" + "a" * 34, "hunter2", "ü" * 40, "tkn_" + "\ud800" * 34])
def test_what_was_not_issued_here_is_foreign(secret: str) -> None:
    assert secret_origin(PEPPER, ORG, secret) is Origin.FOREIGN


def test_a_secret_of_another_control_plane_or_with_one_changed_character_is_foreign() -> None:
    secret = make_secret(PEPPER, ORG)
    assert secret_origin(b"q" * 32, ORG, secret) is Origin.FOREIGN
    for at in range(len("tkn_"), len(secret)):
        changed = secret[:at] + ("0" if secret[at] != "0" else "1") + secret[at + 1 :]
        assert secret_origin(PEPPER, ORG, changed) is Origin.FOREIGN
    assert secret_origin(PEPPER, ORG, secret + "x") is Origin.FOREIGN
    assert secret_origin(PEPPER, ORG, secret[:-1]) is Origin.FOREIGN


def record(**changes: object) -> Credential:
    mac = secret_mac(PEPPER, org=ORG, username="dev", secret="s", expires_at=10)
    values: dict[str, object] = {
        "org": ORG,
        "username": "dev",
        "revision": 1,
        "secrets": (Secret(token_id="tok_1", mac=mac, expires_at=10),),
        "claims": {"site": "a", "tags": ["x", "y"]},
    }
    return Credential(**{**values, **changes})  # type: ignore[arg-type]


def test_a_sealed_record_opens_for_its_own_name_only() -> None:
    sealed = seal_credential(record(), PEPPER)
    assert open_credential(sealed, PEPPER, org=ORG, username="dev").revision == 1
    with pytest.raises(WireError, match="another name"):
        open_credential(sealed, PEPPER, org=OTHER, username="dev")
    with pytest.raises(WireError, match="another name"):
        open_credential(sealed, PEPPER, org=ORG, username="admin")
    with pytest.raises(WireError, match="seal"):
        open_credential(sealed, b"q" * 32, org=ORG, username="dev")


def test_every_single_changed_byte_is_refused() -> None:
    sealed = seal_credential(record(), PEPPER)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(WireError):
            open_credential(bytes(changed), PEPPER, org=ORG, username="dev")
