"""Pages of the site that are made of other files (a hook of MkDocs): nothing is told twice, so nothing can drift."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: Any) -> Files:
    """Add what is made of other files; MkDocs calls this before it reads any page."""
    made = {
        "index.md": index(),
        "examples.md": examples(),
        "python.md": python(),
        "changes.md": read("CHANGELOG.md"),
        "contributing.md": read("CONTRIBUTING.md"),
    }
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def index() -> str:
    """The README as far as its map of the source files; its links lead to the site's own pages."""
    start = read("README.md").partition("\n## The map\n")[0]
    return (
        start.replace("](docs/", "](")
        .replace("](examples)", "](examples.md)")
        .replace("](CHANGELOG.md", "](changes.md")
        .replace("](CONTRIBUTING.md", "](contributing.md")
    )


def examples() -> str:
    """Every example with its first sentence and its source."""
    parts = [
        "# Examples\n\nEach runs offline within seconds, over docstrings of Python itself: `python examples/02_models.py`.\n"
    ]
    for path in sorted((ROOT / "examples").glob("*.py")):
        source = path.read_text(encoding="utf-8")
        sentence = (ast.get_docstring(ast.parse(source)) or "").splitlines()[0]
        parts.append(f"## {path.stem}\n\n{sentence}\n\n```python\n{source}```\n")
    return "\n".join(parts)


def python() -> str:
    """The names at the package's front door, each from its own docstring."""
    tree = ast.parse(read("twinrank/__init__.py"))
    homes = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES"
    )
    blocks = "\n\n".join(f"::: {home}.{name}" for name, home in sorted(homes.items(), key=by_use))
    return f"# Python\n\nThe names that `from twinrank import …` gives.\n\n{blocks}\n"


def by_use(entry: tuple[str, str]) -> tuple[bool, str]:
    """A collection first, for most need nothing else."""
    return entry[0] != "Collection", entry[0].lower()


def read(name: str) -> str:
    return re.sub(r"<!--.*?-->\n?", "", (ROOT / name).read_text(encoding="utf-8"))


class Doctests(griffe.Extension):
    """Examples in docstrings as code: Markdown would read what they print as links."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(r"```pycon\n\g<0>\n```", obj.docstring.value)


DOCTEST = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
