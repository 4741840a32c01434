"""The highest revision seen of every organization and identity, kept on disk: an old record replayed is refused.

A record on Redis is sealed, but a seal does not say that it is the newest. Whoever can write to Redis could put back a
record from before a revocation; an edge that has seen the newer one does not fall for it, restarts included.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, unquote

COMPACT_LINES = 50_000
"""The log is rewritten once it has this many lines more than entries."""


class RevisionWatermarks:
    """``name -> highest revision``. Changes reach the disk at :meth:`save`, about once a second."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._floors: dict[str, int] = {}
        self._unsaved: list[str] = []
        self._lines = 0
        self._rewrite = False
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                name, _, revision = line.rpartition(" ")
                self._lines += 1
                if revision.isdigit():
                    self._floors[unquote(name)] = max(int(revision), self._floors.get(unquote(name), 0))

    def get(self, name: str) -> int:
        """The highest revision seen; 0 when none was."""
        return self._floors.get(name, 0)

    def note(self, name: str, revision: int) -> None:
        """A verified record of this revision was seen."""
        if revision > self._floors.get(name, 0):
            self._floors[name] = revision
            self._unsaved.append(f"{quote(name, safe='')} {revision}\n")

    def forget(self, org: str) -> None:
        """Drop the names of an organization's identities; that of the organization stays."""
        for name in [name for name in self._floors if name.startswith(f"{org}/")]:
            del self._floors[name]
        self._rewrite = True

    def save(self) -> None:
        """Append what is new; rewrite the file when it has grown far beyond its entries.

        Raises :class:`OSError` when the disk refuses; what is new is tried again the next time.
        """
        if not self._unsaved and not self._rewrite:
            return
        if self._rewrite or self._lines > len(self._floors) + COMPACT_LINES:
            temporary = self._path.with_suffix(".new")
            temporary.write_text("".join(f"{quote(name, safe='')} {rev}\n" for name, rev in self._floors.items()))
            os.replace(temporary, self._path)
            self._lines, self._rewrite = len(self._floors), False
        else:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(self._unsaved)
            self._lines += len(self._unsaved)
        self._unsaved = []
