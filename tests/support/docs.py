"""What the documentation names: paths of this repository."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).parents[2]


TOPS = {path.name for path in PROJECT.iterdir() if path.is_dir() and not path.name.startswith(".")}


def missing_paths(text: str) -> list[str]:
    """Paths in backticks, below a folder of this repository, that do not exist. ``*`` stands for any name."""
    named = [path for path in re.findall(r"`([\w.*-]+(?:/[\w.*-]*)+)`", text) if path.split("/")[0] in TOPS]
    return sorted({path for path in named if not any(PROJECT.glob(path.rstrip("/")))})
