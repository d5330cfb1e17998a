"""What a checkpoint is, how sure that is, and what looks wrong with it."""

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from conversion.containers import module_of
from unet_core.checkpoint import Checkpoint
from unet_core.config import UNetConfig
from unet_core.containers import Container, existing_container
from unet_core.hub import tensor_specs
from unet_core.reading import NO_HINTS, Hints
from unet_core.soundness import oddities, poison

_FRAMEWORKS = {Container.TORCH: "PyTorch", Container.ORBAX: "JAX", Container.SAFETENSORS: "either"}


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found in a checkpoint that can be read."""

    path: str
    framework: str
    container: str
    dialect: str
    """Whose names the tensors have: one of `unet_core.dialects.NAMES`; those of an Orbax directory are its own."""
    origin: str
    """Whose names the network first came with."""
    sure: str
    """How sure dialect and config are, and why."""
    config: UNetConfig
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
    passengers: tuple[str, ...]
    """What else is in the file, such as an optimiser."""
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

    def to_json(self) -> str:
        """Everything, for machines; what is unknown in the config is null."""
        fields = dataclasses.asdict(self)
        fields["config"].update((name, None) for name in self.unknown if name in fields["config"])
        return json.dumps(fields, indent=2)


def inspect(path: str | Path, *, hints: Hints = NO_HINTS) -> Inspection:
    """Say what the checkpoint at `path` is; never runs code from it.

    Raises:
        CheckpointError: it cannot be read; one line says why.
        MissingFrameworkError: its kind needs a framework that is not installed.
    """
    path = Path(path)
    container = existing_container(path)
    checkpoint: Checkpoint = module_of(container).examine(path, hints)
    tensors, config, reading = checkpoint.tensors, checkpoint.config, checkpoint.reading
    specs = tensor_specs(config)
    poisoned = tuple(poison(tensors, reading.keys))
    return Inspection(
        path=str(path),
        framework=_FRAMEWORKS[container],
        container=container.value,
        dialect=checkpoint.dialect,
        origin=checkpoint.origin.dialect,
        sure=reading.sure,
        config=config,
        config_stored=checkpoint.config_stored,
        unknown=reading.unknown,
        assumed=reading.assumed,
        overruled=reading.overruled,
        key=reading.key,
        others=reading.others,
        wrappers=reading.wrappers,
        passengers=reading.passengers,
        digests=checkpoint.digests_stored,
        tensors=len(tensors),
        parameters=sum(value.size for key, value in tensors.items() if specs[key].trained),
        bytes=sum(value.nbytes for value in tensors.values()),
        file_bytes=sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file()),
        dtypes=dict(Counter(value.dtype.name for value in tensors.values() if value.dtype.kind != "i")),
        batches_tracked=max(int(value) for key, value in tensors.items() if key.endswith("num_batches_tracked")),
        sound=not poisoned,
        problems=poisoned or tuple(oddities(tensors, reading.keys)),
    )
