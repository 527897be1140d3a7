"""The views that a recipe asks for, compared with those that the store holds: made, taken up, refused."""

from __future__ import annotations

from collections.abc import Sequence

from twinrank.encoding import NEXT, ViewPlan
from twinrank.errors import CollectionError, ModelMismatchError
from twinrank.store import Kept, View


def make_views(store: Kept, plans: Sequence[ViewPlan], again: str) -> None:
    """Make room for every view that is not there yet; raises ModelMismatchError where one that is there is another model's.

    A collection that has documents already gets no new view in passing: they would all have to be encoded for it.
    """
    known = {name: view for name, view in store.views().items() if not name.endswith(NEXT)}
    for plan in plans:
        if plan.name not in known:
            if store.count_passages():
                raise ModelMismatchError(
                    f"{store.folder} holds no {plan.name} of {plan.model}; to encode its documents for them: {again} "
                    "(twinrank migrate does it while the collection is searched)"
                )
            add_view(store, plan)
    for plan in plans:
        check_view(store, plan, again, writing=True)
    if unwanted := sorted(set(known) - {plan.name for plan in plans}):
        view = known[unwanted[0]]
        raise ModelMismatchError(
            f"{store.folder} holds {view.name} of {view.model}, and the recipe asks for none; documents added now would lack "
            f"them. Put the recipe back, or drop them: {again}"
        )


def add_view(store: Kept, plan: ViewPlan, *, complete: bool = True) -> View:
    """`complete` allows a view to be complete at once, where there are no passages."""
    return store.add_view(
        plan.name,
        model=plan.model,
        fingerprint=plan.fingerprint,
        dimension=plan.dimension,
        kind=plan.kind,
        settings=plan.settings,
        complete=complete,
    )


def check_view(store: Kept, plan: ViewPlan, again: str, *, writing: bool = False) -> str | None:
    """Make sure that what the store holds is of this model, and all there; `again` is the command that encodes anew.

    For searching, the same model in another number format will do: its vectors are near enough, and a collection made where
    the native engine runs can be searched where it does not; what is returned then says so.
    """
    view = store.views().get(plan.name)
    if view is None:
        raise ModelMismatchError(
            f"{store.folder} holds no {plan.name}; to encode its documents for them with {plan.model}: {again}"
        )
    same = view.fingerprint == plan.fingerprint
    if _model_of(view.fingerprint) != _model_of(plan.fingerprint) or (writing and not same):
        raise ModelMismatchError(
            f"the {plan.name} of {store.folder} were made by {view.model} (fingerprint {view.fingerprint}), and the recipe's "
            f"encoder is {plan.model} (fingerprint {plan.fingerprint}). Put the recipe's model back, "
            f"or encode every document again: {again} (twinrank migrate does it while the old vectors serve)"
        )
    if writing and dict(view.settings) != dict(plan.settings):
        raise ModelMismatchError(
            f"the {plan.name} of {store.folder} are kept as {dict(view.settings)}, and the recipe asks for "
            f"{dict(plan.settings)}. Put the recipe back, or encode every document again: {again}"
        )
    if not view.complete:
        raise CollectionError(
            f"not every passage of {store.folder} has its {plan.name}: an encoding was interrupted; finish it: {again}"
        )
    if same:
        return None
    formats = [fingerprint.split(":")[-1] for fingerprint in (plan.fingerprint, view.fingerprint)]
    return f"queries are encoded in {formats[0]} and the documents were in {formats[1]}: scores differ in the third digit"


def is_kept(store: Kept, plan: ViewPlan) -> bool:
    """Whether the store holds this view as it is asked for, complete or not."""
    view = store.views().get(plan.name)
    asked = (plan.kind, plan.fingerprint, dict(plan.settings))
    return view is not None and (view.kind, view.fingerprint, dict(view.settings)) == asked


def _model_of(fingerprint: str) -> str:
    """A fingerprint without its number format."""
    return fingerprint.split(":")[0]
