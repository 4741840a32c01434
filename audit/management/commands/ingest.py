"""``manage.py ingest``: moves audit events and node reports from Redis into PostgreSQL until it is told to stop."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.db import connection
from redis import Redis

from acl.services.nodes import Heartbeats
from acl.services.reports import apply_reports
from audit.ingest.append import Append
from audit.ingest.consumer import Ingest
from audit.ingest.lost import Heard
from audit.ingest.streams import CLAIM_IDLE_SECONDS
from cloudsignal.health.alive import touch
from cloudsignal.redis import client
from cloudsignal.startup import require
from cloudsignal.wire.report import BundleReport, Heartbeat

logger = logging.getLogger(__name__)


class AclNodes:
    """The node registry of ``acl``, as the interface :class:`audit.ingest.consumer.NodeRegistry` describes it."""

    def __init__(self) -> None:
        self._heartbeats = Heartbeats()

    def report(self, reports: Sequence[BundleReport]) -> None:
        """Apply bundle reports to targets."""
        apply_reports(reports)

    def look(self, redis: Redis) -> Sequence[Heartbeat]:
        """Update the nodes' rows from their heartbeats."""
        return self._heartbeats.look(redis)

    def heard(self, *, steady: float) -> Mapping[str, Heard] | None:
        """The time of each node's last heartbeat, once that is certain."""
        return self._heartbeats.heard(steady=steady)


class Command(BaseCommand):
    """Runs one consumer. SIGTERM and SIGINT end it after the batch in hand; several may run side by side."""

    help = "Move audit events and node reports from Redis into PostgreSQL."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add ``--name`` and ``--claim-idle``; both have good defaults."""
        parser.add_argument("--name", default="", help="name of this consumer in its group (the host's name)")
        parser.add_argument(
            "--claim-idle",
            type=float,
            default=CLAIM_IDLE_SECONDS,
            metavar="SECONDS",
            help="take over what another consumer has held unfinished for so long (%(default)s)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until a signal comes."""
        require("DATABASE_URL", "REDIS_URL", "CLOUDSIGNAL_NODE_KEY")
        stopping = threading.Event()

        def stop(_signal: int, _frame: FrameType | None) -> None:
            stopping.set()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        # One thread needs one connection, and a pool would wait longer and longer before it tries a server that was
        # away: ingest keeps its own time.
        connection.settings_dict["OPTIONS"].pop("pool", None)
        append = Append(settings.DATABASE_INGEST_URL) if settings.DATABASE_INGEST_URL else None
        if append is None:
            logger.warning("DATABASE_INGEST_URL is not set: ingest signs in as the application's role, and is slower")
        ingest = Ingest(client(), AclNodes(), name=options["name"], claim_idle=options["claim_idle"], append=append)
        ingest.run(stopping, lambda: touch("ingest"))
