"""What looks wrong with a network's values, and what makes them unfit for any use."""

from collections.abc import Iterator, Mapping

import numpy as np

from unet_core.checkpoint import BLOCK_ORDER, Checkpoint
from unet_core.errors import CheckpointError, some
from unet_core.hub import COUNTER, Tensors

CHOICES: Mapping[str, str] = {
    "align_corners": "--align-corners True|False (nearest-neighbour upsampling is not of this family)",
    "skip_first": "--skip-first True|False",
    "output": "--output sigmoid|softmax|logits",
    BLOCK_ORDER: "--dialect generic (or --source-dialect generic, where DST is a file): its blocks in the file's order",
}
"""What a person can answer where nothing in a file tells."""

_STRETCH = 2**18

_NEVER = 6.0
"""Deviations: BatchNorm's answer lies further from its mean in one of a billion values."""


def trusted(checkpoint: Checkpoint, source: str) -> Checkpoint:
    """The same checkpoint, if nothing in it is left to guess and its values can be those of a network.

    Raises:
        CheckpointError: a question that nothing in the file answers, values that are not finite, a negative variance.
    """
    found = list(poison(checkpoint.tensors, checkpoint.reading.keys))
    if found:
        raise CheckpointError(f"{source}: no network runs on these values: {some(found)}")
    return answered(checkpoint, source)


def answered(checkpoint: Checkpoint, source: str) -> Checkpoint:
    """The same checkpoint, if nothing in it is left to guess.

    Raises:
        CheckpointError: a question that nothing in the file answers.
    """
    unknown = checkpoint.reading.unknown
    if unknown:
        options = " ".join(CHOICES[name] for name in unknown)
        raise CheckpointError(
            f"{source}: read as a {checkpoint.origin.dialect} UNet with features {checkpoint.config.features}, but "
            f"nothing in it tells {', '.join(unknown)}: look at the code it comes from and add {options}"
        )
    return checkpoint


def poison(tensors: Tensors, names: Mapping[str, str] | None = None) -> Iterator[str]:
    """The tensors with which no network gives an answer: NaN, infinity, a negative variance.

    Args:
        names: what the file calls each tensor, by the hub's key.
    """
    for key, value in tensors.items():
        name = (names or {}).get(key, key)
        if value.dtype == COUNTER:
            continue
        bad = sum(int(np.count_nonzero(~np.isfinite(part))) for part in _parts(value))
        if bad:
            yield f"{name}: {bad} of {value.size} values are NaN or infinite"
        elif key.endswith("running_var") and (negative := int(np.count_nonzero(value < 0))):
            yield f"{name}: {negative} of {value.size} variances are negative"


def _parts(value: np.ndarray) -> Iterator[np.ndarray]:
    """The numbers of a tensor in stretches, so that no mask as large as the tensor is ever made."""
    flat = value.ravel(order="K")
    for begin in range(0, flat.size, _STRETCH):
        yield flat[begin : begin + _STRETCH]


def oddities(tensors: Tensors, names: Mapping[str, str] | None = None) -> Iterator[str]:
    """What a network can run with but should not have: BatchNorms that were never trained, channels that never fire.

    Args:
        names: as in `poison`.
    """

    def layer(norm: str) -> str:
        return (names or {}).get(f"{norm}.weight", f"{norm}.weight").removesuffix(".weight")

    norms = [key.rpartition(".")[0] for key in tensors if key.endswith(".running_var")]
    idle = [
        norm
        for norm in norms
        if (tensors[f"{norm}.running_mean"] == 0).all() and (tensors[f"{norm}.running_var"] == 1).all()
    ]
    if len(idle) == len(norms):
        yield "BatchNorm was never trained: every running mean is 0 and every running variance 1"
    elif idle:
        yield f"BatchNorm was never trained in {some(map(layer, idle))}: running mean 0 and running variance 1"
    dead = {norm: _dead(tensors[f"{norm}.weight"], tensors[f"{norm}.bias"]) for norm in norms}
    counts = [f"{layer(norm)} {count} of {len(tensors[f'{norm}.bias'])}" for norm, count in dead.items() if count]
    if counts:
        yield f"dead channels, whose ReLU never fires: {some(counts)}"
    flat = [
        f"{layer(norm)} {count} of {len(variance)}"
        for norm in norms
        if (count := int(np.count_nonzero((variance := tensors[f"{norm}.running_var"]) == 0)))
    ]
    if flat:
        yield f"channels that are constant (running variance 0): {some(flat)}"
    empty = [(names or {}).get(key, key) for key, value in tensors.items() if value.ndim == 4 and not np.any(value)]
    if empty:
        yield f"kernels of zeros: {some(empty)}"


def _dead(weight: np.ndarray, bias: np.ndarray) -> int:
    """Channels that BatchNorm puts so far below zero that the ReLU after it answers 0."""
    wide, offset = np.abs(weight.astype(np.float64)), bias.astype(np.float64)
    return int(np.count_nonzero(offset + _NEVER * wide <= 0))
