"""Which tiles cover a picture, and how much each counts where; `test_tile_graphs` has what they compute."""

import dataclasses

import numpy as np
import pytest
from conftest import by_examples
from graphs import small
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from unet_core import UNetConfig
from unet_core.errors import UNetError
from unet_core.graph import Sizes
from unet_core.graph.family import graph
from unet_core.graph.regions import reach
from unet_core.prediction.stitching import averaged, one_ahead, stitched
from unet_core.prediction.tile_geometry import LARGEST_TILE, check_tile, default_tile, shared_tile, tiling

KINDS = [
    UNetConfig(upsampling=upsampling, fit=fit, align_corners=align_corners)
    for upsampling in ("bilinear", "transposed")
    for fit in ("resize", "pad")
    for align_corners in (True, False)
]


@st.composite
def geometries(draw, levels=5):
    kind = draw(st.sampled_from(KINDS))
    return dataclasses.replace(kind, features=(1,) * draw(st.integers(2, levels)))


def around(config, size):
    """What a tile draws on beside itself, along the rows."""
    return sum(reach(graph(config), (size, size))[0])


def overlaps(config, tile):
    return st.none() | st.integers(0, tile - config.minimum_size)


@by_examples(30, 100, geometries(4), st.integers(1, 2000), st.integers(1, 12), st.data())
def test_tiles_cover_and_weights_sum_to_one(config, size, tile, data):
    step = config.minimum_size
    tile *= step
    size = max(size, step)
    overlap = data.draw(overlaps(config, tile))
    assume(overlap is not None or tile >= min(size, around(config, size) + step))
    line = tiling(config, (size, step), (tile, step), overlap).lines[0]
    pairs = list(zip(line.starts, line.starts[1:], strict=False))
    assert line.starts[0] == 0
    assert line.starts[-1] + line.tile >= size
    assert len(line.starts) == 1 or line.starts[-2] + tile < size, "no tile too many"
    if overlap is None:
        assert all(start % step == 0 for start in line.starts)
        assert line.tile == tile
    else:
        assert all(b + overlap <= a + tile for a, b in pairs)
        assert line.starts[-1] + line.tile == size, "nothing lies beyond the picture"
    for seen in (line, line.flipped()):
        total = np.zeros(size + 2 * tile)
        for start, weight in zip(seen.starts, seen.weights, strict=True):
            assert len(weight) == line.tile
            assert (weight >= 0).all()
            total[tile + start : tile + start + line.tile] += weight
        np.testing.assert_allclose(total[tile:-tile], 1, rtol=0, atol=1e-15)
        assert not total[:tile].any()
        assert not total[-tile:].any()


@by_examples(20, 60, geometries(4), st.integers(1, 2000), st.integers(0, 12))
def test_by_default_only_exact_points_count(config, size, more):
    step = config.minimum_size
    size = max(size, step)
    before, after = reach(graph(config), (size, size))[0]
    tile = before + after + (1 + more) * step
    line = tiling(config, (size, size), (tile, tile)).lines[0]
    for start, weight in zip(line.starts, line.weights, strict=True):
        assert not start or not weight[:before].any()
        assert start == line.starts[-1] or not weight[tile - after :].any()


def test_less_overlap_is_blended_over_all_of_it():
    line = tiling(UNetConfig(features=(1, 1)), (28, 28), (16, 16), 4).lines[0]
    assert line.starts == (0, 12)
    np.testing.assert_allclose(line.weights[0][10:], [1, 1, 7 / 8, 5 / 8, 3 / 8, 1 / 8])
    np.testing.assert_allclose(line.weights[1][:6], [1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1])


@pytest.mark.parametrize(
    ("tile", "overlap", "size", "message"),
    [
        ((64, 60), None, 100, "a tile of 64x60: both must be multiples of 16; give 64x64"),
        ((0, 64), None, 100, "give 16x64"),
        ((64, 128), 64, 100, "an overlap of 64 pixels: tiles of 64 can overlap by 0 to 48"),
        ((64, 64), -1, 40, "an overlap of -1 pixels: give 0 or more"),
        ((64, 64), None, 100, "a tile of 64 pixels is too small for a picture of 100: for exact logits give a tile of"),
    ],
)
def test_what_covers_no_picture_is_refused_in_one_line(tile, overlap, size, message):
    with pytest.raises(UNetError, match=message) as caught:
        check_tile(UNetConfig(), tile, overlap)
        tiling(UNetConfig(), (size, size), tile, overlap)
    assert "\n" not in str(caught.value)


def test_a_network_that_allows_no_exact_tiles_takes_whole_pictures_or_blended_ones():
    network = small()
    assert shared_tile(network, [(30, 44)]) is None
    assert tiling(network, (30, 44)).tile == (30, 44)
    assert tiling(network, (30, 44)).plan.graph is network
    with pytest.raises(UNetError, match=r"^tiles of this network are not exact: node bottom.1, group_norm: .*overlap"):
        check_tile(network, (16, 16), None)
    blended = tiling(network, (30, 44), (16, 20), 4)
    assert tuple(line.starts for line in blended.lines) == ((0, 12, 14), (0, 16, 24))
    assert (blended.tile, blended.plan.graph) == ((16, 20), network)
    with pytest.raises(UNetError, match="a tile of 16x20: the network takes 30x44 alone"):
        tiling(dataclasses.replace(network, sizes=Sizes(only=((30, 44),))), (30, 44), (16, 20), 4)


def test_pictures_share_a_tile_no_larger_than_the_largest():
    config = UNetConfig(features=(1, 1, 1))
    assert shared_tile(config, [(30, 44), (50, 20)]) == (52, 44)
    assert shared_tile(config, [(30, 44), (50, 20)], tile=(64, 32)) == (52, 32)
    assert shared_tile(graph(config), [(30, 44)], 4, tile=(64, 32)) == (32, 32)


def test_the_least_tile_that_is_named_is_enough():
    with pytest.raises(UNetError, match="at least 272,"):
        tiling(UNetConfig(), (512, 512), (224, 224))
    assert len(tiling(UNetConfig(), (512, 512), (272, 272)).lines[0].starts) > 1


def test_one_tile_holds_what_is_not_too_large():
    config = UNetConfig()
    assert default_tile(config, [(100, 30), (17, LARGEST_TILE - 3)]) == (112, LARGEST_TILE)
    tile = default_tile(config, [(4000, 50), (900, 10_000)])
    assert max(tile) <= LARGEST_TILE
    assert tile == default_tile(config, [(4000, 10_000)])
    with pytest.raises(ValueError, match="no sizes"):
        default_tile(config, [])


@given(geometries(5), st.integers(1, 6000), overlaps(UNetConfig(), 448))
@settings(max_examples=60)
def test_the_default_tile_needs_no_more_tiles_than_the_largest(config, size, overlap):
    size = max(size, config.minimum_size)
    length, _ = default_tile(config, [(size, size)], overlap)
    largest = -(-max(LARGEST_TILE, length) // config.minimum_size) * config.minimum_size
    count = len(tiling(config, (size, size), (length, length), overlap).lines[0].starts)
    assert count == len(tiling(config, (size, size), (largest, largest), overlap).lines[0].starts)
    assert length <= LARGEST_TILE
    if length > config.minimum_size:
        shorter = length - config.minimum_size
        try:
            assert len(tiling(config, (size, size), (shorter, shorter), overlap).lines[0].starts) > count
        except UNetError:
            assert overlap is None or overlap > shorter - config.minimum_size


def test_a_deep_network_gets_a_tile_that_its_reach_fits_in():
    config = UNetConfig(features=(1,) * 8)
    tile = default_tile(config, [(9000, 9000)])
    assert around(config, 9000) > LARGEST_TILE
    assert len(tiling(config, (9000, 9000), tile).lines[0].starts) > 1


def test_bands_come_as_soon_as_they_are_finished():
    plan = tiling(UNetConfig(features=(1, 1)), (50, 33), (16, 12), 4)
    whole = np.random.default_rng(0).random((64, 48, 2))
    taken = []

    def tiles():
        for row in plan.lines[0].starts:
            for column in plan.lines[1].starts:
                taken.append((row, column))
                yield whole[row : row + 16, column : column + 12]

    rows = 0
    for number, (top, band) in enumerate(stitched(plan.lines, tiles())):
        assert top == rows
        assert len(taken) == (number + 1) * len(plan.lines[1].starts)
        np.testing.assert_allclose(band, whole[top : top + len(band), :33], rtol=1e-14)
        rows += len(band)
    assert rows == 50


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=6), min_size=1, max_size=4))
def test_streams_of_any_steps_are_averaged(steps):
    height = min(map(sum, steps))
    values = np.random.default_rng(0).random((len(steps), height, 2, 1))

    def stream(rows, lengths):
        top = 0
        while top < height:
            length = lengths[top % len(lengths)]
            yield top, rows[top : top + length]
            top += length

    found = list(averaged([stream(*pair) for pair in zip(values, steps, strict=True)]))
    assert [top for top, _ in found] == list(np.cumsum([0] + [len(rows) for _, rows in found[:-1]]))
    np.testing.assert_allclose(np.concatenate([rows for _, rows in found]), values.mean(0))


def test_the_next_result_is_under_way_before_one_is_fetched():
    log = []

    def results():
        for number in range(3):
            log.append(f"start {number}")
            yield number

    assert list(one_ahead(results(), lambda number: log.append(f"fetch {number}") or number)) == [0, 1, 2]
    assert log == ["start 0", "start 1", "fetch 0", "start 2", "fetch 1", "fetch 2"]
