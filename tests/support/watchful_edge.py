"""The edge that looks at the client IDs of its sessions twice a second, so that a test need not wait."""

from __future__ import annotations

import sys

from cloudsignal.edge.__main__ import main
from cloudsignal.edge.signin import renewal

if __name__ == "__main__":
    renewal.LOOK_EVERY = 0.5
    renewal.SIGNING_IN = 1.0
    sys.exit(main())
