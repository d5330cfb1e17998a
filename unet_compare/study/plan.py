"""What a study is to do: arms, seeds, folds, and how they are judged."""

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from unet_compare.study.arms import Arm, arms_of, with_options
from unet_core.codec import OPTIONAL, decoded, encoded
from unet_core.data.opening import SYNTHETIC
from unet_core.errors import ConfigError, shown, some
from unet_core.paths import is_url
from unet_core.training.settings import check_choice
from unet_core.training.train_config import TrainConfig

Metric = Literal["mean_iou", "mean_dice", "loss", "calibration", "boundary"]
METRICS: tuple[Metric, ...] = get_args(Metric)
TITLES: Mapping[Metric, str] = {
    "mean_iou": "mean IoU",
    "mean_dice": "mean Dice",
    "loss": "loss",
    "calibration": "calibration error",
    "boundary": "boundary distance",
}
_KEYS = ("title", "data", "arms", "seeds", "folds", "metric", "margin", "level", "recipe")
_MOST = 10_000
"""Runs."""


class Trial(NamedTuple):
    """One run of a study."""

    arm: Arm
    seed: int
    fold: int | None

    @property
    def name(self) -> str:
        """Of its folder, in that of its arm."""
        return f"seed-{self.seed}" + ("" if self.fold is None else f"-fold-{self.fold}")

    def __str__(self) -> str:
        return f"{self.arm.name} {self.name}"


@dataclass(frozen=True)
class Order:
    """A run that is to be made."""

    path: str
    """The run's folder."""
    arm: Arm
    seed: int
    fold: int | None
    folds: int | None
    data: str


@dataclass(frozen=True)
class Study:
    """What is compared, and how it is judged.

    Raises:
        ConfigError: numbers that make no study.
    """

    arms: tuple[Arm, ...]
    """All are compared with the first one."""
    seeds: tuple[int, ...]
    """Every arm is trained from each: the same start, the same batches."""
    data: str = SYNTHETIC
    """A data folder, absolute, or "synthetic"."""
    folds: int | None = field(default=None, metadata=OPTIONAL)
    """Into how many the pictures are parted, each of which is validated on in turn; None: as the recipe says."""
    metric: Metric = field(default="mean_iou", metadata=OPTIONAL)
    """Which the answer is about; the others are judged as well."""
    margins: Mapping[str, float] = field(default_factory=dict, metadata=OPTIONAL)
    """By metric, how far apart two arms may be and count as the same; others: the standard deviation between the seeds
    of the first arm."""
    level: float = field(default=0.05, metadata=OPTIONAL)
    """Of all tests; intervals have the confidence 1 - `level`."""
    title: str = field(default="", metadata=OPTIONAL)
    """For people."""

    def __post_init__(self) -> None:
        check_choice("metric", self.metric, Metric)
        if len(self.seeds) < 2 or len(set(self.seeds)) < len(self.seeds):
            raise ConfigError(
                "seeds: give a number from 2 up, or a list of different ones: of one seed nothing is known"
            )
        if not all(0 <= seed < 2**32 for seed in self.seeds):
            raise ConfigError(f"seeds: give whole numbers from 0 to {2**32 - 1}")
        if len(self.arms) < 2:
            raise ConfigError("arms: give two or more, such as torch and jax")
        if self.folds is not None and self.folds < 2:
            raise ConfigError(f"folds {self.folds}: give 2 or more")
        for arm in self.arms:
            if self.folds is None and not arm.recipe.validation and arm.recipe.split.validation_data is None:
                raise ConfigError(f"arm {arm.name}: validation 0 leaves no pictures to score")
            if self.folds is not None and arm.recipe.split.validation_data is not None:
                raise ConfigError(f"arm {arm.name}: validation_data is all that is validated on; leave out folds")
        if len({(arm.recipe.validation, arm.recipe.split) for arm in self.arms}) > 1:
            raise ConfigError("arms: are scored on the same pictures; what parts them off is said in the recipe of all")
        if not 0 < self.level <= 0.25:
            raise ConfigError(f"level {self.level}: give a number above 0, and 0.25 at most")
        for name, margin in self.margins.items():
            check_choice("margin", name, Metric)
            if not (math.isfinite(margin) and margin > 0):
                raise ConfigError(f"margin {margin} of {name}: give a number above 0")
        if self.runs > _MOST:
            raise ConfigError(f"{self.runs} runs: give fewer arms, seeds or folds; {_MOST} at most")

    @property
    def runs(self) -> int:
        """How many there are in all."""
        return len(self.arms) * len(self.seeds) * (self.folds or 1)

    def trials(self) -> Iterator[Trial]:
        """Every run, those that are compared with each other side by side."""
        for seed in self.seeds:
            for fold in (None,) if self.folds is None else range(1, self.folds + 1):
                for arm in self.arms:
                    yield Trial(arm, seed, fold)


def read_study(path: Path) -> Study:
    """The study in a TOML file; a folder that it names is sought beside it.

    Raises:
        ConfigError: there is none, or it is none; in one line.
    """
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, RecursionError) as error:  # also of a number of thousands of digits
        raise ConfigError(f"{path}: is no TOML: {shown(str(error))}") from error
    try:
        return study_of(fields, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def study_of(fields: Mapping[str, Any], beside: Path = Path()) -> Study:
    """The study of such fields as a TOML file holds.

    Args:
        fields: by their names.
        beside: where what they name lies.

    Raises:
        ConfigError: they make none.
    """
    unknown = [name for name in fields if name not in _KEYS]
    if unknown:
        raise ConfigError(f"unknown key {some(unknown)}; there are {some(_KEYS)}")
    for name in ("arms", "seeds"):
        if name not in fields:
            raise ConfigError(f"lacks {name}")
    options = fields.get("recipe", {})
    if not isinstance(options, Mapping | TrainConfig):
        raise ConfigError("recipe: give a table of options of unet train")
    recipe = options if isinstance(options, TrainConfig) else with_options(TrainConfig(), options, "recipe")
    arms, seeds, margin = arms_of(fields["arms"], recipe, beside), fields["seeds"], fields.get("margin", {})
    metric = fields.get("metric", Study.metric)
    check_choice("metric", metric, Metric)
    data = fields.get("data", SYNTHETIC)
    if isinstance(data, str) and data != SYNTHETIC and not is_url(data):
        if "\0" in data:
            raise ConfigError(f"data {shown(data)}: is no path")
        data = str((beside / data).resolve())
    rest = {name: fields[name] for name in ("folds", "level", "title") if name in fields}
    if type(seeds) is int:
        seeds = range(seeds) if 0 <= seeds <= _MOST else ()
    try:
        return decoded(
            Study,
            {
                **rest,
                "arms": [encoded(arm) for arm in arms],
                "seeds": list(seeds) if isinstance(seeds, range | tuple) else seeds,
                "data": data,
                "metric": metric,
                "margins": margin if isinstance(margin, Mapping) else {str(metric): margin},
            },
        )
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error
