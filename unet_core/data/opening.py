"""Opens pictures with masks where a person says that they are: a folder, shards, or the built-in data."""

from unet_core.data.dataset import Dataset
from unet_core.data.folder import open_folder
from unet_core.data.formats.reading import AS_STORED, Pictures
from unet_core.data.index import forget
from unet_core.data.manifest import check_digests, is_packed, packed_masks, read_manifest
from unet_core.data.masks import AS_FOUND, Masks
from unet_core.data.shards import open_packed
from unet_core.data.synthetic import Synthetic
from unet_core.errors import DataError
from unet_core.paths import as_path
from unet_core.progress import Progress, silent

SYNTHETIC = "synthetic"
"""The name of the built-in data, where a folder is asked for."""


def open_dataset(
    data: str,
    *,
    channels: int | None = None,
    values: tuple[int, ...] | None = None,
    coloured: bool = False,
    masks: Masks = AS_FOUND,
    pictures: Pictures = AS_STORED,
    progress: Progress = silent,
) -> Dataset:
    """A data folder, every file of it checked; or what was packed of one; or the built-in data.

    Args:
        data: the folder with `images/` and `masks/`, or of shards; or "synthetic", where no folder has that name.
        channels: that the pictures are to have; None: what they have.
        values: what the masks' pixels may hold; None: what `masks` says.
        coloured: `values` are colours, 0xRRGGBB.
        masks: how the masks of a folder are read, or those of shards, where that is not as they were packed.
        pictures: how the pictures of a folder are read, or those of shards, where that is not as they were packed.
        progress: is told how far the check is.

    Raises:
        DataError: the data cannot be trained on; one line lists what is wrong.
    """
    path, built_in = as_path(data), data == SYNTHETIC and not as_path(data).exists()
    if pictures.whole and built_in:
        raise DataError(f"{data}: a 3-D network takes volumes, and its pictures are none; name a folder of volumes")
    if built_in:
        return Synthetic(channels=channels or 1)
    if is_packed(path):
        return open_packed(path, channels=channels, values=values, coloured=coloured, masks=masks, pictures=pictures)
    return open_folder(
        path,
        channels=channels,
        values=values,
        coloured=coloured,
        masks=masks,
        pictures=pictures,
        progress=progress,
    )


def masks_for(data: str, masks: Masks) -> Masks:
    """How the masks of these data are read: what `masks` leaves open is as it was when they were packed.

    Raises:
        DataError: they are packed, and their manifest is damaged.
    """
    path = as_path(data)
    return packed_masks(path, read_manifest(path)).but(masks) if is_packed(path) else masks


def recheck(*data: str | None) -> None:
    """Let all of these data be read again when they are opened, whatever is known of them; of shards, read it now.

    Raises:
        DataError: what is known of a folder cannot be removed, or a shard is not what was packed.
    """
    for path in map(as_path, filter(None, data)):
        if is_packed(path):
            check_digests(path)
        elif path.is_dir():
            forget(path)
