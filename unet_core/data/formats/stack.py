"""Files that hold several pictures of one size: the slices of a volume, or pages that may be channels."""

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from unet_core.data.formats.decoded import Decoded, check_size
from unet_core.data.formats.reading import Axis, Pages
from unet_core.errors import DataError, counted

MOST_BYTES = 4 * 2**30
"""Of a volume that has to be read whole."""
KEPT = 2**30
"""Bytes of volumes that are kept for their next slices; of a larger one, that one alone."""


_PLACES = {"z": 0, "y": 1, "x": 2}


Spacing = tuple[float, float, float]
"""Millimetres from one slice, row and column of a volume to the next."""


@dataclass(frozen=True)
class Grid:
    """Where the voxels of a volume lie."""

    spacing: Spacing | None = None
    """None where the file does not say it."""
    affine: Float[np.ndarray, "4 4"] | None = None
    """Takes column, row and slice of a voxel to millimetres to the right, to the front, and up (NIfTI's RAS+)."""

    def departs(self, other: "Grid") -> bool:
        """Whether both say where they lie, or how far apart, and one of them lies elsewhere."""
        if self.affine is not None and other.affine is not None:
            return not np.allclose(self.affine, other.affine, rtol=1e-3, atol=1e-2)
        if self.spacing is None or other.spacing is None:
            return False
        return not np.allclose(self.spacing, other.spacing, rtol=1e-2)


NOWHERE = Grid()
"""The file does not say where its voxels lie."""


@dataclass(frozen=True)
class Stack:
    """A file's slices, each of which is read when it is asked for, while the file is open."""

    depth: int
    height: int
    width: int
    samples: int
    """Of a pixel of a slice."""
    plane: Callable[[int], Decoded]
    """Reads a slice."""
    voxels: Callable[[], tuple[Decoded, Shaped[np.ndarray, "d h w n"]]] | None = None
    """Reads all of them, and one besides, which says what they are; where a slice takes as long as all of them."""
    are: Pages | None = "slices"
    """What the file says that they are."""
    itemsize: int = 1
    """Bytes of a sample."""
    grid: Grid = NOWHERE
    moments: int = 1
    """Of several moments, each of which has as many of the slices."""

    def count(self, axis: Axis) -> int:
        """How many slices there are across an axis."""
        return {"z": self.depth, "y": self.height, "x": self.width}[axis]

    def size(self, axis: Axis) -> tuple[int, int]:
        """Height and width of such a slice."""
        return {"z": (self.height, self.width), "y": (self.depth, self.width), "x": (self.depth, self.height)}[axis]

    def as_channels(self) -> Decoded:
        """All slices as channels of one picture."""
        check_size(self.height, self.width, self.depth * self.samples)
        first, voxels = self.whole()
        if first.palette is not None:
            raise DataError("has several pages with palettes, which are no channels; save them as grey or RGB")
        pixels = np.moveaxis(voxels, 0, 2).reshape(self.height, self.width, -1)
        return dataclasses.replace(first, samples=np.ascontiguousarray(pixels))

    def whole(self) -> tuple[Decoded, Shaped[np.ndarray, "d h w n"]]:
        """All voxels, and one slice, which says what they are.

        Raises:
            DataError: it is larger than a memory should be filled with.
        """
        size = self.depth * self.height * self.width * self.samples * self.itemsize
        if size > MOST_BYTES:
            each = counted(self.samples * self.itemsize, "byte")
            raise DataError(
                f"{self.depth}x{self.height}x{self.width} voxels of {each} are too many "
                "to be read at once; cut it into parts"
                + (", or decompress it" if self.voxels is not None else ", or cut slices across z")
            )
        if self.voxels is not None:
            return self.voxels()
        return joined([self.plane(number) for number in range(self.depth)])


def joined(planes: list[Decoded]) -> tuple[Decoded, Shaped[np.ndarray, "d h w n"]]:
    """The voxels of all slices, and a slice that says what they are: their values, where slopes are not the same."""
    first = planes[0]
    if any((plane.slope, plane.intercept) != (first.slope, first.intercept) for plane in planes):
        planes = [dataclasses.replace(plane, samples=plane.values, slope=1, intercept=0) for plane in planes]
    return planes[0], np.stack([plane.samples for plane in planes])


def _slice(first: Decoded, voxels: np.ndarray, axis: Axis, number: int) -> Decoded:
    return dataclasses.replace(first, samples=np.ascontiguousarray(voxels.take(number, _PLACES[axis])))


class Kept:
    """The volumes that were read whole last; several threads may ask for their slices."""

    def __init__(self, most: int = KEPT) -> None:
        self.most = most
        self._volumes: OrderedDict[object, tuple[Decoded, np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()  # so that one volume at a time is being read, however many threads ask

    def find(self, key: object, axis: Axis, number: int) -> Decoded | None:
        """A slice of the volume that has this key; None where it is not kept, or has no such slice."""
        with self._lock:
            if key not in self._volumes:
                return None
            self._volumes.move_to_end(key)
            first, voxels = self._volumes[key]
        return _slice(first, voxels, axis, number) if 0 <= number < voxels.shape[_PLACES[axis]] else None

    def whole(self, key: object, stack: Stack) -> Decoded:
        """The volume that has this key, which is read where it is not kept."""
        first, voxels = self._found(key, stack)
        return dataclasses.replace(first, samples=voxels)

    def slice(self, key: object, stack: Stack, axis: Axis, number: int) -> Decoded:
        """A slice of the volume that has this key, which is read where it is not kept."""
        return _slice(*self._found(key, stack), axis, number)

    def _found(self, key: object, stack: Stack) -> tuple[Decoded, np.ndarray]:
        with self._lock:
            found = self._volumes.pop(key, None)
            if found is None:
                while self._volumes and self._size() > self.most // 2:
                    self._volumes.popitem(last=False)
                found = stack.whole()
            self._volumes[key] = found
            while len(self._volumes) > 1 and self._size() > self.most:
                self._volumes.popitem(last=False)
        return found

    def _size(self) -> int:
        return sum(voxels.nbytes for _, voxels in self._volumes.values())
