"""A data folder is checked whole, and all that is wrong with it is said at once."""

import numpy as np
import pytest

from unet_core.errors import ConfigError, DataError

pytest.importorskip("PIL")
tifffile = pytest.importorskip("tifffile")

from PIL import Image

from unet_core.data.folder import open_folder
from unet_core.data.labels import IGNORED
from unet_core.data.manifest import is_packed
from unet_core.data.masks import Masks

RNG = np.random.default_rng(0)


def put(folder, part, name, array):
    path = folder / part / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".tif":
        tifffile.imwrite(
            path, array, **({"photometric": "minisblack", "planarconfig": "contig"} if array.ndim == 3 else {})
        )
    else:
        Image.fromarray(array).save(path)


def picture(height=6, width=8, channels=None):
    return RNG.integers(0, 256, (height, width, channels) if channels else (height, width), np.uint8)


def mask(values=(0, 255), height=6, width=8):
    return np.resize(np.array(values, np.uint8 if max(values) < 256 else np.uint16), (height, width))


@pytest.fixture
def folder(tmp_path):
    """Three good pairs."""
    for name in ("10", "2", "1"):
        put(tmp_path, "images", f"{name}.png", picture())
        put(tmp_path, "masks", f"{name}.png", mask())
    return tmp_path


def refused(folder, words, **how):
    with pytest.raises(DataError, match=words) as caught:
        open_folder(folder, **how)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_pairs_come_in_the_order_of_their_numbers(folder):
    data = open_folder(folder)
    assert data.names == ("1", "2", "10")
    assert [path.name for path in data.masks] == ["1.png", "2.png", "10.png"]
    assert (len(data), data.channels, data.values, data.skipped) == (3, 1, (0, 255), ())
    assert data.sizes == ((6, 8),) * 3


def test_a_pair_is_the_picture_and_the_classes(folder):
    image, labels = open_folder(folder).pair(2)
    np.testing.assert_array_equal(image[:, :, 0], np.asarray(Image.open(folder / "images" / "10.png")))
    np.testing.assert_array_equal(labels, mask() // 255)
    assert (image.shape, image.dtype, labels.dtype) == ((6, 8, 1), np.uint8, np.uint8)


def test_a_pair_is_read_anew_each_time(folder):
    data = open_folder(folder)
    before = data.pair(0).image
    put(folder, "images", "1.png", 255 - before[:, :, 0])
    np.testing.assert_array_equal(data.pair(0).image, 255 - before)


@pytest.mark.parametrize(
    ("part", "array", "words"),
    [
        ("masks", mask((0, 7)), "masks/1.png: holds 7, which is no class here"),
        ("masks", mask(height=5), "another size than before"),
        ("images", picture(5), "another size than before"),
    ],
)
def test_a_file_that_changed_since_is_said(folder, part, array, words):
    data = open_folder(folder)
    put(folder, part, "1.png", array)
    with pytest.raises(DataError, match=words):
        data.pair(0)


def test_a_subset_keeps_what_was_found_in_the_whole(folder):
    put(folder, "masks", "1.png", mask((0,)))
    data = open_folder(folder)
    part = data.subset([2, 0])
    assert (part.names, part.values, len(part)) == (("10", "1"), (0, 255), 2)
    np.testing.assert_array_equal(part.pair(0).image, data.pair(2).image)


def test_suffixes_may_differ_within_a_pair(folder):
    put(folder, "images", "3.JPG", picture())
    put(folder, "masks", "3.tif", mask())
    assert open_folder(folder).names == ("1", "2", "3", "10")


def test_what_is_no_data_is_skipped_and_listed(folder):
    for name in ("images/.DS_Store", "images/Thumbs.db", "masks/._1.png", "masks/notes.txt"):
        (folder / name).write_text("x")
    (folder / "images" / "old").mkdir()
    data = open_folder(folder)
    assert set(data.skipped) == {
        "images/.DS_Store",
        "images/Thumbs.db",
        "images/old",
        "masks/._1.png",
        "masks/notes.txt",
    }
    assert len(data) == 3


@pytest.mark.parametrize(
    ("held", "classes"),
    [
        ((0, 255), (0, 255)),
        ((0, 1), (0, 1)),
        ((0, 1, 2, 3), (0, 1, 2, 3)),
        ((0, 128, 255), (0, 128, 255)),
        ((1, 2, 100, 255), (1, 2, 100, 255)),
        (tuple(range(64)), tuple(range(64))),
        ((300, 0, 65535), (0, 300, 65535)),
    ],
)
def test_classes_are_numbered_by_their_values(tmp_path, held, classes):
    put(tmp_path, "images", "a.png", picture(8, 8))
    put(tmp_path, "masks", "a.png", mask(held, 8, 8))
    data = open_folder(tmp_path)
    assert data.values == classes
    wanted = [classes.index(value) for value in np.resize(held, 64)]
    np.testing.assert_array_equal(data.pair(0).labels.ravel(), wanted)


def test_classes_are_those_of_all_masks_together(folder):
    put(folder, "masks", "2.png", mask((0, 128)))
    data = open_folder(folder)
    assert data.values == (0, 128, 255)
    assert data.pair(1).labels.max() == 1


@pytest.mark.parametrize(
    ("images", "channels", "wanted"),
    [((None, None), None, 1), ((None, 3), None, 3), ((3, 3), 1, 1), ((None, None), 3, 3), ((5, 5), None, 5)],
)
def test_all_pictures_get_as_many_channels(tmp_path, images, channels, wanted):
    for name, have in zip("ab", images, strict=True):
        put(tmp_path, "images", f"{name}.tif" if have == 5 else f"{name}.png", picture(channels=have))
        put(tmp_path, "masks", f"{name}.png", mask())
    data = open_folder(tmp_path, channels=channels)
    assert data.channels == wanted
    assert {data.pair(n).image.shape for n in range(2)} == {(6, 8, wanted)}


def test_channels_that_do_not_go_together_are_refused(tmp_path):
    for name, have in (("a", 5), ("b", 3)):
        put(tmp_path, "images", f"{name}.tif", picture(channels=have))
        put(tmp_path, "masks", f"{name}.png", mask())
    refused(tmp_path, "different numbers of channels: b has 3, a has 5")
    refused(tmp_path, r"images/a\.tif has 5 channels where 3 are wanted", channels=3)


def remove(name):
    return lambda folder: (folder / name).unlink()


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-30])


def double(folder):
    put(folder, "images", "1.jpg", picture())


def many(folder):
    for name in ("1", "2"):
        put(folder, "masks", f"{name}.png", mask(tuple(range(0, 96, 2 if name == "1" else 3)), 12, 8))
        put(folder, "images", f"{name}.png", picture(12))


def without_classes(folder):
    for name in ("1", "2", "10"):
        put(folder, "masks", f"{name}.png", mask((0,)))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (remove("masks/2.png"), "images/2.png has no mask"),
        (remove("images/2.png"), "masks/2.png has no image"),
        (double, "images/1.jpg and images/1.png have one name"),
        (cut("images/2.png"), "images/2.png: "),
        (cut("masks/2.png"), "masks/2.png: "),
        (lambda folder: put(folder, "masks", "2.png", mask(height=7)), "images/2.png is 6x8, but masks/2.png is 7x8"),
        (lambda folder: put(folder, "masks", "2.png", picture(channels=3)), "masks/2.png: is a mask of colours"),
        (lambda folder: put(folder, "masks", "2.png", mask((0, 1))), "of 0 and 1, as masks/2.png, .* as masks/1.png"),
        (many, r"hold 65 different values, masks/1.png alone 48"),
        (without_classes, "every mask holds 0 and nothing else"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_what_is_wrong_is_said_with_its_file(folder, spoil, words):
    spoil(folder)
    refused(folder, words)


def test_all_problems_are_said_at_once_and_counted(folder):
    (folder / "masks" / "2.png").unlink()
    cut("images/10.png")(folder)
    double(folder)
    said = refused(folder, r": 3 problems: ")
    assert all(words in said for words in ("images/2.png has no mask", "images/1.jpg and", "images/10.png: "))


def test_of_very_many_problems_the_first_are_said(tmp_path):
    for name in range(30):
        put(tmp_path, "images", f"{name}.png", picture())
    (tmp_path / "masks").mkdir()
    said = refused(tmp_path, r": 30 problems: images/0\.png has no mask, images/1\.png .*\(30 in all\)")
    assert "images/29.png" not in said


def test_a_damaged_file_is_named_within_a_deep_folder(tmp_path):
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    put(deep, "images", "a.png", picture())
    put(deep, "masks", "a.png", mask())
    (deep / "images" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"images/a\.png: is empty"):
        open_folder(deep)


def test_a_folder_without_its_parts_is_refused(tmp_path):
    refused(tmp_path / "nowhere", "no such folder")
    refused(tmp_path, "has no images/ and no masks/")
    (tmp_path / "images").mkdir()
    refused(tmp_path, "has no masks/")
    (tmp_path / "masks").mkdir()
    (tmp_path / "images" / "a.ppm").touch()
    refused(tmp_path, r"holds no images: none of the files in images/ ends in \.png")


def test_a_directory_with_a_pictures_name_is_a_problem(folder):
    (folder / "images" / "1.png").unlink()
    (folder / "images" / "1.png").mkdir()
    refused(folder, r"images/1\.png: is a directory")


def test_given_values_are_the_classes(folder):
    for name in ("1", "2", "10"):
        put(folder, "masks", f"{name}.png", mask((255,)))
    data = open_folder(folder, values=(0, 128, 255))
    assert data.values == (0, 128, 255)
    assert (data.pair(0).labels == 2).all()


def test_a_value_that_is_not_among_the_given_ones_is_refused(folder):
    refused(folder, r"masks/1\.png holds 255 where masks of 0/1 are wanted", values=(0, 1))


@pytest.mark.parametrize("values", [(), (1, 0), (0, 0), (-1, 1), (0, 65536)])
def test_values_that_are_none_are_refused(folder, values):
    with pytest.raises(DataError, match="ascending"):
        open_folder(folder, values=values)


def test_masks_may_have_a_word_in_their_names(tmp_path):
    for name in ("car_2", "car_10"):
        put(tmp_path, "images", f"{name}.JPG", picture())
        put(tmp_path, "masks", f"{name}_mask.png", mask((0, 1 + len(name))))
    data = open_folder(tmp_path)
    assert (data.names, data.values) == (("car_2", "car_10"), (0, 6, 7))
    assert data.pair(0).labels.max() == 1
    assert data.pair(1).labels.max() == 2
    assert data.remarks == ("2 pairs, matched as images/car_2.JPG with masks/car_2_mask.png",)
    (tmp_path / "masks" / "car_2_mask.png").unlink()
    assert "masks" not in refused(tmp_path, r"images/car_2\.JPG has no mask$").removeprefix(str(tmp_path))


def test_same_names_need_no_remark(folder):
    """The control for the test above."""
    assert open_folder(folder).remarks == ()


def test_a_suffix_of_the_masks_may_be_said(folder):
    for name in ("1", "2", "10"):
        put(folder, "masks", f"{name}-soft.png", mask((3, 4)))
    refused(folder, r"3 problems: masks/1-soft\.png has no image")
    assert "masks/1.png has no image" in refused(folder, "3 problems", masks=Masks(mask_suffix="-soft"))
    for name in ("1", "2", "10"):
        (folder / "masks" / f"{name}.png").unlink()
    assert open_folder(folder, masks=Masks(mask_suffix="-soft")).values == (3, 4)
    refused(folder, "--mask-suffix _no: no file in masks/ ends so", masks=Masks(mask_suffix="_no"))


def test_folders_in_the_folder_belong_together(folder):
    for part, value in (("a", 100), ("a/deep", 200)):
        put(folder, f"images/{part}", "1.png", picture())
        put(folder, f"masks/{part}", "1.png", mask((0, value)))
    put(folder, "images/only", "1.png", picture())
    (folder / "images" / ".hidden").mkdir()
    put(folder, "images/.hidden", "1.png", picture())
    data = open_folder(folder)
    assert data.names == ("1", "2", "10", "a/1", "a/deep/1")
    assert data.values == (0, 100, 200, 255)
    assert [data.values[data.pair(n).labels.max()] for n in (3, 4)] == [100, 200]
    assert set(data.skipped) == {"images/.hidden", "images/only"}
    before = data.digest()
    (folder / "masks/a/deep/1.png").rename(folder / "masks/a/deep/2.png")
    (folder / "images/a/deep/1.png").rename(folder / "images/a/deep/2.png")
    assert open_folder(folder).digest() != before
    (folder / "masks/a/deep/2.png").write_bytes(b"")
    refused(folder, r"masks/a/deep/2\.png: is empty")


def test_folders_of_one_side_alone_are_no_pairs(tmp_path):
    put(tmp_path, "images/a", "1.png", picture())
    put(tmp_path, "masks", "1.png", mask())
    refused(tmp_path, r"2 problems: images/a/1\.png has no mask, masks/1\.png has no image")


def test_pictures_without_a_mask_are_left_out_where_that_is_said(folder):
    for name in ("3", "4"):
        put(folder, "images", f"{name}.png", picture())
    refused(folder, "2 problems: images/3.png has no mask, images/4.png has no mask")
    data = open_folder(folder, masks=Masks(skip_unlabelled=True))
    assert data.names == ("1", "2", "10")
    assert data.remarks == ("left out, for they have no mask: images/3.png, images/4.png",)
    (folder / "images" / "1.png").unlink()
    refused(folder, r"masks/1\.png has no image", masks=Masks(skip_unlabelled=True))
    for name in ("1", "2", "10"):
        (folder / "masks" / f"{name}.png").unlink()
    refused(folder, "4 problems: images/2.png has no mask", masks=Masks(skip_unlabelled=True))


def masks_of(folder, *held):
    """The masks of as many pairs, with these values."""
    for name, values in enumerate(held):
        put(folder, "images", f"{name}.png", picture())
        put(folder, "masks", f"{name}.png", mask(values))
    return folder


@pytest.mark.parametrize("held", [[(0, 1, 255)], [(0, 2), (0, 2, 255)], [tuple(range(21)), (0, 255)], [(1, 255)]])
def test_255_beside_numbers_of_classes_is_asked_about(tmp_path, held):
    said = refused(masks_of(tmp_path, *held), "holds 255, beside masks of ")
    assert "--ignore 255" in said
    assert "--classes 256" in said


@pytest.mark.parametrize("held", [[(0, 255)], [(255,), (0,)], [(0, 128, 255)], [(0, 64, 255)], [(0, 1, 254)]])
def test_levels_of_grey_are_not_asked_about(tmp_path, held):
    """The control: black and white, and other levels, are classes as before."""
    assert open_folder(masks_of(tmp_path, *held)).values == tuple(sorted({*sum(held, ())}))


def test_what_is_ignored_is_no_class(tmp_path):
    data = open_folder(masks_of(tmp_path, (0, 3, 255), (3, 7)), masks=Masks(ignore=255))
    assert data.values == (0, 3, 7)
    np.testing.assert_array_equal(data.pair(0).labels, np.resize((0, 1, IGNORED), (6, 8)))
    np.testing.assert_array_equal(data.pair(1).labels, np.resize((1, 2), (6, 8)))
    put(tmp_path, "masks", "0.png", mask((0, 254, 255)))
    with pytest.raises(DataError, match=r"masks/0\.png: holds 254, which is no class here"):
        data.pair(0)


def test_another_number_may_be_ignored(tmp_path):
    data = open_folder(masks_of(tmp_path, (0, 9, 255)), masks=Masks(ignore=9))
    assert data.values == (0, 255)
    np.testing.assert_array_equal(data.pair(0).labels, np.resize((0, IGNORED, 1), (6, 8)))


def test_a_mask_of_which_all_is_ignored_is_left_out_and_told(tmp_path):
    data = open_folder(masks_of(tmp_path, (0, 1), (255,), (0, 255)), masks=Masks(ignore=255))
    assert data.names == ("0", "2")
    assert data.remarks == ("left out, for they hold nothing but what is ignored: masks/1.png",)
    assert data.pair(1).labels.max() == IGNORED
    refused(masks_of(tmp_path, (255,), (255,), (255,)), "no mask holds anything but what", masks=Masks(ignore=255))


def test_the_number_of_classes_may_be_said(tmp_path):
    masks_of(tmp_path, (0, 2, 255))
    every = open_folder(tmp_path, masks=Masks(classes=256))
    assert every.values == tuple(range(256))
    np.testing.assert_array_equal(every.pair(0).labels, mask((0, 2, 255)))
    assert open_folder(tmp_path, masks=Masks(classes=4, ignore=255)).values == (0, 1, 2, 3)
    refused(
        tmp_path, "holds 255 where masks of 0..20 are wanted; where nobody .* --ignore 255", masks=Masks(classes=21)
    )
    refused(tmp_path, r"holds 2 where masks of 0/1 are wanted$", masks=Masks(classes=2, ignore=255))


def test_what_is_a_class_is_not_ignored(folder):
    with pytest.raises(DataError, match="--ignore 255: stands for a class here, of 0/255"):
        open_folder(folder, values=(0, 255), masks=Masks(ignore=255))


@pytest.mark.parametrize("given", [{"ignore": -1}, {"ignore": "#12345"}, {"classes": 1}, {"classes": 257}])
def test_numbers_that_no_mask_holds_are_refused(given):
    with pytest.raises(ConfigError, match="give"):
        Masks(**given)


RED, GREEN, WHITE = (255, 0, 0), (0, 255, 0), (255, 255, 255)


def colours(*held, height=6, width=8):
    """A mask in RGB of these colours, one row after the other."""
    return np.repeat(np.resize(np.array(held, np.uint8), (height, 3))[:, None], width, 1)


def coloured(folder, *masks):
    for name, held in enumerate(masks):
        put(folder, "images", f"{name}.png", picture())
        put(folder, "masks", f"{name}.png", colours(*held))
    return folder


def test_colours_are_classes_in_their_order(tmp_path):
    data = open_folder(coloured(tmp_path, [(0, 0, 0), RED], [(0, 0, 0)], [GREEN, (0, 0, 1)]))
    assert data.classes.coloured
    assert data.values == (0x000000, 0x000001, 0x00FF00, 0xFF0000)
    np.testing.assert_array_equal(data.pair(0).labels[:, 0], [0, 3] * 3)
    np.testing.assert_array_equal(data.pair(1).labels, 0)
    np.testing.assert_array_equal(data.pair(2).labels[:, 0], [2, 1] * 3)
    put(tmp_path, "masks", "1.png", colours(RED, (9, 9, 9)))
    with pytest.raises(DataError, match=r"masks/1\.png: holds #090909, which is no class here"):
        data.pair(1)


def test_rgb_that_is_grey_throughout_holds_numbers(tmp_path):
    """The control: not the format decides, but the colours."""
    data = open_folder(coloured(tmp_path, [(0, 0, 0), WHITE], [WHITE, (128, 128, 128)]))
    assert not data.classes.coloured
    assert data.values == (0, 128, 255)


def test_colours_beside_numbers_are_refused(tmp_path):
    coloured(tmp_path, [(0, 0, 0), RED], [RED, GREEN])
    put(tmp_path, "masks", "1.png", mask((0, 1)))
    refused(tmp_path, r"masks/0\.png: is a mask of colours; .*--colors")
    refused(tmp_path, r"masks/0\.png: is a mask of colours", masks=Masks(classes=3))


def test_names_that_are_not_matched_are_told_how(tmp_path):
    for name in ("1", "2"):
        put(tmp_path, "images", f"{name}.png", picture())
        put(tmp_path, "masks", f"{name}_left_mask.png", mask())
    refused(tmp_path, "no name in masks/ is a picture's; --mask-suffix says")
    assert len(open_folder(tmp_path, masks=Masks(mask_suffix="_left_mask"))) == 2


@pytest.mark.parametrize("names", [("Images", "MASKS"), ("images", "Masks")])
def test_folders_are_found_in_any_case(folder, names):
    for old, new in zip(("images", "masks"), names, strict=True):
        (folder / old).rename(folder / new)
    assert len(open_folder(folder)) == 3
    (folder / "manifest.json").write_text("{}")
    assert not is_packed(folder)
    (folder / "manifest.json").unlink()
    (folder / "mAsKs").mkdir()
    refused(folder, "has no masks/")


def test_up_to_256_colours_are_classes(tmp_path):
    put(tmp_path, "images", "0.png", picture(16, 16))
    red = np.arange(256, dtype=np.uint8).reshape(16, 16)
    put(tmp_path, "masks", "0.png", np.stack([red, 0 * red, 0 * red], -1))
    assert open_folder(tmp_path).classes.values == tuple(red << 16 for red in range(256))


def test_a_photograph_is_no_mask(tmp_path):
    coloured(tmp_path, [RED, GREEN])
    put(tmp_path, "images", "1.png", picture(30, 30))
    put(tmp_path, "masks", "1.png", picture(30, 30, 3))
    refused(tmp_path, r"the masks, as masks/1\.png, hold more than 256 colours; name those of classes \(--colors\)")


def test_masks_of_one_colour_teach_nothing(tmp_path):
    refused(coloured(tmp_path, [RED]), "every mask holds #ff0000 and nothing else")


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "colors.csv"
    path.write_text("name,r,g,b\nroad,255,0,0\nsky,0,255,0\nnothing,0,0,0\n")
    return Masks(colors=str(path))


def test_a_table_names_the_classes_in_its_order(tmp_path, table):
    coloured(tmp_path, [(0, 0, 0), RED])
    image = Image.new("P", (8, 6), 7)
    image.putpalette([0] * 21 + [0, 255, 0])
    put(tmp_path, "images", "1.png", picture())
    image.save(tmp_path / "masks" / "1.png")
    data = open_folder(tmp_path, masks=table)
    assert (data.values, data.classes.names) == ((0xFF0000, 0x00FF00, 0), ("road", "sky", "nothing"))
    np.testing.assert_array_equal(data.pair(0).labels[:, 0], [2, 0] * 3)
    np.testing.assert_array_equal(data.pair(1).labels, 1)
    put(tmp_path, "masks", "1.png", colours(RED, (0, 254, 0)))
    refused(tmp_path, r"masks/1\.png holds #00fe00 where masks of #ff0000/#00ff00/#000000 are wanted", masks=table)


def test_smeared_colours_are_the_nearest_of_the_table(tmp_path, table):
    smeared = colours(*[(0, 0, 0)] * 16, *[RED] * 16, *[GREEN] * 16, height=48, width=40)
    put(tmp_path, "images", "1.png", picture(48, 40))
    (tmp_path / "masks").mkdir()
    Image.fromarray(smeared).save(tmp_path / "masks" / "1.jpg", quality=60)
    assert len(np.unique(np.asarray(Image.open(tmp_path / "masks" / "1.jpg")))) > 3, "the control: it is smeared"
    found = open_folder(tmp_path, masks=table).pair(0).labels
    np.testing.assert_array_equal(found, np.repeat([2, 0, 1], 16)[:, None].repeat(40, 1))
    refused(tmp_path, r"masks/1\.jpg: is a JPEG, which changes values, .* \(--colors\)")


def test_a_colour_may_be_ignored(tmp_path, table):
    coloured(tmp_path, [(0, 0, 0), RED, WHITE], [WHITE])
    data = open_folder(tmp_path, masks=Masks(ignore="#ffffff"))
    assert (data.values, data.names, data.blank) == ((0, 0xFF0000), ("0",), ("masks/1.png",))
    np.testing.assert_array_equal(data.pair(0).labels[:, 0], [0, 1, IGNORED] * 2)
    both = open_folder(tmp_path, masks=Masks(ignore="#FFFFFF").but(table))
    np.testing.assert_array_equal(both.pair(0).labels[:, 0], [2, 0, IGNORED] * 2)
    with pytest.raises(ConfigError, match="ignore 255: the masks are of colours; give #rrggbb"):
        open_folder(tmp_path, masks=Masks(ignore=255))


def test_a_colour_is_not_ignored_among_numbers(folder):
    with pytest.raises(ConfigError, match="ignore #ffffff: the masks are of numbers; give a number"):
        open_folder(folder, masks=Masks(ignore="#ffffff"))


def test_the_caller_is_told_how_far_it_is(folder):
    told = []
    open_folder(folder, progress=lambda text, done: told.append((text, done)))
    assert told[-1] == ("3 of 3 pairs checked", 1.0)
    assert [done for _, done in told] == sorted(done for _, done in told)
