"""Any torch module, read from its code as a graph that is known to be the same network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from unet_core.checkpoints.evidence import Evidence
from unet_core.errors import UNetError, some
from unet_core.graph import Graph
from unet_core.graph.outputs import place_of
from unet_core.graph.probing import Size
from unet_core.progress import Progress, silent
from unet_torch.canonical import unwrapped
from unet_torch.reading.code import Code, tensors_of
from unet_torch.reading.comparison import Check
from unet_torch.reading.export import Reader


@dataclass(frozen=True)
class Reading:
    """What was read from a module's code, and checked against it."""

    graph: Graph
    tensors: Mapping[str, Tensor]
    """Those of the module, by name; of one that has two names there, under the first."""
    source: str
    """What the module is called."""
    outputs: tuple[str, ...]
    """The places of all tensors that the module returns; of a single one, nothing."""
    output: int
    """Which of them the graph computes."""
    checks: tuple[Check, ...]
    """In eval mode, then in training mode, unless `graph.untrained` says why not."""
    notes: tuple[str, ...] = ()
    """What a person should know of it."""

    @property
    def evidence(self) -> Evidence:
        """That it was run against the code."""
        worst = max(check.worst for check in self.checks)
        sizes = len({check.size for check in self.checks})
        batches = sorted({check.batch for check in self.checks})
        modes = "eval mode" if self.graph.untrained else "eval and training mode"
        detail = f"float64, {modes}, {sizes} sizes, batches of {some(batches)}, largest difference {worst:.1e}"
        return Evidence("code", self.source, detail)


def picked(answer: Any, out: int | str | None = None) -> Tensor:
    """Of what a module returns, the tensor that is meant.

    Args:
        answer: a tensor, or tuples, lists and dicts of them.
        out: its place, counted flat, or its key; None: the first one.

    Raises:
        UNetError: there is none such.
    """
    tensors = tensors_of(answer)
    return list(tensors.values())[place_of(tuple(tensors), out)]


def read(
    module: nn.Module,
    example: Tensor | Sequence[int] | None = None,
    *,
    channels: int | None = None,
    sizes: Sequence[Sequence[int]] = (),
    out: int | str | None = None,
    name: str | None = None,
    progress: Progress = silent,
) -> Reading:
    """Read a network from its code, and check what was read against the code.

    The module is left as it is; a copy of it in float64 is run.

    Args:
        module: takes one picture, [n, c, h, w] or [n, c, d, h, w], and returns one map or several.
        example: a picture, or its height and width, depth first where it has one, which the network must take; left
            out, sizes that networks usually take are tried.
        channels: of the picture, where there is no example; left out, those of the first convolution.
        sizes: more that the network must take. Where no one graph is the code at these and at sizes in general, the
            network takes these alone.
        out: which of several outputs is meant, counted flat or by key; by default the first.
        name: of the code, for messages; by default that of the class.
        progress: is told what comes next.

    Raises:
        UNetError: torch cannot export it, an operation has no row in the table, or the graph does not compute what
            the code does.

    Examples:
        >>> import torch, unet_torch
        >>> found = unet_torch.read(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3, padding=1), torch.nn.ReLU()))
        >>> [node.operation for node in found.graph.nodes]
        ['convolution', 'relu']
    """
    module = unwrapped(module)
    source = name or type(module).__name__
    wanted: list[Size] = [tuple(size) for size in sizes]
    if isinstance(example, Tensor):
        channels, example = int(example.shape[1]), tuple(example.shape[2:])
    if example is not None:
        wanted.insert(0, tuple(example))
    try:
        code = Code(module)
        found = Reader(code, channels, wanted, out, progress).read()
    except UNetError as error:
        raise UNetError(f"{source}: {error}") from error
    code.free()
    return Reading(found.graph, code.state, source, found.trace.outputs, found.trace.chosen, found.checks, found.notes)
