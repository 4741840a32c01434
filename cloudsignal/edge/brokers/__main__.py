"""``python -m cloudsignal.edge.brokers``."""

import sys

from cloudsignal.edge.brokers.command import main

sys.exit(main())
