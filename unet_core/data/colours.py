"""Colours as numbers 0xRRGGBB and as #rrggbb."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8, UInt32


def hexadecimal(code: int) -> str:
    """A colour as #rrggbb."""
    return f"#{code:06x}"


def packed(pixels: UInt8[np.ndarray, "*n 3"]) -> UInt32[np.ndarray, "*n"]:
    """RGB as numbers 0xRRGGBB."""
    red, green, blue = np.moveaxis(pixels.astype(np.uint32), -1, 0)
    return red << 16 | green << 8 | blue


def unpacked(codes: Sequence[int] | UInt32[np.ndarray, "*n"]) -> UInt8[np.ndarray, "*n 3"]:
    """The inverse of `packed`."""
    numbers = np.asarray(codes, np.uint32)
    return np.stack([numbers >> 16 & 255, numbers >> 8 & 255, numbers & 255], -1).astype(np.uint8)


def nearest(codes: UInt32[np.ndarray, "*s"], among: Sequence[int]) -> UInt32[np.ndarray, "*s"]:
    """In place of each colour the one of these that is nearest to it in RGB, the first of several."""
    every, places = np.unique(codes, return_inverse=True)
    colours, least = unpacked(every).astype(np.int32), np.full(every.shape, np.iinfo(np.int32).max)
    chosen = np.zeros_like(every)
    for code, colour in zip(among, unpacked(among).astype(np.int32), strict=True):
        distance = ((colours - colour) ** 2).sum(-1)
        closer = distance < least
        chosen[closer], least[closer] = code, distance[closer]
    return chosen[places].reshape(codes.shape)
