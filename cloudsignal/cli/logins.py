"""The credentials file: the servers and organizations this person is signed in to, the latest first.

It stands in the platform's configuration folder with mode 0600, is replaced as a whole and never half written.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import platformdirs

from cloudsignal.cli.outcome import CommandError, Exit


@dataclass(frozen=True, slots=True)
class Login:
    """One sign-in: a key of one person for one organization of one server."""

    url: str
    organization_id: str
    organization: str
    person: str
    key: str
    expires_at: str
    ca: str = ""
    """File of certificates to trust; empty for the usual ones."""


def file() -> Path:
    """The path of the credentials file."""
    return platformdirs.user_config_path("cloudsignal") / "credentials.json"


def all_logins() -> list[Login]:
    """Every sign-in, the latest first. Raises :class:`CommandError` when the file cannot be read."""
    path = file()
    try:
        with path.open("rb") as handle:
            _private(path, os.fstat(handle.fileno()).st_mode)
            return [Login(**each) for each in json.loads(handle.read())["logins"]]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CommandError(
            f"{path} cannot be read ({error}); delete it and run `cloudsignal login` again", Exit.USAGE
        ) from None


def find(url: str | None = None, org: str | None = None) -> Login | None:
    """The latest sign-in, or the latest for this server or organization."""
    fitting = (one for one in all_logins() if url in {None, one.url} and org in {None, one.organization_id})
    return next(fitting, None)


def remember(login: Login) -> Login | None:
    """Store a sign-in as the latest; returns the one that it replaces (same server, same organization)."""
    with _changing() as logins:
        replaced = next((one for one in logins if _same(one, login)), None)
        logins[:] = [login, *(one for one in logins if not _same(one, login))]
    return replaced


def forget(login: Login) -> None:
    """Remove a sign-in."""
    with _changing() as logins:
        logins[:] = [one for one in logins if one.key != login.key]


def _same(one: Login, other: Login) -> bool:
    return (one.url, one.organization_id) == (other.url, other.organization_id)


@contextlib.contextmanager
def _changing() -> Iterator[list[Login]]:
    """The sign-ins, to be changed and written; one process at a time."""
    path = file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            logins = all_logins()
            yield logins
            _write(path, logins)
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}", Exit.USAGE) from None


def _write(path: Path, logins: list[Login]) -> None:
    text = json.dumps({"version": 1, "logins": [asdict(one) for one in logins]}, indent=2)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".credentials-")  # mode 0600 from the start
    try:
        with os.fdopen(handle, "w") as written:
            written.write(text)
            written.flush()
            os.fsync(written.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _private(path: Path, mode: int) -> None:
    if stat.S_IMODE(mode) & 0o077:
        path.chmod(0o600)
        click.echo(
            f"{path} could be read by other users; it is now readable by you only. Consider signing in again.", err=True
        )
