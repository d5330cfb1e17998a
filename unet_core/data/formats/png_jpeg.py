"""PNG and JPEG files, and what else Pillow decodes, as rasters."""

import sys
from typing import BinaryIO, TypeVar

import numpy as np

from unet_core.data.formats.decoded import Decoded, check_size, orientation, upright, upright_size
from unet_core.errors import DataError, MissingFrameworkError
from unet_core.installation import installing

try:
    from PIL import ImageFile
    from PIL.JpegImagePlugin import JpegImageFile
    from PIL.PngImagePlugin import PngImageFile
except ModuleNotFoundError as missing:
    raise MissingFrameworkError(f"pictures need Pillow: {installing('train')}") from missing

_Kind = TypeVar("_Kind", bound=ImageFile.ImageFile)

_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_WHITE = {"L;2": 3, "L;4": 15}

_OTHER = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
"""The byte order, as raw modes write it, that shows the low byte of a number where the other shows the high one."""


def png_size(file: BinaryIO) -> tuple[int, int]:
    """Height and width in pixels, after EXIF orientation."""
    image = opened(file, PngImageFile)
    return upright_size(image.height, image.width, orientation(_png_exif(image, file)))


def jpeg_size(file: BinaryIO) -> tuple[int, int]:
    """Height and width in pixels, after EXIF orientation."""
    image = opened(file, JpegImageFile)
    return upright_size(image.height, image.width, orientation(image.info.get("exif", b"")))


def read_png(file: BinaryIO) -> Decoded:
    """A PNG, all of whose checksums are right; see `Decoded`.

    Raises:
        DataError: an animation, or too large; Pillow's own errors besides.
    """
    opened(file, PngImageFile).verify()
    image = opened(file, PngImageFile)
    if image.n_frames > 1:
        raise DataError(f"is an animation of {image.n_frames} pictures; save each as a file")
    way = orientation(_png_exif(image, file))
    return turned(read_image(image, file), way)


def read_jpeg(file: BinaryIO) -> Decoded:
    """A JPEG; see `Decoded`."""
    image = opened(file, JpegImageFile)
    raster = read_image(image, file)
    return turned(Decoded(raster.samples, lossy="JPEG"), orientation(image.info.get("exif", b"")))


def read_image(image: ImageFile.ImageFile, file: BinaryIO) -> Decoded:
    """The raster of an image that Pillow has opened but not decoded, in its orientation.

    Raises:
        DataError: Pillow would give less than the file holds.
    """
    raw = _raw_mode(image)
    if ";16" in raw and not image.mode.startswith("I") and not raw.startswith("BGR"):  # BMP has 16 for all three
        return Decoded(_wide(image, raw, file))
    if image.mode == "P":
        indices = np.asarray(image)[:, :, None]
        return Decoded(indices, palette=np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3))
    if image.mode in ("CMYK", "YCbCr"):
        return Decoded(np.asarray(image.convert("RGB")))
    if image.mode not in ("1", "L", "RGB", "I", "F", *_ALPHA) and not image.mode.startswith("I;16"):
        raise DataError(f"its colours are of the kind {image.mode}, which is not read; save it as grey or RGB")
    mode = image.mode
    samples = np.atleast_3d(np.asarray(image))
    if mode == "1":
        return Decoded(samples.astype(np.uint8), white=1)
    if white := _WHITE.get(raw[:3]):
        return Decoded(samples // (255 // white), white=white)
    if mode in _ALPHA:
        samples = samples[:, :, :-1]
    return Decoded(samples.astype(samples.dtype.newbyteorder("="), copy=False))


def turned(raster: Decoded, way: int) -> Decoded:
    """The raster as its EXIF orientation means it to be seen."""
    return Decoded(upright(raster.samples, way), raster.white, raster.palette, raster.lossy)


def opened(file: BinaryIO, kind: type[_Kind]) -> _Kind:
    """The plugin itself: `Image.open` warns of pictures half as large as those it refuses."""
    file.seek(0)
    image = kind(file)
    check_size(image.height, image.width)
    return image


def _raw_mode(image: ImageFile.ImageFile) -> str:
    args = image.tile[0].args if image.tile else ""
    return str(args[0] if isinstance(args, tuple) else args)


def _wide(image: ImageFile.ImageFile, raw: str, file: BinaryIO) -> np.ndarray:
    """16 bits of each colour: Pillow keeps the first byte of each, so it is asked twice, once in either byte order."""
    file.seek(0)
    again = type(image)(file)
    if raw == "LA;16B":
        _ask(again, "RGBA")  # its four bytes are those of a grey value and its alpha
        pairs = np.asarray(again).astype(np.uint16)
        return pairs[:, :, 0:1] << 8 | pairs[:, :, 1:2]
    if raw[:-1] not in ("RGB;16", "RGBA;16"):
        raise DataError(f"16 bits of the kind {raw.partition(';')[0]} are not read; save it as RGB without alpha")
    _ask(again, raw[:-1] + _OTHER[raw[-1]])
    high, low = (np.asarray(part)[:, :, :3] for part in (image, again))
    return high.astype(np.uint16) << 8 | low


def _ask(image: ImageFile.ImageFile, raw: str) -> None:
    """Have Pillow unpack the bytes in another way than it would."""
    args = image.tile[0].args
    image.tile = [image.tile[0]._replace(args=(raw, *args[1:]) if isinstance(args, tuple) else raw)]


def _png_exif(image: PngImageFile, file: BinaryIO) -> bytes:
    """The EXIF block, which may also stand behind the pixels or, as older ImageMagick has it, in a text."""
    if "exif" in image.info:
        return bytes(image.info["exif"])
    if "Raw profile type exif" in image.info:
        return bytes.fromhex("".join(image.info["Raw profile type exif"].split("\n")[3:]))
    here = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length = int.from_bytes(head[:4], "big")
            if head[4:] == b"eXIf":
                return file.read(length)
            file.seek(length + 4, 1)
        return b""
    finally:
        file.seek(here)
