"""The certificate of the local authority, where this installation has one: what clients pass as ``--cafile``."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings


def local_ca() -> Path | None:
    """The file of the local CA; None when the edge presents a certificate that clients trust anyway."""
    data: Path = settings.DATA_DIR
    path = data / "tls" / "ca.pem"
    return path if path.is_file() else None
