"""Status of bundles on this node (enforced or rejected), reported until Redis has it.

A report that was lost would leave its deployment waiting for this node. The newest of each organization is therefore
kept until Redis took it, and said again when the connection had been lost: a Redis that was killed may have forgotten
the last second or two. The control plane skips what it knows.
"""

from __future__ import annotations

import asyncio

from cloudsignal.edge.redis import Store, UnavailableError
from cloudsignal.wire import keys
from cloudsignal.wire.codec import encode
from cloudsignal.wire.report import BundleReport
from cloudsignal.wire.sealed import Kind, seal_record

RETRY = 1.0
"""Seconds until Redis is tried again."""

AT_ONCE = 200
"""Reports sent in one round trip."""


class BundleStatus:
    """Reports of this node: at most one that enforces and one that refuses per organization."""

    def __init__(self, store: Store, key: bytes) -> None:
        self._store = store
        self._key = key
        self._newest: dict[tuple[str, str], bytes] = {}
        self._unsaid: dict[tuple[str, str], bytes] = {}
        self._wanted = asyncio.Event()

    def put(self, report: BundleReport) -> None:
        """Queue a report; it replaces an earlier one about the same organization."""
        key = (report.org, report.status)
        for gone in (key, (report.org, "refused")) if report.status == "enforcing" else (key,):
            self._newest.pop(gone, None)
            self._unsaid.pop(gone, None)
        self._newest[key] = self._unsaid[key] = seal_record(Kind.REPORT, encode(report), self._key)
        self._wanted.set()

    def again(self) -> None:
        """Queue every report again after the connection to Redis was lost."""
        self._unsaid = dict(self._newest)
        self._wanted.set()

    async def run(self) -> None:
        """Send until canceled."""
        while True:
            await self._wanted.wait()
            try:
                await self.flush()
            except UnavailableError:
                await asyncio.sleep(RETRY)

    async def flush(self) -> None:
        """Send the queued reports. Raises :class:`UnavailableError` when Redis is unavailable."""
        while self._unsaid:
            some = list(self._unsaid.items())[:AT_ONCE]
            trim = ("MAXLEN", "~", keys.CHANGES_MAXLEN)
            await self._store.call(*(("XADD", keys.REPORTS, *trim, "*", keys.FIELD, blob) for _, blob in some))
            for key, blob in some:
                if self._unsaid.get(key) is blob:
                    del self._unsaid[key]
        self._wanted.clear()
