"""The runs of a comparison: A, B, and the band of runs like A; and how far they are from A."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from conversion.backends.backend import Framework
from conversion.proof.samples import neighbour
from unet_compare.backends.backend import TrainableNetwork, Trainer, Training, in_dtype, side
from unet_compare.crops import Crops
from unet_compare.findings import Curve
from unet_compare.limits import Perturbation
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.data.batches import Batch, Examples
from unet_core.data.dataset import Dataset
from unet_core.errors import UNetError
from unet_core.graph.canonical import FLOATS, Description, Tensors, tensor_specs
from unet_core.progress import Progress
from unet_core.training.run import start_network
from unet_core.training.train_config import TrainConfig

_VALIDATIONS = 2
"""How often the runs are validated."""


@dataclass
class Run:
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


class Judge:
    """Measures how far runs are from A, relative to how far A is from its start."""

    def __init__(self, start: Checkpoint) -> None:
        self.start = start.tensors
        self.parts = keys_by_part(start)

    def measure(self, step: int, runs: Sequence[Run]) -> None:
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


def keys_by_part(network: Checkpoint) -> dict[bool, list[str]]:
    """The names of what is trained (True), and of the running statistics; counters are in neither."""
    floats = {key: spec for key, spec in tensor_specs(network.config).items() if network.tensors[key].dtype in FLOATS}
    return {part: [key for key, spec in floats.items() if spec.trained == part] for part in (True, False)}


def start_of(network: TrainableNetwork, train_config: TrainConfig, source: Dataset) -> Checkpoint:
    """The network in float32, as the trainers take it."""
    named = dataclasses.replace(train_config, start=network.name)
    checkpoint = Checkpoint(network.config, network.tensors)
    return in_dtype(start_network(checkpoint, named, source.channels, len(source.values)), "float32")


def runs_of(
    framework: Framework,
    a: Checkpoint,
    other: Framework,
    b: Checkpoint,
    train_config: TrainConfig,
    band: int,
    perturbation: Perturbation,
) -> tuple[Run, ...]:
    """A, B, and the band."""
    trainers: dict[tuple[Framework, Description], Trainer] = {}

    def start(framework: Framework, checkpoint: Checkpoint) -> Training:
        key = framework, checkpoint.config
        if key not in trainers:
            trainers[key] = side(framework).Trainer(train_config)
        return trainers[key].start(checkpoint)

    plain = range(train_config.steps)
    runs = [Run("A", framework, "A", start(framework, a), plain), Run("B", other, "B", start(other, b), plain)]
    for number in range(1, band + 1):
        moved, order = a, list(plain)
        if perturbation == "ulp":
            moved = dataclasses.replace(a, tensors=neighbour(a.tensors, train_config.seed + number))
        else:
            rng = np.random.default_rng((train_config.seed, number))
            while order[0] == 0:  # other from the first step on
                order = rng.permutation(train_config.steps).tolist()
        runs.append(Run(f"band {number}", framework, "band", start(framework, moved), order))
    return tuple(runs)


def trained_side_by_side(
    runs: Sequence[Run],
    start: Checkpoint,
    train_config: TrainConfig,
    examples: Examples,
    crops: Crops,
    progress: Progress,
) -> None:
    """Make one step after the other in all runs, so that no weights of earlier steps are kept.

    Args:
        runs: A first.
        start: the network that A starts from.
        train_config: how they train.
        examples: what on.
        crops: the pictures to validate on.
        progress: is told how many steps are made.

    Raises:
        UNetError: A is no number, or does not move.
    """
    batches = functools.cache(functools.partial(_batch, examples, size=train_config.batch))
    judge = Judge(start)
    for step in range(train_config.steps):
        for number, run in enumerate(runs):
            progress(
                f"step {step + 1} of {train_config.steps}: {run.name}", (step + number / len(runs)) / train_config.steps
            )
            run.step(batches(run.order[step]), train_config.optimizer.rate)
            if step + 1 in _validated(train_config.steps):
                run.validate(step + 1, crops)
        judge.measure(step + 1, runs)


def _batch(examples: Examples, number: int, size: int) -> Batch:
    images, labels = zip(*(examples(number * size + place) for place in range(size)), strict=True)
    return Batch(np.stack(images), np.stack(labels))


def _validated(steps: int) -> set[int]:
    """The steps after which the runs are validated; the last one is among them."""
    return {math.ceil(steps * number / _VALIDATIONS) for number in range(1, _VALIDATIONS + 1)}
