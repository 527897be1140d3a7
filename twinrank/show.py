"""What the commands print: results for people and for programs, notes, and bars that are silent off a terminal."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from twinrank.errors import TruncationWarning
from twinrank.text import counted

if TYPE_CHECKING:
    from twinrank.collection import Collection
    from twinrank.search.results import Results


def note(text: str) -> None:
    click.echo(text, err=True)


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def results_as_json(results: Results, explain: bool) -> dict[str, Any]:
    hits = [dataclasses.asdict(hit) for hit in results]
    for hit in hits:
        if not explain:
            del hit["stages"]
    return {
        "query": results.query,
        "seconds": results.seconds,
        "stages": [{"stage": name, "seconds": seconds} for name, seconds in results.stages],
        "notes": list(results.notes),
        "certificates": [dataclasses.asdict(certificate) for certificate in results.certificates],
        "plan": results.plan,
        "weights": results.weights,
        "verdict": None if results.verdict is None else dataclasses.asdict(results.verdict),
        "hits": hits,
    }


SNIPPET = 320
"""Characters of a passage shown with a hit: about three lines."""


def show_results(collection: Collection, results: Results, explain: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
    for hit in results:
        marked = collection.marks(results.query, hit.text)
        chance = "" if hit.probability is None else f"{hit.probability:.0%}  "
        shown = (f"{hit.score:.3f}  ", "green"), (chance, "magenta"), (hit.title or hit.id, "bold")
        part = (f"  in {hit.part}", "dim") if hit.part else ""
        head = Text.assemble(f"{hit.rank:>2}  ", *shown, part)
        console.print(head)
        console.print(_snippet(hit.text, marked))
        place = hit.id if hit.source in ("", hit.id) else f"{hit.id}  {hit.source}"
        console.print(Text(f"    {place}", style="dim"))
        if explain:
            for stage in hit.stages:
                found = "not found" if stage.rank is None else f"score {stage.score:.4f}, rank {stage.rank}"
                console.print(Text(f"    {stage.stage}: {found}", style="cyan"))
        console.print()
    if results.verdict is not None and not results.verdict.answered:
        console.print("nothing relevant found")
    elif not len(results):
        console.print("nothing found")
    if results.verdict is not None:
        note(str(results.verdict))
    milliseconds = ", ".join(f"{name} {1000 * seconds:.1f}" for name, seconds in results.stages)
    if explain:
        if results.plan:
            console.print(Text(f"vectors: {results.plan}", style="cyan"))
        if results.weights:
            console.print(Text(results.weights, style="cyan"))
        for certificate in results.certificates:
            console.print(Text(str(certificate), style="cyan"))
    times = f" ({milliseconds})" if explain and milliseconds else ""
    note(f"{len(results)} of {counted(len(collection), 'document')} in {1000 * results.seconds:.1f} ms{times}")


def _snippet(passage: str, marked: Sequence[tuple[int, int]]) -> Any:
    """The part of the passage with most of the query's words, those in bold."""
    from rich.text import Text

    from twinrank.search.explain import snippet

    start, end = snippet(passage, marked, SNIPPET)
    text = Text("    " + ("… " if start else ""))
    shown = Text("".join(" " if character in "\r\n\t" else character for character in passage[start:end]))
    for mark_start, mark_end in marked:
        if mark_start >= start and mark_end <= end:
            shown.stylize("bold yellow", mark_start - start, mark_end - start)
    text.append_text(shown)
    return text.append(" …" if end < len(passage) else "")


class Bar:
    """A progress bar with rate and time left on standard error, silent where that is no terminal."""

    def __init__(self, name: str, total: int | None) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total or None, desc=name, unit="", disable=None, leave=False, file=sys.stderr)

    def update(self, done: int) -> None:
        self._bar.update(done)

    def reach(self, done: int, total: int) -> None:
        """For work that tells how much is done in all."""
        self._bar.update(done - self._bar.n)

    def say(self, text: str) -> None:
        """Words behind the bar."""
        self._bar.set_postfix_str(text)

    @property
    def silent(self) -> bool:
        return bool(self._bar.disable)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


class Bars:
    """One bar after the other, each opened when its work begins."""

    def __init__(self, totals: dict[str, int | None]) -> None:
        self._totals = totals
        self._name = ""
        self._bar: Bar | None = None

    def update(self, name: str, done: int) -> None:
        if name != self._name:
            self.__exit__()
            self._name, self._bar = name, Bar(name, self._totals.get(name))
        assert self._bar is not None
        self._bar.update(done)

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.__exit__()


class truncation_as_note(warnings.catch_warnings):  # noqa: N801
    """Inside, what was cut off is said on standard error as a plain sentence."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("always", TruncationWarning)
        show: Callable[..., None] = warnings.showwarning

        def tell(message: Warning | str, category: type[Warning], *rest: Any, **options: Any) -> None:
            if issubclass(category, TruncationWarning):
                note(str(message))
            else:
                show(message, category, *rest, **options)

        warnings.showwarning = tell
