"""Terminal output: tables, times, questions."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import click

from cloudsignal.cli.server import plain


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, nothing: str) -> None:
    """Print rows in columns under ``head``, or ``nothing`` when there are none."""
    cells = [["–" if cell in {None, ""} else plain(cell) for cell in row] for row in rows]
    if not cells:
        click.echo(nothing)
        return
    lines = [list(head), *cells]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for number, line in enumerate(lines):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        click.echo(click.style(text, bold=True) if number == 0 else text)


def cut(rows: Iterable[Any], limit: int) -> tuple[list[Any], bool]:
    """The first ``limit`` of ``rows``, and whether there are more. Ask for one more than ``limit``."""
    found = list(islice(rows, limit + 1))
    return found[:limit], len(found) > limit


def say_more(more: bool, limit: int) -> None:
    """Tell on standard error that a list was cut."""
    if more:
        click.echo(f"the first {limit:,} are shown; use --limit to show more", err=True)


def when(time: str | None) -> str:
    """A time of the API to the second: ``2026-01-31 12:00:00Z``."""
    return f"{time[:19].replace('T', ' ')}Z" if time else ""


def agree(question: str, *, yes: bool) -> bool:
    """Ask for confirmation. Without a terminal, ``--yes`` must have been given."""
    if yes:
        return True
    if not sys.stdin.isatty():
        raise click.UsageError("cannot ask for confirmation here; give --yes")
    return click.confirm(question, err=True)
