"""Losses on logits in JAX, channels last. `unet_torch/training/losses.py` is the twin; `unet_core/training/losses.py`
has the definitions.

Under `jit` with the batch sharded over devices, every mean and sum is over the whole batch.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, UInt8

from unet_core.training.losses import SMOOTHING
from unet_core.training.settings import Loss


def loss_value(
    loss: Loss, logits: Float[Array, "n *s k"], labels: UInt8[Array, " n *s"], ignoring: bool = False
) -> Float[Array, ""]:
    """What `loss` says of these logits, in float32 at least.

    Args:
        loss: which.
        logits: one channel for two classes, otherwise one for each.
        labels: the class of every pixel.
        ignoring: pixels that have no class's number count nowhere; else there are none.
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    counted = labels < max(2, logits.shape[-1]) if ignoring else None
    labels = labels if counted is None else labels * counted
    total = jnp.zeros((), logits.dtype)
    if "cross-entropy" in loss.parts:
        total += cross_entropy(logits, labels, loss.class_weights, counted)
    if "dice" in loss.parts:
        total += dice(logits, labels, counted)
    return total


def cross_entropy(
    logits: Float[Array, "n *s k"],
    labels: UInt8[Array, " n *s"],
    weights: tuple[float, ...] | None = None,
    counted: Bool[Array, " n *s"] | None = None,
) -> Float[Array, ""]:
    """The mean over the pixels that are counted of -log p(class), each pixel with its class's weight."""
    if logits.shape[-1] > 1:
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[..., None].astype(jnp.int32), axis=-1)[..., 0]
    else:
        z = logits[..., 0]
        chosen = jax.nn.log_sigmoid(jnp.where(labels == 1, z, -z))
    if weights is None and counted is None:
        return -chosen.mean()
    of_pixel = jnp.ones_like(chosen) if weights is None else jnp.asarray(weights, logits.dtype)[labels]
    if counted is not None:
        of_pixel *= counted
    total = of_pixel.sum()
    return -(of_pixel * chosen).sum() / jnp.where(total > 0, total, 1)


def dice(
    logits: Float[Array, "n *s k"], labels: UInt8[Array, " n *s"], counted: Bool[Array, " n *s"] | None = None
) -> Float[Array, ""]:
    """1 minus the soft Dice coefficient over the batch, the mean over the classes; for one logit the foreground's."""
    if logits.shape[-1] > 1:
        p = jax.nn.softmax(logits)
        y = jax.nn.one_hot(labels, logits.shape[-1], dtype=p.dtype)
    else:
        p, y = jax.nn.sigmoid(logits), labels[..., None].astype(logits.dtype)
    if counted is not None:
        p, y = p * counted[..., None], y * counted[..., None]
    pixels = tuple(range(p.ndim - 1))
    shared, both = ((p * y).sum(pixels), p.sum(pixels) + y.sum(pixels))
    return 1 - ((2 * shared + SMOOTHING) / (both + SMOOTHING)).mean()
