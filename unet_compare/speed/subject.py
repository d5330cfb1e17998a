"""Which network is timed: the family's with some widths, that of a checkpoint, or one that its code builds.

What reads files is imported where it is needed: this is a part of the command line.
"""

import dataclasses
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unet_core.config import UNetConfig
from unet_core.graph import Graph

if TYPE_CHECKING:
    from torch import nn

    from unet_core.checkpoints.checkpoint import Checkpoint


class Subject(NamedTuple):
    """A network, as a process of its own can make it again."""

    features: tuple[int, ...] = UNetConfig.features
    """Of the family's network, where there is no file."""
    file: str | None = None
    """A checkpoint that needs no other framework to be read."""
    module: str | None = None
    """The code that torch runs: FILE.py:Class or package.module:Class; None: that of this project."""
    kwargs: tuple[str, ...] = ()
    """What the code is called with."""

    def checkpoint(self) -> "Checkpoint":
        """The network; that of the family takes colour pictures and has one class and the background."""
        if self.file is None:
            from unet_core.checkpoints.checkpoint import new_network

            return new_network(UNetConfig(features=self.features), 0)
        from unet_core.checkpoints.safetensors_file import read

        return read(Path(self.file))

    @property
    def config(self) -> UNetConfig | Graph:
        """What describes it."""
        return UNetConfig(features=self.features) if self.file is None else self.checkpoint().config

    def own_code(self, checkpoint: "Checkpoint") -> "nn.Module | None":
        """The module that its code builds, with the tensors of the checkpoint; None where no code is named."""
        if self.module is None:
            return None
        from conversion.code import Known, build, values_of
        from conversion.loading import contents_of, load

        module = build(Known(module=self.module, kwargs=values_of(self.kwargs)))
        load(module, contents_of(checkpoint, "the network", module), self.module)
        return module.float()


@contextmanager
def stored(network: "Checkpoint", module: str | None = None, kwargs: tuple[str, ...] = ()) -> Iterator[Subject]:
    """A network, in float32, in a file for the processes that time it; the file is gone afterwards."""
    from conversion.backends.backend import in_precision
    from unet_core.checkpoints.safetensors_file import write

    narrow = {name: in_precision(value, "float32") for name, value in network.tensors.items()}
    with tempfile.TemporaryDirectory(prefix="unet-bench-") as folder:
        file = Path(folder) / "network.safetensors"
        write(file, dataclasses.replace(network, tensors=narrow))
        yield Subject(file=str(file), module=module, kwargs=kwargs)


def opened(path: Path | None, module: str | None, kwargs: tuple[str, ...]) -> "Checkpoint":
    """The network of a checkpoint or of a run, or, without one, that of the code with the parameters that it draws.

    Reading runs networks, on the CPU: the memory of a GPU is for those that are timed.

    Raises:
        UNetError: the checkpoint cannot be read, or is not of the code, or the code cannot be read.
    """
    from conversion import containers
    from conversion.code import Known, build, values_of
    from conversion.modules import read_module
    from unet_core.training.run import BEST, is_run

    known = Known(module=module, kwargs=values_of(kwargs), where_needed=True)
    with _without_gpu():
        if path is None:
            return read_module(build(known), known.title)
        return containers.opened(path / BEST if is_run(path) else path, known).checkpoint


@contextmanager
def _without_gpu() -> Iterator[None]:
    """A framework that looks for its devices first in here finds no GPU in this process; those of others do."""
    hidden = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    before = {name: os.environ.get(name) for name in hidden}
    os.environ.update(hidden)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
