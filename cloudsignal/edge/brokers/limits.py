"""Limits that every generated configuration has in common, and the check of what is written into one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from cloudsignal.edge.session.mountpoint import MOUNT_LEVELS

QUEUED_MESSAGES, QUEUED_BYTES = 1_000, 1_048_576
"""Messages and bytes that the broker queues for one session (QoS 1 and 2); what is beyond is dropped."""

SHARE_LEVELS = 2
"""``$share/GROUP/`` in front of a filter: VerneMQ counts it as two levels."""

_UNSAFE = re.compile(r"[\r\n\0]")
_UNQUOTABLE = re.compile(r'[\r\n\0"\\$]')


@dataclass(frozen=True, slots=True)
class Tls:
    """Files with which a broker on a machine of its own speaks TLS with client certificates; PEM, on that machine."""

    ca: Path
    """The authority that signs the edges' certificates, and nothing else."""
    cert: Path
    key: Path


def broker_levels(levels: int) -> int:
    """Levels that the broker must take, so that whatever the edge takes (``EDGE_TOPIC_LEVELS``) fits."""
    return levels + MOUNT_LEVELS + SHARE_LEVELS


def check_values(file: str, *values: object, quoted: bool = False) -> None:
    """Raise :class:`ValueError` for a value that would end its line in ``file``, or its quotes there (``quoted``)."""
    unfit = _UNQUOTABLE if quoted else _UNSAFE
    for value in values:
        if unfit.search(str(value)):
            raise ValueError(f"{str(value)!r} cannot be written into {file}")
