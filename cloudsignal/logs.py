"""Structured logs: one JSON object a line, built from named fields only, so that no secret is logged."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

EXTRA = ("org", "task", "node", "key", "count", "seconds", "status_code", "code", "depth", "attempt")
"""Names that ``extra=`` may carry into the log; anything else is dropped."""


class JsonFormatter(logging.Formatter):
    """Formats a record as ``{"at", "level", "logger", "message", ...}``; a traceback goes into ``error``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: getattr(record, name) for name in EXTRA if hasattr(record, name)})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)
