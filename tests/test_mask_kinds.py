"""The kinds of masks that docs/formats.md shows: each is read, and drawn as the page shows it."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")
pytest.importorskip("tifffile")

from PIL import Image

from examples.mask_kinds import COLOURS, core, write_kinds
from unet_core.data.folder import open_folder
from unet_core.data.masks import Masks
from unet_core.data.synthetic import Synthetic
from unet_core.errors import UNetError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    path = tmp_path_factory.mktemp("kinds")
    write_kinds(path)
    return path


def test_each_kind_holds_the_classes_that_were_drawn(kinds):
    labels = Synthetic(6, 128).pair(1).labels
    three = core(labels)
    assert set(np.unique(three)) == {0, 1, 2}
    order = sorted(range(3), key=lambda n: tuple(COLOURS[n]))
    wanted = {
        "black_and_white": labels,
        "numbers": three,
        "palette": three,
        "colours": np.argsort(order)[three],
        "one_for_each_class": np.array([0, 2, 1])[three],
        "volumes": labels,
    }
    for kind, expected in wanted.items():
        np.testing.assert_array_equal(open_folder(kinds / kind).pair(1).labels, expected, kind)
    ignored = open_folder(kinds / "ignored", masks=Masks(ignore=255)).pair(1).labels
    assert (ignored[:32] == 255).all()
    np.testing.assert_array_equal(ignored[32:], labels[32:])
    outlined = open_folder(kinds / "coco").pair(1).labels
    assert 0 < outlined.sum() < labels.sum()
    assert not (outlined > labels).any()


def test_the_page_shows_them_as_they_are(kinds):
    shown = {path.name for path in (ROOT / "docs/images/masks").glob("*.png")}
    assert shown == {path.name for path in kinds.glob("*.png")}
    page = (ROOT / "docs/formats.md").read_text()
    for name in shown:
        assert f"images/masks/{name}" in page
        found, drawn = (
            np.asarray(Image.open(path / name).convert("RGB")) for path in (ROOT / "docs/images/masks", kinds)
        )
        np.testing.assert_array_equal(found, drawn)


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(UNetError, match="exists already; name a new folder"):
        write_kinds(tmp_path)
