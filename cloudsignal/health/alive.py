"""Alive files: ``worker``, ``beat`` and ``ingest`` touch ``$CLOUDSIGNAL_DATA/alive/NAME`` every few seconds.

A file older than :data:`STALE_SECONDS` means that the process hangs or, for the worker, that it has not reached Redis
for so long. Files, not keys on Redis, so that a supervisor on the same machine needs no password. A process that runs
several times on one machine shares one file per kind.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

from django.conf import settings

STALE_SECONDS = 30.0

logger = logging.getLogger(__name__)


def path(name: str) -> Path:
    """The alive file of ``name``."""
    folder: Path = settings.DATA_DIR
    return folder / "alive" / name


def touch(name: str) -> None:
    """Touch the alive file of ``name``. A full disk or a missing folder is logged, never raised."""
    file = path(name)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        logger.warning("alive file of %s cannot be written: %s", name, error)


def age(name: str) -> float | None:
    """Seconds since the alive file of ``name`` was touched; None when there is none."""
    try:
        return max(0.0, time.time() - path(name).stat().st_mtime)
    except OSError:
        return None
