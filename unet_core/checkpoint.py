"""What a checkpoint holds whatever its container: tensors, config, a sha256 of each tensor, and where it came from."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unet_core.config import UNetConfig
from unet_core.dialects import GENERIC, NAMES, OWN, dialect_of
from unet_core.errors import CheckpointError, ConfigError, first_line, some
from unet_core.hub import Tensors, tensor_specs

RECORD_KEY = "unet_twins"
"""Where each container keeps the record: the safetensors metadata, torch's `_metadata`, Orbax's `metadata` item."""

_VERSION = 1


@dataclass(frozen=True)
class Origin:
    """The form in which a network first came, so that it can go back into it."""

    dialect: str = OWN.name
    names: Mapping[str, str] | None = None
    """In the generic dialect, the file's key of every tensor, by the hub's, in the order of the file."""
    riders: Mapping[str, Any] = field(default_factory=dict)
    """What lay among the tensors and is none, such as milesial's `mask_values`."""
    counters: bool = True
    """Whether its BatchNorms had `num_batches_tracked`, which torch has since 0.4.1."""


@dataclass(frozen=True)
class Reading:
    """How a file was understood."""

    sure: str = "certain: stored in the file"
    key: str = ""
    """Where in the file the network lay; empty: it is all there is."""
    wrappers: tuple[str, ...] = ()
    """The prefixes that were taken off its keys."""
    others: tuple[str, ...] = ()
    """The keys of other networks in the file."""
    passengers: tuple[str, ...] = ()
    """What else is in the file, and is not carried over."""
    unknown: tuple[str, ...] = ()
    """The fields of the config that nothing in the file tells; in the config they have their default."""
    assumed: tuple[str, ...] = ()
    """What was taken for granted."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """The file's own key of every tensor, wrappers and all, by the hub's."""


@dataclass(frozen=True)
class Checkpoint:
    """One network's tensors, in the hub's names and layouts, with what describes them."""

    config: UNetConfig
    tensors: Tensors
    origin: Origin = Origin()
    config_stored: bool = True
    """False where the config was read off the tensors' names and shapes."""
    digests_stored: bool = True
    """False where the file has no sha256 to check the tensors against."""
    reading: Reading = Reading()


def digest(tensor: np.ndarray) -> str:
    """The sha256, in hex, of a tensor's dtype, shape and values (little-endian, C order)."""
    values = np.ascontiguousarray(tensor)
    if values.dtype.byteorder == ">":
        values = values.astype(values.dtype.newbyteorder("<"))
    state = hashlib.sha256(f"{values.dtype.name} {list(tensor.shape)}\n".encode())
    state.update(values.reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def file_names(config: UNetConfig, dialect: str, origin: Origin) -> dict[str, str]:
    """The key of every tensor in a file of this dialect, by the hub's, in the order of the file.

    Raises:
        CheckpointError: the dialect is unknown or generic, and `origin` tells no names.
    """
    table = dialect_of(dialect)
    if table is None:
        if origin.dialect != GENERIC or origin.names is None:
            raise CheckpointError(
                f"dialect {dialect}: the network came with names of {origin.dialect}, which has a table"
            )
        return dict(origin.names)
    layers = table.layers(config.depth)
    without = ".num_batches_tracked" if origin.dialect == dialect and not origin.counters else None
    return {
        key: f"{layers[spec.layer]}.{key.rpartition('.')[2]}"
        for key, spec in tensor_specs(config).items()
        if without is None or not key.endswith(without)
    }


def exported(checkpoint: Checkpoint, dialect: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors under the names of a dialect, in its order, and what lies among them in its files.

    Raises:
        CheckpointError: the dialect is unknown, or its project's code would run the network differently.
    """
    table = dialect_of(dialect)
    wrong = table.contradictions(checkpoint.config) if table else []
    if table and wrong:
        raise CheckpointError(f"dialect {dialect}: the code of {table.project} runs another network: {some(wrong)}")
    names = file_names(checkpoint.config, dialect, checkpoint.origin)
    tensors = {name: checkpoint.tensors[key] for key, name in names.items()}
    if dialect == OWN.name or dialect != checkpoint.origin.dialect:
        return tensors, {}
    return tensors, {name: value for name, value in checkpoint.origin.riders.items() if name not in tensors}


def seal(checkpoint: Checkpoint, dialect: str = OWN.name) -> str:
    """The record that is stored beside the tensors: one line of JSON with the config, every digest and the origin."""
    record: dict[str, Any] = {
        "version": _VERSION,
        "config": dataclasses.asdict(checkpoint.config),
        "sha256": {key: digest(value) for key, value in checkpoint.tensors.items()},
    }
    if dialect != OWN.name:
        record["dialect"] = dialect
    if checkpoint.origin != Origin():
        record["origin"] = dataclasses.asdict(checkpoint.origin)
    return json.dumps(record)


@dataclass(frozen=True)
class Record:
    """What `seal` stored."""

    config: UNetConfig
    digests: Mapping[str, str]
    dialect: str
    """Whose names the file's tensors have."""
    origin: Origin


def read_record(text: str, source: str) -> Record:
    """The inverse of `seal`.

    Raises:
        CheckpointError: it is damaged, of a later release, or its config describes no network.
    """
    try:
        parsed: Any = json.loads(text)
        version, config, digests = parsed["version"], parsed["config"], parsed["sha256"]
        if version != _VERSION:
            raise CheckpointError(
                f"{source}: written in format {version!r}, this release reads {_VERSION}; update unet-twins"
            )
        dialect, origin = parsed.get("dialect", OWN.name), Origin(**parsed.get("origin", {}))
        sound = isinstance(digests, dict) and {dialect, origin.dialect} <= set(NAMES) and _is_map(origin.names or {})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{source}: the stored record of config and digests is damaged: {first_line(error)}"
        ) from error
    if not sound:
        raise CheckpointError(f"{source}: the stored record of config and digests is damaged")
    try:
        return Record(UNetConfig.from_dict(config), digests, dialect, origin)
    except ConfigError as error:
        raise CheckpointError(f"{source}: the stored config describes no network: {error}") from error


def unseal(tensors: Tensors, record: Record, source: str) -> None:
    """Hold the tensors, which are those of the config, against their stored digests.

    Raises:
        CheckpointError: a tensor whose sha256 is not the stored one; all are listed.
    """
    changed = [key for key, value in tensors.items() if record.digests.get(key) != digest(value)]
    if changed or len(record.digests) != len(tensors):
        raise CheckpointError(
            f"{source}: the file is damaged: the sha256 of {some(changed) or 'a tensor that is gone'} "
            "is not the stored one; get the file again or restore a copy"
        )


def _is_map(names: Any) -> bool:
    return isinstance(names, dict) and all(isinstance(name, str) for name in names.values())
