"""The house keeps its rules: imports point down, importing is light, every file says what it is, the maps are true.

python tests/test_house.py writes the maps: of the rooms into the README, of every file into docs/map.md.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import requires
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "twinrank"

FLOORS = [
    {"types", "errors"},
    {"conditions", "files", "loopback", "parts", "tables", "text", "pairs", "quantization", "engine"},
    {"stopping", "calibration", "reliability"},
    {"readers", "store", "maxsim", "scan", "together", "abstention"},
    {"models", "index", "search"},  # rooms on one floor do not import each other
    {"recipe", "status"},
    {"encoding"},
    {"preparation"},
    {"ingest", "keepers", "loaded", "learned", "views", "weighing"},
    {"derived", "migration", "workers"},
    {"assembly", "places"},
    {"calibrated", "answer"},
    {"asking"},
    {"collection"},
    {"following", "archive", "moving", "explain", "adapters"},
    {"evaluate"},
    {"tune"},
    {"train"},
    {"show"},
    {"serve", "mcp"},
    {"cli"},
    {"__main__"},
]
MAP = re.compile(r"(?<=<!-- map -->\n```\n).*?(?=```\n<!-- /map -->)", re.DOTALL)


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if name in rooms)


def imported_rooms(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" if node.module == "twinrank" else node.module for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "twinrank" and len(parts) > 1 and is_room(parts[1]):
                yield parts[1]


def is_room(name: str) -> bool:
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_from_its_own_room_and_from_below(path: Path) -> None:
    here = room(path)
    for other in imported_rooms(path):
        assert other == here or floor(other) < floor(here), f"{path.name} in {here} imports {other}"


def test_the_rule_about_imports_would_notice_a_break(tmp_path: Path) -> None:
    offender = tmp_path / "offender.py"
    offender.write_text("def f():\n    from twinrank.collection import Collection\nimport twinrank.index.words\n")
    assert sorted(imported_rooms(offender)) == ["collection", "index"]


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_opens_with_one_sentence_that_fits_a_line(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert docstring.splitlines()[0].endswith((".", ":"))


def house_map(*, rooms: bool) -> str:
    """Every file with its first sentence, from the ground up; with `rooms`, a folder stands for what is in it."""
    lines = []
    for path in sorted(sources(), key=lambda path: (floor(room(path)), path.parent != PACKAGE, str(path))):
        name = str(path.relative_to(PACKAGE)).replace("/__init__.py", "/")
        if rooms and "/" in name.removesuffix("/"):
            continue
        sentence = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]
        lines.append(f"{name:<{16 if rooms else 30}} {sentence}\n")
    return "".join(lines)


MAPS = {ROOT / "README.md": True, ROOT / "docs" / "map.md": False}
"""Pages that hold a map, and whether it is one of rooms only."""


@pytest.mark.parametrize("page", MAPS, ids=lambda page: page.name)
def test_a_map_is_made_of_the_files_first_sentences(page: Path) -> None:
    shown = MAP.search(page.read_text(encoding="utf-8"))
    assert shown is not None
    assert shown[0] == house_map(rooms=MAPS[page]), "run python tests/test_house.py"


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_twinrank_loads_no_heavy_library() -> None:
    loaded = run_python("import sys, twinrank; print(*sys.modules)").split()
    heavy = {
        "numpy",
        "torch",
        "tokenizers",
        "huggingface_hub",
        "tantivy",
        "httpx",
        "requests",
        "urllib.request",
        "socket",
        "rich",
    }
    assert heavy.isdisjoint(loaded)


def test_importing_twinrank_takes_less_than_150_ms() -> None:
    """Measured inside the process, the best of five, so that a busy machine does not decide."""
    code = "import time; t = time.perf_counter(); import twinrank; print(time.perf_counter() - t)"
    assert min(float(run_python(code)) for _ in range(5)) < 0.150


def test_every_name_at_the_front_door_can_be_imported() -> None:
    import twinrank

    for name in twinrank.__all__:
        assert getattr(twinrank, name) is not None
    assert set(twinrank.__all__) <= set(dir(twinrank))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        twinrank.Nonsense  # noqa: B018


def test_the_core_asks_for_no_inference_framework() -> None:
    core = [line for line in requires("twinrank") or [] if "extra ==" not in line]
    names = {re.split(r"[<>=!~;\[ (]", line)[0].lower() for line in core}
    assert names
    assert names.isdisjoint(
        {"torch", "transformers", "sentence-transformers", "onnxruntime", "openvino", "tensorflow", "scipy"}
    )


def imports_torch(path: Path, *, at_the_top: bool = False) -> bool:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_the_top else ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if any(name.split(".")[0] in ("torch", "transformers", "sentence_transformers") for name in names):
            return True
    return False


def test_torch_is_asked_for_by_training_and_by_clip_alone() -> None:
    allowed = {PACKAGE / "models" / "clip.py", *(PACKAGE / "train").glob("*.py")}
    assert {path for path in sources() if imports_torch(path)} <= allowed


def test_torch_is_not_loaded_before_it_is_needed() -> None:
    """What needs it at the top of the file is imported inside of functions only, by whoever wants it."""
    needing = {path for path in sources() if imports_torch(path, at_the_top=True)}
    assert {path.parent for path in needing} <= {PACKAGE / "train"}
    names = {f"twinrank.train.{path.stem}" for path in needing}
    for path in set(sources()) - needing:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert names.isdisjoint(node.module for node in tree.body if isinstance(node, ast.ImportFrom)), path


if __name__ == "__main__":
    for page, rooms in MAPS.items():
        page.write_text(
            MAP.sub(lambda _, rooms=rooms: house_map(rooms=rooms), page.read_text(encoding="utf-8")), encoding="utf-8"
        )
