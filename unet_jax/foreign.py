"""Orbax directories of other projects: their arrays, by name."""

from pathlib import Path

from unet_core.checkpoints.contents import Contents
from unet_core.checkpoints.foreign.lazily import Lazy, contents_from
from unet_core.errors import CheckpointError, some
from unet_jax.arrays import read_arrays, reason

_TREE = "_METADATA"


def contents(path: Path) -> Contents:
    """What a directory holds, whichever of Orbax's checkpointers wrote it; each item is a group.

    Raises:
        CheckpointError: it holds no tree of arrays, or is damaged.
    """
    items = [""] if (path / _TREE).is_file() else sorted(one.parent.name for one in path.glob(f"*/{_TREE}"))
    if not items:
        steps = sorted(one.parent.parent.name for one in path.glob(f"*/*/{_TREE}"))
        where = f"; it holds the steps {some(steps)}: name one of them" if steps else ""
        raise CheckpointError(f"{path}: is a directory, but no Orbax checkpoint (no {_TREE} in it){where}")
    groups = {item: _arrays(path, item) for item in items}
    return contents_from(path, groups, times=100)  # they are packed


def _arrays(path: Path, item: str) -> dict[str, Lazy]:
    try:
        arrays = read_arrays(path, item)
    except CheckpointError:
        raise
    except Exception as error:  # whatever TensorStore meets in a damaged directory
        raise CheckpointError(f"{path}: not a sound Orbax checkpoint: {reason(error)}") from error
    bare = all(name.endswith(".value") for name in arrays)  # as NNX stores its variables
    found = {name.removesuffix(".value") if bare else name: value for name, value in arrays.items()}
    return {name: Lazy(value.shape, value.dtype, value.view) for name, value in found.items()}
