"""Windows, halos and blending weights, against what the network's geometry says point by point."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from unet_core import UNetConfig
from unet_core.bands import averaged, one_ahead, stitched
from unet_core.errors import UNetError
from unet_core.resize import interpolation_matrix
from unet_core.tiles import LARGEST_TILE, check_tile, default_tile, halo, reach, tiling
from unet_core.windows import span, window

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


def taps_as_matrix(taps, source):
    """Column 0 is the point before the tile's first one."""
    points, factor, _ = taps.shape
    matrix = np.zeros((points * factor, points + 2))
    for target in range(points * factor):
        for k in range(3):
            matrix[target, target // factor + k] = taps[target // factor, target % factor, k]
    return matrix


def exact_points(config, size, start, tile):
    """Which of a tile's logits depend on nothing that the tile lacks, one layer after the other."""
    part = span(config, size, start, tile)

    def convolved(exact, level):
        first, last = start == 0, (start + tile) >> level >= size >> level
        padded = np.concatenate(([first], exact, [last]))
        found = padded[:-2] & padded[1:-1] & padded[2:]
        found[part.inside[level] :] = True  # what is set to zero is known
        return found

    exact = np.ones(tile, bool)
    skips = []
    for level in range(config.depth + 1):
        if level:
            exact = exact.reshape(-1, 2).all(1)
            exact[part.inside[level] :] = True
        exact = convolved(convolved(exact, level), level)
        skips.append(exact)
    skips.pop()
    for level in range(config.depth - 1, -1, -1):
        if config.upsampling == "transposed":
            exact = exact.repeat(2)
        needed = taps_as_matrix(part.taps[level], exact) != 0
        exact = ~(needed & ~np.concatenate(([False], exact, [False]))).any(1)
        exact = convolved(convolved(exact & skips[level], level), level)
    return exact


@given(geometries(), st.integers(0, 6), st.integers(1, 6), st.data())
@settings(max_examples=200)
def test_taps_are_the_whole_pictures_upsampling(config, start, tile, data):
    step = config.minimum_size
    start, tile = start * step, tile * step
    size = data.draw(st.integers(max(step, start + 1), start + 2 * tile))
    part = span(config, size, start, tile)
    for level, taps in enumerate(part.taps):
        height, below = size >> level, size >> level + 1
        source = 2 * below if config.upsampling == "transposed" else below
        target = 2 * below if config.fit == "pad" else height
        whole = np.zeros((start + 3 * tile, start + 3 * tile))
        whole[:target, :source] = interpolation_matrix(source, target, align_corners=config.align_corners)
        whole = np.pad(whole, ((0, 0), (1, 0)))
        points, factor, _ = taps.shape
        first = (start >> level) // factor
        rows = whole[start >> level : (start >> level) + points * factor]
        matrix = taps_as_matrix(taps, source)
        np.testing.assert_array_equal(rows[:, first : first + points + 2], matrix)
        np.testing.assert_array_equal(rows.sum(1), matrix.sum(1), "no weight lies elsewhere")
        assert factor == 1 or not taps[:, 0, 2].any(), "an even point draws on nothing after it"


def test_a_window_counts_the_points_inside():
    found = window(UNetConfig(features=(1, 1, 1)), (21, 40), (16, 0), (8, 40))
    assert found.rows.inside == (5, 2, 1)
    assert found.columns.inside == (40, 20, 10)
    assert span(UNetConfig(features=(1, 1, 1)), 15, 16, 8).inside == (0, 0, 0)
    assert found.rows.taps[0].dtype == np.float64


@pytest.mark.parametrize(("start", "tile"), [(2, 8), (0, 6), (-4, 8), (0, 0)])
def test_a_window_lies_on_the_grid_of_the_max_pools(start, tile):
    with pytest.raises(ValueError, match="multiples of 4"):
        span(UNetConfig(features=(1, 1, 1)), 40, start, tile)


@given(geometries(), st.integers(0, 40), st.integers(1, 30), st.integers(0, 3000))
@example(UNetConfig(), 20, 30, 991)
@settings(max_examples=300)
def test_logits_are_exact_beyond_the_reach(config, start, tile, size):
    step = config.minimum_size
    start, tile = start * step, tile * step
    assume(size >= max(step, start + 1))
    exact = exact_points(config, size, start, tile)
    for before, after in (reach(config, size), reach(config), (halo(config),) * 2):
        first = before if start else 0
        last = max(tile - after, 0) if start + tile < size else tile
        assert exact[first:last].all()


@pytest.mark.parametrize("config", KINDS, ids=lambda config: f"{config.upsampling}-{config.fit}-{config.align_corners}")
@pytest.mark.parametrize("depth", [1, 3, 4])
def test_the_reach_is_no_larger_than_it_must_be(config, depth):
    config = dataclasses.replace(config, features=(1,) * (depth + 1))
    before, after = reach(config)
    step, tile = config.minimum_size, 2 * halo(config) + 2 * config.minimum_size
    firsts, lasts = [], []
    for size in (4 * tile - 1, 4 * tile - step // 2, 4 * tile):
        for start in (step, 2 * tile, 4 * tile - step - tile):
            exact = exact_points(config, size, start, tile)
            firsts.append(int(np.argmax(exact)))
            lasts.append(int(np.argmax(exact[::-1])))
    assert (max(firsts), max(lasts)) == (before, after)


def test_the_halo_of_the_default_network():
    assert reach(UNetConfig()) == (124, 109)
    assert reach(UNetConfig(), 4000) == (109, 109)
    assert halo(UNetConfig()) == 128
    assert reach(UNetConfig(upsampling="transposed", fit="pad")) == (94, 94)


def overlaps(config, tile):
    return st.none() | st.integers(0, tile - config.minimum_size)


@given(geometries(4), st.integers(1, 2000), st.integers(1, 12), st.data())
@settings(max_examples=300)
def test_tiles_cover_and_weights_sum_to_one(config, size, tile, data):
    step = config.minimum_size
    tile *= step
    size = max(size, step)
    overlap = data.draw(overlaps(config, tile))
    assume(overlap is not None or tile >= min(size, sum(reach(config, size)) + 2 * step))
    line = tiling(config, (size, step), (tile, step), overlap).rows
    if overlap is not None:
        assert all(b + overlap <= a + tile for a, b in zip(line.starts, line.starts[1:], strict=False))
    assert line.starts[0] == 0
    assert all(start % step == 0 for start in line.starts)
    assert line.starts[-1] + tile >= size
    assert len(line.starts) == 1 or line.starts[-2] + tile < size, "no tile too many"
    for seen in (line, line.flipped()):
        total = np.zeros(size + 2 * tile)
        for start, weight in zip(seen.starts, seen.weights, strict=True):
            assert (weight >= 0).all()
            total[tile + start : 2 * tile + start] += weight
        np.testing.assert_allclose(total[tile:-tile], 1, rtol=0, atol=1e-15)
        assert not total[:tile].any()
        assert not total[-tile:].any()


@given(geometries(4), st.integers(1, 2000), st.integers(0, 12), st.booleans())
@settings(max_examples=200)
def test_by_default_only_exact_points_count(config, size, more, twice_the_halo):
    step = config.minimum_size
    size = max(size, step)
    overlap = 2 * halo(config) if twice_the_halo else None
    tile = 2 * halo(config) + (1 + more) * step
    line = tiling(config, (size, size), (tile, tile), overlap).rows
    for start, weight in zip(line.starts, line.weights, strict=True):
        assert exact_points(config, size, start, tile)[weight > 0].all()


def test_less_overlap_is_blended_over_all_of_it():
    line = tiling(UNetConfig(features=(1, 1)), (28, 28), (16, 16), 4).rows
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


def test_the_least_tile_that_is_named_is_enough():
    with pytest.raises(UNetError, match="at least 240,"):
        tiling(UNetConfig(), (512, 512), (224, 224))
    assert len(tiling(UNetConfig(), (512, 512), (240, 240)).rows.starts) > 1


def test_one_tile_holds_what_is_not_too_large():
    config = UNetConfig()
    assert default_tile(config, [(100, 30), (17, LARGEST_TILE - 3)]) == (112, LARGEST_TILE)
    tile = default_tile(config, [(4000, 50), (900, 10_000)])
    assert max(tile) <= LARGEST_TILE
    assert tile == default_tile(config, [(4000, 10_000)])
    with pytest.raises(ValueError, match="no sizes"):
        default_tile(config, [])


@given(geometries(5), st.integers(1, 6000), overlaps(UNetConfig(), 448))
@settings(max_examples=200)
def test_the_default_tile_needs_no_more_tiles_than_the_largest(config, size, overlap):
    size = max(size, config.minimum_size)
    length, _ = default_tile(config, [(size, size)], overlap)
    largest = -(-max(LARGEST_TILE, length) // config.minimum_size) * config.minimum_size
    count = len(tiling(config, (size, size), (length, length), overlap).rows.starts)
    assert count == len(tiling(config, (size, size), (largest, largest), overlap).rows.starts)
    assert length <= LARGEST_TILE
    if length > config.minimum_size:
        shorter = length - config.minimum_size
        try:
            assert len(tiling(config, (size, size), (shorter, shorter), overlap).rows.starts) > count
        except UNetError:
            assert overlap is None or overlap > shorter - config.minimum_size


def test_a_deep_network_gets_a_tile_that_its_reach_fits_in():
    config = UNetConfig(features=(1,) * 8)
    tile = default_tile(config, [(9000, 9000)])
    assert sum(reach(config)) > LARGEST_TILE
    assert len(tiling(config, (9000, 9000), tile).rows.starts) > 1


def test_bands_come_as_soon_as_they_are_finished():
    plan = tiling(UNetConfig(features=(1, 1)), (50, 33), (16, 12), 4)
    whole = np.random.default_rng(0).random((64, 48, 2))
    taken = []

    def tiles():
        for row in plan.rows.starts:
            for column in plan.columns.starts:
                taken.append((row, column))
                yield whole[row : row + 16, column : column + 12]

    rows = 0
    for number, (top, band) in enumerate(stitched(plan.rows, plan.columns, tiles())):
        assert top == rows
        assert len(taken) == (number + 1) * len(plan.columns.starts)
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
