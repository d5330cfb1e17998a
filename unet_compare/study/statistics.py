"""The statistics of a study: pure functions of arrays, in float64.

A score of a run is the mean over its pictures. Runs of one seed have the same start and the same batches in every arm,
so what is judged are differences of pairs. Tests are over seeds: their unit is the mean difference of one seed, over
all of its folds and pictures. Intervals are over seeds and pictures together.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from unet_core.errors import MissingFrameworkError
from unet_core.installation import installing

try:
    from scipy import stats
except ModuleNotFoundError as error:
    advice = installing("study")
    raise MissingFrameworkError(f"the statistics of a study need scipy: {advice}", name=error.name) from error

RESAMPLES = 4000
"""Of a bootstrap."""
POWER = 0.8
"""With which a study is to decide, where that is asked for."""
MOST_SEEDS = 1000
"""Up to which it is looked for how many decide."""
_SPREADS = 512
"""Points at which the distribution of a standard deviation is taken."""


@dataclass(frozen=True)
class Interval:
    """Where a number is, with some confidence."""

    low: float
    high: float


def bootstrap(scores: Float[np.ndarray, "s p"], confidence: float, seed: int = 0) -> Interval:
    """The percentile interval of the mean, from resampling seeds (rows) and pictures (columns), each by itself.

    Both are drawn anew in every resample, as Owen's pigeonhole bootstrap does (arXiv:0712.1111), which errs on the side
    of a wide interval; it is widened for few seeds as Student's interval is (Hesterberg's expansion, arXiv:1411.5279).

    Args:
        scores: of every seed and picture.
        confidence: of the interval, such as 0.95.
        seed: of the resampling.
    """
    rng = np.random.default_rng(seed)
    rows, columns = scores.shape
    seeds = rng.multinomial(rows, np.full(rows, 1 / rows), RESAMPLES) / rows
    pictures = rng.multinomial(columns, np.full(columns, 1 / columns), RESAMPLES) / columns
    means = ((seeds @ scores) * pictures).sum(1)
    middle = scores.mean()
    upper = (1 + confidence) / 2
    wider = np.sqrt(rows / (rows - 1)) * stats.t.ppf(upper, rows - 1) / stats.norm.ppf(upper) if rows > 1 else 1.0
    grown = middle + (means - middle) * wider
    low, high = np.quantile(grown, [1 - upper, upper])
    return Interval(float(low), float(high))


def t_interval(differences: Float[np.ndarray, "*k s"], confidence: float) -> Float[np.ndarray, "2 ..."]:
    """The ends of Student's interval of the mean over the last axis."""
    count = differences.shape[-1]
    reach = stats.t.ppf((1 + confidence) / 2, count - 1) * _error(differences)
    middle = differences.mean(-1)
    return np.stack((middle - reach, middle + reach))


def difference_p(differences: Float[np.ndarray, "*k s"]) -> Float[np.ndarray, "..."]:
    """The two-sided p value of a paired t test: that the mean over the last axis is zero."""
    t = _t(differences.mean(-1), _error(differences))
    return np.asarray(2 * stats.t.sf(np.abs(t), differences.shape[-1] - 1))


def equivalence_p(differences: Float[np.ndarray, "*k s"], margin: float) -> Float[np.ndarray, "..."]:
    """The p value of two one-sided t tests: that the mean over the last axis is `margin` or more from zero."""
    middle, error = differences.mean(-1), _error(differences)
    nearest = _t(margin - np.abs(middle), error)
    return np.asarray(stats.t.sf(nearest, differences.shape[-1] - 1))


def equivalence_power(count: int, spread: float, margin: float, level: float, shift: float = 0.0) -> float:
    """How often two one-sided tests call arms equivalent.

    Args:
        count: pairs.
        spread: the standard deviation of their differences.
        margin: of equivalence.
        level: of the tests.
        shift: the true mean difference.
    """
    if spread == 0:
        return float(abs(shift) < margin)
    places = (np.arange(_SPREADS) + 0.5) / _SPREADS
    found = spread * np.sqrt(stats.chi2.ppf(places, count - 1) / (count - 1))
    room = margin - stats.t.ppf(1 - level, count - 1) * found / np.sqrt(count)
    unit = spread / np.sqrt(count)
    inside = stats.norm.cdf((room - shift) / unit) - stats.norm.cdf((-room - shift) / unit)
    return float(np.where(room > 0, inside, 0).mean())


def deciding_seeds(spread: float, margin: float, level: float) -> int | None:
    """The fewest seeds with which arms without a difference are called equivalent with a power of `POWER`.

    None where it takes more than `MOST_SEEDS`.
    """
    low, high = 1, MOST_SEEDS
    if margin <= 0 or equivalence_power(high, spread, margin, level) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = equivalence_power(middle, spread, margin, level) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def smallest_margin(differences: Float[np.ndarray, " s"], level: float) -> float:
    """The margin within which these pairs are just equivalent: the far end of the interval of 1 - 2 `level`."""
    return float(np.abs(t_interval(differences, 1 - 2 * level)).max())


def holm(values: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """The p values of several tests, corrected by Holm's method for there being several."""
    order = np.argsort(values)
    steps = np.arange(len(values), 0, -1) * values[order]
    corrected = np.empty_like(values, dtype=np.float64)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected


def variance_parts(scores: Float[np.ndarray, "a s f"]) -> dict[str, float]:
    """What part of the variance of a run's score comes from the arm, the seed, the fold, and the rest.

    The components of a crossed design with one run in each cell, from its mean squares; interactions are the rest, and
    a component that comes out below zero is none. A factor of one level has no part.

    Args:
        scores: of every arm, seed and fold.
    """
    names, sizes = ("arm", "seed", "fold"), scores.shape
    residual = scores - scores.mean()
    squares: dict[str, float] = {}
    for axis, (name, size) in enumerate(zip(names, sizes, strict=True)):
        others = tuple(other for other in range(3) if other != axis)
        effect = scores.mean(others, keepdims=True) - scores.mean()
        residual = residual - effect
        if size > 1:
            squares[name] = float(np.square(effect).sum()) * scores.size / size / (size - 1)
    free = scores.size - 1 - sum(size - 1 for size in sizes)
    rest = float(np.square(residual).sum()) / free if free > 0 else 0.0
    parts = {
        name: max(squares[name] - rest, 0.0) * sizes[names.index(name)] / scores.size
        for name in names
        if name in squares
    } | {"rest": rest}
    total = sum(parts.values())
    return {name: part / total if total else 0.0 for name, part in parts.items()}


def _error(values: Float[np.ndarray, "*k s"]) -> Float[np.ndarray, "..."]:
    """The standard error of the mean over the last axis."""
    return np.asarray(values.std(-1, ddof=1) / np.sqrt(values.shape[-1]))


def _t(value: Float[np.ndarray, "..."], error: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Their ratio; where there is no error, infinite with the sign of the value, or zero."""
    ratio = np.where(value == 0, 0.0, np.copysign(np.inf, value))
    return np.divide(value, error, out=ratio, where=error > 0)
