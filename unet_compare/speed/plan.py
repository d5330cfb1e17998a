"""What `unet bench` measures: its options, the candidates and the cases."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Self

from unet_compare.speed.subject import Subject
from unet_core.config import UNetConfig
from unet_core.errors import ConfigError
from unet_core.graph import Graph
from unet_core.training.train_config import TrainConfig

Framework = Literal["jax", "torch"]
Kind = Literal["inference", "training"]
Precision = Literal["float32", "tf32", "bfloat16"]


class Case(NamedTuple):
    """Something to time."""

    kind: Kind
    batch: int
    height: int
    width: int

    @classmethod
    def parsed(cls, kind: Kind, text: str) -> Self:
        """The inverse of `size`."""
        match = re.fullmatch(r"(\d{1,6})x(\d{1,6})x(\d{1,6})", text)
        if match is None:
            raise ConfigError(f"--{kind} {text}: give batch, height and width as BxHxW, for example 1x256x256")
        return cls(kind, *map(int, match.groups()))

    @property
    def size(self) -> str:
        """BxHxW."""
        return f"{self.batch}x{self.height}x{self.width}"

    def __str__(self) -> str:
        return f"{self.kind} {self.size}"


class Candidate(NamedTuple):
    """A framework in one configuration."""

    framework: Framework
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        """As it is typed."""
        return f"{self.framework}:{'+'.join(self.words)}"

    def runs(self, kind: Kind, platform: str) -> bool:
        """Whether there is such a thing, in training or inference, on "cpu", "gpu" or "tpu"."""
        return ("frozen" not in self.words or kind == "inference") and (
            "max-autotune" not in self.words or platform == "gpu"
        )


CANDIDATES = (
    Candidate("jax", ("plain",)),
    Candidate("jax", ("ours",)),
    Candidate("torch", ("eager",)),
    Candidate("torch", ("eager", "channels_last")),
    Candidate("torch", ("compile",)),
    Candidate("torch", ("compile", "channels_last")),
    Candidate("torch", ("compile", "channels_last", "frozen")),
    Candidate("torch", ("compile", "max-autotune", "channels_last")),
)
"""In the order of their turns."""
BY_NAME = (
    Candidate("jax", ("ours", "unfrozen")),
    Candidate("torch", ("eager", "channels_last", "low-resolution")),
    Candidate("torch", ("compile", "channels_last", "frozen", "low-resolution")),
)
"""Measured after the others where it is asked for by name, never the reference: `jax.jit` of a network as it is loaded,
and what a user of torch does not have."""

SIZES, CPU_TRAINING = (128, 256, 512, 1024), 512
"""Heights and widths against which the growth is measured, and where training on a CPU stops."""
BATCH_OF_SIZES: dict[Kind, int] = {"inference": 1, "training": 2}
"""The batch that they are measured with."""
BATCHES = (1, 2, 4, 8)
"""Batches against which the growth is measured."""
SIZE_OF_BATCHES = 256
"""The height and width that they are measured with."""


class Setup(NamedTuple):
    """One candidate in one case: all that a worker is told."""

    candidate: Candidate
    case: Case
    subject: Subject
    precision: Precision
    calls: int

    @property
    def recipe(self) -> TrainConfig:
        """An update of the product: cross-entropy and Adam."""
        return TrainConfig(
            batch=self.case.batch,
            crop=self.case.height,
            precision="bfloat16" if self.precision == "bfloat16" else "float32",
            compile="compile" in self.candidate.words and "max-autotune" not in self.candidate.words,
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `json.dumps`."""
        (framework, words), case, (features, file, module, kwargs), *others = json.loads(text)
        subject = Subject(tuple(features), file, module, tuple(kwargs))
        return cls(Candidate(framework, tuple(words)), Case(*case), subject, *others)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Measure the speed of a network in both frameworks side by side, on whatever device there is.

    Every candidate (a framework in one configuration) runs in a process of its own, and the candidates take turns, so
    that what else the machine does meets them all. A figure is the median over the rounds of the ratio to the fastest
    configuration of torch, with its range.
    """

    inference: tuple[str, ...] = ("1x256x256", "4x256x256", "1x512x512")
    """Inputs of inference, each as batch x height x width (BxHxW); none: no inference."""
    training: tuple[str, ...] = ("2x256x256", "2x128x128")
    """Batches of training, each as BxHxW, square; none: no training. What is timed is a whole update."""
    features: tuple[int, ...] = UNetConfig.features
    """Channels of each level of this project's UNet, the last one being the bottom, where no other network is named."""
    checkpoint: Path | None = None
    """Measure the network of this checkpoint, or of a run."""
    module: str | None = None
    """The code that torch runs, as FILE.py:Class or package.module:Class: the checkpoint's; without a checkpoint, the
    network that it builds. Left out: a network that was read from code runs in torch as its graph."""
    kwargs: tuple[str, ...] = ()
    """What --module is called with, as NAME=VALUE, e.g. n_channels=3 n_classes=2."""
    precision: Precision = "float32"
    """What the network computes in; tf32 is float32 whose products a GPU may take in TF32, float32 is without; bfloat16
    is autocast in torch, and in both the weights stay float32."""
    candidates: tuple[str, ...] = ()
    """By name, e.g. jax:ours torch:compile+channels_last; or jax or torch for all of one; left out: all of both."""
    rounds: int = 5
    """How often every candidate has its turn."""
    calls: int = 3
    """Timed calls in a turn, at least, whose median is its figure; where they are quick, more."""
    growth: bool = False
    """Measure against pixels (128x128 to 1024x1024) and batch (1 to 8) as well, and draw that beside the JSON file."""
    out: Path | None = None
    """Write every figure to this JSON file too; an earlier one is replaced."""

    def check(self) -> None:
        """Raise ConfigError where that cannot be measured; the message names the option."""
        for name in ("rounds", "calls"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name} {getattr(self, name)}: give a whole number from 1 up")
        if self.growth and self.out is None:
            raise ConfigError("--growth: is drawn beside the JSON file; give --out FILE.json as well")
        if self.out is not None and self.out.suffix != ".json":
            raise ConfigError(f"--out {self.out}: give a name that ends in .json")
        if not self.cases("cpu"):
            raise ConfigError("nothing to measure: give --inference or --training")
        if self.kwargs and self.module is None:
            raise ConfigError("--kwargs: is for --module")
        names = {name for one in (*CANDIDATES, *BY_NAME) for name in (one.name, one.framework)}
        if unknown := sorted(set(self.candidates) - names):
            known = ", ".join(one.name for one in (*CANDIDATES, *BY_NAME))
            raise ConfigError(f"--candidates {unknown[0]}: there is no such candidate; there are jax, torch, {known}")

    def check_network(self, config: UNetConfig | Graph) -> None:
        """Raise ConfigError where this network cannot be measured so; the message names the case."""
        for case in self.cases("gpu"):
            self._check(case, config)

    def _check(self, case: Case, config: UNetConfig | Graph) -> None:
        if case.batch < 1:
            raise ConfigError(f"--{case.kind} {case.size}: a batch has one picture at least")
        if case.kind == "training" and case.height != case.width:
            raise ConfigError(f"--training {case.size}: training takes square crops")
        if isinstance(config, Graph) and config.dimensions != 2:
            raise ConfigError(f"only networks of two dimensions are timed; this one takes {config.dimensions}")
        try:
            config.check_input(case.height, case.width, config.in_channels)
            if case.kind == "training":
                TrainConfig(batch=case.batch, crop=case.height).check(config, 2)
        except ValueError as error:
            raise ConfigError(f"--{case.kind} {case.size}: {error}") from error

    @property
    def chosen(self) -> tuple[Candidate, ...]:
        """The candidates that are asked for, in the order of their turns."""
        asked = set(self.candidates)
        return (
            *(one for one in CANDIDATES if not asked or {one.name, one.framework} & asked),
            *(one for one in BY_NAME if one.name in asked),
        )

    def cases(self, platform: str) -> tuple[Case, ...]:
        """What to time on the "cpu", or on another platform."""
        kinds: tuple[Kind, ...] = ("inference", "training")
        found = [Case.parsed(kind, text) for kind in kinds for text in getattr(self, kind)]
        if self.growth:
            for kind in kinds:
                largest = CPU_TRAINING if (kind, platform) == ("training", "cpu") else max(SIZES)
                found += [Case(kind, BATCH_OF_SIZES[kind], size, size) for size in SIZES if size <= largest]
                found += [Case(kind, batch, SIZE_OF_BATCHES, SIZE_OF_BATCHES) for batch in BATCHES]
        return tuple(dict.fromkeys(found))

    def setup(self, candidate: Candidate, case: Case, subject: Subject) -> Setup:
        """What the candidate's process is told."""
        return Setup(candidate, case, subject, self.precision, self.calls)
