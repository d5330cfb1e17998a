"""The pictures of a comparison: crops of one size, so that what is compiled is compiled once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from unet_core.data.dataset import Dataset
from unet_core.data.pictures import as_float
from unet_core.errors import DataError, some
from unet_core.graph import Graph
from unet_core.graph.canonical import Description
from unet_core.graph.suitability import refusal
from unet_core.prediction.metrics import Metrics, confusion, decided, metrics


class Truth(NamedTuple):
    """A crop and the class of every pixel."""

    image: Float[np.ndarray, "h w c"]
    labels: UInt8[np.ndarray, "h w"]


@dataclass(frozen=True)
class Crops:
    """Some pictures' centres."""

    names: tuple[str, ...]
    pairs: tuple[Truth, ...]
    classes: int
    output: str
    """What calling the networks that are to see them makes of their logits."""

    @property
    def images(self) -> tuple[Float[np.ndarray, "h w c"], ...]:
        """From 0 to 1."""
        return tuple(pair.image for pair in self.pairs)

    def decided(
        self, logits: Sequence[Float[np.ndarray, "h w k"]] | Float[np.ndarray, "n h w k"]
    ) -> UInt8[np.ndarray, "n h w"]:
        """The class of every pixel."""
        return np.minimum(decided(np.asarray(logits), self.output), self.classes - 1)

    def judged(self, predicted: UInt8[np.ndarray, "n h w"]) -> Metrics:
        """How good these classes are, over all crops together."""
        matrix: Int[np.ndarray, "k k"] = confusion(
            np.stack([pair.labels for pair in self.pairs]), predicted, self.classes
        )
        return metrics(matrix)


def taken(length: int, config: Description) -> int:
    """The largest length up to this one, in pixels, that is of the kind that the network takes."""
    return length // config.sizes.multiple * config.sizes.multiple if isinstance(config, Graph) else length


def centre_crops(source: Dataset, config: Description, *, count: int, side: int) -> Crops:
    """The centres of pictures that lie evenly among all.

    Args:
        source: pictures and masks.
        config: of the network that is to see them.
        count: of pictures, at most.
        side: height and width of a crop, in pixels, at most; where a picture is smaller, all crops are.

    Raises:
        DataError: the pictures do not fit the network.
    """
    classes = len(source.values)
    outputs = {2: {1, 2}}.get(classes, {classes, classes - (config.output == "sigmoid")})
    if source.channels != config.in_channels or config.out_channels not in outputs:
        raise DataError(
            f"the pictures have {source.channels} channels and {classes} classes; the network takes "
            f"{config.in_channels} channels and answers {config.out_channels}"
        )
    chosen = np.unique(np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int)).tolist()
    sizes = [source.sizes[index] for index in chosen]
    height, width = (taken(min(side, *lengths), config) for lengths in zip(*sizes, strict=True))
    if min(height, width) < config.minimum_size:
        raise DataError(f"crops of {height}x{width}: the network takes {config.minimum_size} pixels a side at least")
    why = refusal(config, (height, width)) if isinstance(config, Graph) else ""
    if why:
        raise DataError(f"crops of {height}x{width}: {why}")
    pairs = []
    for index in chosen:
        image, labels = source.pair(index)
        top, left = (labels.shape[0] - height) // 2, (labels.shape[1] - width) // 2
        place = np.s_[top : top + height, left : left + width]
        pairs.append(Truth(as_float(image[place]), labels[place]))
    if not any((pair.labels < classes).any() for pair in pairs):
        raise DataError(
            f"the centres of {some(source.names[index] for index in chosen)} hold nothing but what is ignored"
        )
    return Crops(tuple(source.names[index] for index in chosen), tuple(pairs), classes, config.output)
