"""A collection's calibration: kept, read again when it changed, and refused for another recipe or model than its own."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from twinrank.assembly import Assembly
from twinrank.errors import CalibrationError
from twinrank.places import Place
from twinrank.recipe import Recipe
from twinrank.search.calibrate import Calibration

FILE = "calibration.json"


class Calibrated:
    """A collection's calibration, as it is now; `tell` hears why one that is there is not used."""

    def __init__(self, place: Place, tell: Callable[[str], None]) -> None:
        self.place = place
        self._tell = tell
        self._read: tuple[object, Calibration | str] | None = None
        """What changes when it changes, with what was read, or why that cannot be used."""

    @property
    def _again(self) -> str:
        return f"twinrank calibrate DATA -c {shlex.quote(str(self.place.where))}"

    def keep(self, calibration: Calibration) -> None:
        """Put it in the place of what was there, whole or not at all."""
        self.place.write_text(FILE, calibration.to_json())

    def get(self, assembly: Assembly, *, needed: bool) -> Calibration | None:
        """The calibration that belongs to what is searched with; without one None or, where it is needed, CalibrationError."""
        calibration = self._load()
        if isinstance(calibration, Calibration):
            other = calibration.differences(identity(assembly))
            if not other:
                return calibration
            calibration = f"{self.place.named(FILE)} was fitted with another {', '.join(other)} than is searched with"
        if needed:
            raise CalibrationError(
                f"{calibration or f'{self.place.where} was not calibrated'}, so that hits have no probability; "
                f"fit one on judged queries: {self._again}"
            )
        if calibration is not None:
            self._tell(f"no probabilities: {calibration}; fit it again: {self._again}")
        return None

    def _load(self) -> Calibration | str | None:
        found = self.place.read_text(FILE)
        if found is None:
            self._read = None
            return None
        stamp, read = found
        if self._read is None or self._read[0] != stamp:
            self._read = stamp, self._parse(read)
        return self._read[1]

    def _parse(self, read: Callable[[], str]) -> Calibration | str:
        try:
            return Calibration.from_json(read())
        except (OSError, UnicodeDecodeError, CalibrationError) as error:
            return f"{self.place.named(FILE)} cannot be used: {error}"


def identity(assembly: Assembly) -> dict[str, str]:
    """What a calibration belongs to, part by part: whatever changes scores or which of them there are."""
    recipe = assembly.recipe
    parts = {
        "[retrieve]": repr(recipe.retrieve),
        "[group]": repr(recipe.group),
        "[fuse]": repr(recipe.fuse),
        "[[rerank]]": repr(recipe.rerank),
        "[rewrite]": repr(recipe.rewrite),
        "[passages]": recipe.stored,
        "analyser": assembly.analyzer.fingerprint,
    }
    views = assembly.store.views()
    parts |= {f"model of the {name}": views[name].fingerprint for name in _views(recipe) if name in views}
    for place, settings in enumerate(recipe.rerank, start=1):
        if settings.kind == "cross-encoder":
            parts[f"model of rerank {place}"] = assembly.loaded.scorer(settings).fingerprint
    return parts


def _views(recipe: Recipe) -> tuple[str, ...]:
    """Of the views that a store may hold, those that this recipe may look at."""
    looks = recipe.retrieve.vectors or recipe.retrieve.tokens or any(stage.kind == "maxsim" for stage in recipe.rerank)
    return ("vectors", "tokens") if looks else ()
