"""A group that imports its commands when they are used: ``cloudsignal version`` does not wait for what ``up`` needs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """Commands by name, each as ``module:attribute``, in sections; and other names of some of them."""

    def __init__(
        self, *args: Any, sections: Mapping[str, Mapping[str, str]], aliases: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(*args, **kwargs)
        self.sections = sections
        self.aliases = dict(aliases or {})
        self.targets = {name: target for section in sections.values() for name, target in section.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the sections, without the other names."""
        return [*self.targets, *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None when there is none of that name."""
        name = self.aliases.get(cmd_name, cmd_name)
        if name not in self.targets:
            return super().get_command(ctx, name)
        module, _, attribute = self.targets[name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Every section with what its commands do."""
        width = max(len(self._shown(name)) for name in self.list_commands(ctx))
        for title, section in self.sections.items():
            names = [*section, *(self.commands if title == list(self.sections)[-1] else ())]
            rows = [(self._shown(name).ljust(width), self._help(ctx, name)) for name in names]
            with formatter.section(title):
                formatter.write_dl(rows)

    def _shown(self, name: str) -> str:
        others = [alias for alias, target in self.aliases.items() if target == name]
        return ", ".join([name, *others])

    def _help(self, ctx: click.Context, name: str) -> str:
        command = self.get_command(ctx, name)
        return command.get_short_help_str(limit=90) if command else ""
