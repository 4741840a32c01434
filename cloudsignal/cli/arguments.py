"""Kinds of arguments that several commands take."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

import click

from cloudsignal.errors import quoted

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}


class Duration(click.ParamType[int]):
    """A length of time such as ``90``, ``15m``, ``12h``; in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The seconds."""
        found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", str(value))
        if found is None:
            self.fail(f"{quoted(value)} is no length of time; write seconds, or 15m, 12h, 1d", param, ctx)
        return int(found[1]) * UNITS[found[2]]


class Number(click.IntRange):
    """A whole number from ``min`` to ``max``; says so when it is none."""

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number."""
        try:
            return super().convert(value, param, ctx)  # type: ignore[arg-type]
        except click.BadParameter:
            wanted = f"from {self.min} to {self.max}" if self.max is not None else f"of at least {self.min}"
            self.fail(f"{quoted(str(value))} is no whole number {wanted}", param, ctx)


def claims_of(pairs: tuple[str, ...]) -> dict[str, str | list[str]]:
    """``KEY=VALUE`` pairs as claims; a key that stands twice makes a list."""
    claims: dict[str, str | list[str]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise click.BadParameter(f"{quoted(pair)} is not KEY=VALUE", param_hint="--claim")
        known = claims.get(name)
        if known is None:
            claims[name] = value
        else:
            claims[name] = [*(known if isinstance(known, list) else [known]), value]
    return claims


CLAIM = click.option("--claim", "claims", multiple=True, metavar="KEY=VALUE", help="A claim; repeat it for a list.")
YES = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


Command = TypeVar("Command", bound=Callable[..., int])


def limit(default: int) -> Callable[[Command], Command]:
    """``--limit``: how many rows."""
    return click.option(
        "--limit", type=Number(1, 100_000), default=default, show_default=True, help="Maximum number of rows."
    )
