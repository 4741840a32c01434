"""Which test files run first, and which never run side by side.

The whole system is ten processes and a browser is as many again. Three workers that each have both leave a form
unfilled for half a minute on a machine of two cores. So there are two lanes: files that need a browser run one after
another on one worker, and so do those that need the whole system without one. Each lane starts its system once, and
the other workers have files that need little more than themselves.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadFileScheduling

TESTS = Path(__file__).parent.parent

MARKED = re.compile(r"\bpytest\.mark\.(browser|stack)\b")

PROCESSES = {"stack", "browser", "workdir"}
"""Fixtures whose tests start processes: the whole system, Chromium, the parts of an edge."""

LONG = (
    "isolation/test_pages.py", "edge/test_outage.py", "api/test_permissions.py", "edge/test_broker_nodes.py",
    "isolation/test_without_filters.py", "edge/test_limits.py", "api/test_schema.py", "edge/test_wills.py",
    "supervisor/test_up.py", "edge/test_orders.py", "audit/test_kill.py", "edge/test_node_lost.py",
    "policy/test_laws.py", "edge/test_client_ids_without_redis.py", "edge/conformance/test_conformance.py",
    "edge/test_heads.py", "policy/test_truth.py", "edge/test_retained.py", "platform/test_migrations.py",
    "edge/test_unread.py", "platform/test_worker.py", "edge/test_subscriptions.py", "edge/test_garbage.py",
    "edge/test_signin.py", "edge/fuzz/test_guided.py", "edge/test_trail.py", "edge/test_transports.py",
    "edge/test_probes.py", "edge/test_live.py", "edge/test_nodes.py", "edge/test_under_attack.py",
)  # fmt: skip
"""Files that take long, beside those of the lanes. They begin first: no worker is left alone with one at the end.

Those that compute alternate with those that mostly wait (for nodes to be given up, for time limits): side by side, one
has the core that the other leaves free. What is attacked comes last, when the lanes have ended: it counts how often
a neighbor gets its turn.
"""

_PLACES = {str(TESTS / name): number for number, name in enumerate(LONG)}


@cache
def lane(path: Path) -> str:
    """``browser`` or ``stack`` when a test of this file is marked so, the browser first; else nothing."""
    return min(MARKED.findall(path.read_text()), default="")


def mark(item: pytest.Item) -> None:
    """Mark a test that starts processes; refuse one of the whole system or a browser whose file does not say so."""
    asked = PROCESSES & set(getattr(item, "fixturenames", ()))
    if asked:
        item.add_marker("processes")
    if asked & {"stack", "browser"} and not lane(item.path):
        raise pytest.UsageError(f"{item.nodeid}: mark it with pytest.mark.stack or pytest.mark.browser")


def place(item: pytest.Item) -> int:
    """Where a test stands in the run: the lanes, then the long files, then all others in the order they have."""
    return -1 if lane(item.path) else _PLACES.get(str(item.path), len(LONG))


class Lanes(LoadFileScheduling):
    """A file goes to one worker as a whole, and all files of a lane go to the same."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return lane(self.config.rootpath / file) or file
