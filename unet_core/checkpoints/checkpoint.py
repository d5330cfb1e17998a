"""What a checkpoint holds whatever its container: tensors, config, a sha256 of each tensor, and where it came from."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unet_core.checkpoints.dialects import GENERIC, NAMES, OWN, dialect_of
from unet_core.checkpoints.evidence import OURS, Evidence, by_dialect
from unet_core.codec import OPTIONAL, STORED_NAME, decoded, encoded, limited
from unet_core.config import UNetConfig
from unet_core.data.formats.reading import Pictures
from unet_core.data.labels import Classes
from unet_core.errors import CheckpointError, ConfigError, DataError, first_line, some
from unet_core.graph import Graph
from unet_core.graph.canonical import Description, Tensors, named_by, tensor_specs, under_all_names
from unet_core.graph.initial import initial_tensors

RECORD_KEY = "unet_twins"
"""Where each container keeps the record: the safetensors metadata, torch's `_metadata`, Orbax's `metadata` item."""

BLOCK_ORDER = "block_order"
"""In `Reading.unknown`: which block is which, where the shapes fit in several ways."""

_VERSION = 1

LONGEST_RECORD = 20_000_000
"""Characters; the graph of the largest known networks has a tenth of that."""


@dataclass(frozen=True)
class Origin:
    """The form in which a network first came, so that it can go back into it. Hashable: a JAX model carries it."""

    dialect: str = OWN.name
    names: tuple[tuple[str, str], ...] | None = field(default=None, metadata=OPTIONAL)
    """In the generic dialect, the canonical name of every tensor and the file's, in the order of the file."""
    extras: str = field(default="{}", metadata={STORED_NAME: "riders", **OPTIONAL})
    """JSON of what lay among the tensors and is none, such as milesial's `mask_values`."""
    counters: bool = field(default=True, metadata=OPTIONAL)
    """Whether its BatchNorms had `num_batches_tracked`, which torch has since 0.4.1."""
    pictures: Pictures | None = field(default=None, metadata=OPTIONAL)
    """How the pictures were read that it was trained on, where that was not as they are stored."""
    classes: Classes | None = field(default=None, metadata=OPTIONAL)
    """What stood for its classes in the masks that it was trained on, where it was trained on masks of this project."""


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
    beside: tuple[str, ...] = ()
    """What else is in the file, and is not carried over."""
    unknown: tuple[str, ...] = ()
    """The fields of the config that nothing in the file tells; in the config they have their default."""
    assumed: tuple[str, ...] = ()
    """What was taken for granted."""
    overruled: tuple[str, ...] = ()
    """What a person said that is not so in the project's code."""
    inert: tuple[str, ...] = ()
    """The classes and functions in the file of which nothing was run."""
    code: str = ""
    """The class of the module that was pickled whole, whose tensors these are; empty: they came as a state_dict."""
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The file's own key of every tensor, wrappers and all, by the canonical one."""


@dataclass(frozen=True)
class Checkpoint:
    """One network's tensors, under canonical names, in torch's layouts, with what describes them."""

    config: Description
    tensors: Tensors = field(repr=False)
    origin: Origin = field(default=Origin(), repr=False)
    config_stored: bool = True
    """False where the config was read off the tensors' names and shapes."""
    digests_stored: bool = True
    """False where the file has no sha256 to check the tensors against."""
    dialect: str = OWN.name
    """Whose names the tensors have in the file."""
    reading: Reading = Reading()
    evidence: Evidence = OURS
    """By what the description is known to be the user's network."""


def new_network(config: UNetConfig, seed: int) -> Checkpoint:
    """The network that the seed draws, as if it had been read from a file."""
    return Checkpoint(config, initial_tensors(config, seed))


def digest(tensor: np.ndarray) -> str:
    """The sha256, in hex, of a tensor's dtype, shape and values (little-endian, C order)."""
    values = np.ascontiguousarray(tensor)
    if values.dtype.byteorder == ">":
        values = values.astype(values.dtype.newbyteorder("<"))
    state = hashlib.sha256(f"{values.dtype.name} {list(tensor.shape)}\n".encode())
    state.update(values.reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def is_intact(tensor: np.ndarray, stored: Any) -> bool:
    """Whether a tensor has the digest that was stored for it.

    Args:
        tensor: as it was read.
        stored: its `digest`; or, of one that several machines wrote, those of equal parts along an axis,
            {"axis": 0, "sha256": [...]}.
    """
    if not isinstance(stored, dict):
        return bool(stored == digest(tensor))
    axis, parts = stored.get("axis"), stored.get("sha256")
    if not (isinstance(axis, int) and 0 <= axis < tensor.ndim and isinstance(parts, list)):
        return False
    divided = len(parts) > 0 and tensor.shape[axis] % len(parts) == 0
    return divided and parts == [digest(part) for part in np.split(tensor, len(parts), axis)]


def network_digest(checkpoint: Checkpoint) -> str:
    """The sha256, in hex, of a network whatever file it is in: of its config, and its tensors in forward order.

    Of the config, or of the graph, as JSON with sorted keys, and of a line for every tensor: its canonical name, and
    its `digest`.
    """
    state = hashlib.sha256(json.dumps(checkpoint.config.to_dict(), sort_keys=True).encode())
    for key in tensor_specs(checkpoint.config):
        state.update(f"\n{key} {digest(checkpoint.tensors[key])}".encode())
    return state.hexdigest()


def file_names(config: Description, dialect: str, origin: Origin) -> dict[str, str]:
    """The key of every tensor in a file of this dialect, by the canonical one, in the order of the file.

    A network that was read from code has its own names alone.

    Raises:
        CheckpointError: the dialect is unknown or generic, and `origin` tells no names.
    """
    table = dialect_of(dialect)
    if isinstance(config, Graph):
        if table is not OWN:
            raise CheckpointError(f"dialect {dialect}: a network that was read from its code has the names of its code")
        return {key: key for key in _kept(config, counters=origin.counters)}
    if table is None:
        if origin.dialect != GENERIC or origin.names is None:
            raise CheckpointError(
                f"dialect {dialect}: the network did not come under names of its own, but under those of "
                f"{origin.dialect}; write it in a dialect with a table"
            )
        return dict(origin.names)
    names = named_by(table.layers(config.depth), config)
    return {key: names[key] for key in _kept(config, counters=origin.counters or origin.dialect != dialect)}


def exported(checkpoint: Checkpoint, dialect: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors under the names of a dialect, in its order, and what lies among them in its files.

    Raises:
        CheckpointError: the dialect is unknown, or its project's code would run the network differently.
    """
    table = dialect_of(dialect)
    built = dialect == checkpoint.origin.dialect
    config = checkpoint.config
    wrong = table.contradictions(config, built=built) if table and isinstance(config, UNetConfig) else []
    if table and wrong:
        raise CheckpointError(
            f"dialect {dialect}: the code of {table.project} runs another network: {'; '.join(wrong)}"
        )
    names = file_names(checkpoint.config, dialect, checkpoint.origin)
    tensors = under_all_names({name: checkpoint.tensors[key] for key, name in names.items()}, config)
    if dialect == OWN.name or dialect != checkpoint.origin.dialect:
        return tensors, {}
    extras = json.loads(checkpoint.origin.extras)
    return tensors, {name: value for name, value in extras.items() if name not in tensors}


def seal(checkpoint: Checkpoint, dialect: str = OWN.name, digests: Mapping[str, Any] | None = None) -> str:
    """The record that is stored beside the tensors: one line of JSON with the config, every digest and the origin.

    Args:
        checkpoint: what is stored.
        dialect: whose names the tensors have there.
        digests: as `is_intact` takes them, by canonical names, where the tensors are not at hand; None: theirs.
    """
    if digests is None:
        digests = {key: digest(value) for key, value in checkpoint.tensors.items()}
    record: dict[str, Any] = {
        "version": _VERSION,
        "graph" if isinstance(checkpoint.config, Graph) else "config": checkpoint.config.to_dict(),
        "sha256": dict(digests),
        "evidence": checkpoint.evidence.to_dict(),
    }
    if dialect != OWN.name:
        record["dialect"] = dialect
    if checkpoint.origin != Origin():
        record["origin"] = encoded(checkpoint.origin)
    return json.dumps(record)


@dataclass(frozen=True)
class Record:
    """What `seal` stored."""

    config: Description
    digests: Mapping[str, Any]
    """As `is_intact` takes them."""
    dialect: str
    """Whose names the file's tensors have."""
    origin: Origin
    evidence: Evidence


def read_record(text: str, source: str) -> Record:
    """The inverse of `seal`.

    Raises:
        CheckpointError: it is damaged, of a later release, or its config describes no network.
    """
    if len(text) > LONGEST_RECORD:
        raise CheckpointError(f"{source}: its record of config and digests has {len(text)} characters; a trap")
    try:
        fields = decoded(dict[str, Any], json.loads(text))
        version = fields.pop("version", None)
        if version != _VERSION:
            raise CheckpointError(
                f"{source}: written in format {version!r}, this release reads {_VERSION}; update unet-twins"
            )
        stored: _Stored = decoded(_Stored, fields)
        stored.check()
    except (ValueError, RecursionError, DataError) as error:
        raise CheckpointError(
            f"{source}: the stored record of config and digests is damaged: {first_line(error)}"
        ) from error
    try:
        config = UNetConfig.from_dict(stored.config) if stored.graph is None else Graph.from_dict(stored.graph)
        kept = set(_kept(config, counters=stored.origin.counters))
    except ConfigError as error:
        raise CheckpointError(f"{source}: the stored config describes no network: {error}") from error
    if stored.origin.names is not None and {key for key, _ in stored.origin.names} != kept:
        raise CheckpointError(f"{source}: the stored names are not those of the network that its config describes")
    evidence = stored.evidence or by_dialect(stored.origin.dialect, stored=True)
    return Record(config, stored.sha256, stored.dialect, stored.origin, evidence)


@dataclass(frozen=True)
class _Stored:
    """What `seal` writes."""

    sha256: dict[str, Any]
    graph: Any = field(default=None, metadata=OPTIONAL)
    config: Any = field(default=None, metadata=OPTIONAL)
    dialect: str = field(default=OWN.name, metadata=OPTIONAL)
    origin: Origin = field(default=Origin(), metadata=OPTIONAL)
    evidence: Evidence | None = field(default=None, metadata=OPTIONAL)
    """Which records of earlier releases do not have."""

    def check(self) -> None:
        """Raise ValueError where no record says so."""
        origin, pairs = self.origin, self.origin.names or ()
        sound = (
            {self.dialect, origin.dialect} <= set(NAMES)
            and (origin.dialect == GENERIC) == (origin.names is not None)
            and len({name for _, name in pairs}) == len({key for key, _ in pairs}) == len(pairs)
            and isinstance(json.loads(origin.extras), dict)
        )
        if not sound:
            raise ValueError("its dialect, or its origin, is none")
        limited(encoded(self.evidence), "evidence")


def unseal(tensors: Tensors, record: Record, source: str) -> None:
    """Hold the tensors, which are those of the config, against their stored digests.

    Raises:
        CheckpointError: a tensor whose sha256 is not the stored one; all are listed.
    """
    changed = [key for key, value in tensors.items() if not is_intact(value, record.digests.get(key))]
    if changed or len(record.digests) != len(tensors):
        raise CheckpointError(
            f"{source}: the file is damaged: the sha256 of {some(changed) or 'a tensor that is gone'} "
            "is not the stored one; get the file again or restore a copy"
        )


def _kept(config: Description, *, counters: bool) -> list[str]:
    """The canonical names that a file has, with or without BatchNorm's counters."""
    return [key for key, spec in tensor_specs(config).items() if counters or spec.kind != "counter"]
