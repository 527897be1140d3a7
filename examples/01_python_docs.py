"""The demo: index the documentation that comes with Python itself, ask it three questions, and say how fast that was.

python examples/01_python_docs.py [COLLECTION]
"""

from __future__ import annotations

import ast
import builtins
import inspect
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from time import perf_counter

from tqdm import tqdm

from twinrank import Collection, Document

LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "site-packages", "__pycache__", "turtledemo", "ensurepip", "pydoc_data"}

COMPILED = (
    "itertools",
    "math",
    "cmath",
    "time",
    "zlib",
    "binascii",
    "array",
    "select",
    "unicodedata",
    "collections",
    "datetime",
)
COMPILED += ("sys", "gc", "marshal", "mmap", "re", "io", "os", "struct", "operator", "functools", "socket", "pathlib", "random")
"""Modules that are written in C, in whole or in part: their docstrings are read from the running interpreter."""

SEARCHES = (
    ("merge two sorted lists", None),
    ("run a command and capture what it prints", "kind = 'function'"),
    ("pick a random element from a list", None),
)


def documents() -> list[Document]:
    """Every public docstring of the standard library, and the chapters of the language reference."""
    found = {document.id: document for document in [*reference_documents(), *compiled_documents()]}
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if LEFT_OUT.isdisjoint(parts):
            name = ".".join(part for part in parts if part != "__init__")
            try:
                tree = ast.parse(path.read_text(encoding="utf-8"))
            except (SyntaxError, UnicodeDecodeError):
                continue  # a template or a broken example, not a module
            found.update({document.id: document for document in source_documents(tree, name, name, str(path))})
    return [document for document in found.values() if not is_private(document.id)]


def is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.endswith("__") for part in name.split("."))


def source_documents(node: ast.AST, name: str, module: str, source: str) -> Iterator[Document]:
    """The docstring of a module, class or function, and of all that is defined in it."""
    kinds = {ast.Module: "module", ast.ClassDef: "class", ast.FunctionDef: "function", ast.AsyncFunctionDef: "function"}
    kind = kinds[type(node)]
    text = ast.get_docstring(node)  # type: ignore[arg-type]
    if text and name:
        title = f"{name}({ast.unparse(node.args)})" if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else name
        yield Document(name, text, title, {"kind": kind, "module": module}, source)
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from source_documents(inner, f"{name}.{inner.name}", module, source)


def reference_documents() -> Iterator[Document]:
    """The chapters of the language reference that `help()` shows."""
    from pydoc_data.topics import topics

    for name, text in topics.items():
        yield Document(f"help({name!r})", text, name, {"kind": "chapter", "module": "pydoc_data.topics"}, "compiled")


def compiled_documents() -> Iterator[Document]:
    """The docstrings of the built-in types and of modules written in C, with those of their methods."""
    for module in (builtins, *map(import_module, COMPILED)):
        prefix = "" if module is builtins else f"{module.__name__}."
        for name, thing in vars(module).items():
            if name.startswith("_") or not callable(thing):
                continue
            yield from compiled_document(prefix + name, thing, module.__name__)
            for member, method in vars(thing).items() if isinstance(thing, type) else ():
                if not member.startswith("_") and callable(method):
                    yield from compiled_document(f"{prefix}{name}.{member}", method, module.__name__)


def compiled_document(name: str, thing: object, module: str) -> Iterator[Document]:
    text = inspect.getdoc(thing)
    if text:
        yield Document(
            name, text, name, {"kind": "class" if isinstance(thing, type) else "function", "module": module}, "compiled"
        )


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("python-docs.twinrank")
    if folder.exists() and not (folder / "store.db").exists():
        sys.exit(f"{folder} is there and is no collection; name another place")
    shutil.rmtree(folder, ignore_errors=True)
    print(f"Reading the docstrings of Python {platform.python_version()}'s standard library …", flush=True)
    found = documents()
    started = perf_counter()
    with Collection(folder) as docs:
        with tqdm(total=len(found), unit=" documents", disable=None, leave=False) as bar:
            report = docs.add(found, progress=bar.update)
        elapsed = perf_counter() - started
        print(report)
        print(f"{report.tokens:,} tokens encoded, {report.tokens / elapsed:,.0f} a second, on {_machine()}")
        print(docs.status())
    for query, where in SEARCHES:
        command = ["search", query, "-k", "3", "-c", str(folder), *(["--where", where] if where else [])]
        shown = " ".join(f'"{part}"' if " " in part else part for part in command)
        print(f"\n$ twinrank {shown}\n", flush=True)
        subprocess.run([sys.executable, "-m", "twinrank.cli", *command], check=True)
    program = Path(sys.executable).with_name("twinrank")
    shown_program = program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program
    print(f"""
Ask it something yourself:
  {shown_program} search "read a file line by line" -c {folder} --explain
Then your own documents:
  {shown_program} index FOLDER -c mine.twinrank
  {shown_program} search "…" -c mine.twinrank
In a browser, at http://127.0.0.1:8080:
  {shown_program.with_name("pip")} install -q '.[serve]' && {shown_program} serve -c {folder}""")


def _machine() -> str:
    import os

    return f"{os.cpu_count()} cores ({platform.machine()})"


if __name__ == "__main__":
    main()
