"""The outcome of one check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """The severity of a result."""

    FINE = "fine"
    WARNING = "warning"
    """The part works, but not as well or as safely as it could."""
    PROBLEM = "problem"
    """The part does not work, or is not safe."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one check. ``fix`` says what to do; it is empty when all is fine."""

    area: str
    level: Level
    text: str
    fix: str = ""


def fine(area: str, text: str) -> Result:
    """A result without a problem."""
    return Result(area, Level.FINE, text)


def warning(area: str, text: str, fix: str) -> Result:
    """A warning: the system works, but something should be fixed."""
    return Result(area, Level.WARNING, text, fix)


def problem(area: str, text: str, fix: str) -> Result:
    """A problem that keeps the system from working."""
    return Result(area, Level.PROBLEM, text, fix)
