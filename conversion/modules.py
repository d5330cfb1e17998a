"""A torch module of any project, read from its code as the network that it is."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from conversion.backends.backend import runner_of_checkpoint, runner_of_code
from conversion.backends.frameworks import importing
from conversion.code import Live
from conversion.proof.differences import largest_difference
from unet_core.checkpoints.checkpoint import Checkpoint, Reading
from unet_core.errors import MissingFrameworkError, UNetError
from unet_core.graph.canonical import check_tensors, config_of, in_forward_order, under_one_name

if TYPE_CHECKING:
    from torch import nn


_BUDGET = 1e-10
"""The largest difference of JAX's answer from the code's, relative to the largest value; proofs are stricter."""


def read_module(
    module: "nn.Module",
    name: str | None = None,
    *,
    size: tuple[int, ...] | None = None,
    channels: int | None = None,
    sizes: Sequence[tuple[int, ...]] = (),
    out: int | str | None = None,
) -> Checkpoint:
    """The network of a module, which shares its tensors.

    The names of its tensors are not trusted: whatever is no module of this project's own classes, or one of them with
    parts that were changed, is read from its code.

    Args:
        module: the module.
        name: of it or its code, for messages and reports.
        size: of a picture that it takes, where that is known.
        channels: of the picture.
        sizes: to read it at, where its code cannot be followed for sizes in general.
        out: which of several outputs is the network's.

    Raises:
        UNetError: its code cannot be read, or what was read does not answer as it does.
    """
    own = _own(module)
    if own is not None:
        return own
    source = name or type(module).__name__
    with importing():
        from unet_torch.canonical import to_canonical
        from unet_torch.reading.read import read
    found = read(module, size, channels=channels, name=source, sizes=sizes, out=out)
    config = config_of(found.graph) or found.graph
    tensors = under_one_name(to_canonical(module), config, source)
    check_tensors(tensors, config, source)
    tensors = in_forward_order(tensors, config)
    checkpoint = Checkpoint(config, tensors, reading=Reading(assumed=found.notes), evidence=found.evidence)
    seen = sorted({check.size for check in found.checks}, key=math.prod)
    some = dict.fromkeys((seen[0], seen[len(seen) // 2], seen[-1]))
    return _in_jax(checkpoint, Live(module, out), source, list(some))


def _in_jax(checkpoint: Checkpoint, live: Live, source: str, sizes: Sequence[tuple[int, ...]]) -> Checkpoint:
    """The same checkpoint, run in JAX, too, against the module, where that is installed; in float64.

    Raises:
        UNetError: JAX answers otherwise.
    """
    try:
        ours = runner_of_checkpoint(checkpoint, "jax", source).as_called()
    except MissingFrameworkError:
        return checkpoint
    theirs = runner_of_code(live, checkpoint, source)
    worst = 0.0
    for size in sizes:
        shape = (1, *size, checkpoint.config.in_channels)
        x = np.random.default_rng(0).standard_normal(shape, np.float32)
        apart = largest_difference(ours.predict(x, "float64"), theirs.predict(x, "float64"))
        if not apart <= _BUDGET:
            raise UNetError(f"{source}: in JAX it answers {apart:.1e} beside its code, at {'x'.join(map(str, size))}")
        worst = max(worst, apart)
    detail = f"{checkpoint.evidence.detail}; in JAX {worst:.1e}"
    return dataclasses.replace(checkpoint, evidence=dataclasses.replace(checkpoint.evidence, detail=detail))


def is_own(module: "nn.Module") -> bool:
    """Whether it is a module of this project's classes, as they build it."""
    return _own(module) is not None


def _own(module: "nn.Module") -> Checkpoint | None:
    """What a module of this project's classes holds, as they build it; None where it is none, or was changed."""
    with importing():
        import torch

        from unet_torch.checkpoint import to_checkpoint
        from unet_torch.model import UNet
        from unet_torch.network import Network
    if type(module) is UNet:
        with torch.device("meta"):
            fresh = UNet.from_config(module.config)
        if repr(module) != repr(fresh) or list(map(type, module.modules())) != list(map(type, fresh.modules())):
            return None
    elif type(module) is not Network:
        return None
    return None if any(map(_changed, module.modules())) else to_checkpoint(module)


def _changed(part: "nn.Module") -> bool:
    """Whether it does something else than its class: by a hook, or by a method of its own."""
    methods = (name for name in vars(part) if callable(getattr(type(part), name, None)))
    return bool(part._forward_hooks or part._forward_pre_hooks) or any(methods)
