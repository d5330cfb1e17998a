"""The state of a `torch.optim` optimiser to and from the canonical form. `unet_jax/training/optimizer_state.py` is
the twin.

torch keys it by the parameters' indices, which count through the parameter groups; here each index gets its name.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unet_core.errors import CheckpointError, shown, some
from unet_core.graph.canonical import FLOATS, contiguous
from unet_core.training.script_file import is_plain
from unet_core.training.settings import OptimizerName
from unet_core.training.state import MOMENTS, MOST_UPDATES, OptimizerState
from unet_torch.canonical import as_numpy, as_torch
from unet_torch.training.parameter_groups import Shapes, named_parameters

_SETTINGS: Mapping[OptimizerName, frozenset[str]] = {
    "adam": frozenset({"betas", "eps", "amsgrad"}),
    "sgd": frozenset({"momentum", "dampening", "nesterov"}),
    "rmsprop": frozenset({"alpha", "eps", "centered", "momentum"}),
}
"""The settings in a parameter group by which an optimiser is told."""

_COMMON = {
    *("params", "param_names", "lr", "weight_decay", "maximize", "foreach", "capturable", "differentiable", "fused"),
    *("decoupled_weight_decay", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr"),
}
"""Settings that any of them has, or that torch's schedulers add."""

_OFF: Mapping[str, tuple[Any, str]] = {
    "amsgrad": (False, "the running maximum of exp_avg_sq, which optax has otherwise"),
    "centered": (False, "RMSprop's mean gradient"),
    "dampening": (0, "SGD's damping of every gradient but the first"),
    "maximize": (False, "steps up the gradient"),
}
"""Settings that change what is remembered or how, their value where they are off, and what they are."""

_STEP_KINDS = {torch.float32: "float32", torch.float64: "float64", torch.int64: "int64"}


@dataclass(frozen=True)
class Saved:
    """An optimiser's `state_dict`, understood."""

    state: OptimizerState
    parameters: tuple[str, ...]
    """The canonical name of every parameter, by its index."""
    groups: tuple[dict[str, Any], ...]
    """The `param_groups`, as plain values, without what is left behind."""
    steps: str = "float32"
    """The dtype of the `step` of every parameter; "int" in files of torch 1.11 and earlier."""
    left: Mapping[str, str] = field(default_factory=dict)
    """What cannot be carried: for each name, what it is."""


def read(saved: Any, keys: Mapping[str, str], shapes: Shapes, source: str, *, idle: Collection[str] = ()) -> Saved:
    """Understand what `optimizer.state_dict()` gave, of Adam, AdamW, SGD or RMSprop.

    Args:
        saved: that.
        keys: the canonical name of every parameter by the module's own name, in the order of the module.
        shapes: by the canonical name.
        source: for messages.
        idle: the canonical names of parameters that never have moments, for the logits do not depend on them.

    Raises:
        CheckpointError: it is of another optimiser or network, or leaves open which parameter is which.
    """
    entries, groups = _parts(saved, source)
    optimizer = _optimizer_of(groups, source)
    moments = MOMENTS[optimizer]
    tensors = {
        index: {name: value for name, value in entry.items() if isinstance(value, Tensor) and name != "step"}
        for index, entry in entries.items()
    }
    seen = {index: _shape_in(found) for index, found in tensors.items()}
    parameters = named_parameters(groups, seen, keys, shapes, source)
    left = {name: what for name, (off, what) in _OFF.items() if any(group.get(name, off) != off for group in groups)}
    known = _COMMON | _SETTINGS["adam" if optimizer == "adamw" else optimizer]
    unknown = [name for group in groups for name in group if name not in known and not isinstance(group[name], str)]
    left |= dict.fromkeys(unknown, f"a setting that {optimizer} in torch has not")
    extra = {name for entry in entries.values() for name in entry} - {*moments, "step"}
    left |= dict.fromkeys(extra - {"max_exp_avg_sq", "grad_avg"}, "of another kind of optimiser")
    steps = {int(entry["step"]) for entry in entries.values() if "step" in entry}
    if len(steps) > 1:
        left["step"] = f"parameters were updated {min(steps)} to {max(steps)} times, optax has one count"
    momentum = [bool(group.get("momentum")) for group in groups for _ in group["params"]]
    never = [
        parameters[index]
        for index, moving in enumerate(momentum)
        if index not in entries and (moving or optimizer != "sgd") and parameters[index] not in idle
    ]
    if entries and never:
        left["frozen"] = f"never updated, so without moments: {some(never)}"
    wanted = [name for name in moments if name != "momentum_buffer" or any(momentum)]
    state = OptimizerState(
        optimizer,
        max(steps, default=None if optimizer == "sgd" else 0),
        {
            moment: {
                parameters[index]: _values(found[moment], source) for index, found in tensors.items() if moment in found
            }
            for moment in wanted
        },
    )
    plain = [_plain_group(group, left, source) for group in groups]
    return Saved(state, parameters, tuple(plain), _step_kind(entries), left)


def write(saved: Saved) -> dict[str, Any]:
    """The inverse of `read`: what `optimizer.load_state_dict` takes, in memory of its own."""
    entries: dict[int, dict[str, Any]] = {}
    for index, key in enumerate(saved.parameters):
        found = {name: tensors[key] for name, tensors in saved.state.moments.items() if key in tensors}
        if found:
            step = {} if saved.state.optimizer == "sgd" else {"step": _step(saved)}
            entries[index] = step | {name: as_torch(value) for name, value in found.items()}
    return {"state": entries, "param_groups": [dict(group) for group in saved.groups]}


def _step(saved: Saved) -> Any:
    count = saved.state.step or 0
    return count if saved.steps == "int" else torch.tensor(count, dtype=getattr(torch, saved.steps))


def _parts(saved: Any, source: str) -> tuple[dict[int, dict[str, Any]], list[dict[str, Any]]]:
    entries = saved.get("state") if isinstance(saved, Mapping) else None
    groups = saved.get("param_groups") if isinstance(saved, Mapping) else None
    sound = isinstance(groups, list) and all(
        isinstance(group, Mapping) and isinstance(group.get("params"), list) for group in groups
    )
    if not isinstance(entries, Mapping) or not groups or not sound:
        raise CheckpointError(f"{source}: is no state_dict of a torch optimiser (state and param_groups)")
    indices = [index for group in groups for index in group["params"]]
    if indices != list(range(len(indices))):
        raise CheckpointError(f"{source}: the indices in param_groups are not 0 to {len(indices) - 1}, in order")
    odd = [index for index in entries if index not in range(len(indices)) or not isinstance(entries[index], Mapping)]
    if odd:
        raise CheckpointError(f"{source}: has states of no parameter: {some(map(str, odd))}")
    found: dict[int, dict[str, Any]] = {}
    for index in sorted(entries):
        entry = {str(name): value for name, value in entries[index].items() if value is not None}
        step = entry.get("step", 0)
        number = step.item() if isinstance(step, Tensor) and step.numel() == 1 else step
        if not isinstance(number, int | float) or not (0 <= number <= MOST_UPDATES and number == int(number)):
            raise CheckpointError(f"{source}: the step of parameter {index} is no count: {shown(str(step))}")
        if entry:
            found[index] = entry
    return found, [dict(group) for group in groups]


def _optimizer_of(groups: Sequence[Mapping[str, Any]], source: str) -> OptimizerName:
    keys = set(groups[0])
    for name, settings in _SETTINGS.items():
        if settings <= keys:
            decoupled = any(group.get("decoupled_weight_decay") for group in groups)
            return "adamw" if name == "adam" and decoupled else name
    found = some(sorted(map(str, keys - {"params"})))
    raise CheckpointError(f"{source}: the optimiser is none of Adam, AdamW, SGD and RMSprop; its settings are {found}")


def _shape_in(found: Mapping[str, Tensor]) -> tuple[int, ...] | None:
    return next((tuple(value.shape) for value in found.values()), None)


def _values(value: Tensor, source: str) -> np.ndarray:
    if value.layout != torch.strided or value.numel() * value.itemsize > value.untyped_storage().nbytes():
        raise CheckpointError(f"{source}: the optimiser's state is no dense tensor of its own")
    array = contiguous(as_numpy(value))
    if array.dtype not in FLOATS:
        raise CheckpointError(f"{source}: the optimiser's state is {value.dtype}, not floating-point")
    return array


def _plain_group(group: Mapping[str, Any], left: Mapping[str, str], source: str) -> dict[str, Any]:
    """A group's settings as plain values; what changes what is remembered, and is left behind, is switched off."""
    plain: dict[str, Any] = {}
    for name, value in group.items():
        value = _OFF[name][0] if name in left and name in _OFF else _plain(value)
        if not is_plain(value):
            raise CheckpointError(
                f"{source}: the setting {shown(name)} of its parameter groups is a {type(value).__name__}"
            )
        plain[name] = value
    return plain


def _plain(value: Any) -> Any:
    """Numbers in place of tensors, as `lr` and `betas` are where the optimiser is capturable."""
    if isinstance(value, tuple | list):
        return type(value)(map(_plain, value))
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def _step_kind(entries: Mapping[int, Mapping[str, Any]]) -> str:
    step = next((entry["step"] for entry in entries.values() if "step" in entry), None)
    if step is None:
        return "float32"
    return _STEP_KINDS.get(step.dtype, "float32") if isinstance(step, Tensor) else "int"
