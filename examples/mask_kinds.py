"""A small data folder with each kind of mask, drawn from the built-in cells: `python -m examples.mask_kinds kinds`.

Of each, the first mask is also a picture, kinds/NUMBERS.png and so on, as docs/formats.md shows them.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from unet_core.data.synthetic import Synthetic
from unet_core.errors import UNetError

SIZE, COUNT = 128, 6
COLOURS = np.array([(30, 30, 40), (86, 180, 233), (230, 159, 0)], np.uint8)
"""Of background, cell and core."""

Labels = UInt8[np.ndarray, "h w"]


def core(labels: Labels) -> Labels:
    """The labels of cells with a third class: what lies five pixels or more inside of them."""
    inside = labels > 0
    for _ in range(5):
        grown = np.pad(inside, 1)
        inside = inside & grown[2:, 1:-1] & grown[:-2, 1:-1] & grown[1:-1, 2:] & grown[1:-1, :-2]
    return labels + inside.astype(np.uint8)


def save(path: Path, pixels: np.ndarray, palette: np.ndarray | None = None) -> None:
    """Write a PNG, into a folder that is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette.ravel().tolist())
    image.save(path)


def write_masks(out: Path, number: int, labels: Labels) -> None:
    """One mask as each kind of file."""
    name, three = f"{number:03d}.png", core(labels)
    save(out / "black_and_white/masks" / name, labels * np.uint8(255))
    save(out / "numbers/masks" / name, three)
    save(out / "palette/masks" / name, three, COLOURS)
    save(out / "colours/masks" / name, COLOURS[three])
    for place, kind in ((1, "rim"), (2, "core")):
        save(out / "one_for_each_class/masks" / f"{number:03d}" / f"{kind}.png", (three == place) * np.uint8(255))
    doubtful = labels.copy()
    doubtful[: SIZE // 4] = 255
    save(out / "ignored/masks" / name, doubtful)


def squares(labels: Labels) -> list[list[int]]:
    """Rough outlines of what is in the cells: squares of 8 pixels that lie in one, as x and y of their corners."""
    step = 8
    places = [(y, x) for y in range(0, SIZE, step) for x in range(0, SIZE, step)]
    inside = [(y, x) for y, x in places if labels[y : y + step, x : x + step].all()]
    return [[x, y, x + step, y, x + step, y + step, x, y + step] for y, x in inside]


def write_coco(out: Path, outlines: list[list[list[int]]]) -> None:
    """The outlines of all pictures as COCO's annotations."""
    images = [
        {"id": number, "file_name": f"{number:03d}.png", "height": SIZE, "width": SIZE} for number in range(COUNT)
    ]
    annotations = [
        {"id": 100 * number + part, "image_id": number, "category_id": 1, "iscrowd": 0, "segmentation": [corners]}
        for number, shapes in enumerate(outlines)
        for part, corners in enumerate(shapes)
    ]
    found = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
    (out / "annotations.json").write_text(json.dumps(found), encoding="utf-8")


def write_kinds(out: Path) -> None:
    """A folder of each kind in `out`, which is made."""
    if out.exists() and any(out.iterdir()):
        raise UNetError(f"{out}: exists already; name a new folder")
    data = Synthetic(COUNT, SIZE)
    outlines, kinds = [], ("black_and_white", "numbers", "palette", "colours", "one_for_each_class", "ignored", "coco")
    for number in range(COUNT):
        image, labels = data.pair(number)
        for kind in kinds:
            save(out / kind / "images" / f"{number:03d}.png", image[:, :, 0])
        write_masks(out, number, labels)
        outlines.append(squares(labels))
    write_coco(out / "coco", outlines)
    for kind in ("images", "masks"):
        (out / "volumes" / kind).mkdir(parents=True)
    for number in range(3):
        pairs = [data.pair(place) for place in range(2 * number, 2 * number + 2)]
        for kind, slices in (("images", [pair.image[:, :, 0] for pair in pairs]), ("masks", [p.labels for p in pairs])):
            file = out / "volumes" / kind / f"{number}.tif"
            tifffile.imwrite(file, np.stack(slices), imagej=True, metadata={"axes": "ZYX"})
    draw_kinds(out, data, outlines[0])


def draw_kinds(out: Path, data: Synthetic, outlines: list[list[int]]) -> None:
    """The first picture, its mask of each kind as a viewer shows it, and its outlines."""
    picture, _ = data.pair(0)
    save(out / "picture.png", picture[:, :, 0])
    for kind in ("black_and_white", "numbers", "palette", "colours", "ignored"):
        (out / f"{kind}.png").write_bytes((out / kind / "masks/000.png").read_bytes())
    parts = [np.asarray(Image.open(out / f"one_for_each_class/masks/000/{kind}.png")) for kind in ("rim", "core")]
    save(out / "one_for_each_class.png", np.concatenate((parts[0], np.full((SIZE, 4), 128, np.uint8), parts[1]), 1))
    image = Image.fromarray(np.repeat(picture, 3, 2))
    for corners in outlines:
        ImageDraw.Draw(image).polygon(corners, outline=(230, 159, 0))
    image.save(out / "coco.png")


if __name__ == "__main__":
    try:
        write_kinds(Path(*sys.argv[1:2] or ["kinds"]))
    except UNetError as error:
        sys.exit(f"mask_kinds: {error}")
