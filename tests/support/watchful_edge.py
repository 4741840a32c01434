"""The edge that looks at the client IDs of its sessions twice a second, and probes no node a second time.

A test need not wait, and what happens to sign-ins without the help of probes is seen.
"""

from __future__ import annotations

import sys

from cloudsignal.edge.__main__ import main
from cloudsignal.edge.broker import probes
from cloudsignal.edge.signin import renewal

if __name__ == "__main__":
    probes.EVERY = 3_600.0
    renewal.LOOK_EVERY = 0.5
    renewal.SIGNING_IN = 1.0
    sys.exit(main())
