"""Training files of PyTorch scripts: `{"model": ..., "optimizer": optimizer.state_dict(), "epoch": ...}`.

`unet_jax/training/script_file.py` is the twin.
"""

import dataclasses
import json
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.pickled.standins import Inert
from unet_core.errors import CheckpointError, some
from unet_core.files import reserve
from unet_core.graph import Graph
from unet_core.training.script_file import Script, TrainingFile, is_plain, merged
from unet_core.training.state import TrainingState, parameter_shapes, updated_shapes
from unet_torch.canonical import as_torch
from unet_torch.contents import opened, write_pickle
from unet_torch.training import optimizer_state

_COUNTERS = ("global_step", "step", "iteration", "iterations")
"""Where scripts keep the updates that they have made, of which torch's SGD tells nothing."""

_SCHEDULER, _SCALER = {"last_epoch", "_step_count", "num_bad_epochs"}, {"growth_factor", "growth_interval"}
"""Keys by which the states of schedulers (torch/optim/lr_scheduler.py) and GradScalers (torch/amp) show."""


def understood(path: Path, checkpoint: Checkpoint) -> tuple[TrainingFile, dict[str, str]]:
    """Network and optimiser of a training file; and, by name, what cannot be carried. Never runs code from it.

    Args:
        path: the file.
        checkpoint: the network in it.

    Raises:
        CheckpointError: damaged; without an optimiser; of an optimiser that is not Adam, AdamW, SGD or RMSprop; or it
            leaves open which parameter is which.
    """
    source = str(path)
    contents = opened(path)
    names = checkpoint.reading.keys
    place, network = _network(contents, names.values(), checkpoint.reading.key, source)
    key, listed, optimizer = _optimizer(contents, source)
    shapes = parameter_shapes(checkpoint.config)
    canonical = {name: canonical for canonical, name in names.items()}
    canonical |= _twice(checkpoint)
    ordered = [(canonical[name], name) for name in network if name in canonical]
    keys = {name: canonical for canonical, name in ordered if canonical in shapes and names[canonical] == name}
    idle = shapes.keys() - updated_shapes(checkpoint.config).keys()
    saved = optimizer_state.read(optimizer, keys, shapes, source, idle=idle)
    saved.state.check(checkpoint, source)
    beside: dict[str, Any] = {}
    left: dict[str, str] = {}
    for name, value in contents.items():
        if name not in (place, key) and (place or name not in canonical):
            what = _cannot_be_carried(str(name), value)
            if what:
                left[str(name)] = what
            else:
                beside[str(name)] = value
    count = next((beside[name] for name in _COUNTERS if type(beside.get(name)) is int), None)
    step = saved.state.step if saved.state.step is not None else count
    state = dataclasses.replace(saved.state, step=step)
    script = Script(
        order=tuple(str(name) for name in contents if str(name) in {place, key, *beside} or name in canonical),
        network=place,
        optimizer=key,
        listed=listed,
        names=tuple(ordered),
        parameters=saved.parameters,
        groups=saved.groups,
        steps=saved.steps,
        beside=beside,
    )
    return TrainingFile(TrainingState(step or 0, checkpoint, state), script), merged(saved.left, left)


def write(path: Path, training: TrainingFile) -> None:
    """Write the file as its script saved it, and so that it loads it; without what was left behind.

    Raises:
        CheckpointError: it cannot be written.
    """
    script, state = training.script, training.state
    network: OrderedDict[str, Any] = OrderedDict(
        (name, as_torch(state.network.tensors[key], copy=False)) for key, name in script.names
    )
    network.update(json.loads(state.network.origin.extras) if script.network else {})
    saved = optimizer_state.Saved(state.optimizer, script.parameters, script.groups, script.steps)
    optimizer = optimizer_state.write(saved)
    parts: dict[str, Any] = {**script.beside, script.optimizer: [optimizer] if script.listed else optimizer}
    parts |= {script.network: network} if script.network else network
    reserve(path, sum(value.nbytes for value in state.arrays().values()) * 5 // 4)
    write_pickle(path, {name: parts[name] for name in script.order})


def _twice(checkpoint: Checkpoint) -> dict[str, str]:
    """The later names of tensors that stand in the file under several, each with the canonical one."""
    config, keys = checkpoint.config, checkpoint.reading.keys
    tensors = config.tensors if isinstance(config, Graph) else {}
    return {
        f"{keys[first].removesuffix(first)}{name}": first
        for name, tensor in tensors.items()
        if (first := tensor.same_as) is not None
    }


def _network(
    contents: dict[Any, Any], names: Collection[str], label: str, source: str
) -> tuple[str, Mapping[str, Any]]:
    """The outermost key of the dict that holds the network's tensors, and that dict.

    Of several such dicts, the one where `label` says that they were found.
    """
    for place, inner in (*contents.items(), ("", contents)):
        found = isinstance(place, str) and f"{label}.".startswith(f"{place}." if place else "")
        if found and isinstance(inner, dict) and all(name in inner for name in names):
            return place, inner
    raise CheckpointError(f"{source}: its network lies deeper than scripts put it; save it as model.state_dict()")


def _optimizer(contents: dict[Any, Any], source: str) -> tuple[str, bool, Any]:
    """Key and state of the file's only optimiser, and whether it lies in a list."""
    found = list(_optimizers(contents))
    if len(found) == 1:
        return found[0]
    if not found:
        raise CheckpointError(
            f"{source}: holds no optimiser's state, only {some(map(str, contents))}; leave --to out for the network"
        )
    several = some(key for key, _, _ in found)
    raise CheckpointError(f"{source}: holds several optimisers: {several}; save one with the network")


def _optimizers(contents: dict[Any, Any]) -> Iterator[tuple[str, bool, Any]]:
    for key, value in contents.items():
        for listed, entries in ((False, [value]), (True, value if isinstance(value, list) else [])):
            for entry in entries:
                if isinstance(key, str) and isinstance(entry, dict) and "param_groups" in entry:
                    yield key, listed, entry


def _cannot_be_carried(name: str, value: Any) -> str | None:
    """What an entry beside network and optimiser is, where it would not be true any more, or is not plain."""
    if isinstance(value, dict) and value:
        if value.keys() & _SCHEDULER or "sched" in name.lower():
            return "a learning-rate scheduler's state"
        if value.keys() & _SCALER or "scaler" in name.lower():
            return "a GradScaler's state"
    if isinstance(value, dict | list | tuple):
        for key, part in value.items() if isinstance(value, dict) else ((name, part) for part in value):
            if isinstance(part, dict | list | tuple) and (what := _cannot_be_carried(str(key), part)):
                return what
    if not is_plain(value):
        if isinstance(value, Inert):
            return value.kind
        return "tensors, or objects of a class" if isinstance(value, dict | list | tuple) else type(value).__name__
    return None
