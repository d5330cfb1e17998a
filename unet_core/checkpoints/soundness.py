"""What looks wrong with a network's values, and what makes them unfit for any use."""

from collections.abc import Collection, Iterator, Mapping

import numpy as np

from unet_core.checkpoints.checkpoint import BLOCK_ORDER, Checkpoint
from unet_core.errors import CheckpointError, some
from unet_core.graph import Graph
from unet_core.graph.canonical import COUNTER, Description, Tensors, tensor_specs

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
    found = list(poison(checkpoint.tensors, checkpoint.reading.keys, free=masks(checkpoint)))
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
            f"{source}: read as a {checkpoint.origin.dialect} {checkpoint.config.title.removeprefix('a ')}, but "
            f"nothing in it tells {', '.join(unknown)}: look at the code it comes from and add {options}"
        )
    return checkpoint


def masks(checkpoint: Checkpoint) -> frozenset[str]:
    """The tensors of a network that may hold any values, as a mask of minus infinity does."""
    return frozenset(key for key, spec in tensor_specs(checkpoint.config).items() if spec.kind == "buffer")


def poison(tensors: Tensors, names: Mapping[str, str] | None = None, *, free: Collection[str] = ()) -> Iterator[str]:
    """The tensors with which no network gives an answer: NaN, infinity, a negative variance.

    Args:
        names: what the file calls each tensor, by the canonical name.
        free: those that may hold any values.
    """
    for key, value in tensors.items():
        name = (names or {}).get(key, key)
        if value.dtype == COUNTER or key in free:
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


def oddities(
    tensors: Tensors, names: Mapping[str, str] | None = None, config: Description | None = None
) -> Iterator[str]:
    """What a network can run with but should not have: BatchNorms that were never trained, channels that never fire.

    By the names that torch's modules give their tensors.

    Args:
        names: as in `poison`.
        config: tells on which BatchNorms a ReLU follows; None: on all, as in this project's family.
    """
    rectified = _rectified(config) if isinstance(config, Graph) else None

    def layer(norm: str) -> str:
        return (names or {}).get(f"{norm}.weight", f"{norm}.weight").removesuffix(".weight")

    norms = [key.rpartition(".")[0] for key in tensors if key.endswith(".running_var")]
    idle = [
        norm
        for norm in norms
        if (tensors[f"{norm}.running_mean"] == 0).all() and (tensors[f"{norm}.running_var"] == 1).all()
    ]
    if norms and len(idle) == len(norms):
        yield "BatchNorm was never trained: every running mean is 0 and every running variance 1"
    elif idle:
        yield f"BatchNorm was never trained in {some(map(layer, idle))}: running mean 0 and running variance 1"
    scaled = [norm for norm in norms if {f"{norm}.weight", f"{norm}.bias"} <= tensors.keys()]
    scaled = [norm for norm in scaled if rectified is None or norm in rectified]
    dead = {norm: _dead(tensors[f"{norm}.weight"], tensors[f"{norm}.bias"]) for norm in scaled}
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
    kernels = {key: value for key, value in tensors.items() if value.ndim >= 4 and key.endswith(".weight")}
    empty = [(names or {}).get(key, key) for key, value in kernels.items() if not np.any(value)]
    if empty:
        yield f"kernels of zeros: {some(empty)}"


def _rectified(graph: Graph) -> set[str]:
    """The layers of the norms whose answer, scaled and shifted, nothing but a ReLU takes."""
    takers: dict[str, set[str]] = {}
    for node in graph.nodes:
        for name in node.inputs:
            takers.setdefault(name, set()).add(node.operation)
    norms = [node for node in graph.nodes if {"weight", "bias", "variance"} <= node.tensors.keys()]
    return {node.tensors["weight"].rpartition(".")[0] for node in norms if takers.get(node.name) == {"relu"}}


def _dead(weight: np.ndarray, bias: np.ndarray) -> int:
    """Channels that BatchNorm puts so far below zero that the ReLU after it answers 0."""
    wide, offset = np.abs(weight.astype(np.float64)), bias.astype(np.float64)
    return int(np.count_nonzero(offset + _NEVER * wide <= 0))
