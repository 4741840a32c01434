"""import-linter's contracts: each covers what it names, and refuses a violation planted in a copy of the tree."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from typing import Any

import pytest

from tests.support.imports import APPS, PROJECT, modules

CONTRACTS: list[dict[str, Any]] = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["tool"][
    "importlinter"
]["contracts"]
NAMES = [str(contract["name"]) for contract in CONTRACTS]
ORDER = "The applications and their rooms have one order"
PLANTED = {
    "Policy, permissions and event kinds are pure": ("acl/policy/engine/model.py", "import cloudsignal.ids"),
    "The transparency log is pure: no framework, no database, no network": (
        "audit/log/tree.py",
        "from audit.kinds import KINDS",
    ),
    "The wire contracts know no framework and no application": ("cloudsignal/wire/keys.py", "import orgs.names"),
    "The edge needs no Django, no database and no signing key": (
        "cloudsignal/edge/timer_wheel.py",
        "from cloudsignal.secrets import keyring",
    ),
    "The front stands before Django and knows nothing of it": ("cloudsignal/proxies.py", "import django.http"),
    "The supervisor and the offline commands need no Django": (
        "cloudsignal/supervisor/ports.py",
        "from django.conf import settings",
    ),
    "The platform's ground knows no application": ("cloudsignal/outbox.py", "from orgs.models import User"),
    "The console stands above every application": ("audit/access.py", "from cloudsignal.console import shell"),
    ORDER: ("orgs/sessions/closing.py", "from acl.services import drafts"),
    "The policy core: analysis above language above engine": (
        "acl/policy/engine/globs.py",
        "from acl.policy.analysis import budget",
    ),
    "The edge's rooms have one order": (
        "cloudsignal/edge/session/memo.py",
        "from cloudsignal.edge.transport import certificates",
    ),
    "The platform's parts have one order": ("cloudsignal/tenancy/scopes.py", "from cloudsignal import outbox"),
    "Only pages, API and URLs import pages and the API of a room": (
        "orgs/people/members.py",
        "from orgs.people import web",
    ),
    "Only pages and the API import the forms of a room": ("orgs/sso/connections.py", "from orgs.sso import forms"),
    "Only the demo's own code knows the demo": ("cloudsignal/supervisor/run.py", "from cloudsignal.demo import cast"),
}
"""By contract: a file, and an import that the contract forbids there."""


def matches(expression: str, found: set[str]) -> bool:
    """Whether a module expression of import-linter (``*`` is one name, ``**`` are several) covers a module."""
    pattern = re.escape(expression).replace(r"\*\*", r"\w+(?:\.\w+)*").replace(r"\*", r"\w+")
    return any(re.fullmatch(pattern, name) for name in found)


def uncovered(contracts: list[dict[str, Any]], found: set[str]) -> list[str]:
    """What the contracts name that does not exist, and what has no place in the order of the applications."""
    wrong = []
    for contract in contracts:
        name = contract["name"]
        containers = contract.get("containers", [])
        layers = [one.strip("() ") for layer in contract.get("layers", []) for one in re.split(r"[:|]", layer)]
        inner = [f"{container}.{layer}" for container in containers for layer in layers] if containers else layers
        named = containers + inner
        for field in ("source_modules", "protected_modules", "allowed_importers", "forbidden_modules"):
            named += contract.get(field, [])
        for one in named:
            ours = one.partition(".")[0] in APPS
            if not (matches(one, found) if ours else find_spec(one)):
                wrong.append(f"{name}: {one} covers no module")
        if name == ORDER:
            rooms = {one for one in found if one.count(".") == 1 and one.partition(".")[0] in {"orgs", "acl", "audit"}}
            wrong += [f"{name}: {one} has no place" for one in sorted(rooms - set(layers)) if not one.endswith(".apps")]
    return wrong


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter says of a copy of the tree with all violations in it."""
    copy = tmp_path_factory.mktemp("walls")
    for app in APPS:
        shutil.copytree(PROJECT / app, copy / app, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(PROJECT / "pyproject.toml", copy / "pyproject.toml")
    for file, planted in PLANTED.values():
        with (copy / file).open("a", encoding="utf-8") as opened:
            opened.write(f"{planted}\n")
    command = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    # The folder that `-c` runs in comes first among the paths, so that the copy is looked at.
    run = subprocess.run([sys.executable, "-c", command], cwd=copy, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    return run.stdout


def broken(report: str) -> dict[str, str]:
    """By contract that is broken: what is said of it."""
    _, _, said = report.partition("Broken contracts")
    parts = re.split(r"\n([^\n]+)\n-{3,}\n", said)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_contract_has_a_violation_to_plant() -> None:
    assert list(PLANTED) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_violation_is_refused_with_its_place(name: str, report: str) -> None:
    file, planted = PLANTED[name]
    importer = file.removesuffix(".py").replace("/", ".")
    said = broken(report)
    assert name in said
    assert re.search(rf"{re.escape(importer)} -> \S+\s+\(l\.\d+\)", said[name]), planted


def test_every_contract_covers_what_it_names() -> None:
    assert uncovered(CONTRACTS, set(modules(PROJECT))) == []


def test_a_contract_that_covers_no_module_is_refused_by_name() -> None:
    contract = {
        "name": "Walls",
        "type": "protected",
        "protected_modules": ["orgs.*.webb"],
        "allowed_importers": ["orgs"],
    }
    assert uncovered([contract], set(modules(PROJECT))) == ["Walls: orgs.*.webb covers no module"]
    layers = {"name": "Layers", "type": "layers", "containers": ["acl"], "layers": ["(web) : (gone)", "models"]}
    assert uncovered([layers], set(modules(PROJECT))) == ["Layers: acl.gone covers no module"]


def test_a_room_without_a_place_in_the_order_is_refused_by_name() -> None:
    found = {*modules(PROJECT), "orgs.certificates"}
    assert uncovered(CONTRACTS, found) == [f"{ORDER}: orgs.certificates has no place"]
