"""The outputs of a network's nodes inside a trace of JAX, noted there, and replaced where a proof forces it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from conversion.backends.backend import Forced, Precision


class Taps:
    """Notes, inside one trace of a model, the outputs of its nodes; and may force what they hand on.

    Args:
        probes: zeros for each node; the gradient by them is that by the node's output. None: nothing is forced.
        forced: whether to force; and with what, forward and backward.
    """

    def __init__(self, probes: Any, forced: Any) -> None:
        self.answers: dict[str, Any] = {}
        self._probes, self._forced = probes, forced

    def of_node(self, name: str, answer: Any) -> Any:
        """A tap of a graph; what is no number is passed by."""
        if not jnp.issubdtype(answer.dtype, jnp.floating):
            return answer
        self.answers[name] = answer
        if self._forced is None:
            return answer
        whether, outputs, cotangents = self._forced
        return _handed_on(answer, self._probes[name], outputs[name], cotangents[name], whether[name])


@jax.custom_vjp
def _handed_on(y: Any, probe: Any, output: Any, cotangent: Any, force: Any) -> Any:  # noqa: ARG001
    """`y`, or `output` in its place; backward, the gradient goes to `probe` too, and `cotangent` may take its place."""
    return jnp.where(force, output, y)


def _hand_on(y: Any, probe: Any, output: Any, cotangent: Any, force: Any) -> Any:
    return _handed_on(y, probe, output, cotangent, force), (cotangent, force)


def _hand_back(forced: Any, gradient: Any) -> Any:
    cotangent, force = forced
    nothing = jnp.zeros_like(gradient)
    return jnp.where(force, cotangent, gradient), gradient, nothing, nothing, None


_handed_on.defvjp(_hand_on, _hand_back)


def forcing(forced: Forced | None, zeros: dict[str, np.ndarray], precision: Precision) -> Any:
    """What `Taps` takes as `forced`."""
    whether = {name: np.array(forced is not None and forced.fits(name, zero.shape)) for name, zero in zeros.items()}
    outputs, cotangents = (
        {name: of[name].astype(precision) if whether[name] and name in of else zero for name, zero in zeros.items()}
        for of in ((forced.outputs, forced.cotangents) if forced else ({}, {}))
    )
    return whether, outputs, cotangents
