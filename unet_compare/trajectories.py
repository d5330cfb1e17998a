"""Trains two networks on the same batches, beside runs that differ by what rounding could do."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from conversion.backends.backend import Framework
from conversion.proof.samples import neighbour
from unet_compare.backends import TrainableNetwork, Trainer, Training, check_alike, in_dtype, side
from unet_compare.crops import Crops, centre_crops
from unet_compare.findings import Curve, Trajectories
from unet_compare.limits import LEAST_BAND, Perturbation
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.data.batches import Batch, Examples
from unet_core.data.dataset import Dataset, split
from unet_core.errors import UNetError
from unet_core.graph.canonical import FLOATS, Description, Tensors, tensor_specs
from unet_core.progress import Progress, silent
from unet_core.training.run import start_network
from unet_core.training.settings import Optimizer, check_choice
from unet_core.training.train_config import TrainConfig

WORDS: Mapping[Perturbation, str] = {
    "ulp": "one unit in the last place of the weights",
    "order": "the order of the batches",
}
"""What the runs of a band differ in, for people."""

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

_PICTURES, _VALIDATIONS = 2, 2
"""How many pictures the runs are validated on, and how often."""


def trajectories(
    a: TrainableNetwork,
    b: TrainableNetwork,
    *,
    source: Dataset,
    data: str = "",
    steps: int = 12,
    batch: int = 2,
    crop: int = 128,
    rate: float = 1e-4,
    seed: int = 0,
    band: int = LEAST_BAND,
    perturbation: Perturbation = "ulp",
    progress: Progress = silent,
) -> Trajectories:
    """Train A, B, and a band of runs like A, from where the networks are, in float32 and by their trainers' updates.

    The runs make one step after the other side by side, so that no weights of earlier steps are kept.

    Args:
        a, b: the networks, each with its framework; the band runs in that of `a`.
        source: pictures and masks; the last fifth of them is for validation.
        data: what to call them.
        steps: updates of each run, by Adam.
        batch: crops in a batch.
        crop: height and width of a crop, in pixels.
        rate: the learning rate.
        seed: of the batches, and of what the band differs in.
        band: runs in the band.
        perturbation: what they differ in.
        progress: is told how many steps are made.

    Raises:
        UNetError: numbers that make no comparison; networks or data that do not fit together; or A cannot be trained.
    """
    check_choice("perturbation", perturbation, Perturbation)
    if band < LEAST_BAND:
        raise UNetError(f"band {band}: give {LEAST_BAND} runs or more")
    if not (math.isfinite(rate) and rate > 0):
        raise UNetError(f"rate {rate}: give a number above 0")
    if perturbation == "order" and steps < 2:
        raise UNetError(f"steps {steps}: one batch has no other order; give 2 or more")
    if len(source) < 2:
        raise UNetError("the training needs 2 pictures or more, one of them to validate on")
    recipe = TrainConfig(steps=steps, batch=batch, crop=crop, seed=seed, optimizer=Optimizer(rate=rate))
    first, second = (_start(network, recipe, source) for network in (a, b))
    check_alike(first.config, second.config)
    training, validation = split(source, recipe.validation)
    crops = centre_crops(validation, first.config, count=_PICTURES, side=crop)

    progress(f"starting {band + 2} runs", 0)
    runs = _runs(a.framework, first, b.framework, second, recipe, band, perturbation)
    examples = Examples(training, size=crop, augmentation=recipe.augmentation, seed=seed)
    batches = functools.cache(functools.partial(_batch, examples, size=batch))
    judge = _Judge(first)
    for step in range(steps):
        for number, run in enumerate(runs):
            progress(f"step {step + 1} of {steps}: {run.name}", (step + number / len(runs)) / steps)
            run.step(batches(run.order[step]), rate)
            if step + 1 in _validated(steps):
                run.validate(step + 1, crops)
        judge.measure(step + 1, runs)
    start, parts = _difference(first, second), _parts(runs, first.config)
    left, verdict = _verdict(parts, runs, start, WORDS[perturbation])
    return Trajectories(
        steps,
        batch,
        crop,
        rate,
        data,
        WORDS[perturbation],
        tuple(run.curve() for run in runs),
        start,
        parts[0].limit,
        parts[1].limit,
        left,
        verdict,
    )


@dataclass
class _Run:
    """A run of the comparison, and what it has done so far."""

    name: str
    framework: Framework
    role: Literal["A", "B", "band"]
    training: Training
    order: Sequence[int]
    """The number of each step's batch."""
    loss: list[float] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    statistics: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    length: float = math.nan
    """Of the first step, relative to A's."""

    def step(self, batch: Batch, rate: float) -> None:
        loss, norm = self.training.step(batch, rate)
        self.loss.append(loss)
        self.norm.append(norm)

    def validate(self, step: int, crops: Crops) -> None:
        predicted = crops.decided(self.training.logits(crops.images))
        self.validation.append((step, crops.judged(predicted).mean_dice))

    def curve(self) -> Curve:
        return Curve(
            self.name,
            self.framework,
            self.role,
            tuple(self.loss),
            tuple(self.norm),
            tuple(self.weights),
            tuple(self.statistics),
            tuple(self.validation),
        )


class _Judge:
    """Measures how far runs are from A, relative to how far A is from its start."""

    def __init__(self, start: Checkpoint) -> None:
        self.start = start.tensors
        specs = tensor_specs(start.config)
        self.parts = {
            trained: [key for key, spec in specs.items() if spec.trained == trained and _is_float(self.start[key])]
            for trained in (True, False)
        }

    def measure(self, step: int, runs: Sequence[_Run]) -> None:
        """Add what the step has made to every run; A is the first of them.

        Raises:
            UNetError: A is no number, or does not move.
        """
        reference = runs[0].training.tensors()
        for trained, keys in self.parts.items():
            way = distance(reference, self.start, keys)
            if not (math.isfinite(way) and way > 0 and math.isfinite(runs[0].loss[-1])):
                state = "is at rest; give a larger rate" if way == 0 else "is no number any more; give a smaller rate"
                raise UNetError(f"step {step}: the training of A {state}")
            for run in runs if step == 1 and trained else ():
                run.length = distance(run.training.tensors(), self.start, keys) / way
            for run in runs:
                apart = 0.0 if run is runs[0] else distance(run.training.tensors(), reference, keys) / way
                (run.weights if trained else run.statistics).append(apart)


def distance(one: Tensors, other: Tensors, keys: Sequence[str]) -> float:
    """The Euclidean norm of the difference of some tensors, as of one vector; of float32, to five digits."""
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):  # what is no number comes out as none
        for key in keys:
            difference = (one[key] - other[key]).ravel(order="K")  # as it lies in memory: layouts differ
            total += float(difference @ difference)
    return math.sqrt(total)


def _is_float(tensor: np.ndarray) -> bool:
    return tensor.dtype in FLOATS


def _start(network: TrainableNetwork, recipe: TrainConfig, source: Dataset) -> Checkpoint:
    """The network in float32, as the trainers take it."""
    named = dataclasses.replace(recipe, start=network.name)
    checkpoint = Checkpoint(network.config, network.tensors)
    return in_dtype(start_network(checkpoint, named, source.channels, len(source.values)), "float32")


def _runs(
    framework: Framework,
    a: Checkpoint,
    other: Framework,
    b: Checkpoint,
    recipe: TrainConfig,
    band: int,
    perturbation: Perturbation,
) -> tuple[_Run, ...]:
    """A, B, and the band."""
    trainers: dict[tuple[Framework, Description], Trainer] = {}

    def start(framework: Framework, checkpoint: Checkpoint) -> Training:
        key = framework, checkpoint.config
        if key not in trainers:
            trainers[key] = side(framework).Trainer(recipe)
        return trainers[key].start(checkpoint)

    plain = range(recipe.steps)
    runs = [_Run("A", framework, "A", start(framework, a), plain), _Run("B", other, "B", start(other, b), plain)]
    for number in range(1, band + 1):
        moved, order = a, list(plain)
        if perturbation == "ulp":
            moved = dataclasses.replace(a, tensors=neighbour(a.tensors, recipe.seed + number))
        else:
            rng = np.random.default_rng((recipe.seed, number))
            while order[0] == 0:  # other from the first step on
                order = rng.permutation(recipe.steps).tolist()
        runs.append(_Run(f"band {number}", framework, "band", start(framework, moved), order))
    return tuple(runs)


def _batch(examples: Examples, number: int, size: int) -> Batch:
    images, labels = zip(*(examples(number * size + place) for place in range(size)), strict=True)
    return Batch(np.stack(images), np.stack(labels))


def _validated(steps: int) -> set[int]:
    """The steps after which the runs are validated; the last one is among them."""
    return {math.ceil(steps * number / _VALIDATIONS) for number in range(1, _VALIDATIONS + 1)}


def _difference(a: Checkpoint, b: Checkpoint) -> float:
    """How far apart two networks are, relative to A: of weights or statistics, the larger one."""
    specs = tensor_specs(a.config)
    found = []
    for trained in (True, False):
        keys = [key for key, spec in specs.items() if spec.trained == trained and _is_float(a.tensors[key])]
        size = math.sqrt(sum(float(np.vdot(a.tensors[key], a.tensors[key])) for key in keys))
        apart = distance(b.tensors, a.tensors, keys)
        found.append(apart / size if size else math.inf if apart else 0.0)
    return max(found)


@dataclass(frozen=True)
class _Part:
    """B's distance from A in one part of the state, that of the band, and how far it may be, after every step."""

    name: str
    b: Sequence[float]
    band: Sequence[float]
    limit: tuple[float, ...]

    def excess(self, step: int) -> float:
        """B's distance, relative to the limit; infinite where it is no number."""
        found = self.b[step] / self.limit[step] if self.b[step] else 0.0
        return math.inf if math.isnan(found) else found


def _parts(runs: Sequence[_Run], config: Description) -> tuple[_Part, _Part]:
    """The weights and the statistics."""
    count = sum(math.prod(spec.shape) for spec in tensor_specs(config).values() if spec.trained)
    turned = 2 * math.sqrt(TURNED / count)
    (b,), band = ([run for run in runs if run.role == role] for role in ("B", "band"))
    found = []
    for name, chance, first in (("weights", turned, 0), ("statistics", FOLLOWING * turned, 1)):
        most = np.nan_to_num(np.max([getattr(run, name) for run in band], axis=0), nan=math.inf).tolist()
        limit = tuple(FACTOR * max(distance, chance if step >= first else 0.0) for step, distance in enumerate(most))
        found.append(_Part(name, getattr(b, name), most, limit))
    return found[0], found[1]


def _first_steps(runs: Sequence[_Run]) -> str | None:
    """What of B's first step has another size than A's, in words, where the band's have not."""
    reference, b, *band = runs
    sizes: Mapping[str, Callable[[_Run], float]] = {
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


def _verdict(parts: Sequence[_Part], runs: Sequence[_Run], start: float, words: str) -> tuple[int | None, str]:
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
