"""Random crops: pieces of the picture, labels that follow the image, limits that hold, one draw for all."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_core.data.augmentation import NONE, Augmentation
from unet_core.data.crops import random_crop

STILL = dataclasses.replace(NONE, right_angles=True, flips=True)
MOVING = Augmentation(rotation=30, scale=0.5, brightness=0, contrast=0, noise=0)


def crop(image, labels, size=16, how=NONE, seed=0):
    return random_crop(image, labels, size=(size, size), augmentation=how, rng=np.random.default_rng(seed))


def numbered(height, width):
    """An image whose two channels are the row and the column of each pixel, and labels that are a mixture of them."""
    rows, columns = np.indices((height, width))
    image = np.stack((rows, columns), axis=-1) / 256
    return image.astype(np.float32), ((rows * 7 + columns * 3) % 251).astype(np.uint8)


def place(image):
    """Rows and columns, in pixels, where a crop of `numbered` is from."""
    return np.moveaxis(image.astype(np.float64), -1, 0) * 256


def reflected(array, size):
    """NumPy's mirror around a picture that is smaller than the crop, which lies in the middle."""
    gaps = [max(size - length, 0) for length in array.shape[:2]]
    widths = [(gap // 2, gap - gap // 2) for gap in gaps] + [(0, 0)] * (array.ndim - 2)
    return np.pad(array, widths, mode="reflect")


@given(st.integers(1, 24), st.integers(1, 24), st.integers(1, 40), st.integers(0, 100))
def test_a_plain_crop_is_a_piece_of_the_picture(height, width, size, seed):
    image, labels = numbered(height, width)
    found = crop(image, labels, size, seed=seed)
    assert (found.image.dtype, found.labels.dtype) == (np.float32, np.uint8)
    whole, classes = reflected(image, size), reflected(labels, size)
    windows = [(top, left) for top in range(len(whole) - size + 1) for left in range(whole.shape[1] - size + 1)]
    equal = [
        window
        for window in windows
        if np.array_equal(whole[window[0] : window[0] + size, window[1] : window[1] + size], found.image)
    ]
    assert len(equal) >= 1
    top, left = equal[0]
    np.testing.assert_array_equal(classes[top : top + size, left : left + size], found.labels)


def test_crops_are_from_everywhere():
    image, labels = numbered(10, 12)
    corners = {tuple(place(crop(image, labels, 8, seed=seed).image)[:, 0, 0].astype(int)) for seed in range(300)}
    assert corners == {(top, left) for top in range(3) for left in range(5)}


@pytest.mark.parametrize("seed", range(8))
def test_turned_and_flipped_labels_follow_exactly(seed):
    image, labels = numbered(20, 30)
    found = crop(image, labels, how=STILL, seed=seed)
    rows, columns = place(found.image).astype(int)
    np.testing.assert_array_equal(labels[rows, columns], found.labels)
    assert (labels[rows, columns] != np.flip(found.labels, 0)).any(), "the control: labels flipped once more"


def orientation(image):
    """Along which axis rows and columns grow, and which way."""
    rows, columns = place(image)
    return tuple(
        float(np.sign(step)) for axis in (rows, columns) for step in (axis[1, 0] - axis[0, 0], axis[0, 1] - axis[0, 0])
    )


@pytest.mark.parametrize(
    ("right_angles", "flips", "count"), [(False, False, 1), (True, False, 4), (False, True, 4), (True, True, 8)]
)
def test_all_orientations_occur_and_no_others(right_angles, flips, count):
    image, labels = numbered(16, 16)
    how = dataclasses.replace(NONE, right_angles=right_angles, flips=flips)
    assert len({orientation(crop(image, labels, how=how, seed=seed).image) for seed in range(100)}) == count


def geometry(image):
    """Angle in degrees, and enlargement, of a crop of `numbered` that lies inside the picture and was not flipped."""
    rows, _ = place(image)
    down, right = rows[1, 0] - rows[0, 0], rows[0, 1] - rows[0, 0]
    return np.rad2deg(np.arctan2(-right, down)), 1 / np.hypot(down, right)


@pytest.mark.parametrize(("rotation", "scale"), [(30, 0.5), (10, 0.0), (0, 0.2)])
def test_rotation_and_scale_keep_their_limits_and_reach_them(rotation, scale):
    image, labels = numbered(200, 200)
    how = dataclasses.replace(NONE, rotation=rotation, scale=scale)
    found = []
    for seed in range(300):
        part = crop(image, labels, 8, how, seed).image
        if place(part).min() > 8 and place(part).max() < 190:
            found.append(geometry(part))
    angles, zooms = np.array(found).T
    assert len(found) > 150
    assert np.abs(angles).max() <= rotation + 1e-2
    assert 1 / (1 + scale) - 1e-4 <= zooms.min()
    assert zooms.max() <= 1 + scale + 1e-4
    assert angles.max() >= 0.9 * rotation
    assert -angles.min() >= 0.9 * rotation
    assert zooms.max() >= 1 + 0.9 * scale - 1e-4
    assert zooms.min() <= 1 / (1 + 0.9 * scale) + 1e-4


@pytest.mark.parametrize("seed", range(5))
def test_a_turned_square_is_a_square(seed):
    """Its sides are equally long, and one is the other turned by a right angle."""
    image, labels = numbered(200, 200)
    found = place(crop(image, labels, 8, dataclasses.replace(NONE, rotation=30, scale=0.5), seed).image)
    down, right = found[:, 7, 0] - found[:, 0, 0], found[:, 0, 7] - found[:, 0, 0]
    np.testing.assert_allclose(right, [-down[1], down[0]], atol=1e-3)
    assert abs(down[1]) > 0.05, "it is turned"


@settings(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(0, 1000), st.booleans())
def test_labels_follow_a_turned_and_enlarged_image(height, width, size, seed, by_rows):
    """Each label is the number of the row (or column) that is nearest to where the image says it is from."""
    image, _ = numbered(height, width)
    numbers = np.indices((height, width))[0 if by_rows else 1].astype(np.uint8)
    found = crop(image, numbers, size, dataclasses.replace(MOVING, rotation=180), seed)
    exact = place(found.image)[0 if by_rows else 1]
    assert np.abs(found.labels - exact).max() <= 0.5 + 1e-3


def test_labels_that_do_not_follow_would_be_seen():
    """The control: labels of the same picture under another draw."""
    image, _ = numbered(40, 40)
    numbers = np.indices((40, 40))[0].astype(np.uint8)
    found, other = (crop(image, numbers, 20, MOVING, seed) for seed in (0, 1))
    assert np.abs(other.labels - place(found.image)[0]).max() > 1


def test_labels_are_never_mixed():
    labels = np.random.default_rng(0).choice([0, 3, 200], (30, 30)).astype(np.uint8)
    found = crop(labels[..., None], labels, how=MOVING)
    assert set(np.unique(found.labels)) <= {0, 3, 200}
    assert len(np.unique(found.image)) > 3, "the image is"


@pytest.mark.parametrize("how", [NONE, STILL, MOVING, Augmentation()])
def test_bit_depths_are_one_image(how):
    bits8 = np.random.default_rng(0).integers(256, size=(30, 20, 3)).astype(np.uint8)
    labels = np.zeros((30, 20), np.uint8)
    expected = crop(bits8, labels, how=how).image
    for same in (bits8.astype(np.uint16) * 257, bits8.astype(np.float32) / np.float32(255)):
        np.testing.assert_array_equal(crop(same, labels, how=how).image, expected)
    assert (crop(bits8.astype(np.uint16), labels, how=how).image != expected).any(), "the control: 8 bits in 16"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_black_is_0_and_white_is_1(dtype):
    image = np.zeros((8, 8, 1), dtype)
    image[:, 4:] = np.iinfo(dtype).max
    assert set(np.unique(crop(image, image[..., 0].astype(bool).astype(np.uint8), 8).image)) == {0, 1}


def test_one_draw_is_one_crop_and_another_is_another():
    rng = np.random.default_rng(0)
    image, labels = rng.random((40, 40, 3), np.float32), rng.integers(2, size=(40, 40)).astype(np.uint8)
    first, again, other = (crop(image, labels, how=Augmentation(), seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (first.image != other.image).mean() > 0.9
    assert (first.labels != other.labels).any()


@pytest.mark.parametrize("name", ["flips", "right_angles", "rotation", "scale", "brightness", "contrast", "noise"])
def test_every_setting_does_something(name):
    image, labels = numbered(30, 30)
    how = dataclasses.replace(NONE, **{name: True if name in ("flips", "right_angles") else 0.5})
    assert any(
        (crop(image, labels, how=how, seed=n).image != crop(image, labels, seed=n).image).any() for n in range(5)
    )


def test_brightness_adds_the_same_everywhere_up_to_its_limit():
    image, labels = numbered(30, 30)
    how = dataclasses.replace(NONE, brightness=0.3)
    added = np.array(
        [crop(image, labels, how=how, seed=n).image - crop(image, labels, seed=n).image for n in range(200)]
    )
    assert np.ptp(added, axis=(1, 2, 3)).max() < 1e-6
    assert 0.27 < np.abs(added).max() <= 0.3 + 1e-6
    assert added.min() < -0.27


def test_contrast_stretches_about_the_mean_up_to_its_limit():
    image, labels = numbered(30, 30)
    how = dataclasses.replace(NONE, contrast=0.3)
    pairs = [(crop(image, labels, how=how, seed=n).image, crop(image, labels, seed=n).image) for n in range(200)]
    stretches = np.array([found.std() / plain.std() for found, plain in pairs])
    assert max(abs(found.mean() - plain.mean()) for found, plain in pairs) < 1e-6
    assert 0.7 - 1e-5 <= stretches.min() < 0.73
    assert 1.27 < stretches.max() <= 1.3 + 1e-5


def test_noise_is_normal_with_a_deviation_up_to_its_limit():
    image, labels = np.full((64, 64, 1), 128, np.uint8), np.zeros((64, 64), np.uint8)
    how = dataclasses.replace(NONE, noise=0.1)
    noise = np.array([crop(image, labels, 64, how, n).image - crop(image, labels, 64).image for n in range(60)])
    deviations = noise.std((1, 2, 3))
    assert 0.09 < deviations.max() < 0.1 * 1.05
    assert deviations.min() < 0.01
    unit = noise / deviations[:, None, None, None]
    assert abs(unit.mean()) < 0.01
    assert (np.abs(unit) < 1).mean() == pytest.approx(0.6827, abs=0.01)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("how", [NONE, STILL, MOVING, Augmentation()])
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_crop_is_no_view_and_changes_no_picture(how, kind, seed):
    image = np.random.default_rng(0).integers(2, size=(20, 20, 3)).astype(kind)
    labels = np.zeros((20, 20), np.uint8)
    before = image.copy()
    found = crop(image, labels, how=how, seed=seed)
    found.image[...] = 9
    found.labels[...] = 9
    np.testing.assert_array_equal(image, before)
    assert not labels.any()
    assert found.image.flags.c_contiguous
    assert found.labels.flags.c_contiguous
