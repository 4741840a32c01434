"""The secrets of one installation: made at first start, kept in the data folder with mode 0600.

They reach the processes through environment variables only, and each process gets only those it needs.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cloudsignal.supervisor.errors import StartError

NAMES = ("signing_key", "django_key", "pepper", "postgres_admin", "postgres_owner", "postgres_app", "valkey")
"""One file each."""
MADE_ANEW = ("postgres_delete", "postgres_ingest", "log_key")
"""Likewise, made anew when missing: every start sets the first two, and installations before 0.2 have no third. A new
log key is an event in the platform's log."""


@dataclass(frozen=True, slots=True)
class Secrets:
    """All secrets of one installation. Keys are 32 bytes in hex, passwords are URL-safe text."""

    django_key: str
    pepper: str
    signing_key: str
    verify_key: str
    """Not secret: the public half of ``signing_key``."""
    postgres_admin: str
    postgres_owner: str
    postgres_app: str
    postgres_delete: str
    postgres_ingest: str
    valkey: str
    log_key: str

    def values(self) -> tuple[str, ...]:
        """Every value that must appear in no log and on no screen."""
        return (
            self.django_key, self.pepper, self.signing_key, self.log_key,
            self.postgres_admin, self.postgres_owner, self.postgres_app, self.postgres_delete, self.postgres_ingest,
            self.valkey,
        )  # fmt: skip


def load_or_make(folder: Path, *, data: bool = False) -> Secrets:
    """Read the secrets in ``folder``, making those that do not exist yet; with ``data`` there is nothing to make.

    Raises :class:`StartError` when a file is open to other users, does not hold what it should, or is missing although
    there is data already: nobody signs in to a database with a new password, and a new pepper voids every credential.
    """
    missing = [name for name in NAMES if data and not (folder / name).exists()]
    if missing:
        raise StartError(
            f"{folder / missing[0]} is missing, and the data beside it needs it; restore it from a backup, or begin "
            "anew in another data folder"
        )
    signing_key = _keep(folder / "signing_key", lambda: secrets.token_hex(32))
    try:
        private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(signing_key))
    except ValueError:
        raise StartError(f"{folder / 'signing_key'} must hold 32 bytes written as 64 hex digits") from None
    return Secrets(
        django_key=_keep(folder / "django_key", lambda: secrets.token_urlsafe(48)),
        pepper=_keep(folder / "pepper", lambda: secrets.token_hex(32)),
        signing_key=signing_key,
        verify_key=private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex(),
        postgres_admin=_keep(folder / "postgres_admin", lambda: secrets.token_urlsafe(24)),
        postgres_owner=_keep(folder / "postgres_owner", lambda: secrets.token_urlsafe(24)),
        postgres_app=_keep(folder / "postgres_app", lambda: secrets.token_urlsafe(24)),
        postgres_delete=_keep(folder / "postgres_delete", lambda: secrets.token_urlsafe(24)),
        postgres_ingest=_keep(folder / "postgres_ingest", lambda: secrets.token_urlsafe(24)),
        valkey=_keep(folder / "valkey", lambda: secrets.token_urlsafe(24)),
        log_key=_keep(folder / "log_key", lambda: secrets.token_hex(32)),
    )


def write_private(path: Path, text: str) -> None:
    """Write ``path`` with mode 0600 so that it is there completely or not at all."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    draft.replace(path)


def _keep(path: Path, make: Callable[[], str]) -> str:
    if not path.exists():
        write_private(path, make() + "\n")
    if path.stat().st_mode & 0o077:
        raise StartError(f"{path} is open to other users; close it with: chmod 600 {path}")
    value = path.read_text().strip()
    if not value:
        raise StartError(f"{path} is empty; restore it from a backup (a new value would make old data unreadable)")
    return value
