"""The table of the colours of classes, and what is near to them."""

import numpy as np
import pytest

from unet_core.data.colour_table import read_table
from unet_core.data.colours import nearest, packed, unpacked
from unet_core.errors import DataError


@pytest.mark.parametrize(
    "text",
    [
        "name,r,g,b\nroad,255,0,1\nsky,0,255,0\n",
        "road,255,0,1\nsky,0,255,0",
        " road , #FF0001\n\n sky , #00ff00 \n",
        "\ufeffName,Color\r\nroad,#ff0001\r\nsky,#00ff00\r\n",
    ],
)
def test_a_table_is_read(tmp_path, text):
    path = tmp_path / "colors.csv"
    path.write_bytes(text.encode())
    assert read_table(path) == ((0xFF0001, 0x00FF00), ("road", "sky"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has 0 colours; give 2 to 256"),
        ("road,1,2,3\n", "has 1 colour;"),
        ("road,1,2,3\nsky,#010203\n", "has #010203 twice"),
        ("road,1,2,256\nsky,1,2,4\n", "road,1,2,256: give name,r,g,b from 0 to 255, or name,#rrggbb"),
        ("road,1,2\nsky,1,2,4\n", "road,1,2: give"),
        ("road,red\nsky,1,2,4\n", "road,red: give"),
        ("".join(f"c{n},{n % 256},{n // 256},0\n" for n in range(257)), "has 257 colours"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path, text, words):
    path = tmp_path / "colors.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=words) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_table_that_is_not_there_is_said(tmp_path):
    with pytest.raises(DataError, match=r"colors\.csv: cannot be read: no such file"):
        read_table(tmp_path / "colors.csv")
    (tmp_path / "colors.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"colors\.csv: is no table of colours"):
        read_table(tmp_path / "colors.csv")


def test_colours_are_numbers_and_back():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    np.testing.assert_array_equal(unpacked(packed(pixels)), pixels)
    assert packed(np.array([[1, 2, 3]], np.uint8)).tolist() == [0x010203]


def test_the_nearest_colour_is_that_of_the_least_distance():
    rng = np.random.default_rng(0)
    pixels, table = rng.integers(0, 256, (9, 8, 3), np.uint8), rng.integers(0, 256, (5, 3), np.uint8)
    distances = ((pixels[:, :, None].astype(int) - table) ** 2).sum(-1)
    found = nearest(packed(pixels), packed(table).tolist())
    np.testing.assert_array_equal(found, packed(table)[distances.argmin(-1)])
    assert (found != packed(table)[distances.argmax(-1)]).any(), "the control"
