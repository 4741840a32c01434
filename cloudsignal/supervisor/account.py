"""The operating-system accounts that the data parts run as when the supervisor is root: one for each.

PostgreSQL refuses to run as root, and neither Valkey nor the broker needs to. Each has an account of its own, so that
one that is taken over reads nothing of the others, nor of their memory. As an ordinary user everything runs as that
user and this module has nothing to do.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from cloudsignal.supervisor.errors import StartError

PARTS = ("postgres", "valkey", "broker")
TRIES = 50
"""Another program may hold the list of accounts, for a tenth of a second or so."""


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged account: numeric ids, ready for ``subprocess``."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Accounts:
    """One for each of :data:`PARTS`."""

    postgres: Account
    valkey: Account
    broker: Account


def service_accounts() -> Accounts | None:
    """The accounts ``cloudsignal-PART``, created when they do not exist; None when we are not root and drop nothing.

    Raises :class:`StartError` when one is missing and cannot be created.
    """
    if os.geteuid() != 0:
        return None
    return Accounts(*(service_account(part) for part in PARTS))


def planned_accounts() -> Accounts:
    """The service accounts without creating any: an account that does not exist yet has the IDs -1."""
    found = []
    for part in PARTS:
        try:
            entry = pwd.getpwnam(name_of(part))
            found.append(Account(name_of(part), entry.pw_uid, entry.pw_gid))
        except KeyError:
            found.append(Account(name_of(part), -1, -1))
    return Accounts(*found)


def service_account(part: str) -> Account:
    """The account of one part, created when it does not exist. For root."""
    name = name_of(part)
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        entry = _create(name)
    return Account(name, entry.pw_uid, entry.pw_gid)


def name_of(part: str) -> str:
    """The name of a part's account."""
    return f"cloudsignal-{part}"


def _create(name: str) -> pwd.struct_passwd:
    hint = f"create a system user named {name}, or start CloudSignal as an ordinary user"
    useradd = shutil.which("useradd") or shutil.which("useradd", path="/usr/sbin:/sbin")
    if useradd is None:
        raise StartError(f"PostgreSQL does not run as root and there is no useradd here; {hint}")
    command = [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    command += ["--shell", "/usr/sbin/nologin", name]
    for _ in range(TRIES):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            return pwd.getpwnam(name)
        except KeyError:
            time.sleep(0.1)
    raise StartError(f"useradd failed ({done.stderr.strip()}); {hint}") from None


def require_reachable(folder: Path, account: Account) -> None:
    """Raise :class:`StartError` when ``account`` may not pass through a folder above ``folder``.

    The permissions of folders that we did not make are never changed: opening somebody's home is not ours to do.
    """
    for parent in reversed(folder.resolve().parents):
        if not parent.is_dir():
            return
        status = parent.stat()
        if status.st_uid == account.uid:
            passes = status.st_mode & stat.S_IXUSR
        elif status.st_gid == account.gid:
            passes = status.st_mode & stat.S_IXGRP
        else:
            passes = status.st_mode & stat.S_IXOTH
        if not passes:
            raise StartError(
                f"{parent} is closed to the user {account.name}, as which a part runs when CloudSignal is started "
                f"by root; choose another data folder, for example --data /var/lib/cloudsignal/{folder.name}"
            )
