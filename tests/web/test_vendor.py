"""Static files: what is vendored is what the manifest says, and pages stay light."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

STATIC = Path(__file__).parents[2] / "static"
TEMPLATES = STATIC.parent / "templates"
KB = 1024


def test_vendored_files_are_what_the_manifest_says() -> None:
    listed = json.loads((STATIC / "vendor" / "manifest.json").read_text())["files"]
    for entry in listed:
        assert hashlib.sha256((STATIC / "vendor" / entry["file"]).read_bytes()).hexdigest() == entry["sha256"], entry
    there = {str(path.relative_to(STATIC / "vendor")) for path in (STATIC / "vendor").rglob("*") if path.is_file()}
    documents = {"README.md", "manifest.json"} | {name for name in there if name.endswith("LICENSE")}
    assert there - documents == {entry["file"] for entry in listed}


def loaded_by(template: str, kind: str) -> list[Path]:
    """The static files of a kind that a template loads."""
    text = (TEMPLATES / template).read_text()
    return [STATIC / name for name in re.findall(rf"static '([^']+\.{kind})'", text)]


def weight(files: list[Path]) -> int:
    """Bytes on the wire, gzipped."""
    return sum(len(gzip.compress(file.read_bytes())) for file in files)


def test_an_ordinary_page_stays_within_its_budget() -> None:
    scripts, sheets = loaded_by("base.html", "js"), loaded_by("base.html", "css")
    assert scripts
    assert sheets
    assert weight(scripts) <= 35 * KB
    assert weight(sheets) <= 16 * KB


def test_the_editor_is_loaded_on_its_own_page_only() -> None:
    users = {path.name for path in TEMPLATES.rglob("*.html") if "codemirror" in path.read_text()}
    assert users == {"policy.html"}


def test_every_icon_that_is_used_exists() -> None:
    known = set(re.findall(r'<symbol id="([a-z]+)"', (STATIC / "img" / "icons.svg").read_text()))
    used = {name for path in TEMPLATES.rglob("*.html") for name in re.findall(r'{% icon "([^"]+)"', path.read_text())}
    assert used <= known
