"""The files of settings next to weights: JSON or YAML that nobody vouches for, held to what a network's are like."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from unet_core.codec import parsed
from unet_core.errors import CheckpointError, MissingFrameworkError, first_line, shown

_LARGEST = 10_000_000
"""Bytes of a JSON; nnU-Net's plans have some ten thousand."""

_LARGEST_YAML = 200_000
"""Bytes of a YAML, whose reader is slow."""

_MOST_VALUES = 10_000
_DEEPEST = 12
_LONGEST = 1000
_LARGEST_NUMBER = 1_000_000
"""Of channels, blocks and kernels, the most that a source may ask for."""

_Kind = TypeVar("_Kind")


def read_run_config(path: Path) -> dict[str, Any]:
    """The object in a `.json`, `.yaml` or `.yml` file.

    Raises:
        CheckpointError: it is missing, too large, no such file, or holds something else.
    """
    yaml = path.suffix.lower() in (".yaml", ".yml")
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: is missing, or is no regular file")
        if path.stat().st_size > (_LARGEST_YAML if yaml else _LARGEST):
            raise CheckpointError(f"{path}: is larger than the settings of any network")
        text = path.read_text("utf-8")
        found = _yaml(path)(text) if yaml else parsed(text)
    except OSError as error:
        raise CheckpointError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not sound: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds a {type(found).__name__}, not settings by name")
    return found


def _yaml(path: Path) -> Callable[[str], Any]:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise MissingFrameworkError(f"{path}: PyYAML reads it: pip install pyyaml", name="yaml") from error

    def load(text: str) -> Any:
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(first_line(error)) from error

    return load


def value(settings: Mapping[str, Any], name: str, kind: type[_Kind], source: str) -> _Kind:
    """A setting that must be there, of this type.

    Raises:
        CheckpointError: it is missing, or something else.
    """
    if name not in settings:
        raise CheckpointError(f"{source}: lacks {name}")
    found = settings[name]
    if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
        raise CheckpointError(f"{source}: {name} is {shown(repr(found))}, not a {kind.__name__}")
    return found


def check_arguments(arguments: object, source: str) -> None:
    """Refuse arguments that ask for a network such as nobody trains, or that are no plain values.

    Raises:
        CheckpointError: so they do.
    """
    left, waiting = _MOST_VALUES, [("", 0, arguments)]
    while waiting:
        place, depth, item = waiting.pop()
        left -= 1
        if left < 0 or depth > _DEEPEST:
            raise CheckpointError(f"{source}: has more arguments, or deeper ones, than any network")
        if isinstance(item, Mapping):
            waiting += [(f"{place}.{name}".strip("."), depth + 1, part) for name, part in item.items()]
        elif isinstance(item, list | tuple):
            waiting += [(place, depth + 1, part) for part in item]
        elif not _is_plain(item):
            raise CheckpointError(f"{source}: {shown(place)} is {shown(repr(item))}, such as no network has")


def _is_plain(item: object) -> bool:
    if isinstance(item, bool) or item is None:
        return True
    if isinstance(item, str):
        return len(item) <= _LONGEST and item.isprintable()
    return isinstance(item, int | float) and math.isfinite(item) and abs(item) <= _LARGEST_NUMBER
