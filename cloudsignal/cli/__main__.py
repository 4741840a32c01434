"""``python -m cloudsignal.cli``: the same program where its script is not on the PATH."""

from __future__ import annotations

from cloudsignal.cli.app import main

if __name__ == "__main__":
    main()
