"""A module is short enough to be read at once, or says beside its docstring why it is not."""

from __future__ import annotations

from pathlib import Path

from tests.support.imports import PROJECT, modules

LINES_MAX = 400
REASON = "# Over 400 lines: "
SHORTER = {"cloudsignal.edge.node": 350, "cloudsignal.edge.session.machine": 350}
"""What everything else is wired to stays shorter still, whatever the reason."""


def too_long(root: Path, limit: int = LINES_MAX) -> list[str]:
    """The modules under ``root`` that are longer than they may be, and reasons that are needed no more."""
    wrong = []
    for name, path in modules(root).items():
        lines = path.read_text("utf-8").splitlines()
        place = f"{path.relative_to(root)}: {len(lines)} lines"
        reason = any(line.startswith(REASON) for line in lines)
        if len(lines) > SHORTER.get(name, limit) and (name in SHORTER or not reason):
            wrong.append(f'{place}; at most {SHORTER.get(name, limit)}, or write "{REASON}WHY" below the docstring')
        if reason and len(lines) <= limit:
            wrong.append(f"{place}; take its reason for more than {limit} away")
    return wrong


def test_long_modules_say_why() -> None:
    assert too_long(PROJECT) == []


def test_a_long_module_without_a_reason_is_refused_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "orgs" / "people").mkdir(parents=True)
    module = tmp_path / "orgs" / "people" / "members.py"
    module.write_text('"""Members."""\n' + "X = 1\n" * LINES_MAX)
    [found] = too_long(tmp_path)
    assert found.startswith("orgs/people/members.py: 401 lines; at most 400")
    module.write_text(f'"""Members."""\n{REASON}a table.\n' + "X = 1\n" * LINES_MAX)
    assert too_long(tmp_path) == []
    module.write_text(f'"""Members."""\n{REASON}a table.\n')
    assert too_long(tmp_path) == ["orgs/people/members.py: 2 lines; take its reason for more than 400 away"]


def test_no_reason_makes_the_wiring_longer(tmp_path: Path) -> None:
    (tmp_path / "cloudsignal" / "edge").mkdir(parents=True)
    (tmp_path / "cloudsignal" / "edge" / "node.py").write_text(f"{REASON}wiring.\n" + "X = 1\n" * LINES_MAX)
    [found] = too_long(tmp_path)
    assert found.startswith("cloudsignal/edge/node.py: 401 lines; at most 350")
