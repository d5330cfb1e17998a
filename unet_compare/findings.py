"""What `unet compare` finds, as plain data: the page and the JSON file are made of nothing else."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Shaped

from conversion.backends.backend import Framework
from conversion.diagnosis.trials import Trial
from conversion.proof.proof import NetworkSummary, finite
from unet_compare.speed.report import CaseReport, Environment

SCHEMA = 1

Pass = Literal["eval", "training", "backward", "update"]
"""The forward pass in eval mode, and in training mode; the backward pass; what an update makes of the parameters."""
Mode = Literal["cumulative", "isolated"]
"""Errors as they travel, from layer to layer; or of each layer alone, which is fed the reference's numbers."""


@dataclass(frozen=True)
class Row:
    """One layer in one pass.

    Every error is the Euclidean norm of the difference from A's float64 output, relative to that of the output.
    """

    layer: str
    """The canonical name, in the order in which the pass meets it."""
    quantity: str
    """What is compared: "output", "output where the input is moved", "running statistics", "gradient of the output",
    "gradient of the output, among zeros and ties", "gradient of the parameters", "step of the parameters"."""
    wide: float
    """B's error in float64."""
    wide_budget: float
    own: float
    """A's error in float32."""
    other: float
    """B's error in float32."""
    budget: float
    """Of `other`."""

    @property
    def wide_ok(self) -> bool:
        """Whether B means the same in float64; an error that is not a number does not."""
        return bool(self.wide <= self.wide_budget)

    @property
    def ok(self) -> bool:
        """Whether it is as exact in float32, too."""
        return self.wide_ok and bool(self.other <= self.budget)


@dataclass(frozen=True)
class Table:
    """All layers in one pass."""

    pass_: Pass
    mode: Mode
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Divergence:
    """Where two networks part, layer by layer."""

    sample: str
    """The input, for people."""
    tables: tuple[Table, ...]
    layer: str | None
    """The first one that is over its budget; None: there is none."""
    quantity: str | None
    precision: Literal["float64", "float32"] | None
    """Of the budget that it is over."""
    error: float | None
    trials: tuple[Trial, ...]
    """Every switch that was tried on that layer, the best first."""
    cause: str | None
    """In words, where one is known."""


@dataclass(frozen=True)
class Curve:
    """One training run of the comparison."""

    name: str
    framework: Framework
    role: Literal["A", "B", "band"]
    """A and B; or a run like A that differs from it by what the band is of."""
    loss: tuple[float, ...]
    """Of every step."""
    norm: tuple[float, ...]
    """Of the gradients, before clipping, of every step."""
    weights: tuple[float, ...]
    """After every step, how far the parameters are from A's: the norm of the difference, relative to A's distance from
    the start; zeros for A."""
    statistics: tuple[float, ...]
    """The same of BatchNorm's running statistics."""
    validation: tuple[tuple[int, float], ...]
    """Steps, and the mean Dice of the validation pictures after them."""


@dataclass(frozen=True)
class Trajectories:
    """What A and B do when they are trained from where they are, on the same batches."""

    steps: int
    batch: int
    crop: int
    rate: float
    data: str
    """The pictures, for people."""
    perturbation: str
    """What the runs of the band differ in, for people."""
    curves: tuple[Curve, ...]
    """A, B, and the band."""
    start: float
    """How far B's weights, or statistics, are from A's before the first step, relative to these."""
    weights_limit: tuple[float, ...]
    """After every step, how far from A's the parameters of B may be; see `unet_compare.trajectories.verdict.FACTOR`."""
    statistics_limit: tuple[float, ...]
    """The same of BatchNorm's running statistics."""
    left: int | None
    """The first step after which B is farther away, in either."""
    verdict: str
    """One sentence."""


@dataclass(frozen=True)
class Rung:
    """One framework in one precision."""

    role: Literal["A", "B"]
    framework: Framework
    precision: str
    """float64, float32, tf32 or bfloat16."""
    error: float
    """Of the logits against A's in float64: the norm of the difference, relative."""
    dice: float
    """The mean Dice of the pictures."""
    iou: float
    dice_change: float
    """From A's in float64."""
    iou_change: float
    flipped: int
    """Pixels whose class is another one than A's in float64."""


@dataclass(frozen=True)
class Ladder:
    """How exact each framework is in each precision, and what that does to what it is used for."""

    pictures: int
    pixels: int
    """Of all pictures together."""
    rungs: tuple[Rung, ...]
    absent: Mapping[str, str]
    """Precisions that a device lacks, and why."""


@dataclass(frozen=True)
class Cost:
    """Time and memory, by few rounds: indicative."""

    environment: Environment
    cases: tuple[CaseReport, ...]
    note: str
    """What was timed and what was not; a sentence."""


@dataclass(frozen=True)
class Picture:
    """What both make of one picture, in float32."""

    name: str
    image: Float[np.ndarray, "h w c"]
    """From 0 to 1."""
    truth: Shaped[np.ndarray, "h w"] | None
    """The class of every pixel, where it is known."""
    a: Float[np.ndarray, "h w"]
    """A's probability of the first class that is not the background."""
    b: Float[np.ndarray, "h w"]
    rounding: float
    """A's own float32 error: its largest difference from its float64 probabilities."""

    @property
    def difference(self) -> Float[np.ndarray, "h w"]:
        """How far the two are apart, absolute."""
        return np.abs(self.a.astype(np.float64) - self.b.astype(np.float64))


@dataclass(frozen=True)
class Comparison:
    """All of it; a part that was not asked for, or has nothing to say, is None or empty."""

    a: NetworkSummary
    b: NetworkSummary
    tensors: int
    """How many tensors the network has."""
    identical: int
    """How many of them are the same in both, in every bit."""
    incomparable: str | None
    """Why nothing could be run side by side: other shapes, another output."""
    divergence: Divergence | None
    trajectories: Trajectories | None
    ladder: Ladder | None
    cost: Cost | None
    pictures: tuple[Picture, ...]
    notes: tuple[str, ...]
    """What was left out, and why; each is a sentence."""
    seconds: float
    """That the comparison took."""

    @property
    def equal(self) -> bool:
        """Whether both are the same network."""
        return self.incomparable is None and (self.divergence is None or self.divergence.layer is None)

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.incomparable is not None:
            return f"The networks differ: {self.incomparable}."
        found = self.divergence
        if found is None or found.layer is None:
            return "The networks are the same: every layer is within its budget, in every pass."
        cause = found.cause or "no known cause explains it"
        where = f"{found.layer} ({found.quantity}, {found.precision}, error {found.error:.2g})"
        return f"The networks differ: {where} departs first: {cause}."

    def to_json(self) -> str:
        """Everything but the pixels; a number that is not finite is a string. See docs/compare.md."""
        fields: dict[str, Any] = {
            "schema": SCHEMA,
            "equal": self.equal,
            "verdict": self.verdict,
            **{name: _plain(getattr(self, name)) for name in self.__dataclass_fields__ if name != "pictures"},
            "pictures": [
                {"name": one.name, "difference": float(one.difference.max()), "rounding": one.rounding}
                for one in self.pictures
            ],
        }
        return json.dumps(finite(fields), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, CaseReport):
        return value.to_dict()
    if isinstance(value, Row):
        return {**dataclasses.asdict(value), "ok": value.ok}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {name.rstrip("_"): _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value
