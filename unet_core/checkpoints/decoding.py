"""JSON from a file that nobody vouches for, as the dataclasses it was written from, or not at all."""

import dataclasses
import json
import math
import types
from collections import Counter
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

from unet_core.errors import shown, some

NOT_FINITE = ("nan", "inf", "-inf")
"""How numbers that JSON does not have are written."""

_LONGEST = 1000
"""Characters of a string."""


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


def decoded(kind: Any, value: Any, place: str = "") -> Any:
    """`value`, as `parsed` gives it, as a `kind`: the inverse of `dataclasses.asdict`, with numbers that are not
    finite as strings.

    Args:
        kind: a dataclass, whose fields may be of dataclasses, tuples, dicts with names, unions, literals, strings
            that can be printed, whole numbers from 0 up, floats, and bools; `Any` is taken as it is.
        value: what was parsed.
        place: where in the file it is, for the message.

    Raises:
        ValueError: it is something else, or has a field too many or too few.
    """
    parts = get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        fields = _object(value, place)
        _require(not hints.keys() - fields.keys(), place, f"lacks {some(sorted(hints.keys() - fields.keys()))}")
        _require(
            not fields.keys() - hints.keys(), place, f"has the unknown {some(sorted(fields.keys() - hints.keys()))}"
        )
        return kind(**{name: decoded(hint, fields[name], _inner(place, name)) for name, hint in hints.items()})
    if get_origin(kind) is tuple:
        _require(isinstance(value, list), place, "is no list")
        return tuple(decoded(parts[0], item, _inner(place, number)) for number, item in enumerate(value))
    if get_origin(kind) is dict:
        return {
            decoded(str, name, place): decoded(parts[1], item, _inner(place, name))
            for name, item in _object(value, place).items()
        }
    if kind is Any:
        return value
    if get_origin(kind) in (Union, types.UnionType):
        return _one_of(parts, value, place)
    if get_origin(kind) is Literal:
        _require(isinstance(value, str) and value in parts, place, f"is {shown(repr(value))}")
        return value
    return _plain(kind, value, place)


def _one_of(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    for kind in kinds[:-1]:
        try:
            return decoded(kind, value, place)
        except ValueError:
            continue
    return decoded(kinds[-1], value, place)


def _plain(kind: Any, value: Any, place: str) -> Any:
    if kind is float and value in NOT_FINITE:
        return float(value)
    _require(type(value) is kind, place, f"is {shown(repr(value))}")
    if kind is str:
        _require(len(value) <= _LONGEST and value.isprintable(), place, f"is {shown(repr(value))}")
    if kind is int:
        _require(0 <= value < 2**63, place, f"is {shown(value)}")
    if kind is float:
        _require(math.isfinite(value), place, f"is {value}")
    return value


def _object(value: Any, place: str) -> dict[str, Any]:
    _require(isinstance(value, dict), place, "is no object")
    fields: dict[str, Any] = value
    return fields


def _inner(place: str, name: object) -> str:
    return f"{place}.{shown(name)}" if place else shown(name)


def _require(holds: bool, place: str, what: str) -> None:
    if not holds:
        raise ValueError(f"{place} {what}" if place else f"it {what}")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
