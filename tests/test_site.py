"""The documentation builds as a site without a warning, holds every page, and asks nobody for anything."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SEEN = re.compile(
    r"""(?:<(?:script|img|iframe|source)[^>]*\ssrc|<link[^>]*\shref|@import|url\()\s*=?\s*["'(]?\s*(?:https?:)?//"""
)
"""What a browser fetches by itself from elsewhere; a link that a reader may follow is none."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings_handlers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed, so the site is not built: pip install --group docs")
    folder = tmp_path_factory.mktemp("site")
    told = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert told.returncode == 0, told.stderr
    assert "WARNING" not in told.stderr
    return folder


def test_every_page_of_docs_is_in_the_site(site: Path) -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").is_file(), page.name
    assert not (site / "pages.py").exists()


def test_a_browser_fetches_nothing_from_elsewhere(site: Path) -> None:
    assert SEEN.search('<script src="https://unpkg.com/x">')
    assert SEEN.search("@import url(//fonts.example/x.css)")
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        found = SEEN.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path.name}: {found}"


def test_the_front_page_is_the_readmes_start(site: Path) -> None:
    shown = (site / "index.html").read_text(encoding="utf-8")
    assert "Search your own documents by meaning and by words" in shown
    assert 'href="architectures.html"' in shown
    assert "biencoder.py" not in shown  # the map of the source files stays in the README


def test_the_python_page_has_every_name_of_the_front_door(site: Path) -> None:
    shown = (site / "python.html").read_text(encoding="utf-8")
    for name in ("Collection", "BiEncoder", "CrossEncoder", "Recipe", "Results", "TwinrankError"):
        assert f">{name}</span>" in shown or f"{name}</h3>" in shown or f".{name}" in shown
    assert "Find the <code>k</code> best documents for a query" in shown


def test_every_example_is_shown(site: Path) -> None:
    shown = (site / "examples.html").read_text(encoding="utf-8")
    assert all(f'id="{path.stem}"' in shown for path in (ROOT / "examples").glob("[0-9]*.py"))


def test_the_navigation_names_every_page_once() -> None:
    named = re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    made = {"index.md", "examples.md", "python.md", "changes.md", "contributing.md"}
    assert sorted(named) == sorted({page.name for page in (ROOT / "docs").glob("*.md")} | made)


def test_the_python_in_the_page_of_adapters_imports_what_is_there() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8"), re.DOTALL)
    imports = [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
    ours = [node for node in imports if node.module and node.module.startswith("twinrank.adapters.")]
    assert len(ours) == 5
    for node in ours:
        source = ROOT / f"{(node.module or '').replace('.', '/')}.py"
        defined = {one.name for one in ast.parse(source.read_text(encoding="utf-8")).body if isinstance(one, ast.ClassDef)}
        assert {alias.name for alias in node.names} <= defined
