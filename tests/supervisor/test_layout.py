"""The data folder: modes, owners, refusals."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from cloudsignal.supervisor.account import PARTS, Account, require_reachable, service_accounts
from cloudsignal.supervisor.errors import StartError
from cloudsignal.supervisor.layout import SOCKET_PATH_MAX, Layout, default_data_folder
from tests.support.process import temporary_data_folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_folder_is_closed_to_others(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.create()
    for folder in (layout.root, layout.secrets, layout.tls, layout.logs, layout.postgres, layout.broker_socket.parent):
        assert mode(folder) == 0o700, folder


def test_a_folder_that_was_opened_is_closed_again(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    layout.create()
    layout.secrets.chmod(0o755)
    layout.create()
    assert mode(layout.secrets) == 0o700


def test_what_is_made_on_the_way_lets_the_service_account_through_whatever_the_umask() -> None:
    folder = temporary_data_folder("umask")
    folder.chmod(0o755)
    before = os.umask(0o077)
    try:
        for _ in range(2):
            Layout(folder / "cloudsignal" / "default", service_accounts()).create()
        assert mode(folder / "cloudsignal") == 0o755
    finally:
        os.umask(before)
        shutil.rmtree(folder)


def test_a_path_that_cannot_be_written_into_configurations_is_refused(tmp_path: Path) -> None:
    for name in ("with space", "quote'd", "new\nline", "semi;colon"):
        with pytest.raises(StartError, match="special character"):
            Layout(tmp_path / name).create()
        assert not (tmp_path / name).exists()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(StartError, match="cannot be used"):
        Layout(tmp_path / "data").create()


def test_a_folder_of_somebody_else_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "home" / "letters").touch()
    with pytest.raises(StartError, match="home holds other things; choose a new or an empty folder"):
        Layout(tmp_path / "home").create()
    assert mode(tmp_path / "home") == 0o755
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["letters"]


def test_an_empty_folder_and_one_of_ours_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "data" / "lost+found").mkdir(parents=True)
    for _ in range(2):
        Layout(tmp_path / "data").create()


def test_a_symbolic_link_inside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "secrets").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match="symbolic link"):
        Layout(tmp_path / "data").create()


def test_the_socket_moves_where_a_long_path_would_not_fit(tmp_path: Path) -> None:
    short, long = Layout(Path("/d")), Layout(tmp_path / ("x" * 120))
    assert short.broker_socket == Path("/d/broker/socket/mqtt.sock")
    assert len(os.fsencode(long.broker_socket)) <= SOCKET_PATH_MAX
    assert long.broker_socket != Layout(tmp_path / ("y" * 120)).broker_socket


def test_a_closed_parent_is_reported_and_never_opened(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    stranger = Account("stranger", os.getuid() + 4711, os.getgid() + 4711)
    tmp_path.chmod(0o755)
    with pytest.raises(StartError, match="is closed to the user stranger"):
        require_reachable(home / "data", stranger)
    assert mode(home) == 0o700


def test_root_drops_to_an_account_for_each_part_and_others_drop_nothing() -> None:
    accounts = service_accounts()
    if os.geteuid() == 0:
        assert accounts is not None
        found = [getattr(accounts, part) for part in PARTS]
        assert len({account.uid for account in found} | {0}) == len(PARTS) + 1
        assert len({account.gid for account in found} | {0}) == len(PARTS) + 1
        assert default_data_folder("x") == Path("/var/lib/cloudsignal/x")
    else:
        assert accounts is None
        assert default_data_folder("x").parts[-2:] == ("cloudsignal", "x")


def test_each_part_owns_its_own_folder_and_what_an_earlier_version_left_in_it() -> None:
    folder = temporary_data_folder("owners")
    folder.chmod(0o755)
    try:
        accounts = service_accounts()
        layout = Layout(folder / "data", accounts)
        layout.create()
        earlier = accounts.broker.uid if accounts else os.geteuid()  # one account had all three
        (layout.postgres / "base").mkdir()
        (layout.postgres / "base" / "1").touch()
        (layout.postgres / "out").symlink_to("/etc/passwd")
        for path in (layout.postgres, layout.postgres / "base", layout.postgres / "base" / "1"):
            os.chown(path, earlier, -1)
        layout.create()
        for part in PARTS:
            account = layout.account(part)
            owner = account.uid if account else os.geteuid()
            for path in (folder / "data" / part, *(folder / "data" / part).rglob("*")):
                assert path.lstat().st_uid == owner, path
                assert mode(folder / "data" / part) == 0o700
        assert Path("/etc/passwd").stat().st_uid == 0
    finally:
        shutil.rmtree(folder)
