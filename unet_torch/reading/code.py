"""A torch module that is read: a copy of it, how it is run, and what it returns."""

import copy
import io
import logging
import math
import warnings
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_flatten_with_path

from unet_core.errors import UNetError, first_line, shown, some
from unet_core.graph.node import Kind, Tensor
from unet_torch.reading.program import Held, Program

BATCH = 2
"""Of the picture with which code is traced: of one alone torch takes every size of one for a constant."""


@contextmanager
def float64() -> Iterator[None]:
    """Floats that code makes without a dtype are of float64, as the copy of the network is."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the user's code, and torch about it, print, log and warn of: it runs many times."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def tensors_of(answer: Any) -> dict[str, torch.Tensor]:
    """The tensors in what a module returns, by their places: `aux.0`; of a single one, nothing."""
    found, _ = tree_flatten_with_path(answer)
    return {
        ".".join(str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path): leaf
        for path, leaf in found
        if isinstance(leaf, torch.Tensor)
    }


class Code:
    """A module that is read: a copy of it in float64, and what its tensors are.

    Args:
        module: any network; it is left as it is.

    Raises:
        UNetError: it cannot be copied, or its weights are computed from others.
    """

    def __init__(self, module: nn.Module) -> None:
        _refuse_computed_weights(module)
        try:
            self.module = copy.deepcopy(module).to("cpu").double()
        except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
            raise UNetError(f"{type(module).__name__} cannot be copied: {first_line(error)}") from error
        state = module.state_dict(keep_vars=True)
        odd = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
        if odd:
            raise UNetError(f"its state_dict holds what is no tensor, and no checkpoint here keeps: {some(odd)}")
        parameters = {name for name, _ in module.named_parameters(remove_duplicate=False)}
        if not parameters <= state.keys():
            raise UNetError(
                f"its state_dict has other names than its parameters: {some(sorted(parameters - state.keys()))}"
            )
        first: dict[Any, str] = {}
        names = {name: first.setdefault(_identity(value), name) for name, value in state.items()}
        self.tensors = {
            name: Tensor(tuple(value.shape), _kind(name, parameters), None if names[name] == name else names[name])
            for name, value in state.items()
        }
        self.state = {name: value.detach() for name, value in state.items() if names[name] == name}
        copied = self.module.state_dict()
        floats = [value for value in self.state.values() if value.is_floating_point()]
        self.exact = bool(floats) and all(value.dtype is torch.float64 for value in floats)
        """Whether it is a network in float64, and may take nothing else."""
        self.held = {
            name: Held(first, self.tensors[first].kind, tuple(copied[first].shape), copied[first].dtype)
            for name, first in names.items()
        }
        self.values = {
            name: copied[name]
            for name, tensor in self.held.items()
            if tensor.kind == "buffer" and not tensor.dtype.is_floating_point
        }
        """Tables of whole numbers, by which code indexes: a part of the code, though the state_dict has them."""
        named = dict(self.module.named_modules(remove_duplicate=False))
        self.leaves = frozenset(name for name, part in named.items() if not any(True for _ in part.children()))
        means = {names.get(f"{name}.running_mean".removeprefix(".")): part for name, part in named.items()}
        self.cumulative = frozenset(name for name, part in means.items() if name and is_cumulative(part))
        """The running means of the norms whose momentum is None."""
        self.module.train()
        self.frozen = frozenset(name for name, part in means.items() if name and not part.training)
        """The running means of the norms that stay in eval mode in training."""
        self.counters = {
            first: self.held[count]
            for name, first in names.items()
            if name.endswith("running_mean")
            and (count := f"{name.removesuffix('running_mean')}num_batches_tracked") in self.held
        }

    def enliven(self) -> None:
        """Give the copy random tensors that let every part of it count.

        Its own may not: layers that begin at zero, and dead ones, hide what the code does with them.
        """
        generator = torch.Generator().manual_seed(0)
        copied = self.module.state_dict()
        for name in self.state:
            tensor, last = copied[name], name.rpartition(".")[2]
            if not tensor.is_floating_point() or self.tensors[name].kind == "buffer":
                continue
            if tensor.ndim > 1:
                torch.nn.init.normal_(tensor, 0, max(0.05, math.sqrt(2 * len(tensor) / tensor.numel())), generator)
            elif last in ("bias", "running_mean"):
                torch.nn.init.normal_(tensor, 0, 0.2, generator)
            else:
                torch.nn.init.uniform_(tensor, 0.5, 1.5, generator)

    def restore(self) -> None:
        """Give the copy the module's own tensors again."""
        copied = self.module.state_dict()
        with torch.no_grad():
            for name, tensor in self.state.items():
                copied[name].copy_(tensor)

    def free(self) -> None:
        """Give the copy's memory back: what torch.export leaves behind would hold on to it."""
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            tensor.data = tensor.data.new_empty(0)

    def program(self, channels: int, size: Sequence[int], *, training: bool) -> Program:
        """An empty program for it."""
        program = Program(channels, size, BATCH, training=training)
        program.cumulative, program.frozen, program.counters = self.cumulative, self.frozen, self.counters
        return program


@dataclass(frozen=True)
class Trace:
    """What a module computes in one mode, as it was traced at one size."""

    size: tuple[int, ...]
    program: Program
    outputs: tuple[str, ...]
    """The places of all tensors that it returns."""
    chosen: int
    most: int | None
    """The largest size that torch has found it to take."""


def is_cumulative(part: nn.Module) -> TypeGuard[nn.modules.batchnorm._BatchNorm]:
    """Whether it is a norm whose running statistics are cumulative averages."""
    return isinstance(part, nn.modules.batchnorm._BatchNorm) and part.momentum is None


def _identity(tensor: torch.Tensor) -> Any:
    """Equal for the very same tensor alone."""
    if not tensor.numel() or not tensor.data_ptr():
        return id(tensor)
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _kind(name: str, parameters: Container[str]) -> Kind:
    if name in parameters:
        return "parameter"
    if name.endswith(("running_mean", "running_var")):
        return "statistic"
    return "counter" if name.endswith("num_batches_tracked") else "buffer"


def _refuse_computed_weights(module: nn.Module) -> None:
    """Raise where weights are computed from others: what is trained is not what is convolved with."""
    hooks = {"WeightNorm": "remove_weight_norm", "SpectralNorm": "remove_spectral_norm"}
    for name, part in module.named_modules():
        if parametrize.is_parametrized(part):
            what, how = "a parametrization", "torch.nn.utils.parametrize.remove_parametrizations"
        else:
            found = [type(hook).__name__ for hook in part._forward_pre_hooks.values() if type(hook).__name__ in hooks]
            if not found:
                continue
            what, how = found[0], f"torch.nn.utils.{hooks[found[0]]}"
        raise UNetError(f"{shown(name)}: its weights are computed by {what}; make them plain ones first, by {how}")
