"""The error that keeps CloudSignal from starting on this machine."""

from __future__ import annotations


class StartError(Exception):
    """The system cannot start as asked. The message says what is in the way and what to do about it."""
