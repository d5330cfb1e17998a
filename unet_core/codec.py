"""Dataclasses as JSON and back: what a file holds becomes the dataclass that it was written from, or is refused."""

import dataclasses
import functools
import json
import math
import types
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from unet_core.errors import shown, some

NOT_FINITE = ("nan", "inf", "-inf")
"""How numbers that JSON does not have may be written."""

_LONGEST = 1000
"""Characters of a string."""


OPTIONAL = {"optional": True}
"""Metadata of a dataclass' field that files may lack; it then has its default."""

STORED_NAME = "stored name"
"""The key, in a field's metadata, of what it is called in files where that is not its name."""


def parsed(text: str) -> Any:
    """The values in `text`.

    Raises:
        ValueError: it is no JSON, has a name twice in one object, or a NaN; RecursionError: it nests without end.
    """
    return json.loads(text, object_pairs_hook=once, parse_constant=_refuse)


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which no name comes twice.

    Raises:
        ValueError: one does.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
        raise ValueError(f"stored twice: {some(twice)}")
    return found


def encoded(value: Any) -> Any:
    """`value` as JSON has it: a dataclass becomes an object, a tuple a list, a value with `from_text` a string."""
    if dataclasses.is_dataclass(value):
        kind: Any = type(value)
        return {name: encoded(getattr(value, field)) for field, name, _, _ in _fields(kind)}
    if isinstance(value, Mapping):
        return {name: encoded(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [item if type(item) is str else encoded(item) for item in value]  # of a million names that is quick
    return str(value) if hasattr(value, "from_text") else value


def decoded(kind: Any, value: Any, place: str = "") -> Any:
    """`value`, as JSON has it, as a `kind`: the inverse of `encoded`. Values of the kind itself are taken as well.

    Args:
        kind: a dataclass, whose fields may be of dataclasses, tuples, mappings with names, unions, literals, plain
            values, and classes that have `from_text`; `Any` is taken as it is, and whole numbers as floats.
        value: what was parsed.
        place: where in the file it is, for the message.

    Raises:
        ValueError: it is something else, or has a field too many or too few.
    """
    if kind is Any:
        return value
    parts, origin = get_args(kind), get_origin(kind)
    if origin in (Union, types.UnionType):
        return _one_of(parts, value, place)
    if origin is tuple:
        return _tuple(parts, value, place)
    if origin in (dict, Mapping):
        items = _object(value, place).items()
        return {decoded(str, name, place): decoded(parts[1], item, _inner(place, name)) for name, item in items}
    if origin is Literal:
        fits = isinstance(value, str) and value in parts
    elif dataclasses.is_dataclass(kind):
        return _dataclass(kind, _object(value, place), place)
    elif hasattr(kind, "from_text") and isinstance(value, str):
        return kind.from_text(value)
    elif kind is float and (type(value) in (int, float) or value in NOT_FINITE):
        try:
            return float(value)
        except OverflowError:
            _mismatch(value, place)
    else:
        fits = type(value) is kind
    return value if fits else _mismatch(value, place)


def limited(value: Any, place: str = "") -> Any:
    """The same JSON values, of a file that nobody vouches for.

    Raises:
        ValueError: a string that cannot be printed or is long without need, a number below zero or beyond all bounds.
    """
    if isinstance(value, dict):
        for name, item in value.items():
            limited(name, place)
            limited(item, _inner(place, name))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            limited(item, _inner(place, number))
    elif isinstance(value, str):
        _require(len(value) <= _LONGEST and value.isprintable(), place, f"is {shown(repr(value))}")
    elif isinstance(value, int):
        _require(0 <= value < 2**63, place, f"is {shown(value)}")
    elif isinstance(value, float):
        _require(math.isfinite(value), place, f"is {value}")
    return value


def marked(value: Any) -> Any:
    """Plain values with tuples and dicts marked, which JSON would make lists and give other keys."""
    if isinstance(value, dict):
        return {"dict": [[marked(key), marked(part)] for key, part in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [marked(part) for part in value]}
    return [marked(part) for part in value] if isinstance(value, list) else value


def unmarked(value: Any) -> Any:
    """The inverse of `marked`."""
    if isinstance(value, dict):
        if "dict" in value:
            return {unmarked(key): unmarked(part) for key, part in value["dict"]}
        return tuple(unmarked(part) for part in value["tuple"])
    return [unmarked(part) for part in value] if isinstance(value, list) else value


@functools.cache
def _fields(kind: type) -> tuple[tuple[str, str, Any, bool], ...]:
    """Of every field of a dataclass its name, that in files, its kind, and whether files may lack it."""
    hints = get_type_hints(kind)
    return tuple(
        (
            field.name,
            field.metadata.get(STORED_NAME, field.name),
            hints[field.name],
            field.metadata.get("optional", False),
        )
        for field in dataclasses.fields(kind)
    )


def _dataclass(kind: Any, found: Mapping[str, Any], place: str) -> Any:
    fields = _fields(kind)
    lacking = sorted(name for _, name, _, optional in fields if not optional and name not in found)
    _require(not lacking, place, f"lacks {some(lacking)}")
    unknown = sorted(found.keys() - {name for _, name, _, _ in fields})
    _require(not unknown, place, f"has unknown fields: {some(unknown)}")
    return kind(
        **{field: decoded(hint, found[name], _inner(place, name)) for field, name, hint, _ in fields if name in found}
    )


def _tuple(parts: tuple[Any, ...], value: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        _mismatch(value, place)
    if parts == (str, Ellipsis) and set(map(type, value)) <= {str}:
        return tuple(value)
    kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
    _require(len(kinds) == len(value), place, f"has {len(value)} items, not {len(kinds)}")
    items = enumerate(zip(kinds, value, strict=True))
    return tuple(decoded(kind, item, place and _inner(place, number)) for number, (kind, item) in items)


def _one_of(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    for kind in kinds[:-1]:
        try:
            return decoded(kind, value, place)
        except ValueError:
            continue
    return decoded(kinds[-1], value, place)


def _object(value: Any, place: str) -> Mapping[str, Any]:
    _require(isinstance(value, Mapping), place, f"is a {type(value).__name__}, not an object of fields")
    found: Mapping[str, Any] = value
    return found


def _inner(place: str, name: object) -> str:
    return f"{place}.{shown(name)}" if place else shown(name)


def _mismatch(value: Any, place: str) -> NoReturn:
    raise ValueError(f"{place} is {shown(repr(value))}" if place else shown(repr(value)))


def _require(holds: bool, place: str, what: str) -> None:
    if not holds:
        raise ValueError(f"{place} {what}" if place else f"it {what}")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
