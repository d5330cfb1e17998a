"""How far B may be from A in its training, and what there is to say of it."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from unet_compare.trajectories.runs import Run, distance, keys_by_part
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.graph.canonical import Description, tensor_specs

FACTOR = 4.0
"""How many times as far from A as any run in the band B may be.

The band shares what A's framework errs by in one direction: torch's first BatchNorm on a CPU is off by 3e-6, in runs
with neighbouring weights alike (correlation 0.99), JAX's by 1.5e-7. So B may err by 20 times what parts the band. An
error of the gradients turns the signs of as large a part of Adam's first steps, whose norm grows by the root, 4.5.
"""

TURNED = 25
"""So many weights rounding may turn round in one run, and in no other.

One ReLU or max-pool that rounding tips over does it. In small networks this is a matter of chance that no small band
shows: of 72 faithful pairs of 3e3 to 3e5 weights 24 would leave the band by `FACTOR` alone, none with this. The full
network's band is ten times wider than this much.
"""

FOLLOWING = 0.1
"""What of a distance of the weights the running statistics follow by, at most; before the second step, none."""

UNIT = 2.0**-23
"""Weights that differ by more than this part of them, float32's last place, are others."""

FIRST: Mapping[str, float] = {"loss": 1e-3, "gradient norm": 2e-2, "length": 2e-3}
"""By what part of A's the loss, the norm of the gradients and the length of B's first step may differ, or by `FACTOR`
times what the band's do, if that is more. In faithful conversions of small networks it is 2e-6 at most.

Directions part from rounding alone, sizes do not: Adam's first step is as long, whatever signs rounding turns. A rate
that is 1% off is seen here, and so is a loss that is summed and not averaged, which Adam takes out of its steps.
"""


@dataclass(frozen=True)
class Part:
    """B's distance from A in one part of the state, that of the band, and how far it may be, after every step."""

    name: str
    b: Sequence[float]
    band: Sequence[float]
    limit: tuple[float, ...]

    def excess(self, step: int) -> float:
        """B's distance, relative to the limit; infinite where it is no number."""
        found = self.b[step] / self.limit[step] if self.b[step] else 0.0
        return math.inf if math.isnan(found) else found


def parts_of(runs: Sequence[Run], config: Description) -> tuple[Part, Part]:
    """The weights and the statistics."""
    count = sum(math.prod(spec.shape) for spec in tensor_specs(config).values() if spec.trained)
    turned = 2 * math.sqrt(TURNED / count)
    (b,), band = ([run for run in runs if run.role == role] for role in ("B", "band"))
    found = []
    for name, chance, first in (("weights", turned, 0), ("statistics", FOLLOWING * turned, 1)):
        most = np.nan_to_num(np.max([getattr(run, name) for run in band], axis=0), nan=math.inf).tolist()
        limit = tuple(FACTOR * max(distance, chance if step >= first else 0.0) for step, distance in enumerate(most))
        found.append(Part(name, getattr(b, name), most, limit))
    return found[0], found[1]


def verdict_of(parts: Sequence[Part], runs: Sequence[Run], start: float, words: str) -> tuple[int | None, str]:
    """The first step after which B is farther from A than it may be, and what there is to say, in one sentence."""
    before = (
        f"A and B do not start from the same weights (they are {start:.1e} of them apart), and " if start > UNIT else ""
    )
    band = f"the band of A's own runs that differ in {words}"
    weights = parts[0]
    steps = len(weights.b)
    outside = [step for step in range(steps) if any(part.excess(step) > 1 for part in parts)]
    size = _first_steps(runs)
    if size is not None and 0 not in outside:
        return 1, f"{before}B leaves {band} at once: {size}."
    if not outside:
        return None, (
            f"{before}B stays within {band}: over {steps} steps the weights part by {weights.b[-1]:.2g} of the way "
            f"that they went, the band by up to {weights.band[-1]:.2g}."
        )
    step = outside[0]
    part = max(parts, key=lambda part: part.excess(step))
    name = "weights" if part is weights else "running statistics"
    return step + 1, (
        f"{before}B leaves {band} after step {step + 1}: its {name} part from A's by {part.b[step]:.2g} of the way "
        f"that these went, the band's by up to {part.band[step]:.2g}."
    )


def _first_steps(runs: Sequence[Run]) -> str | None:
    """What of B's first step has another size than A's, in words, where the band's have not."""
    reference, b, *band = runs
    sizes: Mapping[str, Callable[[Run], float]] = {
        "loss": lambda run: _times(run.loss[0], reference.loss[0]),
        "gradient norm": lambda run: _times(run.norm[0], reference.norm[0]),
        "length": lambda run: run.length,
    }
    for name, of in sizes.items():
        limit = max(FIRST[name], FACTOR * max(abs(of(run) - 1) for run in band))
        if not abs(of(b) - 1) <= limit:
            return f"the {name} of its first step is {of(b):.6g} times A's, where {limit:.1g} more or less is allowed"
    return None


def _times(value: float, reference: float) -> float:
    """How many times the reference; once where both are zero, or infinite."""
    if value == reference:
        return 1.0
    return value / reference if reference else math.inf


def start_difference(a: Checkpoint, b: Checkpoint) -> float:
    """How far apart two networks are, relative to A: of weights or statistics, the larger one."""
    found = []
    for keys in keys_by_part(a).values():
        size = math.sqrt(sum(float(np.vdot(a.tensors[key], a.tensors[key])) for key in keys))
        apart = distance(b.tensors, a.tensors, keys)
        found.append(apart / size if size else math.inf if apart else 0.0)
    return max(found)
