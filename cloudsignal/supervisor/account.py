"""The operating-system account that the data parts run as when the supervisor is root.

PostgreSQL refuses to run as root, and neither Valkey nor the broker needs to. As an ordinary user everything runs as
that user and this module has nothing to do.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cloudsignal.supervisor.errors import StartError

NAME = "cloudsignal"


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged account: numeric ids, ready for ``subprocess``."""

    name: str
    uid: int
    gid: int


def service_account() -> Account | None:
    """The account ``cloudsignal``, created when it does not exist; None when we are not root and drop nothing.

    Raises :class:`StartError` when it is missing and cannot be created.
    """
    if os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(NAME)
    except KeyError:
        entry = _create()
    return Account(NAME, entry.pw_uid, entry.pw_gid)


def _create() -> pwd.struct_passwd:
    hint = f"create a system user named {NAME}, or start CloudSignal as an ordinary user"
    useradd = shutil.which("useradd") or shutil.which("useradd", path="/usr/sbin:/sbin")
    if useradd is None:
        raise StartError(f"PostgreSQL does not run as root and there is no useradd here; {hint}")
    command = [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
    done = subprocess.run([*command, "--shell", "/usr/sbin/nologin", NAME], capture_output=True, text=True, check=False)
    try:
        return pwd.getpwnam(NAME)
    except KeyError:
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
                f"{parent} is closed to the user {account.name}, as which PostgreSQL runs when CloudSignal is started "
                f"by root; choose another data folder, for example --data /var/lib/cloudsignal/{folder.name}"
            )
