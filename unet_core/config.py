"""The description of one network, stored with every checkpoint."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict, get_args

from unet_core.codec import decoded, encoded
from unet_core.errors import ConfigError

Upsampling = Literal["bilinear", "transposed", "nearest"]
Norm = Literal["batch", "group"]
Fit = Literal["resize", "pad"]
Output = Literal["sigmoid", "softmax", "logits"]


MOST_LEVELS = 32
"""More max-pools than that would need images of 4 billion pixels a side."""


class Block(NamedTuple):
    """The widths of one level of the network, in channels."""

    name: str
    before: int
    """Into the first convolution; in the decoder after the concatenation."""
    middle: int
    """Between the two convolutions."""
    after: int
    up: tuple[int, int] | None = None
    """Into and out of the transposed convolution before the concatenation, where there is one."""


class Options(TypedDict, total=False):
    """The fields of `UNetConfig` besides the channels in and out."""

    features: tuple[int, ...]
    upsampling: Upsampling
    align_corners: bool
    skip_first: bool
    fit: Fit
    conv_bias: bool
    output: Output
    decoder_features: tuple[int, ...] | None
    middle_features: tuple[int, ...] | None
    upsampled_features: tuple[int, ...] | None
    norm_epsilon: float
    norm_momentum: float
    norm: Norm
    norm_groups: int


@dataclass(frozen=True)
class UNetConfig:
    """A UNet with BatchNorm (after Ronneberger et al., arXiv:1505.04597), of the family that both twins run.

    Frozen and checked once, here. The defaults are the full network.

    Raises:
        ConfigError: a value that describes no network; the message names the field.

    Examples:
        >>> from unet_core import UNetConfig
        >>> config = UNetConfig(in_channels=1, out_channels=3, features=(8, 16, 32), output="softmax")
        >>> config.depth, config.minimum_size
        (2, 4)
        >>> UNetConfig.from_json(config.to_json()) == config
        True
    """

    in_channels: int = 3
    out_channels: int = 1
    features: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Channels of each level, the last one being the bottom; the depth is `len(features) - 1`."""
    upsampling: Upsampling = "bilinear"
    """Bilinear interpolation, that of the nearest point, or a transposed convolution (2x2, stride 2, with bias)."""
    align_corners: bool = True
    """True: the corners of input and output coincide; False: half-pixel centres. As in torch's `interpolate`."""
    skip_first: bool = False
    """Concatenate [skip, upsampled] in the decoder instead of [upsampled, skip]."""
    fit: Fit = "resize"
    """How the upsampled map gets the size of an odd skip connection: `resize` interpolates it to that size, `pad`
    doubles it and pads centrally with zeros, as torch's `pad(x, (d // 2, d - d // 2))`."""
    conv_bias: bool = False
    """The 3x3 convolutions have biases."""
    output: Output = "sigmoid"
    """What calling the network returns: the sigmoid or the softmax (over channels) of the logits, or the logits."""
    decoder_features: tuple[int, ...] | None = None
    """Channels that up1, up2, ... answer, in the order of `features`; None: as in the encoder, `features[:-1]`."""
    middle_features: tuple[int, ...] | None = None
    """Channels between the two convolutions of up1, up2, ...; None: as many as each answers."""
    upsampled_features: tuple[int, ...] | None = None
    """Channels that the transposed convolutions of up1, up2, ... answer; None: `features[:-1]`."""
    norm_epsilon: float = 1e-5
    """Added to the variance under BatchNorm's square root."""
    norm_momentum: float = 0.1
    """Weight of the new batch in the running statistics (torch's convention; Flax's is one minus this)."""
    norm: Norm = "batch"
    """BatchNorm, or GroupNorm (Wu and He, arXiv:1803.08494), which depends on no other picture of a batch."""
    norm_groups: int = 8
    """Groups of channels that GroupNorm normalises, each by itself."""

    def __post_init__(self) -> None:
        for field in ("in_channels", "out_channels", "norm_groups"):
            _require_count(field, getattr(self, field))
        object.__setattr__(self, "features", _widths("features", self.features))
        if not 2 <= len(self.features) <= MOST_LEVELS:
            raise ConfigError(f"features: 2 to {MOST_LEVELS} levels are needed, got {len(self.features)}")
        for field in ("align_corners", "skip_first", "conv_bias"):
            if not isinstance(getattr(self, field), bool):
                raise ConfigError(f"{field}: true or false is needed, got {getattr(self, field)!r}")
        for field, choices in (("upsampling", Upsampling), ("fit", Fit), ("output", Output), ("norm", Norm)):
            if getattr(self, field) not in get_args(choices):
                raise ConfigError(
                    f"{field}: one of {', '.join(get_args(choices))} is needed, got {getattr(self, field)!r}"
                )
        encoder = self.features[:-1]
        self._settle("decoder_features", encoder)
        self._settle("middle_features", self.decoder_features or encoder)
        if self.upsampling != "transposed" and self.upsampled_features is not None:
            raise ConfigError(f"upsampled_features: {self.upsampling} upsampling keeps the channels; leave it out")
        self._settle("upsampled_features", encoder)
        for field, upper in (("norm_epsilon", 1.0), ("norm_momentum", 1.0)):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= upper:
                raise ConfigError(f"{field}: a number above 0 and up to {upper:g} is needed, got {value!r}")
            object.__setattr__(self, field, float(value))
        if self.norm == "batch":
            object.__setattr__(self, "norm_groups", UNetConfig.norm_groups)
        blocks = (*self.encoder_blocks, *self.decoder_blocks)
        odd = [width for block in blocks for width in (block.middle, block.after) if width % self.norm_groups]
        if self.norm == "group" and odd:
            raise ConfigError(f"norm_groups: {odd[0]} channels are not {self.norm_groups} equal groups")

    def _settle(self, field: str, default: tuple[int, ...]) -> None:
        """Check one width per decoder level, and keep None for the default, so that equal networks compare equal."""
        value = getattr(self, field)
        if value is None:
            return
        widths = _widths(field, value)
        if len(widths) != self.depth:
            raise ConfigError(f"{field}: {self.depth} widths are needed, one per decoder level, got {len(widths)}")
        object.__setattr__(self, field, None if widths == default else widths)

    @property
    def dimensions(self) -> int:
        """Of the picture."""
        return 2

    @property
    def title(self) -> str:
        """What a person calls the network."""
        return f"a UNet with features {self.features}"

    @property
    def depth(self) -> int:
        """How often the network halves its input."""
        return len(self.features) - 1

    @property
    def minimum_size(self) -> int:
        """The smallest height and width, in pixels, that every max-pool can still halve."""
        return 2**self.depth

    @property
    def encoder_blocks(self) -> tuple[Block, ...]:
        """down1, down2, ... and bottom, in forward order."""
        names = [f"down{level}" for level in range(1, self.depth + 1)] + ["bottom"]
        before = (self.in_channels, *self.features)
        return tuple(Block(*widths) for widths in zip(names, before, self.features, self.features, strict=False))

    @property
    def decoder_blocks(self) -> tuple[Block, ...]:
        """upN, ..., up1, in forward order."""
        after = self.decoder_features or self.features[:-1]
        middle = self.middle_features or after
        raised = self.upsampled_features or self.features[:-1]
        blocks = []
        below = self.features[-1]
        for level in range(self.depth - 1, -1, -1):
            up = (below, raised[level]) if self.upsampling == "transposed" else None
            before = (up[1] if up else below) + self.features[level]
            blocks.append(Block(f"up{level + 1}", before, middle[level], after[level], up))
            below = after[level]
        return tuple(blocks)

    def check_input(self, *shape: int) -> None:
        """Raise ValueError where an input of this height, width and channels cannot pass through the network."""
        height, width, channels = shape
        if channels != self.in_channels:
            raise ValueError(f"the input has {channels} channels, the network takes {self.in_channels}")
        if min(height, width) < self.minimum_size:
            raise ValueError(
                f"an input of {height}x{width} is too small: {self.depth} max-pools need at least "
                f"{self.minimum_size}x{self.minimum_size}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The config as plain values; without what says BatchNorm, as files have it."""
        later = () if self.norm == "group" else ("norm", "norm_groups")
        return {name: value for name, value in encoded(self).items() if name not in later}

    def to_json(self) -> str:
        """The config as one line of JSON."""
        return json.dumps(self.to_dict())

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
        try:
            config: UNetConfig = decoded(cls, {**encoded(cls()), **decoded(dict[str, Any], fields)})
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"the config: {error}") from error
        return config


def _widths(field: str, value: Any) -> tuple[int, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ConfigError(f"{field}: a sequence of widths is needed, got {value!r}")
    for width in value:
        _require_count(field, width)
    return tuple(value)


def _require_count(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"{field}: a whole number of at least 1 is needed, got {value!r}")
