"""Batches are a function of seed and position: not of threads, hosts or what was read before."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_core.data import batches as module
from unet_core.data.augmentation import NONE, Augmentation
from unet_core.data.batches import Examples, batches
from unet_core.data.pictures import Pair
from unet_core.data.splitting import split
from unet_core.data.synthetic import Synthetic
from unet_core.errors import DataError


class Numbered:
    """Pictures that hold their own number."""

    channels, values, skipped = 1, (0, 255), ()

    def __init__(self, count=5):
        self.count = count
        self.spacings = (None,) * count

    def __len__(self):
        return self.count

    def pair(self, index):
        return Pair(np.full((8, 8, 1), index, np.uint8), np.full((8, 8), index, np.uint8))


class Failing(Numbered):
    def pair(self, index):
        if index == 3:
            raise DataError("images/3.png: is damaged")
        return super().pair(index)


def examples(source=None, seed=0, how=None, size=8):
    return Examples(
        source or Synthetic(count=5, size=32), size=(size, size), augmentation=how or Augmentation(), seed=seed
    )


def read(of, *, batch=4, steps=3, **options):
    with batches(of, batch=batch, steps=steps, **options) as found:
        return [(one.image.copy(), one.labels.copy()) for one in found]


def same(a, b):
    return len(a) == len(b) and all(
        np.array_equal(x, y) for one, other in zip(a, b, strict=True) for x, y in zip(one, other, strict=True)
    )


def order(of, steps, batch=5):
    """The numbers of the pictures, batch by batch."""
    return [labels[:, 0, 0].tolist() for _, labels in read(of, batch=batch, steps=steps)]


def test_batches_have_the_asked_shape():
    (image, labels), *_ = read(examples(Synthetic(count=5, size=32, channels=3)), batch=4)
    assert (image.shape, image.dtype) == ((4, 8, 8, 3), np.float32)
    assert (labels.shape, labels.dtype) == ((4, 8, 8), np.uint8)


def test_one_seed_is_one_sequence_and_another_is_another():
    assert same(read(examples(seed=1)), read(examples(seed=1)))
    assert not same(read(examples(seed=1)), read(examples(seed=2)))


def test_every_picture_comes_once_per_epoch_in_another_order():
    epochs = order(examples(Numbered(), how=NONE), steps=6)
    assert [sorted(epoch) for epoch in epochs] == [[0, 1, 2, 3, 4]] * 6
    assert len({tuple(epoch) for epoch in epochs}) > 3


def test_epochs_meet_within_a_batch():
    flat = list(itertools.chain(*order(examples(Numbered(), how=NONE), steps=5, batch=3)))
    assert [sorted(flat[n : n + 5]) for n in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3


def test_a_batch_may_be_larger_than_the_folder():
    ((_, labels),) = read(examples(Numbered(), how=NONE), batch=12, steps=1)
    assert np.bincount(labels[:, 0, 0]).min() == 2


def test_a_picture_is_augmented_anew_in_every_epoch():
    of = examples(Synthetic(count=1, size=32))
    first, second = of(0), of(1)
    assert (first.image != second.image).any()


@pytest.mark.parametrize("start", [1, 2, 5, 6])
def test_a_later_start_is_the_tail(start):
    whole, tail = read(examples(), steps=6), read(examples(), steps=6, start=start)
    assert same(tail, whole[start:])
    if tail:
        assert not same(tail, whole[start - 1 : -1]), "the control: a step too early"


def test_batches_before_the_start_are_not_read():
    seen = []

    class Watched(Numbered):
        def pair(self, index):
            seen.append(index)
            return super().pair(index)

    read(examples(Watched()), steps=100, start=99)
    assert len(seen) == 4


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_shares_are_the_batch_of_one(hosts):
    whole = read(examples(), steps=4, start=1)
    shares = [read(examples(), steps=4, start=1, share=(host, hosts)) for host in range(hosts)]
    joined = [tuple(np.concatenate(parts) for parts in zip(*step, strict=True)) for step in zip(*shares, strict=True)]
    assert same(joined, whole)
    if hosts > 1:
        turned = [tuple(np.concatenate(p[::-1]) for p in zip(*step, strict=True)) for step in zip(*shares, strict=True)]
        assert not same(turned, whole), "the control: the hosts in another order"


def test_accumulated_batches_are_those_of_several_steps():
    accumulated, plain = read(examples(), steps=3, accumulate=2, start=1), read(examples(), steps=6, start=2)
    pairs = zip(plain[::2], plain[1::2], strict=True)
    assert same(accumulated, [tuple(map(np.concatenate, zip(one, other, strict=True))) for one, other in pairs])


def test_hosts_share_every_accumulated_batch():
    """So that BatchNorm sees the same batches on any number of hosts."""
    whole = read(examples(), accumulate=3)
    shares = [read(examples(), accumulate=3, share=(host, 2)) for host in range(2)]

    def joined(axis):
        return [
            tuple(
                np.concatenate([part.reshape(3, 2, *part.shape[1:]) for part in parts], axis).reshape(
                    -1, *parts[0].shape[1:]
                )
                for parts in zip(*step, strict=True)
            )
            for step in zip(*shares, strict=True)
        ]

    assert same(joined(1), whole)
    assert not same(joined(0), whole), "the control: each host with batches of its own"


def test_hosts_that_do_not_divide_the_batch_are_an_error():
    with pytest.raises(DataError, match="a batch of 4 is not divided by 3 hosts; give a multiple of 3"):
        read(examples(), share=(0, 3))


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_threads_do_not_matter(threads):
    assert same(read(examples(), threads=threads), read(examples()))


def test_an_error_while_reading_reaches_the_caller():
    with pytest.raises(DataError) as caught:
        read(examples(Failing()), batch=5)
    assert str(caught.value) == "images/3.png: is damaged"


def test_batches_before_an_error_are_given():
    of = examples(Failing(20))
    bad = next(position for position in range(20) if of.place(position)[1] == 3)
    with batches(of, batch=1, steps=20) as found:
        assert sum(1 for _ in zip(range(bad), found, strict=False)) == bad


def test_leaving_early_is_no_error():
    with batches(examples(), batch=4, steps=1000) as found:
        next(found)


@pytest.mark.parametrize("lost", [0, 2, 3])
def test_a_key_without_seed_epoch_or_picture_would_be_seen(monkeypatch, lost):
    """The control: each part of a crop's key, left out, is noticed by one of the comparisons above."""
    plain = np.random.default_rng

    def forgetful(key):
        return plain(tuple(0 if place == lost and len(key) == 4 else part for place, part in enumerate(key)))

    monkeypatch.setattr(module.np.random, "default_rng", forgetful)
    source = Repeated()
    crops = [
        Examples(source, size=(4, 4), augmentation=Augmentation(), seed=seed)(position).image
        for seed, position in ((1, 0), (2, 0), (1, 2), (1, 1))
    ]
    differ = {0: crops[1], 2: crops[2], 3: crops[3]}
    places = [
        Examples(source, size=(4, 4), augmentation=NONE, seed=seed).place(n) for seed, n in ((1, 0), (2, 0), (1, 2))
    ]
    assert len({index for _, index in places}) == 1, "the same picture, but for the last comparison"
    equal = [part for part, other in differ.items() if np.array_equal(crops[0], other)]
    assert equal == [lost]


class Repeated(Numbered):
    """The same picture again and again, so that crops differ by their draw alone."""

    def __init__(self):
        super().__init__(2)

    def pair(self, index):
        return Synthetic(size=32).pair(0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(0, 200))
def test_a_position_is_a_place_in_an_epoch(seed, count, position):
    of = examples(Numbered(count), seed=seed)
    epoch, index = of.place(position)
    assert (epoch, 0 <= index < count) == (position // count, True)
    first = epoch * count
    assert sorted(of.place(first + n)[1] for n in range(count)) == list(range(count))


@pytest.mark.parametrize(
    ("count", "validation", "parts"),
    [(10, 0.2, (8, 2)), (10, 0.05, (9, 1)), (9, 0.25, (7, 2)), (10, 3, (7, 3)), (10, 1, (9, 1)), (2, 0.5, (1, 1))],
)
def test_the_last_pictures_are_for_validation(count, validation, parts):
    source = Synthetic(count=count)
    training, validating = split(source, validation)
    assert (len(training), len(validating)) == parts
    assert training.names + validating.names == source.names


@pytest.mark.parametrize("validation", [-0.2, -1, 10, 11, float("nan"), float("inf")])
def test_a_split_that_leaves_nothing_is_refused(validation):
    with pytest.raises(DataError, match="leaves none to train or none to validate on"):
        split(Synthetic(count=10), validation)
