"""Pictures of masks, for people."""

import numpy as np
from jaxtyping import Shaped, UInt8

from unet_core.data.pictures import as_float

# Okabe and Ito's colours, which most people tell apart; the background stays as it is.
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
_MISSED, _INVENTED = (230, 159, 0), (86, 180, 233)


def grey(picture: Shaped[np.ndarray, "*s c"]) -> UInt8[np.ndarray, "*s 3"]:
    """A picture as 8-bit RGB: one channel is repeated, of more than three the first three are shown."""
    pixels = np.clip(as_float(picture), 0, 1)
    if pixels.shape[-1] != 3:
        pixels = pixels[..., [0, 0, 0] if pixels.shape[-1] < 3 else [0, 1, 2]]
    return np.rint(pixels * 255).astype(np.uint8)


def overlay(picture: Shaped[np.ndarray, "*s c"], classes: UInt8[np.ndarray, "*s"]) -> UInt8[np.ndarray, "*s 3"]:
    """The picture with every class but the background tinted in its colour."""
    shown = grey(picture)
    for number in range(1, int(classes.max(initial=0)) + 1):
        colour = np.array(_COLOURS[(number - 1) % len(_COLOURS)], np.uint16)
        place = classes == number
        shown[place] = (shown[place].astype(np.uint16) * 3 + colour * 2) // 5
    return shown


def panel(
    picture: Shaped[np.ndarray, "h w c"], labels: UInt8[np.ndarray, "h w"], predicted: UInt8[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h 3*w+16 3"]:
    """Picture, mask and prediction side by side.

    In the prediction, what is right is white; orange marks a class that was missed, blue one that is not there.
    """
    shown = grey(picture)
    judged = shown // 2
    judged[(labels == predicted) & (labels > 0)] = 255
    judged[(labels != predicted) & (labels > 0)] = _MISSED
    judged[(labels != predicted) & (labels == 0)] = _INVENTED
    gap = np.full((shown.shape[0], 8, 3), 255, np.uint8)
    return np.concatenate((shown, gap, overlay(picture, labels), gap, judged), axis=1)
