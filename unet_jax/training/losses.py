"""Losses on logits in JAX, NHWC. `unet_torch/training/losses.py` is the twin; `unet_core/training/losses.py` has the
definitions.

Under `jit` with the batch sharded over devices, every mean and sum is over the whole batch.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, UInt8

from unet_core.training.losses import SMOOTHING
from unet_core.training.settings import Loss


def loss_value(loss: Loss, logits: Float[Array, "n h w k"], labels: UInt8[Array, "n h w"]) -> Float[Array, ""]:
    """What `loss` says of these logits, in float32 at least.

    Args:
        loss: which.
        logits: one channel for two classes, otherwise one for each.
        labels: the class of every pixel.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    total = jnp.zeros((), logits.dtype)
    if "cross-entropy" in loss.parts:
        total += cross_entropy(logits, labels, loss.class_weights)
    if "dice" in loss.parts:
        total += dice(logits, labels)
    return total


def cross_entropy(
    logits: Float[Array, "n h w k"], labels: UInt8[Array, "n h w"], weights: tuple[float, ...] | None = None
) -> Float[Array, ""]:
    """The mean over pixels of -log p(class), each pixel with its class's weight."""
    if logits.shape[-1] > 1:
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None].astype(jnp.int32), axis=-1)[..., 0]
    else:
        z = logits[..., 0]
        chosen = jax.nn.log_sigmoid(jnp.where(labels == 1, z, -z))
    if weights is None:
        return -chosen.mean()
    of_pixel = jnp.asarray(weights, logits.dtype)[labels]
    return -(of_pixel * chosen).sum() / of_pixel.sum()


def dice(logits: Float[Array, "n h w k"], labels: UInt8[Array, "n h w"]) -> Float[Array, ""]:
    """1 minus the soft Dice coefficient over the batch, the mean over the classes; for one logit the foreground's."""
    if logits.shape[-1] > 1:
        p = jax.nn.softmax(logits)
        y = jax.nn.one_hot(labels, logits.shape[-1], dtype=p.dtype)
    else:
        p, y = jax.nn.sigmoid(logits), labels[..., None].astype(logits.dtype)
    shared, both = ((p * y).sum((0, 1, 2)), p.sum((0, 1, 2)) + y.sum((0, 1, 2)))
    return 1 - ((2 * shared + SMOOTHING) / (both + SMOOTHING)).mean()
