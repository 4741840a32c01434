"""The environment variables of each process: only those that :data:`cloudsignal.config.VARIABLES` lists for it.

Nothing else of the supervisor's own environment is passed on, so a secret cannot reach a process by accident.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cloudsignal.config import VARIABLES
from cloudsignal.supervisor.state import MARK

PASSED_ON = (
    "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "XDG_RUNTIME_DIR", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
"""Variables about the machine that programs in general need."""


def for_role(role: str, *, data: Path, made: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process with ``role`` (``web``, ``worker``, ``ingest``, ``edge``, ``migrations``).

    ``made`` are the values that the supervisor worked out, ``own`` its own environment, from which a variable that a
    person has set is taken when nothing was worked out for it.
    """
    environment = plain(data=data, own=own)
    environment["PYTHONUNBUFFERED"] = "1"
    environment["DJANGO_SETTINGS_MODULE"] = "cloudsignal.settings"
    for variable in VARIABLES:
        readers = {reader.strip() for reader in variable.read_by.split(",")}
        value = made.get(variable.name) or own.get(variable.name)
        if value and (role in readers or "all" in readers):
            environment[variable.name] = value
    return environment


def plain(*, data: Path, own: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that is not ours: no variable of CloudSignal but the mark."""
    environment = {name: own[name] for name in PASSED_ON if own.get(name)}
    environment[MARK] = str(data)
    return environment
