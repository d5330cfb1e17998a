"""Predictions of pictures as files: masks, probabilities, overlays; band by band, each written whole or not at all."""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from unet_core.config import Output
from unet_core.data.colours import unpacked
from unet_core.data.pictures import SUFFIXES, read_picture
from unet_core.errors import DataError, some
from unet_core.files import atomic
from unet_core.graph.canonical import Description
from unet_core.paths import URLPath
from unet_core.prediction.evaluation import Bands
from unet_core.prediction.metrics import decided
from unet_core.prediction.overlay import overlay
from unet_core.prediction.stitching import check_picture


@dataclass(frozen=True)
class Wanted:
    """What to write of every picture, as `NAME.png`, `NAME.npy` and `NAME_overlay.png`."""

    masks: bool = True
    probabilities: bool = False
    """float32, [height, width, channels], from 0 to 1."""
    overlays: bool = False
    """The picture, tinted where a class was found."""

    def files(self, out: Path, picture: Path) -> dict[str, Path]:
        """Where the predictions of a picture go."""
        names = {
            "masks": f"{picture.stem}.png",
            "probabilities": f"{picture.stem}.npy",
            "overlays": f"{picture.stem}_overlay.png",
        }
        return {kind: out / name for kind, name in names.items() if getattr(self, kind)}


def list_pictures(paths: Iterable[Path], out: Path, wanted: Wanted, *, force: bool) -> list[Path]:
    """The pictures that are meant: files as they are, folders for the pictures in them, in order of their names.

    Raises:
        DataError: there are none, two would be written to one file, or something is there already (without `force`).
    """
    found: list[Path] = []
    for path in paths:
        found += sorted(filter(_is_picture, path.iterdir())) if path.is_dir() else [path]
    if not found:
        raise DataError(f"no picture is named, or in the folders that are ({', '.join(SUFFIXES)})")
    targets: dict[Path, Path] = {}
    for picture in found:
        for target in wanted.files(out, picture).values():
            if target in targets:
                raise DataError(f"{picture} and {targets[target]}: both would be written to {target}; rename one")
            targets[target] = picture
    known = set(out.iterdir()) if isinstance(out, URLPath) and out.is_dir() else set()  # asked once for all
    there = [target for target in targets if (target in known if isinstance(out, URLPath) else target.exists())]
    if there and not force:
        raise DataError(f"{some(there, most=3)}: there already; name another --out, or --force to replace")
    lost = {path.resolve() for path in found} & {target.resolve() for target in there}
    if lost:
        raise DataError(f"{some(sorted(lost), most=3)}: is a picture that is to be read; name another --out")
    return found


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def predict_file(
    bands: Bands,
    config: Description,
    picture: Path,
    out: Path,
    *,
    wanted: Wanted,
    values: tuple[int, ...],
    coloured: bool = False,
    output: Output | None = None,
) -> None:
    """Read a picture and write what is wanted of it.

    Args:
        bands: the network.
        config: the network's.
        picture: the file.
        out: the folder for the predictions; it exists.
        wanted: what to write.
        values: what the mask's pixels are to hold, by class.
        coloured: the values are colours, 0xRRGGBB.
        output: what the logits are; None: what the config says.

    Raises:
        UNetError: the picture cannot be read or is not for this network, or a prediction cannot be written.
    """
    from PIL import Image

    output = output or config.output
    pixels = read_picture(picture, config.in_channels)
    try:
        check_picture(config, pixels)
    except DataError as error:
        raise DataError(f"{picture}: {error}") from error
    size = pixels.shape[:2]
    files = wanted.files(out, picture)
    with contextlib.ExitStack() as stack:
        partial = {kind: stack.enter_context(atomic(file, force=True)) for kind, file in files.items()}
        held = unpacked(values) if coloured else np.array(values, np.uint8 if max(values) < 256 else np.uint16)
        mask = np.empty((*size, *held.shape[1:]), held.dtype) if wanted.masks else None
        tinted = np.empty((*size, 3), np.uint8) if wanted.overlays else None
        probabilities = None
        if wanted.probabilities:
            probabilities = stack.enter_context(partial["probabilities"].open("wb"))
            header = {"descr": "<f4", "fortran_order": False, "shape": (*size, config.out_channels)}
            np.lib.format.write_array_header_1_0(probabilities, header)
        for start, logits in bands(pixels):
            rows = slice(start, start + len(logits))
            classes = decided(logits, output)
            if mask is not None:
                mask[rows] = held[classes]
            if tinted is not None:
                tinted[rows] = overlay(pixels[rows], classes)
            if probabilities is not None:
                probabilities.write(probable(logits, output).astype("<f4").tobytes())
        if mask is not None:
            Image.fromarray(mask).save(partial["masks"], "PNG")
        if tinted is not None:
            Image.fromarray(tinted).save(partial["overlays"], "PNG")


def probable(logits: Float[np.ndarray, "*n k"], output: str) -> Float[np.ndarray, "*n k"]:
    """The probabilities: a sigmoid each, or for several logits of which one is right, their softmax."""
    if logits.shape[-1] == 1 or output == "sigmoid":
        return 0.5 * (1 + np.tanh(logits / 2))
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)
