"""Optimisers and the average of the weights in PyTorch. `unet_jax/training/optimizers.py` is the twin."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unet_core.training.settings import Optimizer


def optimizer_of(settings: Optimizer, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Torch's own optimiser with these settings; its learning rate is set before every step."""
    rate, decay = settings.rate, settings.decay
    match settings.optimizer:
        case "adam":
            return torch.optim.Adam(parameters, rate, settings.betas, settings.epsilon, decay)
        case "adamw":
            return torch.optim.AdamW(parameters, rate, settings.betas, settings.epsilon, decay)
        case "sgd":
            momentum, nesterov = settings.momentum, settings.nesterov
            return torch.optim.SGD(parameters, rate, momentum, weight_decay=decay, nesterov=nesterov)
        case "rmsprop":
            return torch.optim.RMSprop(
                parameters, rate, settings.alpha, settings.epsilon, weight_decay=decay, momentum=settings.momentum
            )


def clipped(parameters: Iterable[nn.Parameter], most: float | None) -> Float[Tensor, ""]:
    """Scale the gradients down, together, so that their norm is at most `most`; returns their norm before.

    As `torch.nn.utils.clip_grad_norm_`: by most / (norm + 1e-6), where that is below 1.
    """
    owners = list(parameters)
    norm = nn.utils.get_total_norm([owner.grad for owner in owners if owner.grad is not None])
    if most is not None:
        nn.utils.clip_grads_with_norm_(owners, most, norm)
    return norm


@torch.no_grad()
def averaged(average: dict[str, Tensor], current: dict[str, Tensor], renewal: float) -> None:
    """Move the average of weights and statistics towards the current ones, in place; counters are copied.

    As `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn(1 - renewal)` and `use_buffers=True`,
    which averages counters as well, rounding down.
    """
    for name, value in current.items():
        if value.is_floating_point():
            average[name].lerp_(value, renewal)
        else:
            average[name].copy_(value)
