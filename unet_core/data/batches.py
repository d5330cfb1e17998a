"""Batches for training, the same in both twins: a function of seed and position alone, read ahead by grain."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from unet_core.data.augmentation import Augmentation
from unet_core.data.crops import Crop, planes_of, random_crop
from unet_core.data.dataset import Dataset
from unet_core.errors import DataError, MissingFrameworkError
from unet_core.installation import installing

_ORDERS, _CROPS = 0, 1
"""Streams of one seed that must not meet."""


class Batch(NamedTuple):
    """One step's examples, channels last."""

    image: Float[np.ndarray, "n *s c"]
    labels: UInt8[np.ndarray, " n *s"]


class Examples:
    """The endless sequence of training examples: every picture once per epoch, in an order of the epoch's own.

    The example at a position depends on the seed, the epoch and the picture, and on nothing else: not on the batch, on
    threads or processes, nor on what was read before.
    """

    def __init__(self, source: Dataset, *, size: tuple[int, ...], augmentation: Augmentation, seed: int) -> None:
        self.source, self.size, self.augmentation, self.seed = source, size, augmentation, seed
        self._spacings = source.spacings  # of every picture: made once, and not at each example

    def place(self, position: int) -> tuple[int, int]:
        """The epoch of a position, and the index of its picture."""
        epoch, place = divmod(position, len(self.source))
        return epoch, int(_order(self.seed, epoch, len(self.source))[place])

    def __call__(self, position: int) -> Crop:
        epoch, index = self.place(position)
        image, labels = self.source.pair(index)
        rng = np.random.default_rng((self.seed, _CROPS, epoch, index))
        planes = planes_of(self._spacings[index], len(self.size))
        return random_crop(image, labels, size=self.size, augmentation=self.augmentation, rng=rng, planes=planes)


@contextmanager
def batches(
    examples: Examples,
    *,
    batch: int,
    steps: int,
    accumulate: int = 1,
    start: int = 0,
    share: tuple[int, int] = (0, 1),
    threads: int = 8,
) -> Iterator[Iterator[Batch]]:
    """The batches of the steps from `start` to `steps`, read ahead of their use.

    Args:
        examples: what to batch.
        batch: examples in the batch of all hosts together.
        steps: the step that has no batch any more.
        accumulate: batches that are one step's, one after the other in one array.
        start: the first step; the batches before it are not read.
        share: this host's number and the number of hosts; each gets its part of every batch, in order, so that the
            parts one after the other are the batch that a single host gets.
        threads: threads that read and augment.

    Raises:
        DataError: the hosts do not divide the batch; or, while reading, a file that is gone or was changed.
        MissingFrameworkError: grain is not installed.
    """
    try:
        import grain
    except ModuleNotFoundError as error:
        raise MissingFrameworkError(f"training needs grain: {installing('train')}") from error
    host, hosts = share
    if batch % hosts:
        raise DataError(f"a batch of {batch} is not divided by {hosts} hosts; give a multiple of {hosts}")
    part = batch // hosts
    example = functools.partial(_part, examples, batch=batch, host=host, part=part)
    each = part * accumulate
    reading = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(2 * each, 2 * threads))
    data = grain.MapDataset.range(start * each, steps * each).map(example).to_iter_dataset(reading).batch(each)
    iterator = iter(data)
    try:
        yield (Batch(found["image"], found["labels"]) for found in iterator)
    finally:
        iterator.close()


def _part(examples: Examples, position: int, *, batch: int, host: int, part: int) -> dict[str, np.ndarray]:
    """The example at a position in one host's share of the sequence."""
    number, place = divmod(position, part)
    return examples(number * batch + host * part + place)._asdict()


@functools.lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, _ORDERS, epoch)).permutation(count)
