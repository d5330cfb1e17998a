"""Why an update departs: Adam's first updates are made anew, with one thing after the other switched.

Written down in NumPy, in float64, apart from both twins.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from conversion.backends.backend import Precision
from conversion.diagnosis.backward import flat
from conversion.diagnosis.trials import Suspect, Trial, scaled, tried
from unet_core.graph.canonical import Tensors
from unet_core.training.settings import Optimizer

Vector = Float[np.ndarray, " n"]
Place = Literal["outside", "inside", "early"]

PLACES: dict[Place, str] = {
    "inside": "Adam's epsilon stands inside the square root, not beside it (optax's eps_root)",
    "early": "Adam's epsilon is added before the bias correction, not after it",
}
"""Where else epsilon may stand."""
BETAS = (0.0, 0.5, 0.95, 0.99), (0.9, 0.95, 0.98, 0.99, 0.9999)
"""Of the mean gradient and of the mean square: other usual values."""
EPSILONS = (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-10, 0.0)
"""Other usual values; Keras has 1e-7."""
PENALTIES = (1e-2, 1e-3, 5e-4, 1e-4, 1e-5)
"""Usual weight decays of the kind that adds to the gradient."""


def adam(
    before: Vector,
    gradients: Sequence[Vector],
    settings: Optimizer,
    *,
    place: Place = "outside",
    corrected: bool = True,
    penalty: float = 0.0,
    decay: float = 0.0,
) -> Vector:
    """What Adam's first updates add to the parameters (Kingma and Ba, arXiv:1412.6980; as `torch.optim.Adam`).

    Args:
        before: the parameters.
        gradients: of each update.
        settings: rate, betas and epsilon.
        place: of epsilon: "outside" is beside the root of the corrected mean square; or one of `PLACES`.
        corrected: whether the means are corrected for their start at zero.
        penalty: a weight decay that adds to the gradient.
        decay: one that adds to the update (AdamW).
    """
    (one, two), now = settings.betas, before.astype(np.float64)
    mean = square = np.zeros_like(now)
    for count, gradient in enumerate(gradients, 1):
        gradient = gradient + penalty * now
        mean, square = one * mean + (1 - one) * gradient, two * square + (1 - two) * np.square(gradient)
        first, second = (1 - one**count, 1 - two**count) if corrected else (1.0, 1.0)
        inner, early, outer = (settings.epsilon * (place == where) for where in ("inside", "early", "outside"))
        size = (np.sqrt(square) + early) / np.sqrt(second) if early else np.sqrt(square / second + inner)
        with np.errstate(divide="ignore", invalid="ignore"):  # where there is neither gradient nor epsilon
            now = now - settings.rate * (np.nan_to_num(mean / first / (size + outer)) + decay * now)
    return now - before


def step_trials(
    before: Tensors,
    gradients: Sequence[Tensors],
    settings: Optimizer,
    ours: Tensors,
    theirs: Tensors,
    precision: Precision,
    budget: float,
) -> tuple[Trial, ...]:
    """Every switch of an update, as `conversion.diagnosis.forward.trials`.

    Args:
        before: the parameters of one layer.
        gradients: of each update.
        settings: Adam's, in A.
        ours, theirs: what the updates add to the parameters in A and in B.
        precision: of B's updates.
        budget: the difference that rounding makes.
    """
    start, given = flat(before), [flat(one) for one in gradients]
    plain = adam(start, given, settings)

    def suspects(target: Vector) -> Iterator[Suspect]:
        for place, said in PLACES.items():
            yield Suspect(said, adam(start, given, settings, place=place))
        yield Suspect("Adam's bias correction is missing", adam(start, given, settings, corrected=False))
        for penalty in PENALTIES:
            said = f"a weight decay of {penalty:g} is added to the gradients"
            yield Suspect(said, adam(start, given, settings, penalty=penalty))
        for said, changed in _others(settings, scaled(plain, target)):
            yield Suspect(said, adam(start, given, changed))
        # What a decay adds is some first * d + second * d**2: two of them tell both.
        half, whole = (adam(start, given, settings, decay=decay) - plain for decay in (1e-2, 2e-2))
        second = (whole - 2 * half) / 2
        decay = 1e-2 * scaled(half - second, target - plain)
        decay = 1e-2 * scaled(half - second + second * decay / 1e-2, target - plain)
        if decay > 0:
            said = f"the weights decay by {decay:.3g} of themselves, times the rate (AdamW)"
            yield Suspect(said, adam(start, given, settings, decay=decay))

    return tried(suspects, plain, flat(ours), flat(theirs), precision, budget)


def _others(settings: Optimizer, times: float) -> Iterator[tuple[str, Optimizer]]:
    """Other numbers, one at a time; the rate is `times` as large."""
    rate = settings.rate * times
    if rate > 0 and not np.isclose(times, 1, rtol=1e-6):
        yield (
            f"the learning rate is {rate:.6g} instead of {settings.rate:g}",
            dataclasses.replace(settings, rate=rate),
        )
    for number, values in enumerate(BETAS):
        for value in values:
            own = settings.betas[number]
            betas = (value, settings.betas[1]) if number == 0 else (settings.betas[0], value)
            if value != own:
                said = f"Adam's beta{number + 1} is {value:g} instead of {own:g}"
                yield said, dataclasses.replace(settings, betas=betas)
    for epsilon in EPSILONS:
        if epsilon != settings.epsilon:
            said = f"Adam's epsilon is {epsilon:g} instead of {settings.epsilon:g}"
            yield said, dataclasses.replace(settings, epsilon=epsilon)
