"""Packages of npm for tests that drive a client in Node: installed once, outside the clone, exactly as locked."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path


def installed(project: Path) -> Path:
    """The folder with ``node_modules`` of the lockfile in ``project``; ``npm ci`` checks each package's integrity."""
    lockfile = project / "package-lock.json"
    name = hashlib.sha256(lockfile.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cloudsignal-tests"
    folder, done = cache / name, cache / name / "installed"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            for file in ("package.json", "package-lock.json"):
                shutil.copy(project / file, folder / file)
            npm = shutil.which("npm")
            assert npm, "npm is not installed; run `make setup`"
            command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300)
            done.touch()
    return folder
