"""What a collection says of itself: what it holds, what state its parts are in, what a check found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from twinrank.text import counted


@dataclass(frozen=True)
class IndexStatus:
    """A derived index as it is on disk."""

    name: str
    there: bool
    """False where its file is missing or damaged; it is made anew from the store when it is next searched."""
    behind: int
    """Changes that it takes in from the store when it is opened."""
    passages: int
    size: int
    """Bytes on disk."""
    detail: str = ""
    """How it is searched, and what an approximate one was found to miss."""

    def __str__(self) -> str:
        if not self.there:
            return f"index {self.name}: not there, made anew at the next search"
        behind = f", {counted(self.behind, 'change')} to take in when opened" if self.behind else ""
        detail = f", {self.detail}" if self.detail else ""
        size = f", {_bytes(self.size)}" if self.size else ""
        return f"index {self.name}: {counted(self.passages, 'passage')}{size}{behind}{detail}"


@dataclass(frozen=True)
class ViewStatus:
    """What one model stored of the passages."""

    name: str
    model: str
    fingerprint: str
    dimension: int
    complete: bool
    """False while a re-encoding has not reached every passage."""
    truncated: int | None
    """Passages that were longer than the encoder takes; None where nobody counted them, as in an engine."""
    dropped: int | None
    """Tokens cut off them, which were not encoded."""
    finish: str = ""
    """The command that completes it, where it is not complete."""


@dataclass(frozen=True)
class Status:
    """What a collection holds and what state it is in."""

    path: str
    documents: int
    passages: int
    sequence: int
    """The number of the last change."""
    views: tuple[ViewStatus, ...]
    indexes: tuple[IndexStatus, ...]
    fields: Mapping[str, str]
    """Field → its types and the number of documents that hold it, for people."""
    size: int
    """Bytes on disk, all together; 0 for a collection in an engine."""
    free: int
    """Of them, those that hold nothing; writing uses them, and gives back what is beyond a quarter of the store."""
    writable: bool
    recipe: str
    """As TOML."""
    weights: str = ""
    """What the weights of vectors and words are decided by; empty where nothing was measured."""

    def __str__(self) -> str:
        held = f"{counted(self.documents, 'document')}, {counted(self.passages, 'passage')}"
        held += f", {_bytes(self.size)} on disk" if self.size else ""
        free = f", {_bytes(self.free)} of it free" if self.free else ""
        lines = [f"{self.path}: {held}{free}"]
        if not self.writable:
            lines.append("read only: it can be searched, not changed")
        for view in self.views:
            lines.append(f"view {view.name}: {view.model}, {view.dimension} dimensions, fingerprint {view.fingerprint}")
            if not view.complete:
                lines.append(f"  not complete; what finishes it: {view.finish}")
            if view.truncated is None or view.dropped is None:
                continue
            if view.truncated:
                lines.append(f"  truncated: {counted(view.truncated, 'passage')}, {counted(view.dropped, 'token')} not encoded")
            else:
                lines.append("  truncated: none")
        lines.extend(str(index) for index in self.indexes)
        lines.extend([f"weights: {self.weights}"] if self.weights else [])
        lines.extend(f"field {name}: {summary}" for name, summary in self.fields.items())
        return "\n".join(lines)


@dataclass(frozen=True)
class CheckReport:
    """What `check` looked at and what it found wrong; no problems: all is well."""

    checked: tuple[str, ...]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What is on its way, and harms nothing."""

    @property
    def ok(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        lines = [f"checked: {', '.join(self.checked)}", *(f"note: {told}" for told in self.notes)]
        lines += [f"problem: {problem}" for problem in self.problems]
        return "\n".join([*lines, "all is well" if self.ok else f"{counted(len(self.problems), 'problem')}"])


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
