"""Make a clean clone ready to run: system packages, a virtual environment, pinned requirements.

Runs with the system's ``python3`` and the standard library only (``make`` calls it before every target). It does
nothing when everything is in place, says what it does otherwise, and is safe to interrupt and run again.

    python3 .ci/bootstrap.py run     what `make up` and `make demo` need
    python3 .ci/bootstrap.py dev     the same, and what tests and checks need

Exit codes: 0 ready, 1 something is missing that has to be installed by hand (the message says how), 2 wrong usage.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LEVELS = ("run", "dev")
NEWEST = (3, 13)
OLDEST = (3, 11)
POLICY = Path("/usr/sbin/policy-rc.d")


class Missing(Exception):  # noqa: N818 - it reads as what it says
    """Something is missing that this script cannot install; the message says what to do."""


class Tool(NamedTuple):
    """A program of the operating system that CloudSignal runs."""

    what: str
    level: str
    names: list[str]
    apt: str
    brew: list[str]
    service: str = ""
    """The service that its package starts, and that CloudSignal wants to be off."""


SYSTEM_FOLDERS = ["/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin", "/opt/homebrew/bin", "/snap/bin"]
CHROMIUM_APPS = [
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
]
TOOLS = [
    Tool("mosquitto, the embedded MQTT broker", "run", ["mosquitto"], "mosquitto", ["mosquitto"], "mosquitto"),
    Tool("mosquitto_pub and _sub, to try things by hand", "run", ["mosquitto_pub"], "mosquitto-clients", ["mosquitto"]),
    Tool(
        "Chromium, which the browser tests drive",
        "dev",
        ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", *CHROMIUM_APPS],
        "chromium",
        ["--cask", "chromium"],
    ),
    Tool("npm, with which tests install MQTT.js to run it in Node", "dev", ["npm"], "npm", ["node"]),
    Tool("Caddy, a reverse proxy that the tests put in front", "dev", ["caddy"], "caddy", ["caddy"], "caddy"),
    Tool("nginx, another", "dev", ["nginx"], "nginx", ["nginx"], "nginx"),
    Tool("HAProxy, another", "dev", ["haproxy"], "haproxy", ["haproxy"], "haproxy"),
]


def main(arguments: list[str]) -> int:
    """Bring the clone to the level asked for."""
    if len(arguments) != 1 or arguments[0] not in LEVELS:
        print("usage: python3 .ci/bootstrap.py run|dev", file=sys.stderr)
        return 2
    level = arguments[0]
    try:
        with one_at_a_time():
            install_tools(level)
            install_python_packages(level)
    except Missing as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


def say(text: str) -> None:
    """One line of progress."""
    print(f"setup: {text}", flush=True)


# --- programs of the operating system --------------------------------------------------------------------------------


def install_tools(level: str) -> None:
    """Install what is missing with apt-get or brew; raises :class:`Missing` with the command to run by hand."""
    wanted = [tool for tool in TOOLS if tool.level == "run" or level == "dev"]
    missing = [tool for tool in wanted if not any(find(name) for name in tool.names)]
    if not missing:
        return
    for tool in missing:
        say(f"{tool.names[0]} is missing ({tool.what})")
    if shutil.which("apt-get"):
        apt_install([apt_name(tool) for tool in missing])
    elif shutil.which("brew"):
        for arguments in {tuple(tool.brew) for tool in missing}:
            run(["brew", "install", *arguments])
    else:
        names = ", ".join(tool.names[0] for tool in missing)
        raise Missing(f"neither apt-get nor brew was found here; install {names} yourself, then run this again")
    for tool in missing:
        if not any(find(name) for name in tool.names):
            names = " or ".join(name for name in tool.names if not name.startswith("/"))
            raise Missing(f"{tool.apt} was installed, but there is no {names}; install one, or add its folder to PATH")


def apt_name(tool: Tool) -> str:
    """The package's name here: Ubuntu calls one of them otherwise (and installs a snap by it)."""
    try:
        ubuntu = platform.freedesktop_os_release().get("ID") == "ubuntu"
    except (OSError, AttributeError):
        ubuntu = False
    return "chromium-browser" if ubuntu and tool.apt == "chromium" else tool.apt


def find(name: str) -> str | None:
    """The program's path; folders such as /usr/sbin count too, although an ordinary user's PATH lacks them."""
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(SYSTEM_FOLDERS))


def apt_install(packages: list[str]) -> None:
    """apt-get install, after an update where the package lists are absent or stale."""
    prefix = privileged(["apt-get", "install", "-y", *packages])
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    install = [*prefix, *environment, "apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    update = [*prefix, "apt-get", "update", "-q"]
    say(f"installing {' '.join(packages)} with apt-get")
    with services_not_started(prefix):
        if not any(Path("/var/lib/apt/lists").glob("*Packages*")):
            run(update)
        if run(install, may_fail=True) != 0:
            say("that failed; updating the package lists and trying once more")
            run(update)
            run(install)
    services = [tool.service for tool in TOOLS if tool.service and tool.apt in packages]
    if services and Path("/run/systemd/system").exists():
        run([*prefix, "systemctl", "disable", "--now", *(f"{name}.service" for name in services)], may_fail=True)
        say(f"switched off what the packages would start by themselves ({', '.join(services)}): ours run on their own")


def privileged(command: list[str]) -> list[str]:
    """The prefix of a command that needs root: nothing, or sudo."""
    if os.geteuid() == 0:
        return []
    if shutil.which("sudo"):
        quiet = subprocess.run(["sudo", "-n", "true"], stderr=subprocess.DEVNULL, check=False)
        if quiet.returncode == 0 or sys.stdin.isatty():
            return ["sudo"]
    raise Missing(f"this needs root; run this command as root, then run me again:\n\n    {' '.join(command)}\n")


@contextmanager
def services_not_started(prefix: list[str]) -> Iterator[None]:
    """Keep apt from starting the services it installs: they would hold ports for nothing (policy-rc.d, exit 101)."""
    if POLICY.exists():
        yield
        return
    write = f"printf '#!/bin/sh\\nexit 101\\n' > {POLICY} && chmod 755 {POLICY}"
    run([*prefix, "sh", "-c", write])
    try:
        yield
    finally:
        run([*prefix, "rm", "-f", str(POLICY)])


# --- Python ----------------------------------------------------------------------------------------------------------


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Two set-ups of the same clone at once would write into the same folder: the second waits."""
    with open(ROOT / "requirements" / "base.txt") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            say("waiting for another set-up of this clone to end")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def install_python_packages(level: str) -> None:
    """Create .venv and install the pinned requirements; does nothing when it works and its stamp says it is done."""
    stamps = {name: VENV / f"cloudsignal-{name}.stamp" for name in LEVELS}
    wanted = {name: fingerprint(name) for name in LEVELS}
    done = {name for name in LEVELS if stamps[name].exists() and stamps[name].read_text() == wanted[name]}
    interpreter = VENV / "bin" / "python"
    there = works(interpreter)  # the Python it was made with may be gone or have become another one
    if there and (level in done or "dev" in done):
        return
    if not there:
        create_venv()
    requirements = ROOT / "requirements" / ("base.txt" if level == "run" else "dev.txt")
    say(f"installing the Python packages of requirements/{requirements.name} (a minute or two the first time)")
    pip(interpreter, ["--require-hashes", "-r", str(requirements)], total=count(requirements))
    # With the setuptools of the requirements: an isolated build would fetch one that nobody has looked at.
    pip(interpreter, ["--no-build-isolation", "-e", str(ROOT)], total=0)
    stamps[level].write_text(wanted[level])
    say("ready")


def fingerprint(level: str) -> str:
    """The inputs of the environment: the pins, the project's own metadata, and its path."""
    names = ["requirements/base.txt", "pyproject.toml", ".ci/bootstrap.py"]
    if level == "dev":
        names += ["requirements/dev.txt", "requirements/saml.txt"]
    digest = hashlib.sha256(str(ROOT).encode())
    for name in names:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def works(interpreter: Path) -> bool:
    """Whether the environment's Python starts, is new enough and has pip."""
    check = f"import sys, pip; sys.exit(sys.version_info[:2] < {OLDEST})"
    return interpreter.exists() and quietly([str(interpreter), "-c", check])


def create_venv() -> None:
    """Create .venv with the best Python of this machine."""
    python = find_python()
    version = subprocess.check_output([python, "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"])
    name = version.decode().strip()
    if not quietly([python, "-c", "import venv, ensurepip"]):
        package = f"python{'.'.join(name.split('.')[:2])}-venv"
        if not shutil.which("apt-get"):
            raise Missing(f"{python} has no venv module; install {package} or another Python")
        apt_install([package])
    if VENV.exists():
        say(f"{VENV} cannot be used any more; making it anew")
        shutil.rmtree(VENV)
    say(f"creating .venv with Python {name} ({python})")
    run([python, "-m", "venv", str(VENV)])


def find_python() -> str:
    """The path of a Python from 3.11 to 3.13, the running one first; a newer one when there is nothing else."""
    newer = None
    for name in [sys.executable, "python3", "python3.13", "python3.12", "python3.11", "/usr/bin/python3"]:
        path = shutil.which(name)
        if path is None:
            continue
        if quietly([path, "-c", f"import sys; sys.exit(not {OLDEST} <= sys.version_info[:2] <= {NEWEST})"]):
            return path
        if quietly([path, "-c", f"import sys; sys.exit(sys.version_info[:2] < {OLDEST})"]):
            newer = newer or path
    if newer is None:
        raise Missing("Python 3.11 or newer is needed; install it (apt-get install python3.11-venv) and run this again")
    say(f"only {newer} was found, which is newer than what the pinned packages were tried with; trying it")
    return newer


def count(requirements: Path) -> int:
    """How many packages a requirements file and the files it includes name."""
    total = 0
    for line in requirements.read_text().splitlines():
        if line.startswith("-r "):
            total += count(requirements.parent / line[3:].strip())
        elif line and not line.startswith(("#", " ")):
            total += 1
    return total


def pip(interpreter: Path, what: list[str], total: int) -> None:
    """pip install with a line of progress; its whole output is shown when it fails."""
    # Compiling all modules takes as long as fetching them; Python compiles those that are used when they are used.
    command = [str(interpreter), "-m", "pip", "install", "--no-deps", "--no-compile"]
    command += ["--no-input", "--disable-pip-version-check"]
    environment: dict[str, str] = {**os.environ, "PYTHONUNBUFFERED": "1"}
    output: list[str] = []
    seen = 0
    with subprocess.Popen(
        [*command, "--progress-bar", "off", *what],
        cwd=str(ROOT), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None  # noqa: S101
        for line in process.stdout:
            output.append(line)
            if line.startswith(("Collecting ", "Processing ", "Requirement already satisfied")):
                seen += 1
                progress(seen, total)
            elif line.startswith("Installing collected packages") and total:
                progress(seen, total, text="unpacking")
    if sys.stdout.isatty() and total:
        print()
    if process.returncode != 0:
        sys.stdout.write("".join(output[-40:]))
        raise Missing("pip could not install the packages; its last words are above")


def progress(done: int, total: int, *, text: str = "fetching") -> None:
    """``fetching 37 of 110``: on one line in a terminal, every 25 packages elsewhere."""
    if not total:
        return
    if sys.stdout.isatty():
        print(f"\rsetup: {text} {done} of {total}   ", end="", flush=True)
    elif done % 25 == 0 or done == total or text != "fetching":
        say(f"{text} {done} of {total}")


# --- running programs ------------------------------------------------------------------------------------------------


def run(command: list[str], *, may_fail: bool = False) -> int:
    """Run a command with its output on screen; a failure raises :class:`Missing` unless ``may_fail``."""
    try:
        code = subprocess.run(command, cwd=str(ROOT), check=False, stdin=None).returncode
    except OSError as error:
        raise Missing(f"{command[0]} could not be started: {error}") from None
    if code and not may_fail:
        raise Missing(f"this command failed with code {code}: {' '.join(command)}")
    return code


def quietly(command: list[str]) -> bool:
    """Whether the command succeeds; its output is dropped."""
    try:
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    except OSError:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
