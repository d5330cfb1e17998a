"""From what a file holds to one network under the canonical names: which dialect and config, how sure, what beside
it.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unet_core.checkpoints.checkpoint import BLOCK_ORDER, Checkpoint, Origin, Reading, file_names, read_record, unseal
from unet_core.checkpoints.contents import Candidate, Contents
from unet_core.checkpoints.dialects import GENERIC, OWN, dialect_of
from unet_core.checkpoints.evidence import by_dialect
from unet_core.checkpoints.recognition import Network, chosen, networks
from unet_core.config import UNetConfig
from unet_core.errors import CheckpointError, ConfigError, counted, some
from unet_core.graph import Graph
from unet_core.graph.canonical import (
    COUNTER,
    Description,
    check_tensors,
    differ,
    in_forward_order,
    infer_config,
    named_by,
    tensor_specs,
)

SEMANTICS = ("align_corners", "skip_first", "fit", "output", "norm_epsilon", "norm_momentum")
"""The fields of a config that no shape tells."""

_FORWARD = "3x3 convolutions with padding 1, ReLU after each BatchNorm, 2x2 max-pools"

_COUNTER_NAME = "num_batches_tracked"


@dataclass(frozen=True)
class Hints:
    """What a person knows of a file that it does not tell itself; None: nothing.

    Examples:
        >>> import conversion
        >>> conversion.Hints(key="ema", output="logits").align_corners is None  # not known
        True
    """

    key: str | None = None
    """Where in the file the network lies, e.g. `ema` or `state_dict.model`."""
    dialect: str | None = None
    """Whose names the tensors have: one of `unet_core.checkpoints.dialects.NAMES`."""
    align_corners: bool | None = None
    skip_first: bool | None = None
    fit: str | None = None
    output: str | None = None
    norm_epsilon: float | None = None
    norm_momentum: float | None = None
    where_needed: bool = False
    """Of a file that stores its config, ignore the rest."""

    @property
    def semantics(self) -> dict[str, Any]:
        """The fields of the config that are given."""
        return {name: value for name in SEMANTICS if (value := getattr(self, name)) is not None}


NO_HINTS = Hints()


def read_contents(contents: Contents, hints: Hints = NO_HINTS) -> Checkpoint:
    """The network that a file holds, under the canonical names. Its values are judged by `soundness`, not here.

    Raises:
        CheckpointError: no network of the family is in it, or its tensors, its record and the hints do not fit
            together; every offending tensor is listed.
    """
    if hints.dialect is not None:
        dialect_of(hints.dialect)
    if contents.record is not None:
        return _sealed(contents, contents.record, hints)
    try:
        found = networks(contents, key=hints.key, dialect=hints.dialect)
        network = chosen(found, contents.source)
    except CheckpointError as error:
        if not contents.code:
            raise
        raise CheckpointError(
            f"{error}; its tensors are those of {some(dict.fromkeys(contents.code.values()))}: name its code with "
            "--module FILE.py:Class, or where you trust the file add --trust, which loads and runs it"
        ) from error
    return _read(network, contents, hints, [other.candidate for other in found if other is not network])


def _sealed(contents: Contents, text: str, hints: Hints) -> Checkpoint:
    """Hold the tensors against the record that was stored with them."""
    source = contents.source
    record = read_record(text, source)
    stored = {**record.config.to_dict(), "dialect": record.dialect, "key": None}
    said = {**hints.semantics, "dialect": hints.dialect, "key": hints.key}
    wrong = [
        f"{name} {value} (stored: {stored.get(name)})"
        for name, value in said.items()
        if value not in (None, stored.get(name))
    ]
    if wrong and not hints.where_needed:
        raise CheckpointError(f"{source}: what is stored in the file contradicts what you say: {some(wrong)}")
    fetched = _fetched(contents, record.config)
    counted = any(name.endswith(_COUNTER_NAME) for name in fetched)  # an Orbax directory has counters, whatever came
    names = file_names(
        record.config, record.dialect, dataclasses.replace(record.origin, counters=counted or record.origin.counters)
    )
    keys = {name: key for key, name in names.items()}
    extra = [name for name in fetched if name not in keys]
    tensors = {keys[name]: value for name, value in fetched.items() if name in keys}
    tensors |= {key: _no_count() for key in tensor_specs(record.config) if key not in names}
    check_tensors(tensors, record.config, source, names=names, extra=extra)
    unseal(tensors, record, source)
    extras = json.loads(record.origin.extras)
    beside = tuple(f"{name} {value}{' (kept)' if name in extras else ''}" for name, value in contents.beside.items())
    reading = Reading(beside=beside, keys=names, inert=contents.inert)
    tensors = in_forward_order(tensors, record.config)
    return Checkpoint(
        record.config, tensors, record.origin, reading=reading, dialect=record.dialect, evidence=record.evidence
    )


def _fetched(contents: Contents, config: Description) -> dict[str, np.ndarray]:
    """The tensors of a file with a record, each under its first name.

    Raises:
        CheckpointError: under two names of one tensor there are two.
    """
    names = contents.groups.get("", {})
    if not isinstance(config, Graph):
        return contents.fetch("", list(names))
    again = {name: tensor.same_as for name, tensor in config.tensors.items() if name in names}
    again = {name: first for name, first in again.items() if first in names}
    fetched = contents.fetch("", [name for name in names if name not in again])
    # One by one: they may share the memory of the first.
    apart = [name for name, first in again.items() if differ(contents.fetch("", [name])[name], fetched[str(first)])]
    if apart:
        raise CheckpointError(f"{contents.source}: is one tensor in the network, but two here: {some(apart)}")
    return fetched


def _read(network: Network, contents: Contents, hints: Hints, others: list[Candidate]) -> Checkpoint:
    source, place, dialect, names = contents.source, network.candidate, network.dialect, network.names
    told = {**(dialect.rule if dialect else {}), **hints.semantics}
    config = _config(network, told, source)
    fetched = contents.fetch(place.group, list(place.keys.values()))
    tensors = {key: fetched[place.keys[name]] for key, name in names.items()}
    counters = any(key.endswith(_COUNTER_NAME) for key in names)
    if not counters:
        tensors |= {key: _no_count() for key in tensor_specs(config) if key.endswith(_COUNTER_NAME)}
    taken = set(names.values())
    extra = [name for name in place.shapes if name not in taken]
    check_tensors(tensors, config, source, names=named_by(network.layers, config), extra=extra)
    asked = dialect.asks if dialect else _questions(config)
    unknown = tuple(name for name in asked if name not in told)
    if not network.unique and hints.dialect != GENERIC:
        unknown = (*unknown, BLOCK_ORDER)
    origin = Origin(
        dialect=dialect.name if dialect else GENERIC,
        names=None if dialect else tuple(names.items()),
        extras=json.dumps({} if dialect is OWN else contents.extras.get(place.group, {})),
        counters=counters,
    )
    reading = Reading(
        sure=network.sure,
        key=place.label,
        wrappers=place.wrappers,
        others=tuple(other.label for other in others),
        beside=tuple(_beside(contents, place, json.loads(origin.extras), others)),
        unknown=unknown,
        assumed=(*(() if dialect else (_FORWARD,)), *_assumed(config, told, unknown, counters=counters)),
        overruled=tuple(
            f"{name} {value}, where {dialect.project} has {dialect.rule[name]}"
            for name, value in (hints.semantics.items() if dialect else ())
            if dialect and dialect.rule.get(name, value) != value
        ),
        inert=contents.inert,
        code=contents.code.get(place.group, ""),
        keys={key: place.keys[name] for key, name in names.items()},
    )
    return Checkpoint(
        config,
        in_forward_order(tensors, config),
        origin,
        config_stored=False,
        digests_stored=False,
        dialect=origin.dialect,
        reading=reading,
        evidence=by_dialect(origin.dialect, stored=False),
    )


def _config(network: Network, told: Mapping[str, Any], source: str) -> UNetConfig:
    """The config by the shapes of the tensors, with what the dialect and a person tell.

    Raises:
        CheckpointError: they fit no network, or another one than the dialect's.
    """
    config = infer_config({key: network.candidate.shapes[name] for key, name in network.names.items()}, source)
    try:
        config = dataclasses.replace(config, **{name: value for name, value in told.items() if name in SEMANTICS})
    except ConfigError as error:
        raise CheckpointError(f"{source}: {error}") from error
    if network.dialect and config.upsampling != told.get("upsampling", config.upsampling):
        raise CheckpointError(
            f"{source}: has names of {network.dialect.project}, but no transposed convolutions as its network has"
        )
    return config


def _questions(config: UNetConfig) -> tuple[str, ...]:
    """What a network without a table leaves open."""
    return ("skip_first", "output", *(("align_corners",) if config.upsampling == "bilinear" else ()))


def _assumed(config: UNetConfig, told: Mapping[str, Any], unknown: tuple[str, ...], *, counters: bool) -> Iterator[str]:
    transposed = config.upsampling == "transposed"
    idle = ("align_corners",) if transposed and config.fit == "pad" else ()
    for name in SEMANTICS:
        if name not in (*told, *unknown, *idle):
            odd = name == "fit" or (name == "align_corners" and transposed)
            yield f"{name} {getattr(config, name)}{' (for odd sizes)' if odd else ''}"
    if not counters:
        yield f"{_COUNTER_NAME} 0 (the file has none)"


def _beside(contents: Contents, place: Candidate, extras: Mapping[str, Any], others: list[Candidate]) -> Iterator[str]:
    """What is in the file beside the networks, one entry for each of the outermost keys."""
    taken = {(other.group, key) for other in (place, *others) for key in other.keys.values()}
    counts: Counter[str] = Counter()
    for group, shapes in contents.groups.items():
        left = [key for key in shapes if (group, key) not in taken]
        together = Counter(key.split(".")[0] for key in left)
        for key in left:
            top = key.split(".")[0]
            alike = top if together[top] > 1 else key
            counts[alike if group in ("", place.group) else group.split(".")[0]] += 1
    networks = (place, *others)
    yield from (f"{name} ({counted(count, 'tensor')})" for name, count in counts.items())
    for key, value in contents.beside.items():
        if key in extras:
            yield f"{key} {extras[key]} (kept)"
        elif (
            "." not in key and key not in counts and not any(f"{one.group}.".startswith(f"{key}.") for one in networks)
        ):
            yield f"{key} {value}"


def _no_count() -> np.ndarray:
    return np.zeros((), COUNTER)
