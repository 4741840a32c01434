"""The credentials file: private, whole, several servers."""

from __future__ import annotations

import json
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cloudsignal.cli import logins
from cloudsignal.cli.logins import Login
from cloudsignal.cli.outcome import CommandError

ONE = Login("https://a.example", "org_aaaaaaaaaaaa", "Acme", "ada@example.com", "rk_one", "2100-01-01T00:00:00Z")
OTHER = replace(ONE, url="https://b.example", key="rk_other")


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(logins, "file", lambda: tmp_path / "config" / "credentials.json")
    return tmp_path / "config"


def test_only_its_owner_may_read_it(config: Path) -> None:
    logins.remember(ONE)
    assert stat.S_IMODE(logins.file().stat().st_mode) == 0o600
    assert stat.S_IMODE(config.stat().st_mode) == 0o700
    assert [path.name for path in config.iterdir() if path.suffix != ".lock"] == ["credentials.json"]


def test_a_file_that_others_could_read_is_closed_and_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    logins.remember(ONE)
    logins.file().chmod(0o644)
    assert logins.find() == ONE
    assert stat.S_IMODE(logins.file().stat().st_mode) == 0o600
    assert "could be read by other users" in capsys.readouterr().err


def test_several_servers_and_organizations_the_latest_first() -> None:
    second = replace(ONE, organization_id="org_bbbbbbbbbbbb", key="rk_second")
    for login in (ONE, OTHER, second):
        assert logins.remember(login) is None
    assert logins.find() == second
    assert logins.find("https://b.example") == OTHER
    assert logins.find("https://a.example", ONE.organization_id) == ONE
    assert logins.find("https://c.example") is None
    again = replace(ONE, key="rk_again")
    assert logins.remember(again) == ONE
    assert [login.key for login in logins.all_logins()] == ["rk_again", "rk_second", "rk_other"]
    logins.forget(again)
    assert logins.find() == second


@pytest.mark.parametrize("text", ["", "{", "[]", '{"logins": [{}]}', '{"logins": 7}', '{"logins": [{"url": 1}]}', "\0"])
def test_a_broken_file_is_told_of_and_never_overwritten(text: str) -> None:
    logins.remember(ONE)
    logins.file().write_text(text)
    for act in (logins.find, lambda: logins.remember(OTHER)):
        with pytest.raises(CommandError, match="delete it"):
            act()
    assert logins.file().read_text() == text


def test_two_at_once_lose_nothing() -> None:
    made = [replace(ONE, url=f"https://{number}.example") for number in range(12)]
    threads = [threading.Thread(target=logins.remember, args=(login,)) for login in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(logins.all_logins()) == set(made)


def test_a_folder_that_cannot_be_written_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "file", lambda: Path("/dev/null/credentials.json"))
    with pytest.raises(CommandError, match="cannot be written"):
        logins.remember(ONE)


def test_the_file_is_json_with_a_version() -> None:
    logins.remember(ONE)
    found = json.loads(logins.file().read_text())
    assert found["version"] == 1
