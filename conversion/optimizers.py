"""The state of an optimiser across the frameworks, for people with training loops of their own."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conversion.backends.frameworks import importing
from conversion.modules import read_module
from conversion.scripts import understood_training
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.reading import NO_HINTS, Hints
from unet_core.errors import CheckpointError, some
from unet_core.graph.canonical import Description, Tensors
from unet_core.paths import as_source
from unet_core.training.script_file import merged, refuse
from unet_core.training.state import OptimizerState, parameter_shapes

if TYPE_CHECKING:
    import optax
    import torch

    from unet_torch.training.optimizer_state import Saved


def optimizer_to_optax(
    optimizer: "torch.optim.Optimizer | Mapping[str, Any] | str | Path",
    state: "optax.OptState",
    *,
    model: "torch.nn.Module | None" = None,
    step: int | None = None,
    drop: Collection[str] = (),
    hints: Hints = NO_HINTS,
) -> "optax.OptState":
    """The optax state that goes on where a torch optimiser stands, every moment bit for bit.

    The moments are found in `state` by type and name (`ScaleByAdamState`, `ScaleByRmsState`, `TraceState`), wherever in
    the chain they are, in `optax.partition`, `masked`, `inject_hyperparams` and `MultiSteps` as well; counts of updates
    (Adam's, schedules') are set. The chain must do what the torch optimiser does; docs/switching.md has the chains.

    Args:
        optimizer: a `torch.optim` Adam, AdamW, SGD or RMSprop; or its `state_dict()`; or the path of a training file
            that a script saved, or of the Orbax directory that this was converted to.
        state: what `transformation.init(params)` gave for the parameters of the `unet_jax.UNet`, or the `opt_state` of
            an `nnx.Optimizer`; it is not changed.
        model: the torch module whose parameters `optimizer` has; not of a path.
        step: updates made, where torch does not tell: its SGD counts none.
        drop: the names of what cannot be carried and may be left behind, as the error lists them.
        hints: of a file of another project, what it does not tell.

    Returns:
        A state like `state`, its arrays where those of `state` are.

    Raises:
        CheckpointError: something cannot be carried; or the two are not of one network, optimiser or dtype.
        MissingFrameworkError: JAX is not installed.

    Examples:
        >>> import conversion, jax, optax, torch, unet_torch
        >>> from flax import nnx
        >>> model = unet_torch.UNet(features=(4, 8))
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> model(torch.zeros(2, 3, 8, 8)).sum().backward()
        >>> optimizer.step()
        >>> params = nnx.state(conversion.to_jax(model), nnx.Param)
        >>> state = conversion.optimizer_to_optax(optimizer, optax.adam(1e-3).init(params), model=model)
        >>> int(state[0].count)
        1
    """
    with importing():
        from unet_jax.training import optimizer_state as target
    others = target.others(state)
    saved, left, config = _saved(optimizer, model, hints)
    saved = _counted(saved, step)
    filled, missing = target.fill(state, saved, config)
    left.pop("frozen", None)  # where the chain, too, leaves such parameters out
    if missing:
        left["frozen"] = f"in the chain, and without moments in torch: {some(missing)}"
    refuse(merged(left, others), drop, "the optimiser")
    return target.placed_like(filled, state)


def _saved(
    optimizer: "torch.optim.Optimizer | Mapping[str, Any] | str | Path", model: "torch.nn.Module | None", hints: Hints
) -> tuple[OptimizerState, dict[str, str], Description]:
    """The moments, what of them cannot be carried, and the network."""
    if isinstance(optimizer, str | Path):
        if model is not None:
            raise CheckpointError(f"{optimizer}: a training file has its network in it; leave model out")
        training, left = understood_training(as_source(optimizer), hints)
        return training.state.optimizer, left, training.state.network.config
    if model is None:
        raise CheckpointError("which parameter is which, only the module tells: give model")
    found, network = _read(optimizer, model)
    return found.state, dict(found.left), network.config


def optimizer_to_torch(
    state: "optax.OptState",
    optimizer: "torch.optim.Optimizer",
    model: "torch.nn.Module",
    *,
    step: int | None = None,
    drop: Collection[str] = (),
) -> dict[str, Any]:
    """What `optimizer.load_state_dict` takes, to go on where an optax state stands, every moment bit for bit.

    Args:
        state: of an optax chain over the parameters of a `unet_jax.UNet`, plain or in an `nnx.Optimizer`.
        optimizer: a `torch.optim` Adam, AdamW, SGD or RMSprop over the parameters of `model`; its settings stay, and it
            is not changed.
        model: the torch module, of any class.
        step: updates made, where no transformation counts them.
        drop: the names of what cannot be carried and may be left behind, as the error lists them.

    Raises:
        CheckpointError: something cannot be carried; or the two are not of one network or optimiser.
        MissingFrameworkError: PyTorch is not installed.

    Examples:
        >>> import conversion, optax, torch, unet_jax
        >>> from flax import nnx
        >>> in_jax = unet_jax.UNet(rngs=0, features=(4, 8))
        >>> state = optax.adam(1e-3).init(nnx.state(in_jax, nnx.Param))
        >>> model = conversion.to_torch(in_jax)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> optimizer.load_state_dict(conversion.optimizer_to_torch(state, optimizer, model))
    """
    with importing():
        from unet_jax.training.optimizer_state import to_canonical
        from unet_torch.training.optimizer_state import write
    found, network = _read(optimizer, model)
    if step is not None and step < 0:
        raise CheckpointError(f"step {step}: give a whole number from 0 up")
    saved, left = to_canonical(state, network.config, step)
    remembered = [set(tensors) for tensors in saved.moments.values()]
    absent = [key for key in found.parameters if saved.step != 0 and any(key not in keys for keys in remembered)]
    if absent:
        left["frozen"] = f"in the torch optimiser, and not remembered by the chain: {some(absent)}"
    refuse(left, drop, "the optax state")
    on = [name for name in ("amsgrad", "centered", "dampening", "maximize") if name in found.left]
    if on:
        raise CheckpointError(f"the torch optimiser has {some(on)}, which no optax state remembers; make one without")
    wanted = list(found.state.moments)
    if list(saved.moments) != wanted:
        raise CheckpointError(
            f"the optax state remembers {some(saved.moments) or 'nothing'}, the torch optimiser, "
            f"{found.state.optimizer}, {some(wanted) or 'nothing'}: they are of two kinds"
        )
    if saved.step is None and found.state.optimizer != "sgd":
        raise CheckpointError("torch counts updates, the optax state does not: give step, how many were made")
    _check_parameters(saved, found.parameters, network.tensors)
    state_dict = write(dataclasses.replace(found, state=saved))
    groups = optimizer.state_dict()["param_groups"]
    return {"state": state_dict["state"], "param_groups": groups}


def _counted(saved: OptimizerState, step: int | None) -> OptimizerState:
    """With the updates that the caller says; torch's SGD counts none, and a file's own counter may count otherwise."""
    if step is None:
        return saved
    if step < 0:
        raise CheckpointError(f"step {step}: give a whole number from 0 up")
    if saved.optimizer != "sgd" and saved.step != step:
        raise CheckpointError(f"torch counts {saved.step} updates, and step says {step}; leave it out")
    return dataclasses.replace(saved, step=step)


def _read(optimizer: Any, model: "torch.nn.Module") -> tuple["Saved", Checkpoint]:
    """The state of an optimiser, or of its `state_dict`, over the parameters of a module; and what that holds."""
    with importing():
        from unet_torch.canonical import unwrapped
        from unet_torch.training.optimizer_state import read
    module = unwrapped(model)
    network = read_module(module)
    shapes = parameter_shapes(network.config)
    keys = {name: name for name, _ in module.named_parameters() if name in shapes}
    if isinstance(optimizer, Mapping):
        return read(optimizer, keys, shapes, "the optimiser"), network
    if not hasattr(optimizer, "param_groups"):
        raise CheckpointError(f"a torch optimiser, its state_dict or a path is needed, got {type(optimizer).__name__}")
    saved = optimizer.state_dict()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    foreign = [p for group in optimizer.param_groups for p in group["params"] if id(p) not in names]
    if foreign:
        raise CheckpointError(f"the optimiser has {len(foreign)} parameters that are not the module's")
    for group, live in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        group["param_names"] = [names[id(parameter)] for parameter in live["params"]]
    return read(saved, keys, shapes, "the optimiser"), network


def _check_parameters(saved: OptimizerState, parameters: Collection[str], tensors: Tensors) -> None:
    """The moments must be of the optimiser's parameters and dtypes: `load_state_dict` would cast them silently."""
    wrong = [
        f"{moment} of {key} ({value.dtype}, {'x'.join(map(str, value.shape))})"
        for moment, found in saved.moments.items()
        for key, value in found.items()
        if key not in parameters or (value.dtype, value.shape) != (tensors[key].dtype, tensors[key].shape)
    ]
    if wrong:
        raise CheckpointError(f"the torch optimiser has no such parameters, of these dtypes: {some(wrong)}")
