"""Settings as TOML: tables ↔ frozen dataclasses; what is left out keeps its default, what is wrong is refused by name."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from twinrank.errors import InputError, RecipeError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

T = TypeVar("T")


def parse(kind: type[T], toml: str, name: str) -> T:
    """Read a dataclass whose fields are tables from TOML; raises RecipeError that names the key."""
    try:
        tables = tomllib.loads(toml)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{name} is not valid TOML: {error}") from error
    return build(kind, tables, name)


def load(kind: type[T], path: str | Path, otherwise: str = "give a TOML file") -> T:
    """Read a dataclass from a TOML file; `otherwise` says what to do where there is none."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"the recipe {str(path)!r} cannot be read ({error}); {otherwise}") from error
    return parse(kind, text, str(path))


def build(kind: type[T], tables: Mapping[str, Any], where: str) -> T:
    """Make a settings dataclass from a TOML table; unknown keys and wrong types are refused by name."""
    known = get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in tables.items():
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known here: {', '.join(known)}"
            raise RecipeError(f"{where}: unknown key {key!r}{hint}")
        values[key] = _value(known[key], key, value, f"{where}, {key}")
    try:
        return kind(**values)
    except InputError as error:
        raise RecipeError(f"{where}: {error}") from error
    except TypeError as error:  # a required key is missing
        raise RecipeError(f"{where}: {str(error).split('__init__() ')[-1]}") from error


def _value(hint: Any, key: str, value: Any, where: str) -> Any:
    options = [one for one in get_args(hint) if one is not NoneType]
    if NoneType in get_args(hint) and len(options) == 1:
        return _value(options[0], key, value, where)
    if is_dataclass(hint):
        if not isinstance(value, dict):
            raise RecipeError(f"{where}: expected a table, got {value!r}")
        return build(hint, value, where)  # type: ignore[arg-type]  # a class, not an instance
    if get_origin(hint) is tuple:
        return _values(options[0], key, value, where)
    expected = hint if hint in (int, float, bool) else str  # of a Literal too, whose choices the dataclass checks
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise RecipeError(f"{where}: expected {expected.__name__}, got {value!r}")
    return value


def _values(item: Any, key: str, value: Any, where: str) -> tuple[Any, ...]:
    if is_dataclass(item):
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise RecipeError(f"{where}: expected [[{key}]] tables, got {value!r}")
        return tuple(build(item, one, where) for one in value)  # type: ignore[arg-type]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise RecipeError(f"{where}: expected a list of names, got {value!r}")
    return tuple(value)


def dump(settings: Any) -> str:
    """All tables of a dataclass in full, defaults included, so that reading it tells everything."""
    single, several = [], []
    for item in fields(settings):
        value = getattr(settings, item.name)
        if isinstance(value, tuple):
            several += [_table(f"[[{item.name}]]", one) for one in value]
        elif value is not None:
            single.append(_table(f"[{item.name}]", value))
    return "\n\n".join(single + several) + "\n"


def _table(header: str, settings: Any) -> str:
    lines = [header]
    for item in fields(settings):
        value = getattr(settings, item.name)
        if value is not None:
            lines.append(f"{item.name} = {_toml(value)}")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)  # a TOML basic string is a JSON string
    if is_dataclass(value):
        return "{ " + ", ".join(f"{item.name} = {_toml(getattr(value, item.name))}" for item in fields(value)) + " }"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)


def check_choice(where: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RecipeError(f"{where}: expected one of {', '.join(choices)}, got {value!r}")


def check_range(where: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise RecipeError(f"{where}: expected {low} to {high}, got {value}")
