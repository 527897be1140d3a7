"""docs/cli.md is what the commands say of themselves.

python tests/test_cli_page.py writes it.
"""

from __future__ import annotations

from pathlib import Path

import click

from twinrank.cli import twinrank
from twinrank.cli.sections import Sections

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
HEAD = """# Commands

`-c DIR` names a collection's directory, or its address in an engine ([`milvus://localhost:19530/papers`](scale.md)); without it
`.twinrank` in the current directory is taken. Results go to standard output, all else to standard error; `--json` prints one
JSON document; an error is one sentence and a status other than 0.
"""


def page(group: Sections) -> str:
    """Every command with its help, in the sections and the order of `twinrank --help`."""
    parts = [HEAD]
    for title, names in group.sections.items():
        parts.append(f"## {title}\n")
        parts.extend(f"### {name}\n\n```text\n{told(group, name)}\n```\n" for name in names)
    return "\n".join(parts)


def told(group: click.Group, name: str) -> str:
    context = click.Context(group, info_name="twinrank", **group.context_settings)
    inner = click.Context(group.commands[name], context, name, terminal_width=110, max_content_width=110)
    return inner.get_help()


def test_the_page_of_commands_is_what_they_say_of_themselves() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(twinrank), "run python tests/test_cli_page.py"


def test_every_command_is_in_a_section() -> None:
    assert sorted(name for names in twinrank.sections.values() for name in names) == sorted(twinrank.commands)


if __name__ == "__main__":
    PAGE.write_text(page(twinrank), encoding="utf-8")
