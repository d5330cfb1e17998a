"""The built-in pictures: always the same, with cells that a threshold alone does not find."""

import numpy as np
import pytest

from unet_core.data.cells import _scattered
from unet_core.data.synthetic import Synthetic, write_folder
from unet_core.errors import DataError


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_picture_has_the_asked_shape(channels):
    image, labels = Synthetic(size=64, channels=channels).pair(0)
    assert (image.shape, image.dtype) == ((64, 64, channels), np.uint8)
    assert (labels.shape, labels.dtype, set(np.unique(labels))) == ((64, 64), np.uint8, {0, 1})


def test_a_picture_depends_on_its_seed_and_number_only():
    first, again = Synthetic(count=4, seed=1).pair(3), Synthetic(count=9, seed=1).subset([3]).pair(0)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (first.image != Synthetic(seed=2).pair(3).image).any()
    assert (first.image != Synthetic(seed=1).pair(2).image).any()


def test_a_picture_is_the_same_on_every_machine():
    """But for the last digit of a sine: hence the tolerance."""
    image, labels = Synthetic().pair(0)
    assert int(labels.sum()) == pytest.approx(2133, abs=3)
    assert image.mean() == pytest.approx(109.474, abs=1e-3)


def test_it_is_used_as_a_folder_is():
    data = Synthetic(count=5, size=48)
    assert (len(data), data.names) == (5, ("000", "001", "002", "003", "004"))
    assert (data.channels, data.values, data.sizes, data.remarks) == (1, (0, 255), ((48, 48),) * 5, ())
    part = data.subset([4, 0]).subset([0])
    assert (len(part), part.names, part.sizes) == (1, ("004",), ((48, 48),))


@pytest.mark.parametrize("size", [32, 128, 300])
def test_there_are_6_to_14_cells(size):
    counts = {len(_scattered(np.random.default_rng(n), size, size / 128)) for n in range(60)}
    assert min(counts) >= 6
    assert max(counts) == 14


def test_cells_fill_a_part_of_every_picture():
    parts = [Synthetic(count=40).pair(n).labels.mean() for n in range(40)]
    assert min(parts) > 0.03
    assert max(parts) < 0.5


def test_cells_are_brighter_but_no_threshold_finds_them():
    """Even the best threshold for each picture, which nobody knows, leaves a quarter wrong."""
    scores, brighter = [], []
    for n in range(24):
        image, labels = Synthetic().pair(n)
        grey, cell = image[:, :, 0], labels > 0
        brighter.append(grey[cell].mean() - grey[~cell].mean())
        scores.append(
            max(2 * (found & cell).sum() / (found.sum() + cell.sum()) for found in map(grey.__gt__, range(255)))
        )
    assert np.mean(brighter) > 20
    assert np.mean(scores) < 0.8


@pytest.mark.parametrize("wrong", [{"count": 0}, {"size": 31}, {"seed": -1}, {"channels": 0}])
def test_what_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(DataError, match=rf"synthetic data: {next(iter(wrong))}"):
        Synthetic(**wrong)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_written_folder_reads_back(tmp_path, channels):
    pytest.importorskip("PIL")
    from unet_core.data.folder import open_folder

    data = Synthetic(count=4, size=40, channels=channels).subset([3, 1])
    write_folder(data, tmp_path / "new" / "data")
    found = open_folder(tmp_path / "new" / "data")
    assert (found.names, found.channels, found.values, found.sizes) == (("001", "003"), channels, (0, 255), data.sizes)
    for index in range(2):
        np.testing.assert_array_equal(found.pair(index).image, data.pair(1 - index).image)
        np.testing.assert_array_equal(found.pair(index).labels, data.pair(1 - index).labels)


def test_a_folder_is_written_over_nothing(tmp_path):
    pytest.importorskip("PIL")
    (tmp_path / "kept").touch()
    with pytest.raises(DataError, match="exists already"):
        write_folder(Synthetic(count=1, size=32), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    with pytest.raises(DataError, match="exists already"):
        write_folder(Synthetic(count=1, size=32), tmp_path / "kept")
    (tmp_path / "empty").mkdir()
    write_folder(Synthetic(count=1, size=32), tmp_path / "empty")
    assert (tmp_path / "empty" / "masks" / "000.png").exists()
