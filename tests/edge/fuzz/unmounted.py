"""A test build of the edge with its own isolation taken out: topics and filters go to the broker as the client says.

``python -m tests.edge.fuzz.unmounted`` takes the place of ``python -m cloudsignal.edge``. What still separates two
organizations then is the broker's ACL alone.
"""

from __future__ import annotations

import sys

from cloudsignal.edge.__main__ import main
from cloudsignal.edge.session.mountpoint import Mount


def _unchanged(self: Mount, topic: bytes) -> bytes:
    return topic


if __name__ == "__main__":
    Mount.topic = _unchanged  # type: ignore[method-assign]
    Mount.filter = _unchanged  # type: ignore[method-assign]
    Mount.client_topic = _unchanged  # type: ignore[method-assign]
    sys.exit(main())
