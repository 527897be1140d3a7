"""From one model to another: the new views grow beside the old ones, which serve until every passage has its new vectors."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

from twinrank.encoding import NEXT, PassageEncoder, ViewPlan
from twinrank.errors import ModelMismatchError, RecipeError
from twinrank.ingest import AddReport, Ingest
from twinrank.recipe import Recipe
from twinrank.store import Store
from twinrank.views import add_view, is_kept

MIGRATED = "migrated_recipe"
"""Under this name the store keeps the new recipe, from the instant that its views serve until recipe.toml says so."""

MODEL = re.compile(r"""^(\[encoder\][^\[]*?^[ \t]*model[ \t]*=[ \t]*)("[^"\n]*"|'[^'\n]*')""", re.MULTILINE)
"""The model in a recipe's text."""


def with_comments(text: str, recipe: Recipe) -> str | None:
    """A recipe's text with the model of `recipe`, comments and all; None where more than the model differs."""
    edited = MODEL.sub(lambda found: found[1] + json.dumps(recipe.encoder.model, ensure_ascii=False), text, count=1)
    try:
        return edited if Recipe.parse(edited) == recipe else None
    except RecipeError:
        return None


@dataclass(frozen=True)
class Migration:
    """One collection on its way from the views that it has to those of `recipe`; goes on where an earlier one stopped."""

    store: Store
    recipe: Recipe
    encoder: PassageEncoder | None
    writing: Callable[[], AbstractContextManager[None]]
    """Holds the collection for one writer."""

    def check(self) -> None:
        """Raise RecipeError or ModelMismatchError where there is nothing to migrate, or where passages are to be cut anew."""
        if self.encoder is None:
            raise ModelMismatchError(
                "a collection migrates to a model; to do without vectors: twinrank rebuild --encode --model none "
                f"-c {shlex.quote(str(self.store.folder))}"
            )
        cut = self.store.get_meta("passages")
        if cut is not None and cut != self.recipe.stored:
            raise RecipeError(
                f"the passages of {self.store.folder} are {cut}, and the new recipe asks for {self.recipe.stored}; "
                f"that cuts them anew: twinrank rebuild --encode -c {shlex.quote(str(self.store.folder))}, with the same "
                "--model or --recipe"
            )
        wanted = {plan.name for plan in self.encoder.views}
        if wanted == self._served() and all(is_kept(self.store, plan) for plan in self.encoder.views):
            names = " and ".join(plan.model for plan in self.encoder.views)
            raise ModelMismatchError(f"{self.store.folder} has the vectors of {names} already; there is nothing to migrate")

    def run(self, progress: Callable[[int], None] | None = None) -> AddReport:
        """Encode every passage, while others search and write, and put the new views in the place of the old at once.

        A passage that is longer than the new model takes is cut, and counted in the report.
        """
        assert self.encoder is not None
        report = AddReport()
        for plan in self._plans():
            self._begin(plan)
        self._encode(report, progress)
        with self.writing():
            self._encode(report, progress)  # what others added meanwhile
            successors = {plan.name.removesuffix(NEXT): plan.name for plan in self._plans()}
            unwanted = self._served() - set(successors)
            self.store.replace_views(successors, unwanted, {MIGRATED: self.recipe.to_toml()})
        return report

    def _plans(self) -> list[ViewPlan]:
        assert self.encoder is not None
        return [plan.successor() for plan in self.encoder.views]

    def _served(self) -> set[str]:
        return {name for name in self.store.views() if not name.endswith(NEXT)}

    def _begin(self, plan: ViewPlan) -> None:
        if plan.name in self.store.views() and not is_kept(self.store, plan):  # on the way to yet another model
            self.store.drop_view(plan.name)
        add_view(self.store, plan, complete=False)

    def _encode(self, report: AddReport, progress: Callable[[int], None] | None) -> None:
        ingest = Ingest(self.store, self.encoder, self.recipe.passages)
        for plan in self._plans():
            ingest.encode_missing(self.store, plan.name.removesuffix(NEXT), report, progress, into=plan.name)
