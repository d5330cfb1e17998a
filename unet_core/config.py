"""The description of one network, stored with every checkpoint."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unet_core.errors import ConfigError


@dataclass(frozen=True)
class UNetConfig:
    """A UNet with BatchNorm and bilinear upsampling (after Ronneberger et al., arXiv:1505.04597).

    Frozen and checked once, here. The defaults are the full network.

    Raises:
        ConfigError: a value that describes no network; the message names the field.
    """

    in_channels: int = 3
    out_channels: int = 1
    features: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Channels of each level, the last one being the bottom; the depth is `len(features) - 1`."""
    align_corners: bool = True
    """True: the corners of input and output coincide; False: half-pixel centres. As in torch's `interpolate`."""
    skip_first: bool = False
    """Concatenate [skip, upsampled] in the decoder instead of [upsampled, skip]."""
    norm_epsilon: float = 1e-5
    """Added to the variance under BatchNorm's square root."""
    norm_momentum: float = 0.1
    """Weight of the new batch in the running statistics (torch's convention; Flax's is one minus this)."""

    def __post_init__(self) -> None:
        if not isinstance(self.features, Sequence) or isinstance(self.features, str):
            raise ConfigError(f"features: a sequence of widths is needed, got {self.features!r}")
        object.__setattr__(self, "features", tuple(self.features))
        for field in ("in_channels", "out_channels"):
            _require_count(field, getattr(self, field))
        if len(self.features) < 2:
            raise ConfigError(f"features: at least two levels are needed, got {self.features}")
        for width in self.features:
            _require_count("features", width)
        for field in ("align_corners", "skip_first"):
            if not isinstance(getattr(self, field), bool):
                raise ConfigError(f"{field}: true or false is needed, got {getattr(self, field)!r}")
        for field, upper in (("norm_epsilon", 1.0), ("norm_momentum", 1.0)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= upper:
                raise ConfigError(f"{field}: a number above 0 and up to {upper:g} is needed, got {value!r}")
            object.__setattr__(self, field, float(value))

    @property
    def depth(self) -> int:
        """How often the network halves its input."""
        return len(self.features) - 1

    @property
    def minimum_size(self) -> int:
        """The smallest height and width, in pixels, that every max-pool can still halve."""
        return 2**self.depth

    @property
    def encoder_blocks(self) -> tuple[tuple[str, int, int], ...]:
        """(name, input channels, output channels) of down1, down2, ... and bottom, in forward order."""
        names = [f"down{level}" for level in range(1, self.depth + 1)] + ["bottom"]
        return tuple(zip(names, (self.in_channels, *self.features), self.features, strict=False))

    @property
    def decoder_blocks(self) -> tuple[tuple[str, int, int], ...]:
        """(name, channels after the concatenation, output channels) of upN, ..., up1, in forward order."""
        return tuple(
            (f"up{level}", self.features[level] + self.features[level - 1], self.features[level - 1])
            for level in range(self.depth, 0, -1)
        )

    def check_input(self, height: int, width: int, channels: int) -> None:
        """Raise ValueError where an input of this size, in pixels, cannot pass through the network."""
        if channels != self.in_channels:
            raise ValueError(f"the input has {channels} channels, the network takes {self.in_channels}")
        if min(height, width) < self.minimum_size:
            raise ValueError(
                f"an input of {height}x{width} is too small: {self.depth} max-pools need at least "
                f"{self.minimum_size}x{self.minimum_size}"
            )

    def to_json(self) -> str:
        """The config as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "UNetConfig":
        """The inverse of `to_json`; a field left out takes its default, an unknown one is refused.

        Raises:
            ConfigError: not JSON, an unknown field, or a value that describes no network.
        """
        try:
            fields: Any = json.loads(text)
        except ValueError as error:
            raise ConfigError(f"the config is not JSON: {error}") from error
        return cls.from_dict(fields)

    @classmethod
    def from_dict(cls, fields: Any) -> "UNetConfig":
        """As `from_json`, of the parsed object."""
        if not isinstance(fields, dict):
            raise ConfigError(f"the config is a {type(fields).__name__}, not an object of fields")
        unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise ConfigError(f"the config has unknown fields: {', '.join(map(str, unknown))}")
        return cls(**fields)


def _require_count(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{field}: a whole number of at least 1 is needed, got {value!r}")
