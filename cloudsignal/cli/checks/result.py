"""The outcome of one check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    FINE = "fine"
    WARNING = "warning"
    """It works, but not as well or as safely as it could."""
    PROBLEM = "problem"
    """It does not work, or is not safe."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one check found. ``fix`` says what to do; it is empty when all is fine."""

    area: str
    level: Level
    text: str
    fix: str = ""


def fine(area: str, text: str) -> Result:
    """All is well."""
    return Result(area, Level.FINE, text)


def warning(area: str, text: str, fix: str) -> Result:
    """It works, but."""
    return Result(area, Level.WARNING, text, fix)


def problem(area: str, text: str, fix: str) -> Result:
    """It does not work."""
    return Result(area, Level.PROBLEM, text, fix)
