"""``manage.py ingest``: moves audit events and node reports from Redis into PostgreSQL until it is told to stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from django.core.management.base import BaseCommand

from audit.ingest.consumer import Ingest
from cloudsignal.redis import client
from cloudsignal.startup import require


class Command(BaseCommand):
    """Runs one consumer. SIGTERM and SIGINT end it after the batch in hand; several may run side by side."""

    help = "Move audit events and node reports from Redis into PostgreSQL."

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until a signal comes."""
        require("CLOUDSIGNAL_SECRET_KEY", "DATABASE_URL", "REDIS_URL")
        stopping = threading.Event()

        def stop(_signal: int, _frame: FrameType | None) -> None:
            stopping.set()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        Ingest(client()).run(stopping.is_set)
