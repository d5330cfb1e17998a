"""The panels of one picture on a comparison's page: input, truth, both outputs and their difference, as pixels."""

import io
import math

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.colors import to_hex
from PIL import Image

from unet_compare.findings import Picture
from unet_compare.page.figures import Drawing, number, url
from unet_core.errors import shown

_SIDE = 320  # pixels of a panel, at most
_MAP = matplotlib.colormaps["viridis"]
SCALE = ", ".join(to_hex(_MAP(place)) for place in np.linspace(0, 1, 9))
"""The colours of a difference, from none to the largest, as the stops of a gradient in CSS."""


def panels_of(picture: Picture) -> tuple[Drawing, ...]:
    """Input, truth (where it is known), both outputs, and their difference, as pixels."""
    height, width = picture.a.shape
    apart = picture.difference
    at = np.unravel_index(np.argmax(np.where(np.isfinite(apart), apart, -1)), apart.shape)
    gaps = int((~np.isfinite(apart)).sum())
    image = picture.image[..., : 3 if picture.image.shape[-1] >= 3 else 1]
    found = [("Input", _photograph(image), f"{width} by {height} pixels")]
    if picture.truth is not None:
        classes = max(int(picture.truth.max()), 1)
        part = float((picture.truth > 0).mean())
        words = f"{part:.1%} of the pixels are not background"
        found.append(("Truth", _grey(picture.truth / classes), words))
    for name, one in (("A", picture.a), ("B", picture.b)):
        part = float((one > 0.5).mean())
        words = f"from 0, black, to 1, white; {part:.1%} of the pixels are above 0.5"
        found.append((f"{name}'s probabilities", _grey(one), words))
    words = f"at most {number(float(apart[at]))}, in row {at[0]}, column {at[1]}"
    missing = f"; {gaps} pixels are no number (white)" if gaps else ""
    found.append(("|A - B|", _coloured(apart, top_of(picture)), words + missing))
    return tuple(
        Drawing(title, source, f"{title}, {shown(picture.name)}: {words}", width, height)
        for title, source, words in found
    )


def top_of(picture: Picture) -> float:
    """The high end of a difference's scale: A's rounding has a place on it, too."""
    apart = picture.difference
    rounding = picture.rounding if math.isfinite(picture.rounding) else 0.0
    return max(float(apart[np.isfinite(apart)].max(initial=0)), rounding) or 1.0


def _photograph(values: Float[np.ndarray, "h w c"]) -> str:
    """A JPEG of values from 0 to 1: it is there to be recognised."""
    image = _image(values)
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return url("jpeg", file.getvalue())


def _grey(values: Float[np.ndarray, "h w"]) -> str:
    """A PNG of values from 0 to 1; of a large picture every second pixel, or third, and so on."""
    step = math.ceil(max(values.shape) / _SIDE)
    return _png(_image(values[::step, ::step, None]))


def _coloured(values: Float[np.ndarray, "h w"], top: float) -> str:
    """A PNG of differences; of a large picture the largest of every square of pixels. White is no number."""
    step = math.ceil(max(values.shape) / _SIDE)
    for axis in (0, 1):
        values = np.maximum.reduceat(values, np.arange(0, values.shape[axis], step), axis)
    gaps = ~np.isfinite(values)
    image = Image.fromarray(np.where(gaps, 255, np.round(254 * np.where(gaps, 0, values) / top)).astype(np.uint8))
    colours = np.vstack([_MAP(np.arange(255) / 254)[:, :3], np.ones((1, 3))])
    image.putpalette(np.round(255 * colours).astype(np.uint8).tobytes())
    return _png(image)


def _image(values: Float[np.ndarray, "h w c"]) -> Image.Image:
    """Of values from 0 to 1, one or three channels; what is no number is black."""
    grey = np.round(255 * np.clip(np.nan_to_num(values.astype(np.float64)), 0, 1)).astype(np.uint8)
    return Image.fromarray(grey[..., 0] if grey.shape[-1] == 1 else grey)


def _png(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return url("png", file.getvalue())
