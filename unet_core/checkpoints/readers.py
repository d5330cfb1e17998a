"""Reading a network from a file or folder of any kind but Orbax's, without a framework."""

from collections.abc import Callable, Mapping
from pathlib import Path

from unet_core.checkpoints import safetensors_file, torch_file
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.containers import Container
from unet_core.checkpoints.contents import Contents
from unet_core.checkpoints.foreign import (
    deepspeed,
    distributed,
    exported_file,
    msgpack_file,
    npz_file,
    onnx_file,
    shards,
)
from unet_core.checkpoints.reading import NO_HINTS, Hints, read_contents
from unet_core.checkpoints.soundness import trusted

_READERS: Mapping[Container, Callable[[Path], Contents]] = {
    Container.TORCH: torch_file.contents,
    Container.SAFETENSORS: safetensors_file.contents,
    Container.SHARDS: shards.contents,
    Container.DISTRIBUTED: distributed.contents,
    Container.DEEPSPEED: deepspeed.contents,
    Container.EXPORTED: exported_file.contents,
    Container.ONNX: onnx_file.contents,
    Container.MSGPACK: msgpack_file.contents,
    Container.NPZ: npz_file.contents,
}


def contents(path: Path, container: Container) -> Contents:
    """What a file or folder of this kind holds, before anything in it is judged.

    Raises:
        CheckpointError: it is no such one, or damaged.
        MissingFrameworkError: a package that reads it is not installed.
    """
    return _READERS[container](path)


def examine(path: Path, container: Container, hints: Hints = NO_HINTS) -> Checkpoint:
    """As `read`, but whatever its values are, and with what nothing in the file tells left open."""
    return read_contents(contents(path, container), hints)


def read(path: Path, container: Container, hints: Hints = NO_HINTS) -> Checkpoint:
    """Read and check a network.

    Raises:
        CheckpointError: not such a file, damaged, no network of the family, or not sound.
        MissingFrameworkError: a package that reads it is not installed.
    """
    return trusted(examine(path, container, hints), str(path))
