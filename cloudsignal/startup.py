"""Start-up checks of a process: required variables, database and mail server addresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from cloudsignal.config import ConfigError, Environment

CONNECT_TIMEOUT = 5
"""Seconds to wait for a connection to PostgreSQL."""


def require(*names: str) -> None:
    """Raise :class:`ConfigError` when one of the environment variables ``names`` is unset."""
    environment = Environment()
    for name in names:
        environment.text(name)


def database(url: str, *, pool_size: int = 0) -> dict[str, Any]:
    """A Django ``DATABASES`` entry from a libpq URL or connection string; ``pool_size`` 0 means no pool.

    Raises :class:`ConfigError` when libpq cannot read it. The text is not repeated: it holds a password.
    """
    parts = _parts(url)
    options: dict[str, Any] = {
        key: value for key, value in parts.items() if key not in {"dbname", "user", "password", "host", "port"}
    }
    options.setdefault("connect_timeout", CONNECT_TIMEOUT)
    if pool_size:
        # The pool's own pauses double for up to five minutes; let it give up soon, then each request asks anew.
        options["pool"] = {"min_size": 1, "max_size": pool_size, "timeout": 3, "reconnect_timeout": 2}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.get("dbname", ""),
        "USER": parts.get("user", ""),
        "PASSWORD": parts.get("password", ""),
        "HOST": parts.get("host", ""),
        "PORT": str(parts.get("port", "")),
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": options,
    }


@dataclass(frozen=True, slots=True)
class MailServer:
    """The mail server that messages are sent to. ``tls`` from the first byte; else STARTTLS, unless ``plain``."""

    host: str
    port: int
    user: str
    password: str
    tls: bool
    plain: bool


def mail_server(url: str) -> MailServer:
    """From ``smtps://user:password@host:465``, ``smtp://...:587`` (STARTTLS), or ``smtp+plain://localhost:25``.

    Raises :class:`ConfigError`. The text is not repeated: it holds a password.
    """
    ports = {"smtps": 465, "smtp": 587, "smtp+plain": 25}
    try:
        parts = urlsplit(url)
        port = parts.port or ports.get(parts.scheme, 0)
    except ValueError:
        parts, port = urlsplit(""), 0
    if parts.scheme not in ports or not parts.hostname or not port:
        raise ConfigError("CLOUDSIGNAL_EMAIL_URL is not an address of a mail server; write smtps://user:password@host")
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return MailServer(parts.hostname, port, user, password, parts.scheme == "smtps", parts.scheme == "smtp+plain")


def role_of(url: str) -> str:
    """The database role in a database URL."""
    return str(_parts(url).get("user") or "cloudsignal_app")


def _parts(url: str) -> dict[str, Any]:
    try:
        return dict(conninfo_to_dict(url))
    except ProgrammingError:
        raise ConfigError(
            "DATABASE_URL, DATABASE_OWNER_URL, DATABASE_DELETE_URL or DATABASE_INGEST_URL is not an address of "
            "PostgreSQL; "
            "write postgresql://role:password@host:5432/database"
        ) from None
