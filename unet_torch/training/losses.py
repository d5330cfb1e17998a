"""Losses on logits in PyTorch, NCHW. `unet_jax/training/losses.py` is the twin; `unet_core/training/losses.py` has
the definitions.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from unet_core.training.losses import SMOOTHING
from unet_core.training.settings import Loss


def loss_value(loss: Loss, logits: Float[Tensor, "n k h w"], labels: UInt8[Tensor, "n h w"]) -> Float[Tensor, ""]:
    """What `loss` says of these logits, in float32 at least.

    Args:
        loss: which.
        logits: one channel for two classes, otherwise one for each.
        labels: the class of every pixel.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = logits.new_zeros(())
    if "cross-entropy" in loss.parts:
        total = total + cross_entropy(logits, labels, loss.class_weights)
    if "dice" in loss.parts:
        total = total + dice(logits, labels)
    return total


def cross_entropy(
    logits: Float[Tensor, "n k h w"], labels: UInt8[Tensor, "n h w"], weights: tuple[float, ...] | None = None
) -> Float[Tensor, ""]:
    """The mean over pixels of -log p(class), each pixel with its class's weight."""
    weight = None if weights is None else logits.new_tensor(weights)
    if logits.shape[1] > 1:
        return functional.cross_entropy(logits, labels.long(), weight=weight)
    target = labels[:, None].to(logits.dtype)
    if weight is None:
        return functional.binary_cross_entropy_with_logits(logits, target)
    of_pixel = weight[labels.long()][:, None]
    return functional.binary_cross_entropy_with_logits(logits, target, of_pixel, reduction="sum") / of_pixel.sum()


def dice(logits: Float[Tensor, "n k h w"], labels: UInt8[Tensor, "n h w"]) -> Float[Tensor, ""]:
    """1 minus the soft Dice coefficient over the batch, the mean over the classes; for one logit the foreground's."""
    if logits.shape[1] > 1:
        p = torch.softmax(logits, dim=1)
        y = functional.one_hot(labels.long(), logits.shape[1]).permute(0, 3, 1, 2).to(p.dtype)
    else:
        p, y = torch.sigmoid(logits), labels[:, None].to(logits.dtype)
    shared, both = ((p * y).sum((0, 2, 3)), p.sum((0, 2, 3)) + y.sum((0, 2, 3)))
    return 1 - ((2 * shared + SMOOTHING) / (both + SMOOTHING)).mean()
