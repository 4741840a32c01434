"""The data folder: its default place and its layout.

::

    postgres/  valkey/  broker/   the embedded parts (each owned by its own account when started by root)
    programs/                     copies of their programs, only when started by root
    secrets/                      one file per secret, mode 0600
    tls/                          local CA (ca.pem is for clients) and the edge's certificate
    edge/                         of each edge: its audit journal, and the policies in force
    alive/                        touched every few seconds by worker, beat and ingest
    logs/                         one file per part, rotated
    run.json                      what runs now: ports, addresses, process ids (for doctor, tests and people)
    lock                          held by the supervisor
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cloudsignal.supervisor.account import PARTS, Account, Accounts, require_reachable
from cloudsignal.supervisor.errors import StartError

SOCKET_PATH_MAX = 100
"""Bytes of a unix socket's path that every system takes (Linux 107, macOS 103)."""

PLAIN = re.compile(r"[\w./+:@~-]+")
"""Characters that a data folder's path may hold: three programs have it in their configuration files."""

FOLDERS = ("secrets", "tls", "logs", "alive")


def default_data_folder(name: str) -> Path:
    """``/var/lib/cloudsignal/NAME`` for root, ``~/.local/share/cloudsignal/NAME`` (or XDG_DATA_HOME) for others.

    Not inside the clone: started by root, the service account has to reach it, and clones stand in closed homes.
    """
    if os.geteuid() == 0:
        return Path("/var/lib/cloudsignal") / name
    return Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser() / "cloudsignal" / name


@dataclass(frozen=True, slots=True)
class Layout:
    """The paths inside one data folder."""

    root: Path
    accounts: Accounts | None = None
    """The owner of each data part's files; None means the user that runs the supervisor."""

    @property
    def postgres(self) -> Path:
        """PostgreSQL's cluster."""
        return self.root / "postgres"

    @property
    def valkey(self) -> Path:
        """Valkey's append-only file and its configuration."""
        return self.root / "valkey"

    @property
    def broker(self) -> Path:
        """Mosquitto's configuration and database."""
        return self.root / "broker"

    @property
    def programs(self) -> Path:
        """Copies of the programs that the service accounts run."""
        return self.root / "programs"

    @property
    def secrets(self) -> Path:
        """One file per secret."""
        return self.root / "secrets"

    @property
    def tls(self) -> Path:
        """The local CA and the edge's certificate."""
        return self.root / "tls"

    @property
    def logs(self) -> Path:
        """One log per part."""
        return self.root / "logs"

    @property
    def state(self) -> Path:
        """The path of ``run.json``."""
        return self.root / "run.json"

    @property
    def lock(self) -> Path:
        """Held by the supervisor as long as it lives."""
        return self.root / "lock"

    @property
    def broker_socket(self) -> Path:
        """The broker's unix socket, in a folder that nobody else may enter.

        A data folder with a long path gets a short folder under the temporary directory instead, because the
        path of a unix socket is limited to about a hundred bytes.
        """
        path = self.broker / "socket" / "mqtt.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_MAX:
            return path
        mark = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"cloudsignal-{os.getuid()}-{mark}" / "mqtt.sock"

    def create(self) -> None:
        """Make the folders with the right owners and modes. Raises :class:`StartError` where that is not possible."""
        require_usable(self.root, self.accounts)
        try:
            # Passable but not readable when another account owns folders inside.
            make_folder(self.root, 0o711 if self.accounts else 0o700)
            for name in FOLDERS:
                make_folder(self.root / name, 0o700)
            for part in PARTS:
                make_folder(self.root / part, 0o700, self.account(part))
            make_folder(self.broker_socket.parent, 0o700, self.account("broker"))
        except OSError as error:
            raise _unusable(self.root, error) from None

    def account(self, part: str) -> Account | None:
        """The account that runs ``postgres``, ``valkey`` or ``broker``."""
        found: Account | None = getattr(self.accounts, part, None)
        return found

    def give(self, path: Path, text: str, part: str) -> None:
        """Write a file that only the account of a data part may read."""
        path.touch(mode=0o600)
        path.write_text(text)
        path.chmod(0o600)
        if account := self.account(part):
            os.chown(path, account.uid, account.gid)


def require_usable(root: Path, accounts: Accounts | None) -> None:
    """Raise :class:`StartError` when ``root`` cannot be a data folder. Changes nothing.

    A folder that holds other things is refused: its permissions, which a data folder has to itself, are not ours.
    """
    if not PLAIN.fullmatch(str(root)):
        raise StartError(f"the path {root} holds a space or a special character; choose another with --data")
    try:
        for part in PARTS if accounts else ():
            require_reachable(root, getattr(accounts, part))
        there = {entry.name for entry in root.iterdir()}
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable(root, error) from None
    if there - {"lost+found"} and not there & {"secrets", "lock"}:
        raise StartError(f"{root} holds other things; choose a new or an empty folder with --data")


def _unusable(root: Path, error: OSError) -> StartError:
    why = f"{error.strerror or error} ({error.filename})"
    return StartError(f"the data folder {root} cannot be used: {why}; choose another one with --data")


def make_folder(folder: Path, mode: int, owner: Account | None = None) -> None:
    """Make ``folder`` with this mode and owner, or bring it to them. Raises :class:`StartError` for another's."""
    for parent in reversed(folder.parents):
        if not parent.exists():
            parent.mkdir()
            parent.chmod(0o755)  # whatever the umask: the service account must get through what is made on the way
    folder.mkdir(exist_ok=True)
    wanted = owner.uid if owner else os.geteuid()
    if folder.is_symlink():
        raise StartError(f"{folder} is a symbolic link; CloudSignal keeps its data in plain folders")
    if folder.stat().st_uid != wanted:
        if os.geteuid() != 0:
            raise StartError(f"{folder} belongs to another user; choose another data folder with --data")
        _hand_over(folder, wanted, owner.gid if owner else os.getegid())
    folder.chmod(mode)


def _hand_over(folder: Path, uid: int, gid: int) -> None:
    """Change the owner of a folder and everything in it to another account."""
    for name, folders, files in os.walk(folder):
        for each in (*folders, *files):
            os.chown(Path(name) / each, uid, gid, follow_symlinks=False)
    os.chown(folder, uid, gid)
