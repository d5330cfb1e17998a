"""A program that torch.export recorded, as a module with the names of the `state_dict` that it came with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils._pytree import TreeSpec, tree_leaves, tree_unflatten

_CLOSE = 1e-4
"""Of the largest value: another batch may take other kernels, which round otherwise."""


@dataclass(frozen=True)
class _Steps:
    """What is computed, without a tensor in it."""

    graph: torch.fx.GraphModule
    inputs: tuple[str | None, ...]
    """The tensor that each input of the graph is; None: the picture."""
    outputs: tuple[bool, ...]
    """Whether each output of the graph is one of the program's, and not a tensor that was changed in place."""
    structure: TreeSpec
    """Of what the program returns."""
    guards: Callable[..., object] | None
    """Raises an AssertionError for a picture of another size than was recorded."""

    def __deepcopy__(self, _: dict[int, Any]) -> "_Steps":
        return self


class Recorded(nn.Module):
    """Runs the graph of a program. It has only the one mode that was recorded.

    Args:
        program: of one picture.
        shape: of a batch that it takes.
        state: the tensors of its state_dict, in their order.
        parameters: those of them that an optimiser trains.

    Raises:
        Exception: torch's own, of a program that contradicts itself.
    """

    def __init__(
        self, program: ExportedProgram, shape: tuple[int, ...], state: Mapping[str, Tensor], parameters: set[str]
    ) -> None:
        super().__init__()
        made: dict[tuple[Any, ...], Tensor] = {}
        for name, tensor in state.items():
            place = (tensor.data_ptr(), tensor.shape, tensor.stride()) if tensor.numel() else (name,)
            if place not in made:  # else it stands there under two names
                made[place] = nn.Parameter(tensor.detach()) if name in parameters else tensor.detach()
            self._put(name, made[place])
        for name, tensor in program.constants.items():
            if name not in state:
                self._put(name, tensor, persistent=False)
        program.example_inputs = ((torch.zeros(()).expand(shape),), {})  # by it torch finds whose size each guard is of
        signature = program.graph_signature
        structure = program.call_spec.out_spec
        assert structure is not None
        self.steps = _Steps(
            graph=program.graph_module,
            inputs=tuple(None if spec.kind is InputKind.USER_INPUT else spec.target for spec in signature.input_specs),
            outputs=tuple(spec.kind is OutputKind.USER_OUTPUT for spec in signature.output_specs),
            structure=structure,
            guards=getattr(program.module(), "_guards_fn", None),
        )
        self.batch = shape[0] if isinstance(_picture(program).shape[0], int) else None
        """The only number of pictures that it takes; None: any."""

    def forward(self, x: Tensor) -> Any:
        """What was recorded, of another picture."""
        if self.steps.guards is not None:
            self.steps.guards(x if self.batch is None else x[:1].expand(self.batch, *x.shape[1:]))
        tensors: dict[str, Tensor] = dict(self.named_parameters(remove_duplicate=False))
        tensors |= dict(self.named_buffers(remove_duplicate=False))
        given = [x if name is None else tensors[name] for name in self.steps.inputs]
        found = torch.fx.Interpreter(self.steps.graph).run(*given)
        returned = [one for one, wanted in zip(found, self.steps.outputs, strict=True) if wanted]
        return tree_unflatten(returned, self.steps.structure)

    def treats_pictures_alike(self, shape: tuple[int, ...]) -> bool:
        """Whether a program that was recorded for one number of pictures treats each as if it were alone."""
        batch = shape[0]
        pictures = torch.randn(max(batch, 2), *shape[1:], generator=torch.Generator().manual_seed(0))
        try:
            with torch.no_grad():
                together = [tree_leaves(self(part)) for part in pictures.split(batch)]
                apart = [tree_leaves(self(part)) for part in pictures.split(1 if batch > 1 else len(pictures))]
                return all(
                    _close(torch.cat(one), torch.cat(other))
                    for one, other in zip(zip(*together, strict=True), zip(*apart, strict=True), strict=True)
                )
        except (RuntimeError, ValueError, TypeError, IndexError):  # the number is written into the graph
            return False

    def _put(self, name: str, tensor: Tensor, *, persistent: bool = True) -> None:
        *parents, last = name.split(".")
        part: nn.Module = self
        for parent in parents:  # not by add_module, which refuses the names of methods
            part = part._modules.setdefault(parent, nn.Module())  # type: ignore[assignment]
        if isinstance(tensor, nn.Parameter):
            part._parameters[last] = tensor
        else:
            part._buffers[last] = tensor
            if not persistent:
                part._non_persistent_buffers_set.add(last)


def _picture(program: ExportedProgram) -> Tensor:
    name = program.graph_signature.user_inputs[0]
    picture: Tensor = next(node.meta["val"] for node in program.graph.nodes if node.name == name)
    return picture


def _close(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= _CLOSE * one.abs().max())
