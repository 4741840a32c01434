"""A step budget that bounds the work of one policy comparison."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Budget:
    """The number of steps left; one step takes some tenths of a microsecond."""

    left: int

    def take(self, steps: int) -> bool:
        """Spend ``steps``; false when the budget is exhausted and the caller should stop."""
        self.left = max(self.left - steps, 0)
        return self.left > 0
