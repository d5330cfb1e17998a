"""What the pages and first axes of a folder's files are, where the masks have told it."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from unet_core.data.findings import Files
from unet_core.data.formats.files import extent
from unet_core.data.formats.reading import Pictures
from unet_core.data.states import PairState
from unet_core.errors import DataError, shown


def settled(files: Files, found: Mapping[str, PairState], how: Pictures) -> Pictures:
    """How all files of a folder are read, with what its masks told of their pages.

    Raises:
        DataError: they told different things, or a file would then be read otherwise than it was.
    """
    first = next((name for name, state in found.items() if state.pages is not None), None)
    if first is None:
        return how
    how = replace(how, pages=found[first].pages)
    for name, state in found.items():
        if state.pages == how.pages or (state.pages is None and _is_read_so(files.images[name], state, how)):
            continue
        one, other = files.short(files.images[first]), files.short(files.images[name])
        raise DataError(
            f"{shown(files.path)}: {other}: what its pages or axes are is not as in {one}, where the first are "
            f"{how.pages}; save all in one way"
        )
    return how


def said_of_pages(how: Pictures) -> tuple[str, ...]:
    """What a person is to know of it, where a run keeps it."""
    if how.pages is None or how.whole:
        return ()
    return (f"pictures: the pages of a TIFF, and the first axis of a .npy of three axes, are {how.pages}",)


def _is_read_so(image: Path, state: PairState, how: Pictures) -> bool:
    size, pages, are, _ = extent(image, how)
    return (size, 1 if are == "channels" else pages) == (state.size, 1 if state.slices is None else len(state.slices))
