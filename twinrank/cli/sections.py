"""A group of commands whose help lists them in sections, by what they are for, each with a whole sentence."""

from __future__ import annotations

import click


class Sections(click.Group):
    """A `click.Group`; what is added by `add_command` alone stands in the last section."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.sections: dict[str, list[str]] = {}

    def add_section(self, title: str, *commands: click.Command) -> None:
        """Commands under a title, in the order in which they are to be read."""
        for command in commands:
            self.add_command(command)
        self.sections[title] = [command.name for command in commands if command.name]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        known = {name for names in self.sections.values() for name in names}
        others = [name for name in self.list_commands(ctx) if name not in known]
        for title, names in [*self.sections.items(), *([("Others", others)] if others else [])]:
            with formatter.section(title):
                formatter.write_dl(
                    [(name, self.commands[name].get_short_help_str(limit=formatter.width * 4)) for name in names]
                )
