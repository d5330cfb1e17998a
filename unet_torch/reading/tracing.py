"""The operations of a torch module: exported by torch, and written down as nodes."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.export import Dim, ExportedProgram, export
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils._pytree import tree_leaves, tree_unflatten

from unet_core.errors import UNetError, first_line
from unet_core.graph.outputs import place_of
from unet_torch.reading.code import BATCH, Code, Trace, float64, is_cumulative, quiet, tensors_of
from unet_torch.reading.plain_tensors import PlainTensors
from unet_torch.reading.program import UnreadableError
from unet_torch.reading.translation import Translation


def traced(
    code: Code, channels: int, size: Sequence[int], out: int | str | None, *, training: bool, free: bool = True
) -> Trace:
    """Export the module and write its nodes down.

    Args:
        code: the module.
        channels: of the picture.
        size: of the picture.
        out: which of its outputs is meant, as `place_of` takes it.
        training: in which mode.
        free: for other sizes as well.

    Raises:
        UnreadableError: torch cannot export it, or it has operations that a graph has not.
    """
    exported = _exported(code, channels, size, training=training, free=free)
    program = code.program(channels, size, training=training)
    translation = Translation(exported, code.held, code.values, code.leaves, program)
    answered = translation.run()
    (last,) = (node for node in exported.graph.nodes if node.op == "output")
    values = [item.meta["val"] if isinstance(item, fx.Node) else item for item in tree_leaves(last.args[0])]
    spec = exported.call_spec.out_spec
    assert spec is not None
    names = tuple(tensors_of(tree_unflatten(values, spec)))
    if not names:
        raise UNetError("the network answers no tensor")
    chosen = place_of(names, out)
    tensors = [value for value, found in zip(answered, values, strict=True) if isinstance(found, torch.Tensor)]
    program.output = translation.require(tensors[chosen])
    return Trace(tuple(size), program, names, chosen, _most(exported))


def _exported(code: Code, channels: int, size: Sequence[int], *, training: bool, free: bool) -> ExportedProgram:
    x = torch.zeros(BATCH, channels, *size, dtype=torch.float64)
    axes = dict.fromkeys((0, *range(2, x.ndim)) if free else (0,), Dim.AUTO)
    module = code.module.train(training)
    try:
        with _followable(module), float64(), quiet():
            return export(module, (x,), dynamic_shapes=(axes,), strict=False)
    except GuardOnDataDependentSymNode as error:
        raise UnreadableError("its code branches on a value that it computes from the picture") from error
    except Exception as error:  # whatever the user's code raises
        raise UnreadableError(f"torch.export: {type(error).__name__}: {first_line(error)}") from error


@contextmanager
def _followable(module: nn.Module) -> Iterator[None]:
    """Without two things that no trace can follow, and that say nothing about what is computed."""
    norms = [part for part in module.modules() if is_cumulative(part)] if module.training else []
    forward, own = module.forward, vars(module).get("forward")

    @functools.wraps(forward)
    def following(*args: Any, **kwargs: Any) -> Any:
        with PlainTensors():
            return forward(*args, **kwargs)

    try:
        for norm in norms:  # torch would compute it from the counter's value
            norm.momentum = 0.0
        module.forward = following
        yield
    finally:
        for norm in norms:
            norm.momentum = None
        del module.forward
        if own is not None:
            module.forward = own


def _most(exported: ExportedProgram) -> int | None:
    """The largest height or width in the constraints that torch has found."""
    limits = [int(limit.upper) for limit in exported.range_constraints.values() if limit.upper.is_Integer]
    return min(limits, default=None)
