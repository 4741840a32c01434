"""The edge with a full garbage collection every few seconds; each says what it took and what it found on stderr.

``COLLECTOR=off`` switches the interpreter's own collections off, so that nothing is missing from what it finds.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import time

from cloudsignal.edge.__main__ import main

EVERY = 5.0


def collect() -> None:
    """Collect until the process ends. The interpreter stands still meanwhile, whichever thread began it."""
    while True:
        time.sleep(EVERY)
        started = time.thread_time()
        found = gc.collect()
        print(f"collected {found} {time.thread_time() - started:.4f}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    if os.environ.get("COLLECTOR") == "off":
        gc.disable()
    threading.Thread(target=collect, daemon=True).start()
    sys.exit(main())
