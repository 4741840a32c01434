"""Email without a mail server: messages are kept in a folder that only this installation's account can read.

The demo shows it to operators; elsewhere whoever runs the machine reads the files.
"""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from pathlib import Path

from django.conf import settings
from django.core.mail.backends.filebased import EmailBackend

END = b"-" * 79 + b"\n"
"""The line that Django's backend writes after each message."""
LINK = re.compile(r"https?://\S+")


class KeepingBackend(EmailBackend):
    """Django's file backend with private files, because messages contain sign-in links.

    Their names tell the order. Django's are of a second, and two backends in a row may have the same one.
    """

    _name = ""

    def _get_filename(self) -> str:
        self._name = self._name or f"{time.time_ns()}-{os.getpid()}-{threading.get_native_id()}.log"
        return str(Path(self.file_path) / self._name)

    def open(self) -> bool:
        """Open the file, for its owner alone."""
        opened = bool(super().open())
        if opened:
            os.fchmod(self.stream.fileno(), 0o600)
        return opened


@dataclass(frozen=True, slots=True)
class Mail:
    """One stored message. ``parts`` are pieces of the text, each with whether it is a link."""

    to: str
    subject: str
    sent_at: datetime | None
    parts: tuple[tuple[str, bool], ...]


def kept_mail(limit: int = 50) -> tuple[Mail, ...]:
    """The newest messages, newest first."""
    found: list[Mail] = []
    for path in sorted(Path(settings.EMAIL_FILE_PATH).glob("*.log"), reverse=True):
        found += reversed([_read(raw) for raw in path.read_bytes().split(END) if raw.strip()])
        if len(found) >= limit:
            break
    return tuple(found[:limit])


def _read(raw: bytes) -> Mail:
    message = message_from_bytes(raw, policy=policy.default)
    body = message.get_body(("plain",))
    text = str(body.get_content()) if body is not None else ""
    sent = message["Date"].datetime if message["Date"] else None
    if sent is not None and sent.tzinfo is None:
        sent = sent.replace(tzinfo=UTC)  # RFC 5322 s3.3: -0000 is UTC of an unknown place
    return Mail(str(message["To"] or ""), str(message["Subject"] or ""), sent, tuple(_parts(text.strip())))


def _parts(text: str) -> list[tuple[str, bool]]:
    """Split the text at its links; only links to this installation are clickable."""
    parts, at = list[tuple[str, bool]](), 0
    for link in LINK.finditer(text):
        if link[0].startswith(f"{settings.PUBLIC_URL}/"):
            parts += [(text[at : link.start()], False), (link[0], True)]
            at = link.end()
    return [*parts, (text[at:], False)]
