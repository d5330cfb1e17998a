"""What a checkpoint is, how sure that is, and what looks wrong with it."""

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from conversion.code import build, known_of
from conversion.containers import contents_at, examined
from conversion.loading import shapes_of
from conversion.survey import next_of
from unet_core.checkpoints.evidence import Evidence
from unet_core.checkpoints.naming import likely, write_names
from unet_core.checkpoints.reading import NO_HINTS, Hints
from unet_core.checkpoints.soundness import masks, oddities, poison
from unet_core.codec import STORED_NAME
from unet_core.errors import CheckpointError
from unet_core.graph import Graph
from unet_core.graph.canonical import FLOATS, Description, tensor_specs
from unet_core.graph.summary import SummaryRow, summary, usual_size
from unet_core.paths import as_source, as_target
from unet_core.staging import at_hand

_FRAMEWORKS = {"torch": "PyTorch", "jax": "JAX", None: "either"}


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found in a checkpoint that can be read.

    Examples:
        >>> import conversion, json, unet_torch
        >>> unet_torch.save(unet_torch.UNet(features=(4, 8)), "model.pt")
        >>> json.loads(conversion.inspect("model.pt").to_json())["framework"]
        'PyTorch'
    """

    path: str
    framework: str
    container: str
    dialect: str
    """Whose names the tensors have: one of `unet_core.checkpoints.dialects.NAMES`; those of an Orbax directory are
    its own.
    """
    origin: str
    """Whose names the network first came with."""
    sure: str
    """How sure dialect and config are, and why."""
    evidence: Evidence
    """By what it is known that this is the user's network."""
    config: Description
    layers: tuple[SummaryRow, ...]
    """Of a network that was read from code, its operations, for a picture of `size`."""
    size: tuple[int, ...]
    config_stored: bool
    """False where the config was read off the tensors' names and shapes."""
    unknown: tuple[str, ...]
    """The fields of the config that nothing in the file tells; `config` has their default."""
    assumed: tuple[str, ...]
    """What was taken for granted."""
    overruled: tuple[str, ...]
    """What the hints say and the project's code does not do."""
    key: str
    """Where in the file the network lies; empty: it is all there is."""
    others: tuple[str, ...]
    """The keys of further networks in the file."""
    wrappers: tuple[str, ...]
    """The prefixes that were taken off the names."""
    beside: tuple[str, ...] = dataclasses.field(metadata={STORED_NAME: "passengers"})
    """What else is in the file, such as an optimiser."""
    inert: tuple[str, ...]
    """The classes and functions in the file of which nothing was run."""
    code: str
    """The class of the module that was pickled whole, whose tensors these are; empty: they came as a state_dict."""
    digests: bool
    """Whether every tensor's sha256 is stored (they have then been checked)."""
    tensors: int
    parameters: int
    """Numbers that an optimiser updates."""
    bytes: int
    """Of the network's tensors."""
    file_bytes: int
    """Of the file, or of all in the directory."""
    dtypes: dict[str, int]
    """How many floating-point tensors have each dtype."""
    batches_tracked: int
    """The largest `num_batches_tracked`: training steps that BatchNorm saw."""
    sound: bool
    """False where no network runs on its values; such a checkpoint is neither loaded nor converted."""
    problems: tuple[str, ...]
    """What looks wrong with the values; in a sound checkpoint, what a network runs with but should not have."""
    next: str
    """The conversion, as it is typed."""

    def to_json(self) -> str:
        """Everything, for machines; what is unknown in the config is null."""
        items = dataclasses.fields(self)
        fields = {item.metadata.get(STORED_NAME, item.name): getattr(self, item.name) for item in items}
        fields |= {"evidence": dataclasses.asdict(self.evidence), "known_by": str(self.evidence)}
        fields["layers"] = [dataclasses.asdict(row) for row in self.layers]
        fields["config"] = self.config.to_dict()
        fields["config"].update((name, None) for name in self.unknown if name in fields["config"])
        return json.dumps(fields, indent=2)


def draft_names(path: str | Path, table: str | Path, *, hints: Hints) -> tuple[int, int]:
    """Write a table of which tensor of a file is which of a module's, for a person to look through.

    Args:
        path: the file or directory.
        table: a new .csv, which `--names` takes.
        hints: a `conversion.code.Known` with the module.

    Returns:
        how many of the module's tensors there are, and of how many shapes leave no choice.

    Raises:
        UNetError: the file cannot be read, the table not be written, or no module is named.
    """
    known = known_of(hints)
    if known.module is None:
        raise CheckpointError(f"{table}: a table of names is for the code that --module names")
    contents, wanted = contents_at(as_source(path)), shapes_of(build(known))
    names = likely(contents, wanted)
    write_names(as_target(table), names, wanted, contents)
    return len(wanted), sum(name.sure for name in names.values())


def inspect(path: str | Path, *, hints: Hints = NO_HINTS) -> Inspection:
    """Say what the checkpoint at `path` is; runs no code but that which `hints`, a `conversion.code.Known`, name.

    Raises:
        UNetError: it cannot be read; one line says why.
        MissingFrameworkError: its kind needs a framework that is not installed.

    Examples:
        >>> import conversion, unet_torch
        >>> unet_torch.save(unet_torch.UNet(features=(4, 8)), "model.pt")
        >>> found = conversion.inspect("model.pt")
        >>> found.dialect, found.parameters, found.sound
        ('own', 1761, True)
    """
    path = as_source(path)
    with at_hand(path) as local:
        found = examined(path, hints)
        file_bytes = sum(file.stat().st_size for file in (local, *local.rglob("*")) if file.is_file())
    checkpoint = found.checkpoint
    tensors, config, reading = checkpoint.tensors, checkpoint.config, checkpoint.reading
    size = (*known_of(hints).sizes[:1], usual_size(config))[0] if isinstance(config, Graph) else ()
    specs = tensor_specs(config)
    poisoned = tuple(poison(tensors, reading.keys, free=masks(checkpoint)))
    return Inspection(
        path=str(path),
        framework=_FRAMEWORKS[found.framework],
        container=found.kind,
        dialect=checkpoint.dialect,
        origin=checkpoint.origin.dialect,
        sure=reading.sure,
        evidence=checkpoint.evidence,
        config=config,
        layers=summary(config, size) if isinstance(config, Graph) else (),
        size=size,
        config_stored=checkpoint.config_stored,
        unknown=reading.unknown,
        assumed=reading.assumed,
        overruled=reading.overruled,
        key=reading.key,
        others=reading.others,
        wrappers=reading.wrappers,
        beside=reading.beside,
        inert=reading.inert,
        code=reading.code,
        digests=checkpoint.digests_stored,
        tensors=len(tensors),
        parameters=sum(value.size for key, value in tensors.items() if specs[key].trained),
        bytes=sum(value.nbytes for value in tensors.values()),
        file_bytes=file_bytes,
        dtypes=dict(Counter(value.dtype.name for value in tensors.values() if value.dtype in FLOATS)),
        batches_tracked=max((int(value) for key, value in tensors.items() if specs[key].kind == "counter"), default=0),
        sound=not poisoned,
        problems=poisoned or tuple(oddities(tensors, reading.keys, config)),
        next=next_of(path, found, known_of(hints)),
    )
