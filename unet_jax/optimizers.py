"""Optimisers in optax, and the average of the weights. `unet_torch/optimizers.py` is the twin: its semantics hold."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float

from unet_core.settings import Optimizer


def optimizer_of(settings: Optimizer) -> optax.GradientTransformation:
    """The chain that does what torch's optimiser does, up to the learning rate.

    Its updates are still to be multiplied by minus the rate, which is an argument of every step: as torch does, and so
    that a momentum holds gradients and not steps of former rates (`optax.rmsprop` keeps the latter).
    """
    decayed = [optax.add_decayed_weights(settings.decay)] if settings.decay else []
    match settings.optimizer:
        case "adam":
            return optax.chain(*decayed, optax.scale_by_adam(*settings.betas, eps=settings.epsilon))
        case "adamw":
            return optax.chain(optax.scale_by_adam(*settings.betas, eps=settings.epsilon), *decayed)
        case "sgd":
            if settings.momentum:
                return optax.chain(*decayed, optax.trace(settings.momentum, nesterov=settings.nesterov))
            counter = optax.scale_by_schedule(lambda _: 1.0)  # Orbax saves no state that holds no array
            return optax.chain(*decayed, counter)
        case "rmsprop":
            trace = [optax.trace(settings.momentum)] if settings.momentum else []
            scale = optax.scale_by_rms(settings.alpha, settings.epsilon, eps_in_sqrt=False)
            return optax.chain(*decayed, scale, *trace)


def clipped(gradients: Any, most: float | None) -> tuple[Any, Float[Array, ""]]:
    """The gradients scaled down, together, so that their norm is at most `most`; and their norm before.

    As `torch.nn.utils.clip_grad_norm_`: by most / (norm + 1e-6), where that is below 1; optax has no such epsilon.
    """
    norm = optax.tree.norm(gradients)
    if most is None:
        return gradients, norm
    part = jnp.minimum(most / (norm + 1e-6), 1.0)
    return jax.tree.map(lambda gradient: gradient * part, gradients), norm


def averaged(average: Any, current: Any, decay: Float[Array, ""]) -> Any:
    """The average of weights and statistics, moved towards the current ones; counters are the current ones.

    As `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn(decay)` and `use_buffers=True`,
    which averages counters as well, rounding down.
    """

    def move(old: Array, new: Array) -> Array:
        if not jnp.issubdtype(new.dtype, jnp.floating):
            return new
        stays = decay.astype(old.dtype)
        return jnp.where(stays > 0.5, old + (1 - stays) * (new - old), new - stays * (new - old))  # as torch's lerp

    return jax.tree.map(move, average, current)
