"""The edge with little room for what clients do not read, so that a test need not send 128 MiB."""

from __future__ import annotations

import sys

from cloudsignal.edge.__main__ import main
from cloudsignal.edge.session import organization

if __name__ == "__main__":
    organization.UNREAD_BYTES = 512 * 1024
    sys.exit(main())
