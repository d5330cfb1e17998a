"""Masks of classes, COCO's annotations and Label Studio's exports become the classes that their own tools see."""

import itertools
import json
import math

import numpy as np
import pytest
from conftest import by_examples
from hypothesis import given, settings
from hypothesis import strategies as st
from volumes import write_nifti

pytest.importorskip("PIL")

from PIL import Image

from unet_core.data.annotations.shapes import brush, polygon, runs
from unet_core.data.folder import open_folder
from unet_core.data.formats.reading import Pictures
from unet_core.data.masks import Masks
from unet_core.errors import DataError

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 20, 30


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


def picture(path):
    save(path, RNG.integers(0, 256, (HEIGHT, WIDTH)))


def box(top, left, bottom, right, value=255):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top:bottom, left:right] = value
    return mask


def refused(path, words, **options):
    with pytest.raises(DataError, match=words) as caught:
        open_folder(path, **options)
    assert "\n" not in str(caught.value)


def of_classes(path, masks):
    """A picture and its masks by class, for each name."""
    for name, by_class in masks.items():
        picture(path / f"images/{name}.png")
        for kind, mask in by_class.items():
            save(path / f"masks/{name}/{kind}.png", mask)
    return path


def test_a_mask_for_each_class_becomes_one_of_named_classes(tmp_path):
    one = {"nucleus": box(0, 0, 5, 5), "cell": box(5, 5, 15, 25, 1), "background": box(0, 0, 20, 30)}
    of_classes(tmp_path, {"7": one, "8": {"nucleus": box(1, 1, 2, 2)}, "a/9": {"cell": box(0, 0, 20, 30)}})
    data = open_folder(tmp_path)
    assert (data.names, data.values) == (("7", "8", "a/9"), (0, 1, 2))
    assert data.classes.names == ("background", "cell", "nucleus")
    np.testing.assert_array_equal(data.pair(0).labels, box(0, 0, 5, 5, 2) + box(5, 5, 15, 25, 1))
    np.testing.assert_array_equal(data.pair(2).labels, 1)
    before = data.digest()
    save(tmp_path / "masks/8/nucleus.png", box(1, 1, 2, 3))
    assert open_folder(tmp_path).digest() != before


def test_masks_of_classes_that_overlap_or_hold_several_values_are_refused(tmp_path):
    of_classes(tmp_path, {"7": {"cell": box(0, 0, 5, 5), "nucleus": box(4, 4, 8, 8)}})
    refused(tmp_path, r"masks/7: nucleus\.png and cell\.png have 1 pixel in common; a pixel is of one class")
    save(tmp_path / "masks/7/nucleus.png", box(5, 5, 8, 8) + box(0, 0, 1, 1, 3))
    refused(tmp_path, r"masks/7: nucleus\.png holds several values; the mask of one class holds 0 and another")
    save(tmp_path / "masks/7/nucleus.png", np.zeros((3, 3)))
    refused(tmp_path, r"masks/7: nucleus\.png is 3x3, its picture 20x30")
    (tmp_path / "masks/7/nucleus.png").write_bytes(b"x")
    refused(tmp_path, r"masks/7: nucleus\.png: is no PNG")
    (tmp_path / "masks/7/nucleus.png").unlink()
    assert open_folder(tmp_path).values == (0, 1)
    for options in (Masks(classes=3), Masks(ignore=7)):
        refused(tmp_path, "the classes are those of its annotations", masks=options)
    refused(tmp_path, r"has the classes background, cell, where 3 are wanted", values=(0, 1, 2))
    picture(tmp_path / "images/8.png")
    refused(tmp_path, r"images/8\.png has no mask")


def test_volumes_have_a_mask_for_each_class_too(tmp_path):
    organs = np.zeros((3, 20, 30), np.uint8)
    organs[1, :5], organs[2, 10:] = 1, 2
    (tmp_path / "masks/ct").mkdir(parents=True)
    (tmp_path / "images").mkdir()
    write_nifti(tmp_path / "images/ct.nii.gz", RNG.integers(0, 256, (3, 20, 30), np.uint8))
    for number, kind in enumerate(("liver", "spleen"), 1):
        write_nifti(tmp_path / f"masks/ct/{kind}.nii.gz", (organs == number).astype(np.uint8))
    data = open_folder(tmp_path)
    assert data.names == ("ct[000]", "ct[001]", "ct[002]")
    assert data.classes.names == ("background", "liver", "spleen")
    for number in range(3):
        np.testing.assert_array_equal(data.pair(number).labels, organs[number])
    assert len(open_folder(tmp_path, pictures=Pictures(slice_axis="x"))) == 30


def coco(path, annotations, *, at="annotations.json", images=None, categories=None, folder="images"):
    images = images or [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}]
    categories = categories or [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    for image in images:
        picture(path / folder / image["file_name"])
    (path / at).parent.mkdir(parents=True, exist_ok=True)
    told = [{"id": n, "image_id": 1, **one} for n, one in enumerate(annotations)]
    (path / at).write_text(json.dumps({"images": images, "annotations": told, "categories": categories}))
    return path


def corners(top, left, bottom, right):
    return [left, top, right, top, right, bottom, left, bottom]


CAT = {"category_id": 3, "segmentation": [corners(2, 3, 8, 12)]}
DOG = {"category_id": 7, "segmentation": [corners(6, 10, 12, 20), corners(0, 0, 2, 2)]}


def test_cocos_categories_are_classes_and_later_regions_lie_on_top(tmp_path):
    data = open_folder(coco(tmp_path, [CAT, DOG]))
    assert (data.names, data.values, data.classes.names) == (("a",), (0, 1, 2), ("background", "cat", "dog"))
    expected = box(2, 3, 8, 12, 1)
    expected[6:12, 10:20], expected[:2, :2] = 2, 2
    np.testing.assert_array_equal(data.pair(0).labels, expected)
    data = open_folder(coco(tmp_path, [DOG, CAT]))
    assert data.pair(0).labels[7, 11] == 1


@pytest.mark.parametrize(
    ("at", "folder"),
    [("annotations/instances_train.json", "images"), ("_annotations.coco.json", "."), ("train/x.json", "train")],
)
def test_the_usual_layouts_of_coco_are_found(tmp_path, at, folder):
    coco(tmp_path, [CAT], at=at, folder=folder)
    path = tmp_path / "train" if folder == "train" else tmp_path
    assert open_folder(path).pair(0).labels.sum() == 54


def test_run_lengths_are_read_compressed_or_not(tmp_path):
    mask = box(2, 3, 8, 12, 1)
    flat = mask.T.ravel()
    lengths = [len(list(group)) for _, group in itertools.groupby(flat)]
    for counts in (lengths, compressed(lengths)):
        shape = {"size": [HEIGHT, WIDTH], "counts": counts}
        data = open_folder(coco(tmp_path, [{"category_id": 7, "segmentation": shape}]))
        np.testing.assert_array_equal(data.pair(0).labels, 2 * mask)


def test_a_crowd_counts_nowhere_and_has_to_be_ignored(tmp_path):
    crowd = {"category_id": 3, "iscrowd": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [300, 300]}}
    coco(tmp_path, [CAT, crowd])
    refused(tmp_path, r"annotations\.json: a holds 255 where masks of 0/1/2 are wanted; .* give --ignore 255")
    labels = open_folder(tmp_path, masks=Masks(ignore=255)).pair(0).labels
    expected = np.zeros((HEIGHT, WIDTH))
    expected[:, 15:] = 255
    expected[2:8, 3:12] = 1
    np.testing.assert_array_equal(labels, expected)


def test_a_category_that_only_groups_others_is_no_class(tmp_path):
    kinds = [
        {"id": 0, "name": "animals", "supercategory": "none"},
        {"id": 3, "name": "cat", "supercategory": "animals"},
    ]
    kinds.append({"id": 9, "name": "emu", "supercategory": "animals"})
    data = open_folder(coco(tmp_path, [CAT], categories=kinds))
    assert data.classes.names == ("background", "cat", "emu")


PAIR = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "sub/b.png"}]


@pytest.mark.parametrize(
    ("annotations", "words"),
    [
        ([{"category_id": 3, "bbox": [1, 2, 3, 4]}], "annotation 0: has no segmentation, and a box alone is no mask"),
        ([{"category_id": 4, "segmentation": [[1, 2, 3]]}], "is no file of COCO's annotations: KeyError 4"),
        ([{"category_id": 3, "segmentation": [[1, 2, 3, 4]]}], "annotation 0: a polygon has three corners or more"),
        ([{"category_id": 3, "segmentation": [[0, 0, 1e9, 0, 5, 5]]}], "a corner far outside of its picture"),
        ([{"category_id": 3, "segmentation": [[0, 0, "x", 0, 5, 5]]}], "annotation 0: is damaged"),
        ([{"category_id": 3, "segmentation": {"counts": [1, 2]}}], "run lengths that are not those of 20x30 pixels"),
        ([{"category_id": 3, "segmentation": {"counts": "\x00"}}], "run lengths that are no text of COCO's"),
        ([{"category_id": 3, "segmentation": {"counts": "o"}}], "run lengths that end too early"),
        ([{"category_id": 3, "segmentation": {"counts": 5}}], "run lengths are neither a list nor a text"),
        ([{"category_id": 3, "segmentation": [corners(0, 0, 2, 2)], "image_id": 5}], "KeyError 5"),
    ],
)
def test_damaged_annotations_are_one_line(tmp_path, annotations, words):
    refused(coco(tmp_path, annotations), rf"annotations\.json: .*{words}")


def test_what_does_not_fit_the_pictures_is_said(tmp_path):
    coco(tmp_path, [CAT], images=PAIR)
    assert open_folder(tmp_path).names == ("a", "sub/b")
    (tmp_path / "images/sub/b.png").unlink()
    refused(tmp_path, r"annotations\.json: sub/b\.png is not there")
    coco(tmp_path, [CAT], images=[PAIR[0] | {"height": 5, "width": 30}])
    refused(tmp_path, r"annotations\.json: a: says that a is 5x30, but the picture is 20x30")
    coco(tmp_path, [CAT], images=PAIR[:1])
    picture(tmp_path / "images/c.png")
    refused(tmp_path, r"images/c\.png is not annotated")
    data = open_folder(tmp_path, masks=Masks(skip_unlabelled=True))
    assert (data.names, data.unlabelled) == (("a",), ("images/c.png",))
    (tmp_path / "other.json").write_text("{}")
    refused(
        tmp_path, r"has several files of annotations \(annotations\.json, other\.json\); name one \(--annotations\)"
    )
    refused(tmp_path, "is neither COCO's annotations", masks=Masks(annotations=str(tmp_path / "other.json")))
    (tmp_path / "other.json").write_text("[" * 9999)
    refused(tmp_path, "is no JSON, or is truncated", masks=Masks(annotations=str(tmp_path / "other.json")))
    refused(tmp_path, "no such file of annotations", masks=Masks(annotations=str(tmp_path / "none.json")))
    chosen = Masks(annotations=str(tmp_path / "annotations.json"), skip_unlabelled=True)
    assert open_folder(tmp_path, masks=chosen).names == ("a",)


def bits_of(mask):
    """A mask as Label Studio writes one: 32 bits for its length, the sizes of words and of lengths, then runs."""
    samples = np.repeat(np.asarray(mask).ravel() > 0, 4) * 255
    text = f"{samples.size:032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    for value, group in itertools.groupby(samples.tolist()):
        left = len(list(group))
        while left:
            now = min(left, 2**16)
            text += f"1{3:02b}{now - 1:016b}{value:08b}" if now > 2 else f"0{0:02b}{now - 1:03b}" + f"{value:08b}" * now
            left -= now
    text += "0" * (-len(text) % 8)
    return [int(text[place : place + 8], 2) for place in range(0, len(text), 8)]


def region(kind, label, **value):
    return {
        "id": "r1",
        "type": kind,
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "value": {kind: [label], **value},
    }


def studio(path, *tasks):
    told = [
        {"id": n, "data": {"image": f"/data/upload/1/0a1b2c3d-{n}.png"}, "annotations": [{"result": list(results)}]}
        for n, results in enumerate(tasks)
    ]
    for n in range(len(tasks)):
        picture(path / f"images/{n}.png")
    (path / "export.json").write_text(json.dumps(told))
    return path, told


PERCENT = [[10, 10], [40, 10], [40, 40], [10, 40]]


def test_label_studios_brush_and_polygons_are_read(tmp_path):
    painted = RNG.integers(0, 2, (HEIGHT, WIDTH), np.uint8)
    outline = region("polygonlabels", "Nucleus", points=PERCENT)
    studio(tmp_path, [region("brushlabels", "Cell", format="rle", rle=bits_of(painted)), outline], [outline])
    data = open_folder(tmp_path)
    assert (data.names, data.classes.names) == (("0", "1"), ("background", "Cell", "Nucleus"))
    np.testing.assert_array_equal(data.pair(0).labels, np.where(box(2, 3, 8, 12), 2, painted))
    np.testing.assert_array_equal(data.pair(1).labels, box(2, 3, 8, 12, 2))


def test_what_label_studio_has_besides_is_refused_or_left_out(tmp_path):
    outline = region("polygonlabels", "Cell", points=PERCENT)
    path, told = studio(tmp_path, [outline, {"type": "choices", "value": {"choices": ["good"]}}], [outline])
    told[1]["annotations"][0]["was_cancelled"] = True

    def written():
        (path / "export.json").write_text(json.dumps(told))

    written()
    refused(path, r"images/1\.png is not annotated")
    assert open_folder(path, masks=Masks(skip_unlabelled=True)).names == ("0",)
    told[1]["annotations"] = told[0]["annotations"] * 2
    written()
    refused(path, r"export\.json: task 1 has 2 annotations; keep one of them")
    told[1]["annotations"] = [{"result": [region("rectanglelabels", "Cell", x=1, y=2)]}]
    written()
    refused(path, "task 1 has rectanglelabels; masks are brushlabels and polygonlabels")
    told[1]["annotations"] = [{"result": [outline | {"image_rotation": 90}]}]
    written()
    refused(path, "region r1: was drawn on a turned picture")
    told[1]["annotations"] = [{"result": [region("brushlabels", "Cell", rle=bits_of(box(0, 0, 2, 2))[:-9])]}]
    written()
    refused(path, "region r1: a brush's run lengths that end too early")
    told[1]["annotations"] = [{"result": [region("brushlabels", "Cell", rle=[300, "x"])]}]
    written()
    refused(path, "region r1: a brush's run lengths that are no bytes")
    told[1]["annotations"] = [{"result": [region("brushlabels", "Cell", rle=None)]}]
    written()
    refused(path, "region r1: its run lengths are no list")
    told[1]["data"] = {"image": "http://there/y.png"}
    written()
    refused(path, r"the picture of task 1 \(http://there/y\.png\) is not there")
    del told[1]["data"]
    written()
    refused(path, "is no JSON export of Label Studio, with its tasks: KeyError 'data'")


@pytest.mark.parametrize(
    "address",
    [
        "7 a.png",
        "x/7 a.png",
        "/data/upload/2/0123abcd-7%20a.png",
        "/data/local-files/?d=some%2Ffolder/7 a.png",
        "s3://b/7%20a.png",
    ],
)
def test_a_picture_is_found_by_its_address(tmp_path, address):
    path, told = studio(tmp_path, [region("polygonlabels", "Cell", points=PERCENT)])
    (path / "images/0.png").rename(path / "images/7 a.png")
    told[0]["data"]["image"] = address
    (path / "export.json").write_text(json.dumps(told))
    assert open_folder(path).names == ("7 a",)


def compressed(counts):
    """COCO's text of run lengths, by the book: base 48, five bits a letter, the sixth says that more follow."""
    text = ""
    for place, count in enumerate(counts):
        left = count - (counts[place - 2] if place > 2 else 0)
        while True:
            low, left = left & 31, left >> 5
            more = left != (-1 if low & 16 else 0)
            text += chr(48 + low + 32 * more)
            if not more:
                break
    return text


def by_the_book(points, height, width):
    """What COCO's mask API does, point by point."""
    fine = [(math.trunc(5 * x + 0.5), math.trunc(5 * y + 0.5)) for x, y in points]
    path = []
    for (xs, ys), (xe, ye) in zip(fine, fine[1:] + fine[:1], strict=True):
        dx, dy = abs(xe - xs), abs(ye - ys)
        turned = xs > xe if dx >= dy else ys > ye
        (x0, y0), (x1, y1) = ((xe, ye), (xs, ys)) if turned else ((xs, ys), (xe, ye))
        steps = max(dx, dy)
        for n in range(steps + 1):
            t = steps - n if turned else n
            if dx >= dy:
                path.append((x0 + t, math.trunc(y0 + (y1 - y0) / max(dx, 1) * t + 0.5)))
            else:
                path.append((math.trunc(x0 + (x1 - x0) / dy * t + 0.5), y0 + t))
    toggles = []
    for (u, v), (u1, v1) in itertools.pairwise(path):
        if u == u1:
            continue
        x = ((u1 if u1 < u else u1 - 1) + 0.5) / 5 - 0.5
        if math.floor(x) == x and 0 <= x <= width - 1:
            y = min(max((min(v, v1) + 0.5) / 5 - 0.5, 0), height)
            toggles.append(int(x) * height + math.ceil(y))
    flat = np.zeros(height * width + 1, int)
    for place in toggles:
        flat[place] += 1
    return (np.cumsum(flat[:-1]) % 2 == 1).reshape(width, height).T


POINTS = st.lists(st.tuples(st.floats(-6, 34), st.floats(-6, 26)), min_size=3, max_size=9)


@by_examples(50, 150, POINTS)
def test_polygons_are_filled_as_cocos_tools_fill_them(points):
    flat = [part for point in points for part in point]
    np.testing.assert_array_equal(polygon(flat, HEIGHT, WIDTH), by_the_book(points, HEIGHT, WIDTH))


def test_a_polygon_holds_the_pixels_that_it_covers():
    circle = [(15 + 8 * math.cos(n / 50 * math.tau), 10 + 8 * math.sin(n / 50 * math.tau)) for n in range(50)]
    found = polygon([part for point in circle for part in point], HEIGHT, WIDTH)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    far = np.hypot(x - 15, y - 10)
    assert found[far < 7].all()
    assert not found[far > 9].any()


@settings(max_examples=60)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(lambda lengths: sum(lengths)))
def test_compressed_run_lengths_are_the_same(lengths):
    whole = sum(lengths)
    np.testing.assert_array_equal(runs(compressed(lengths), whole, 1), runs(lengths, whole, 1))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_what_was_painted_is_read_back(seed, share):
    mask = np.random.default_rng(seed).random((7, 9)) < share
    np.testing.assert_array_equal(brush(bits_of(mask), 7, 9), mask)
