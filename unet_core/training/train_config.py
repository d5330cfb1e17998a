"""All that decides what a training makes, in one place; JSON in and out."""

from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

from unet_core.codec import OPTIONAL, decoded, encoded
from unet_core.config import UNetConfig, Upsampling
from unet_core.data.augmentation import Augmentation
from unet_core.data.formats.reading import Pictures
from unet_core.data.masks import Masks
from unet_core.data.split import Split
from unet_core.errors import ConfigError, sized
from unet_core.graph import Graph
from unet_core.graph.suitability import check_training
from unet_core.training.schedule import Schedule
from unet_core.training.settings import Loss, Optimizer, check_choice

Precision = Literal["float32", "bfloat16", "float64"]

_CHANGEABLE = ("steps", "log_every", "save_every", "keep", "compile", "remat", "rewrites")
"""What a resumed training may have otherwise without becoming another training."""


@dataclass(frozen=True)
class TrainConfig:
    """How to train: the same recipe, data and seed are the same training in both frameworks.

    Raises:
        ConfigError: numbers that describe no training.
    """

    features: tuple[int, ...] = UNetConfig.features
    """Channels of each level of the network, the last one being the bottom."""
    upsampling: Upsampling = UNetConfig.upsampling
    """bilinear (align_corners), or transposed: 2x2 convolutions."""
    start: str | None = None
    """A checkpoint to start from, whose network then is the one to train; left out: a new network of the seed."""
    seed: int = 0
    """Decides the new network, the order of the pictures and the augmentation."""
    steps: int = 1000
    """Updates of the weights."""
    batch: int = 4
    """Crops in a batch, over all devices together."""
    norm_parts: int = field(default=1, metadata=OPTIONAL)
    """BatchNorm's statistics are over the whole batch, or over each of so many equal parts of it, the first of which
    gives the running ones: what DistributedDataParallel does by itself on so many devices."""
    accumulate: int = 1
    """Batches whose mean gradient makes one update."""
    crop: int | tuple[int, ...] = 256
    """Of the crops, in pixels: height and width, and depth in 3-D; or one for each of depth, height and width."""
    precision: Precision = "float32"
    """What the network computes in; for bfloat16, weights, statistics, and losses stay float32."""
    ema: float | None = None
    """Validate, and keep as the best, an exponential moving average of the weights with this decay, e.g. 0.999."""
    validation: float = 0.2
    """The last pictures by name are for validation: a part of them, or, from 1 up, how many; 0: all are trained on."""
    validate_every: int = 100
    """Steps between two validations; the last step has one, too."""
    save_every: int = 100
    """Steps between two saved states."""
    log_every: int = 10
    """Steps between two lines of the progress bar; losses stay on the device in between."""
    compile: bool = False
    """torch: run the network through torch.compile."""
    remat: bool = False
    """jax: keep only each block's input for the backward pass and compute the rest again: less memory, more time."""
    rewrites: bool = field(default=True, metadata=OPTIONAL)
    """jax: run a graph that computes the same faster; else every operation by itself, as PyTorch does."""
    keep: int = 3
    """How many of the latest states are kept."""
    loss: Loss = field(default_factory=Loss)
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    augmentation: Augmentation = field(default_factory=Augmentation)
    masks: Masks = field(default_factory=Masks, metadata=OPTIONAL)
    pictures: Pictures = field(default_factory=Pictures, metadata=OPTIONAL)
    split: Split = field(default_factory=Split, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch",
            "norm_parts",
            "accumulate",
            "validate_every",
            "save_every",
            "log_every",
            "keep",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}: give a whole number from 1 up")
        if min((self.crop,) if isinstance(self.crop, int) else self.crop, default=0) < 1:
            raise ConfigError(f"crop {self.crop}: give a whole number from 1 up")
        check_choice("precision", self.precision, Precision)
        if self.batch % self.norm_parts:
            raise ConfigError(f"norm_parts {self.norm_parts}: does not divide the batch of {self.batch}")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed {self.seed}: give a whole number from 0 to {2**32 - 1}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ConfigError(f"ema {self.ema}: give a number between 0 and 1")

    def network(self, channels: int, classes: int) -> UNetConfig:
        """The new network for pictures of so many channels and masks of so many classes.

        Raises:
            ConfigError: there is none, or the crop is too small for it, or the class weights are of another number.
        """
        config = UNetConfig(
            channels,
            1 if classes == 2 else classes,
            self.features,
            self.upsampling,
            output="sigmoid" if classes == 2 else "softmax",
        )
        self.check(config, classes)
        return config

    def check(self, config: UNetConfig | Graph, classes: int) -> None:
        """Raise ConfigError where the network of `config` cannot be trained by this recipe."""
        self.loss.check(classes)
        if isinstance(config, Graph):
            check_training(config, self.batch // self.norm_parts, self.crops(config.dimensions))
            return
        least, size = config.minimum_size, self.crops(config.dimensions)
        if min(size) < least or prod(length // least for length in size) * (self.batch // self.norm_parts) < 2:
            raise ConfigError(f"crop {self.crop}: is too small for {config.depth + 1} levels; {2 * least} will do")

    def crops(self, dimensions: int) -> tuple[int, ...]:
        """The size of the crops along each axis of a picture or volume.

        Raises:
            ConfigError: it is that of the other one.
        """
        size = (self.crop,) * dimensions if isinstance(self.crop, int) else self.crop
        if len(size) != dimensions:
            what = "height and width" if dimensions == 2 else "depth, height and width"
            raise ConfigError(f"crop {sized(size)}: give one number, or {dimensions}: {what}")
        return size

    def part(self, step: int, losses: list[float]) -> float:
        """The learning rate of the update that follows `step` updates, after these validation losses."""
        return self.optimizer.rate * self.schedule.part(step, self.steps, losses)

    def renewal(self, step: int) -> float:
        """The part of the average of the weights that the update after `step` updates renews; the first one, all."""
        return 1 - self.ema if self.ema is not None and step > 0 else 1.0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        fields: dict[str, Any] = encoded(self)
        return fields

    @classmethod
    def from_dict(cls, fields: Any) -> "TrainConfig":
        """The inverse of `to_dict`.

        Raises:
            ConfigError: fields that are missing, unknown or of another kind.
        """
        try:
            recipe: TrainConfig = decoded(cls, fields)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"the recipe is damaged: {error}") from error
        return recipe

    def changes(self, other: "TrainConfig") -> list[str]:
        """The options of `other` that would make it another training than this one, as they are typed.

        A cosine ends at the last step, and a plateau counts its validation: there the number of steps is one of them.
        """
        ours, theirs = _flat(self.to_dict()), _flat(other.to_dict())
        free = _CHANGEABLE[1:] if self.schedule.schedule in ("cosine", "plateau") else _CHANGEABLE
        return [f"--{name.replace('_', '-')}" for name in ours if ours[name] != theirs[name] and name not in free]


def _flat(fields: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat
