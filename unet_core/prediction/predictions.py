"""Predictions of pictures as files: masks, probabilities, overlays; band by band, each written whole or not at all."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, Shaped

from unet_core.config import Output
from unet_core.data.colours import unpacked
from unet_core.data.formats.files import Extent
from unet_core.data.formats.reading import AS_STORED, Pictures
from unet_core.data.formats.stack import NOWHERE, Grid
from unet_core.data.pictures import read_picture
from unet_core.errors import DataError
from unet_core.files import atomic
from unet_core.graph.canonical import Description
from unet_core.prediction.evaluation import Bands
from unet_core.prediction.metrics import decided
from unet_core.prediction.overlay import overlay
from unet_core.prediction.sources import Source, Wanted, is_volume


@dataclass(frozen=True)
class Predictor:
    """A network, and how what it predicts is written."""

    bands: Bands
    config: Description
    """The network's."""
    values: tuple[int, ...]
    """What the mask's pixels are to hold, by class."""
    coloured: bool = False
    """The values are colours, 0xRRGGBB."""
    output: Output | None = None
    """What the logits are; None: what the config says."""
    pictures: Pictures = AS_STORED
    """How pictures are read."""

    @property
    def held(self) -> Integer[np.ndarray, "k ..."]:
        """The values as a mask's pixels have them."""
        if self.coloured:
            return unpacked(self.values)
        return np.array(self.values, np.uint8 if max(self.values) < 256 else np.uint16)

    def predict(self, source: Source, found: Extent, out: Path, wanted: Wanted) -> None:
        """Read a picture or a volume and write what is wanted of it.

        Args:
            source: the file.
            found: what it holds.
            out: the folder for the predictions; it is made, and so are those in it.
            wanted: what to write.

        Raises:
            UNetError: it cannot be read or is not for this network, or a prediction cannot be written.
        """
        files = wanted.files(out, source, found)
        for file in files.values():
            file.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            partial = {kind: stack.enter_context(atomic(file, force=True)) for kind, file in files.items()}
            if is_volume(found):
                self._volume(source, found, partial)
            else:
                self._picture(source, partial)

    def _read(self, source: Source, at: int | None) -> np.ndarray:
        return read_picture(source.path, self.config.in_channels, self.pictures, at)

    def _picture(self, source: Source, partial: dict[str, Path]) -> None:
        from PIL import Image

        pixels = self._read(source, None)
        size = pixels.shape[:2]
        arrays = self._arrays(size, partial)
        with contextlib.ExitStack() as stack:
            probabilities = None
            if "probabilities" in partial:
                probabilities = stack.enter_context(partial["probabilities"].open("wb"))
                header = {"descr": "<f4", "fortran_order": False, "shape": (*size, self.config.out_channels)}
                np.lib.format.write_array_header_1_0(probabilities, header)
            for likely in self._predicted(source, pixels, arrays):
                if probabilities is not None:
                    probabilities.write(likely.tobytes())
        for kind, array in arrays.items():
            Image.fromarray(array).save(partial[kind], "PNG")

    def _volume(self, source: Source, found: Extent, partial: dict[str, Path]) -> None:
        """Masks and probabilities lie as the volume's voxels do, whether it is predicted whole or in slices."""
        whole = len(found.size) == 3
        place = 0 if whole else {"z": 0, "y": 1, "x": 2}[self.pictures.axis]
        shape = found.size if whole else (found.pages, *found.size)
        arrays = self._arrays(shape, partial)
        probabilities = None
        if "probabilities" in partial:
            lying = list(shape[1:])
            lying.insert(place, shape[0])
            channels = self.config.out_channels
            file = np.lib.format.open_memmap(partial["probabilities"], "w+", "<f4", (*lying, channels))
            probabilities = np.moveaxis(file, place, 0)
        for number in (None,) if whole else range(found.pages):
            at = ... if number is None else number
            slices = {kind: array[at] for kind, array in arrays.items()}
            top = 0
            for likely in self._predicted(source, self._read(source, number), slices):
                if probabilities is not None:
                    probabilities[at][top : top + len(likely)] = likely
                top += len(likely)
        if "masks" in arrays:
            write_mask(partial["masks"], np.moveaxis(arrays["masks"], 0, place), found.grid)
        if "overlays" in arrays:
            write_mask(partial["overlays"], arrays["overlays"], NOWHERE)

    def _arrays(self, size: tuple[int, ...], partial: dict[str, Path]) -> dict[str, np.ndarray]:
        """For masks and overlays."""
        tails = {"masks": (self.held.shape[1:], self.held.dtype), "overlays": ((3,), np.dtype(np.uint8))}
        return {kind: np.empty((*size, *tail), dtype) for kind, (tail, dtype) in tails.items() if kind in partial}

    def _predicted(
        self, source: Source, pixels: np.ndarray, arrays: dict[str, np.ndarray]
    ) -> Iterator[Float[np.ndarray, "rows *w k"]]:
        """Fill masks and overlays band by band; gives the bands' probabilities."""
        output = self.output or self.config.output
        try:
            bands = self.bands(pixels)
        except DataError as error:
            raise DataError(f"{source.path}: {error}") from error
        for start, logits in bands:
            rows = slice(start, start + len(logits))
            classes = decided(logits, output)
            if "masks" in arrays:
                arrays["masks"][rows] = self.held[classes]
            if "overlays" in arrays:
                arrays["overlays"][rows] = overlay(pixels[rows], classes)
            yield probable(logits, output).astype("<f4")


def write_mask(path: Path, slices: Shaped[np.ndarray, "d h w *rgb"], grid: Grid) -> None:
    """Write a volume as NIfTI, as an array, or, where the file's name is of neither, as a stack of TIFF pages."""
    if path.name.endswith(".npy"):
        with path.open("wb") as file:
            np.save(file, slices)
        return
    if path.name.endswith(".nii.gz"):
        from unet_core.data.formats.nifti import write_nifti

        write_nifti(path, slices, grid)
        return
    from unet_core.data.formats.tiff import write_tiff

    write_tiff(path, slices, grid.spacing)


def probable(logits: Float[np.ndarray, "*n k"], output: str) -> Float[np.ndarray, "*n k"]:
    """The probabilities: a sigmoid each, or for several logits of which one is right, their softmax."""
    if logits.shape[-1] == 1 or output == "sigmoid":
        return 0.5 * (1 + np.tanh(logits / 2))
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
