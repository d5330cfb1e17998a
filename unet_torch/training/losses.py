"""Losses on logits in PyTorch, channels first. `unet_jax/training/losses.py` is the twin;
`unet_core/training/losses.py` has the definitions.
"""

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional

from unet_core.training.losses import SMOOTHING
from unet_core.training.settings import Loss


def loss_value(
    loss: Loss, logits: Float[Tensor, "n k *s"], labels: UInt8[Tensor, " n *s"], ignoring: bool = False
) -> Float[Tensor, ""]:
    """What `loss` says of these logits, in float32 at least.

    Args:
        loss: which.
        logits: one channel for two classes, otherwise one for each.
        labels: the class of every pixel.
        ignoring: pixels that have no class's number count nowhere; else there are none.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    counted = labels < max(2, logits.shape[1]) if ignoring else None
    labels = labels if counted is None else labels * counted
    total = logits.new_zeros(())
    if "cross-entropy" in loss.parts:
        total = total + cross_entropy(logits, labels, loss.class_weights, counted)
    if "dice" in loss.parts:
        total = total + dice(logits, labels, counted)
    return total


def cross_entropy(
    logits: Float[Tensor, "n k *s"],
    labels: UInt8[Tensor, " n *s"],
    weights: tuple[float, ...] | None = None,
    counted: Bool[Tensor, " n *s"] | None = None,
) -> Float[Tensor, ""]:
    """The mean over the pixels that are counted of -log p(class), each pixel with its class's weight."""
    weight = None if weights is None else logits.new_tensor(weights)
    single, target = logits.shape[1] == 1, labels.long()
    if counted is None and not (single and weight is not None):
        if not single:
            return functional.cross_entropy(logits, target, weight=weight)
        return functional.binary_cross_entropy_with_logits(logits, labels[:, None].to(logits.dtype))
    of_pixel = torch.ones_like(logits[:, 0]) if weight is None else weight[target]
    if counted is not None:
        of_pixel = of_pixel * counted
    if single:
        lost = functional.binary_cross_entropy_with_logits(logits[:, 0], target.to(logits.dtype), reduction="none")
    else:
        lost = functional.cross_entropy(logits, target, reduction="none")
    total = of_pixel.sum()
    return (of_pixel * lost).sum() / torch.where(total > 0, total, 1)


def dice(
    logits: Float[Tensor, "n k *s"], labels: UInt8[Tensor, " n *s"], counted: Bool[Tensor, " n *s"] | None = None
) -> Float[Tensor, ""]:
    """1 minus the soft Dice coefficient over the batch, the mean over the classes; for one logit the foreground's."""
    if logits.shape[1] > 1:
        p = torch.softmax(logits, dim=1)
        y = functional.one_hot(labels.long(), logits.shape[1]).movedim(-1, 1).to(p.dtype)
    else:
        p, y = torch.sigmoid(logits), labels[:, None].to(logits.dtype)
    if counted is not None:
        p, y = p * counted[:, None], y * counted[:, None]
    pixels = (0, *range(2, p.ndim))
    shared, both = ((p * y).sum(pixels), p.sum(pixels) + y.sum(pixels))
    return 1 - ((2 * shared + SMOOTHING) / (both + SMOOTHING)).mean()
