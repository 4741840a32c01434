"""Makes the table of docs/clients.md from real runs: ``python -m tests.edge.clients.table``.

Each library runs against an edge, a broker and a Valkey of its own, one behavior after the other. What is written is
what was seen; the last line names the versions.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sys
import tempfile
from pathlib import Path

from tests.edge.clients.behaviors import BEHAVIORS
from tests.edge.clients.driving import LIBRARIES, NODE, Library
from tests.support.rig import build_rig, stop_rig

PAGE = Path(__file__).parents[3] / "docs" / "clients.md"
BEGIN, END = "<!-- table: made by python -m tests.edge.clients.table -->", "<!-- end of the table -->"


def run(library: Library, names: tuple[str, ...] = tuple(BEHAVIORS)) -> dict[str, str]:
    """What one library does, behavior by behavior."""
    folder = Path(tempfile.mkdtemp(prefix="cs-clients-", dir="/tmp"))
    rig = build_rig(folder)
    try:
        return {name: BEHAVIORS[name](library, rig) for name in names}
    finally:
        stop_rig(rig)
        shutil.rmtree(folder, ignore_errors=True)


def table(found: dict[str, dict[str, str]]) -> str:
    """The rows as Markdown: a library a row, a behavior a column."""
    lines = [f"| client | {' | '.join(BEHAVIORS)} |", "| --- |" + " --- |" * len(BEHAVIORS)]
    lines += [f"| {name} | {' | '.join(cells[behavior] for behavior in BEHAVIORS)} |" for name, cells in found.items()]
    return "\n".join([*lines, "", versions()])


def versions() -> str:
    """Which versions the runs were made with."""
    python = [f"{name} {importlib.metadata.version(name)}" for name in ("paho-mqtt", "aiomqtt", "gmqtt", "awscrt")]
    node = json.loads((NODE / "package.json").read_text())["dependencies"]["mqtt"]
    return f"Versions: {', '.join(python)}, MQTT.js {node}."


def main() -> int:
    """Run everything and write the page."""
    found: dict[str, dict[str, str]] = {}
    for library in LIBRARIES:
        found[library.name] = run(library)
        print(library.name, json.dumps(found[library.name], indent=2), file=sys.stderr, flush=True)
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table(found)}\n\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
