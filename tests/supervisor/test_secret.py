"""Secrets: made once, closed to others, never replaced behind one's back."""

from __future__ import annotations

import stat
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloudsignal.supervisor.errors import StartError
from cloudsignal.supervisor.secret import MADE_ANEW, NAMES, load_or_make


def test_secrets_are_made_once_and_differ_from_one_another(tmp_path: Path) -> None:
    first = load_or_make(tmp_path)
    assert load_or_make(tmp_path) == first
    assert len(set(asdict(first).values())) == len(asdict(first))
    assert all(len(value) >= 32 for value in first.values())


def test_every_file_is_closed_to_others(tmp_path: Path) -> None:
    load_or_make(tmp_path)
    files = list(tmp_path.iterdir())
    assert len(files) == 10
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_the_verify_key_belongs_to_the_signing_key(tmp_path: Path) -> None:
    secrets = load_or_make(tmp_path)
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secrets.signing_key))
    key.public_key().verify(key.sign(b"x"), b"x")
    assert key.public_key().public_bytes_raw().hex() == secrets.verify_key


def test_an_open_file_stops_the_start(tmp_path: Path) -> None:
    load_or_make(tmp_path)
    (tmp_path / "pepper").chmod(0o644)
    with pytest.raises(StartError, match="chmod 600"):
        load_or_make(tmp_path)


def test_an_emptied_file_is_not_replaced(tmp_path: Path) -> None:
    load_or_make(tmp_path)
    (tmp_path / "pepper").write_text("")
    with pytest.raises(StartError, match="restore it"):
        load_or_make(tmp_path)
    assert (tmp_path / "pepper").read_text() == ""


def test_one_that_was_lost_beside_its_data_is_not_replaced(tmp_path: Path) -> None:
    first = load_or_make(tmp_path)
    assert load_or_make(tmp_path, data=True) == first
    for name in NAMES:
        (tmp_path / name).rename(tmp_path / "lost")
        with pytest.raises(StartError, match=f"{name} is missing"):
            load_or_make(tmp_path, data=True)
        (tmp_path / "lost").rename(tmp_path / name)
    assert {file.name for file in tmp_path.iterdir()} == {*NAMES, *MADE_ANEW}


def test_a_password_that_every_start_sets_is_made_anew_beside_data(tmp_path: Path) -> None:
    """A data folder of an earlier version has none."""
    first = load_or_make(tmp_path)
    (tmp_path / "postgres_delete").unlink()
    (tmp_path / "postgres_ingest").unlink()
    again = load_or_make(tmp_path, data=True)
    assert again.postgres_delete != first.postgres_delete
    assert again.postgres_ingest != first.postgres_ingest
    assert replace(again, postgres_delete=first.postgres_delete, postgres_ingest=first.postgres_ingest) == first


def test_a_signing_key_that_is_none_is_named(tmp_path: Path) -> None:
    load_or_make(tmp_path)
    (tmp_path / "signing_key").write_text("zz")
    with pytest.raises(StartError, match="signing_key must hold 32 bytes"):
        load_or_make(tmp_path)
