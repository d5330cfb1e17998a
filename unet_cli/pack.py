"""`unet pack`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from unet_cli.options import option
from unet_core.data.formats.reading import Pictures
from unet_core.data.masks import Masks
from unet_core.errors import UNetError, counted

_MEGABYTE = 10**6


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Write a data folder as a few large files, which a training opens at once, however many pictures they hold.

    SET takes the folder's place as --data of unet train, eval and compare, and gives the same training, bit for bit.
    How pictures and masks are read is kept in SET.

    Example: unet pack cells cells.packed
    """

    relief: ClassVar[str] = ""

    data: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DIR")]]
    """A folder with images/ and masks/, matching by name."""
    dst: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SET")]]
    """The folder to write."""
    shard_size: Annotated[int, tyro.conf.arg(metavar="MB")] = 1000
    """Megabytes of a file, at most, unless a single pair has more."""
    validation: Annotated[float | None, option("NUMBER")] = None
    """Put the last pictures by name aside for validation: a part of them, or, from 1 up, how many. Left out: unet train
    decides."""
    groups: Annotated[str | None, option("FILE.csv")] = None
    """With --validation, a table in lines of name,group: pictures of one group are all put aside, or none is."""
    volumes: tyro.conf.FlagCreatePairsOff[bool] = False
    """Each file is a whole volume (NIfTI, .npy, a TIFF stack, DICOM), for a 3-D network."""
    force: tyro.conf.FlagCreatePairsOff[bool] = False
    """Replace a packed set in SET."""
    recheck: tyro.conf.FlagCreatePairsOff[bool] = False
    """Read every picture and mask again, whatever is known of the data from an earlier start."""
    masks: Masks = field(default_factory=Masks)
    pictures: Pictures = field(default_factory=Pictures)

    def run(self) -> int:
        """Pack, and say what was written."""
        from unet_cli.tables import progress_bar
        from unet_core.data.opening import recheck
        from unet_core.data.packing import pack

        if self.shard_size < 1:
            raise UNetError(f"--shard-size {self.shard_size}: give a whole number of megabytes from 1 up")
        if self.recheck:
            recheck(str(self.data))
        with progress_bar() as progress:
            made = pack(
                self.data,
                self.dst,
                masks=self.masks,
                pictures=self.pictures,
                volumes=self.volumes,
                validation=self.validation,
                groups=self.groups,
                shard_size=self.shard_size * _MEGABYTE,
                force=self.force,
                progress=progress,
            )
        files, size = counted(len(made.shards), "file"), sum(shard.size for shard in made.shards) / _MEGABYTE
        aside = "" if made.validation is None else f", {made.validation} of them put aside for validation"
        print(f"{counted(made.pairs, 'pair')}{aside}, in {files} of {size:.1f} MB together: {self.dst}")
        return 0
