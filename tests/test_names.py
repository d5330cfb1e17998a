"""Which mask belongs to which picture, by their names alone."""

import pytest

from unet_core.data.names import masks_by_image
from unet_core.errors import DataError, counted


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["1", "2"], ["1", "2"]),
        (["car_00", "car_01"], ["car_00_mask", "car_01_mask"]),
        (["s0_image", "s1_image"], ["s0_mask", "s1_mask"]),
        (["img_7", "img_8"], ["label-7", "label-8"]),
        (["21_training", "22_training"], ["21_manual1", "22_manual1"]),
        (["a/1", "b/1"], ["a/1", "b/1"]),
        (["a/img_1", "b/img_1"], ["a/mask_1", "b/mask_1"]),
        (["x.rgb", "y.rgb"], ["x.labels", "y.labels"]),
        (["21_training"], ["21_training_mask"]),
        (["left_1", "right_1"], ["left_1_seg", "right_1_seg"]),
        (["A1", "b2"], ["a1", "b2"]),
        (["A1", "A2"], ["a1_Mask", "a2_Mask"]),
        (["u\u0308", "x"], ["\xfc", "x"]),
        (["a", "A"], ["a", "A"]),
    ],
)
def test_pairs_are_found(images, masks):
    assert masks_by_image(images, masks) == dict(zip(images, masks, strict=True))


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["1", "2"], ["3", "4"]),
        (["a/1"], ["b/1"]),
        (["cat"], ["dog"]),
        (["s0_image", "s1_picture"], ["s0_mask", "s1_mask"]),
        (["1"], ["11"]),
        (["a", "A"], ["\u0041\u0301"]),
        (["aB", "Ab"], ["ab"]),
        ([], ["1_mask"]),
    ],
)
def test_what_only_looks_alike_is_no_pair(images, masks):
    """The control."""
    assert masks_by_image(images, masks) == {}


def test_same_names_come_first():
    assert masks_by_image(["1", "1_mask"], ["1", "1_mask"]) == {"1": "1", "1_mask": "1_mask"}
    assert masks_by_image(["1", "2"], ["1", "2_mask"]) == {"1": "1"}, "no two ways in one folder"


def test_a_picture_without_a_mask_leaves_the_others_their_pairs():
    assert masks_by_image(["1", "2", "3"], ["1_mask", "3_mask"]) == {"1": "1_mask", "3": "3_mask"}


def test_a_suffix_that_is_given_is_the_one():
    masks = ["1_left_mask", "1_right_mask", "2_left_mask"]
    assert masks_by_image(["1", "2"], masks, "_left_mask") == {"1": "1_left_mask", "2": "2_left_mask"}
    assert masks_by_image(["1", "2"], masks) == {}, "the control: two masks for one picture"
    assert masks_by_image(["1"], ["1", "1_mask"], "_mask") == {"1": "1_mask"}


def test_a_suffix_that_no_mask_has_is_said():
    with pytest.raises(DataError, match="--mask-suffix _seg: no file in masks/ ends so, as 1_mask shows"):
        masks_by_image(["1"], ["1_mask"], "_seg")


@pytest.mark.parametrize(("number", "words"), [(0, "0 pairs"), (1, "1 pair"), (2, "2 pairs")])
def test_one_is_told_in_the_singular(number, words):
    assert counted(number, "pair") == words


def test_verbs_follow_the_number():
    assert [counted(n, "other takes", "others take") for n in (1, 2)] == ["1 other takes", "2 others take"]
