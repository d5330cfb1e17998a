"""The kinds of checkpoint that are written, each with the module that does it, imported when it is first needed."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from conversion.backends.frameworks import importing
from unet_core.checkpoints import readers, safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.containers import Container
from unet_core.checkpoints.contents import Contents
from unet_core.checkpoints.dialects import OWN
from unet_core.checkpoints.foreign import distributed, npz_file, shards
from unet_core.checkpoints.reading import NO_HINTS, Hints


@runtime_checkable
class ContainerModule(Protocol):
    """What reads and writes checkpoints of one kind: `checkpoint` in `unet_jax`; that in `unet_torch`, and
    `unet_core.checkpoints.safetensors_file`, are a `FileModule`, too.
    """

    def read(self, path: Path, hints: Hints = ..., /) -> Checkpoint:
        """A sound checkpoint."""

    def examine(self, path: Path, hints: Hints = ..., /) -> Checkpoint:
        """A checkpoint, whatever its values are."""

    def write(self, path: Path, checkpoint: Checkpoint, /) -> None:
        """Write it to a new file or directory."""


@runtime_checkable
class FileModule(ContainerModule, Protocol):
    """Of a kind whose files may have any names for their tensors, and no record of what they are."""

    def contents(self, path: Path, /) -> Contents:
        """What a file holds, before anything in it is judged."""

    def write(self, path: Path, checkpoint: Checkpoint, /, *, dialect: str = ...) -> None:
        """Write it to a new file, the tensors under the names of the dialect."""


@dataclass(frozen=True)
class _Written:
    """A `FileModule` of a kind that `unet_core.checkpoints.readers` reads."""

    container: Container
    _write: Callable[..., None]

    def read(self, path: Path, hints: Hints = NO_HINTS, /) -> Checkpoint:
        return readers.read(path, self.container, hints)

    def examine(self, path: Path, hints: Hints = NO_HINTS, /) -> Checkpoint:
        return readers.examine(path, self.container, hints)

    def contents(self, path: Path, /) -> Contents:
        return readers.contents(path, self.container)

    def write(self, path: Path, checkpoint: Checkpoint, /, *, dialect: str = OWN.name) -> None:
        self._write(path, checkpoint, dialect=dialect)


def module_of(container: Container, shard_size: int | None = None) -> ContainerModule:
    """The module that reads and writes this kind.

    Raises:
        MissingFrameworkError: it needs a framework that is not installed.
    """
    file_module = file_module_of(container, shard_size)
    if file_module is not None:
        return file_module
    with importing():
        import unet_jax.checkpoint
    return unet_jax.checkpoint


def file_module_of(container: Container, shard_size: int | None = None) -> FileModule | None:
    """As `module_of`; None of an Orbax directory.

    Args:
        container: the kind.
        shard_size: of one in several files, the most bytes in each.
    """
    if container is Container.ORBAX:
        return None
    if container is Container.SAFETENSORS:
        return safetensors_file
    if container is Container.SHARDS:
        return _Written(container, functools.partial(shards.write, size=shard_size or shards.USUAL_SIZE))
    if container is Container.NPZ:
        return _Written(container, npz_file.write)
    with importing():
        import unet_torch.checkpoint
        import unet_torch.distributed
    if container is Container.DISTRIBUTED:
        return _Written(container, unet_torch.distributed.write)
    assert container is Container.TORCH
    return unet_torch.checkpoint


def replaces_of(container: Container) -> Callable[[Path], bool] | None:
    """Whether a folder may be replaced by one of this kind, as `unet_core.files.atomic` asks; None of files."""
    if container is Container.DISTRIBUTED:
        return distributed.is_folder
    if container is Container.SHARDS:
        return shards.is_folder
    if container is not Container.ORBAX:
        return None
    with importing():
        from unet_jax.checkpoint import is_orbax
    return is_orbax
