"""How much work one comparison may do, so that no two policies keep anybody waiting."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Budget:
    """Steps that are left, each some tenths of a microsecond."""

    left: int

    def take(self, steps: int) -> bool:
        """Use up ``steps``, or all there are; false when none are left, and nothing more should be begun."""
        self.left = max(self.left - steps, 0)
        return self.left > 0
