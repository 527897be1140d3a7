"""A query → the forms in which it is searched: as it was asked, and translated into the documents' language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rewrite:
    """Rewrites a query, and says whether the original is searched beside it."""

    name: str
    change: Callable[[str], str]
    keep: bool = True

    def __call__(self, query: str) -> tuple[str, ...]:
        """The forms to search, the rewritten one last: rerankers read that. One form where nothing was changed.

        >>> Rewrite("shout", str.upper)("honey")
        ('honey', 'HONEY')
        """
        changed = self.change(query).strip()
        if not changed or changed == query:
            return (query,)
        return (query, changed) if self.keep else (changed,)
