"""How training crops may be changed. Plain data: the command reads it before NumPy is imported."""

from dataclasses import dataclass

from unet_core.errors import ConfigError


@dataclass(frozen=True)
class Augmentation:
    """How a crop may differ from the picture.

    Raises:
        ConfigError: a limit that is negative, or no number.
    """

    flips: bool = True
    """Mirror along each axis, in half of the cases."""
    right_angles: bool = True
    """Turn by 0, 90, 180 or 270 degrees; volumes in a plane whose two spacings are alike."""
    rotation: float = 10.0
    """Turn by up to so many degrees more, either way, in the same plane."""
    scale: float = 0.1
    """Enlarge or shrink by up to this part."""
    brightness: float = 0.1
    """Add up to this part of the range, or take it away."""
    contrast: float = 0.1
    """Stretch or squeeze about the crop's mean by up to this part."""
    noise: float = 0.02
    """Add normal noise with a deviation of up to this part of the range."""

    def __post_init__(self) -> None:
        for name, limit in (
            ("rotation", 180.0),
            ("scale", 10.0),
            ("brightness", 10.0),
            ("contrast", 1.0),
            ("noise", 10.0),
        ):
            value = getattr(self, name)
            if not 0 <= value <= limit:
                raise ConfigError(f"{name} {value}: give a number from 0 to {limit:g}")


NONE = Augmentation(False, False, 0, 0, 0, 0, 0)
"""Crops as they are in the picture."""
