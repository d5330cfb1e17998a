"""Which pictures are for validation. Plain data: the command reads it before NumPy is imported."""

from dataclasses import dataclass, field

from unet_core.codec import OPTIONAL
from unet_core.errors import ConfigError


@dataclass(frozen=True)
class Split:
    """How the pictures to train on are parted from those to validate on, where a number of the last ones is not enough.

    Raises:
        ConfigError: numbers that part nothing, or two ways at once.
    """

    validation_data: str | None = field(default=None, metadata=OPTIONAL)
    """Another data folder, all of which is for validation; all of the first one is then trained on."""
    folds: int | None = field(default=None, metadata=OPTIONAL)
    """Part the pictures, in order of their names, into so many folds, one of which is for validation; in unet study
    each is, in turn."""
    fold: int | None = field(default=None, metadata=OPTIONAL)
    """Which one, from 1 up."""
    groups: str | None = field(default=None, metadata=OPTIONAL)
    """A table in lines of name,group: pictures of one group, as of one patient, are all trained on, or none is."""

    def __post_init__(self) -> None:
        count, one = self.folds, self.fold
        if count is not None and count < 2:
            raise ConfigError(f"folds {count}: give 2 or more")
        if one is not None and not 1 <= one <= (count or 0):
            raise ConfigError(f"fold {one}: give one from 1 up to --folds, as --folds 5 --fold 1")
        if self.validation_data is not None and (self.folds is not None or self.groups is not None):
            raise ConfigError("validation_data: is all that is validated on; leave out --folds and --groups")

    def check_one(self) -> None:
        """Raise ConfigError where there are folds, and none of them is named."""
        if self.folds is not None and self.fold is None:
            raise ConfigError(f"folds {self.folds}: say which one is for validation, as --folds {self.folds} --fold 1")


UNGROUPED = Split()
"""Each picture by itself."""
