"""Optimisers in optax, and the average of the weights. `unet_torch/training/optimizers.py` is the twin: its semantics
hold.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float

from unet_core.training.settings import Optimizer


def optimizer_of(settings: Optimizer) -> optax.GradientTransformation:
    """The chain that does what torch's optimiser does, up to the learning rate.

    Its updates are still to be multiplied by minus the rate, which is an argument of every step: as torch does, and so
    that a momentum holds gradients and not steps of former rates (`optax.rmsprop` keeps the latter).
    """
    decayed = [optax.add_decayed_weights(settings.decay)] if settings.decay else []
    match settings.optimizer:
        case "adam":
            return optax.chain(*decayed, _scale_by_adam(*settings.betas, settings.epsilon))
        case "adamw":
            return optax.chain(_scale_by_adam(*settings.betas, settings.epsilon), *decayed)
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


def averaged(average: Any, current: Any, renewal: Float[Array, ""]) -> Any:
    """The average of weights and statistics, moved towards the current ones; counters are the current ones.

    As `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn(1 - renewal)` and `use_buffers=True`,
    which averages counters as well, rounding down.
    """

    def move(old: Array, new: Array) -> Array:
        if not jnp.issubdtype(new.dtype, jnp.floating):
            return new
        part = renewal.astype(old.dtype)
        return jnp.where(part < 0.5, old + part * (new - old), new - (1 - part) * (new - old))  # as torch's lerp

    return jax.tree.map(move, average, current)


def _scale_by_adam(beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformation:
    """Adam as `optax.scale_by_adam`, with its state, but for the bias corrections.

    1 - beta**t loses digits in float32 (2e-5 of itself at t = 1 for 0.999). torch has it in float64; this takes expm1.
    """
    start = optax.scale_by_adam(beta1, beta2, epsilon).init

    def update(gradients: Any, state: Any, _: Any = None) -> tuple[Any, optax.ScaleByAdamState]:
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda old, new: beta1 * old + (1 - beta1) * new, state.mu, gradients)
        nu = jax.tree.map(lambda old, new: beta2 * old + (1 - beta2) * new * new, state.nu, gradients)
        first, second = (-jnp.expm1(count * math.log(beta)) if beta else 1.0 for beta in (beta1, beta2))
        steps = jax.tree.map(lambda m, n: (m / first) / (jnp.sqrt(n) / jnp.sqrt(second) + epsilon), mu, nu)
        return steps, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(start, update)
