"""The CLI: ``cloudsignal``. Commands on files and on this machine need neither Django nor a server."""

from __future__ import annotations

from cloudsignal.cli.app import main

__all__ = ["main"]
