"""Pictures and masks come back with the values that were written, or not at all."""

import contextlib
import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from conftest import few
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unet_core.errors import DataError

PIL = pytest.importorskip("PIL")
tifffile = pytest.importorskip("tifffile")

from PIL import Image

from unet_core.data.formats.decoded import MOST_PIXELS
from unet_core.data.formats.files import extent
from unet_core.data.pictures import as_float, read_mask, read_picture

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (9, 13, 1), np.uint8)
GREY16 = RNG.integers(0, 65536, (9, 13, 1), np.uint16)
RGB8 = RNG.integers(0, 256, (9, 13, 3), np.uint8)
RGB16 = RNG.integers(0, 65536, (9, 13, 3), np.uint16)
BITS = RNG.integers(0, 2, (9, 13, 1), np.uint8)


def same(found, written):
    assert found.dtype == written.dtype
    np.testing.assert_array_equal(found, written)


def write_png(path, pixels, *, bits=None, extra=b"", late=b"", interlace=False):
    """A PNG by the book: Pillow writes neither 16-bit colours nor chunks behind the pixels."""
    height, width, samples = pixels.shape
    bits = bits or 8 * pixels.itemsize
    if bits < 8:
        wide = (pixels[:, :, 0, None] >> np.arange(bits - 1, -1, -1) & 1).reshape(height, -1)
        rows = np.packbits(wide.astype(np.uint8), axis=1)
    else:
        rows = pixels.astype(f">u{bits // 8}").reshape(height, -1).view(np.uint8)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[samples]
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))]
    chunks += [(b"eXIf", extra)] * bool(extra) + [(b"IDAT", zlib.compress(body))]
    chunks += [(b"eXIf", late)] * bool(late) + [(b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def exif(orientation, order=">"):
    mark = b"MM\0*" if order == ">" else b"II*\0"
    return mark + struct.pack(f"{order}IHHHIHHI", 8, 1, 274, 3, 1, orientation, 0, 0)


def save(path, array, mode=None, **how):
    image = Image.fromarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)
    (image.convert(mode) if mode else image).save(path, **how)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "A.TIFF"])
@pytest.mark.parametrize("array", [GREY8, GREY16, RGB8], ids=["grey8", "grey16", "rgb8"])
def test_pixels_come_back_as_pillow_wrote_them(tmp_path, name, array):
    save(tmp_path / name, array)
    same(read_picture(tmp_path / name), array)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_16_bits_keeps_both_bytes(tmp_path, channels):
    array = RNG.integers(0, 65536, (9, 13, channels), np.uint16)
    write_png(tmp_path / "a.png", array)
    same(read_picture(tmp_path / "a.png"), array[:, :, : 1 if channels < 3 else 3])


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}, {"compression": "zlib", "predictor": True}], ids=str)
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("array", [GREY8, GREY16, RGB8, RGB16], ids=["grey8", "grey16", "rgb8", "rgb16"])
def test_a_tiff_comes_back_as_it_was_written(tmp_path, array, planar, how, order):
    photometric, stored = ("rgb", array) if array.shape[2] == 3 else ("minisblack", array[:, :, 0])
    if array.shape[2] == 3:
        how = {**how, "planarconfig": planar}
        stored = np.moveaxis(array, 2, 0) if planar == "separate" else array
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric=photometric, byteorder=order, **how)
    same(read_picture(tmp_path / "a.tif"), array)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("channels", [2, 4, 5, 7])
def test_a_tiff_has_as_many_channels_as_samples(tmp_path, channels, tile):
    array = RNG.integers(0, 65536, (40, 33, channels), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack", planarconfig="contig", tile=tile)
    same(read_picture(tmp_path / "a.tif"), array)
    with pytest.raises(DataError, match=rf"a\.tif: has {channels} channels where 3 are wanted"):
        read_picture(tmp_path / "a.tif", 3)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "tiff_deflate"])
@pytest.mark.parametrize("array", [GREY8, GREY16, RGB8], ids=["grey8", "grey16", "rgb8"])
def test_a_compressed_tiff_needs_no_further_package(tmp_path, array, compression):
    save(tmp_path / "a.tif", array, compression=compression)
    same(read_picture(tmp_path / "a.tif"), array)


def as_lzw(path, array, order):
    """As LZW does that never compresses: a clear code before every few bytes keeps the codes at 9 bits."""
    codes = []
    for n, byte in enumerate(array.astype(array.dtype.newbyteorder(order)).tobytes()):
        codes += [256, byte] if n % 200 == 0 else [byte]
    bits = "".join(f"{code:09b}" for code in [*codes, 257])
    strip = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
    tifffile.imwrite(path, array, photometric="rgb", byteorder=order)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tags = tiff.pages.first.tags
        tiff.filehandle.seek(0, 2)
        begin = tiff.filehandle.tell()
        tags["Compression"].overwrite(5)
        tags["StripOffsets"].overwrite((begin,))
        tags["StripByteCounts"].overwrite((len(strip),))
        tiff.filehandle.seek(begin)
        tiff.filehandle.write(strip)


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bits_of_each_colour_survive_lzw(tmp_path, order):
    as_lzw(tmp_path / "a.tif", RGB16, order)
    same(read_picture(tmp_path / "a.tif"), RGB16)


def test_a_tiff_of_white_is_zero_is_turned(tmp_path):
    for number, array in enumerate([GREY8, GREY16]):
        tifffile.imwrite(tmp_path / f"{number}.tif", array[:, :, 0], photometric="miniswhite")
        same(read_picture(tmp_path / f"{number}.tif"), ~array)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "group4"])
def test_a_tiff_of_one_bit_is_black_and_white(tmp_path, compression):
    how = {"compression": compression} if compression else {}
    Image.fromarray(BITS[:, :, 0] > 0).save(tmp_path / "a.tif", **how)
    same(read_picture(tmp_path / "a.tif"), BITS * np.uint8(255))
    same(read_mask(tmp_path / "a.tif"), BITS[:, :, 0])


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_fill_a_picture_but_stay_in_a_mask(tmp_path, bits):
    array = RNG.integers(0, 2**bits, (9, 13, 1), np.uint8)
    write_png(tmp_path / "a.png", array, bits=bits)
    same(read_picture(tmp_path / "a.png"), array * np.uint8(255 // (2**bits - 1)))
    same(read_mask(tmp_path / "a.png"), array[:, :, 0])


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_fractions_stay_fractions(tmp_path, dtype):
    array = RNG.random((9, 13, 3)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
    same(read_picture(tmp_path / "a.tif"), array.astype(np.float32))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_named(tmp_path, value):
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4), value, np.float32))
    with pytest.raises(DataError, match=r"a\.tif: holds values that are no numbers"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_fractions_beyond_0_to_1_are_refused(tmp_path, value):
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 4), value, np.float32))
    with pytest.raises(DataError, match=r"a\.tif: holds fractions .* scale them"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "u4", "i8", ">i4"])
def test_wide_integers_are_taken_where_they_fit(tmp_path, dtype):
    array = np.arange(12).reshape(3, 4, 1)
    tifffile.imwrite(tmp_path / "a.tif", array[:, :, 0].astype(dtype))
    same(read_picture(tmp_path / "a.tif"), array.astype(np.uint8 if dtype == "i1" else np.uint16))


@pytest.mark.parametrize(("dtype", "value"), [("i2", -1), ("i4", 65536), ("u4", 2**32 - 1)])
def test_wide_integers_are_not_clipped(tmp_path, dtype, value):
    tifffile.imwrite(tmp_path / "a.tif", np.full((3, 4), value, dtype))
    with pytest.raises(DataError, match="do not fit 16 bits"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_alpha_is_dropped(tmp_path, name):
    save(tmp_path / name, np.dstack([RGB8, GREY8]))
    same(read_picture(tmp_path / name), RGB8)
    save(tmp_path / name, np.dstack([GREY8, GREY8 // 2]))
    same(read_picture(tmp_path / name), GREY8)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_palette_is_colours_in_a_picture_and_indices_in_a_mask(tmp_path, name):
    indices, colours = GREY8 % 5, RGB8.reshape(-1, 3)[:5]
    image = Image.new("P", (13, 9))
    image.putdata(indices.ravel().tolist())
    image.putpalette(colours.ravel().tolist())
    image.save(tmp_path / name)
    same(read_picture(tmp_path / name), colours[indices[:, :, 0]])
    same(read_mask(tmp_path / name), indices[:, :, 0])


def test_a_palette_of_greys_is_grey(tmp_path):
    image = Image.new("P", (13, 9))
    image.putdata((GREY8 % 5).ravel().tolist())
    image.putpalette(np.repeat(np.arange(5) * 50, 3).tolist())
    image.save(tmp_path / "a.png")
    same(read_picture(tmp_path / "a.png"), GREY8 % 5 * np.uint8(50))


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_becomes_rgb(tmp_path, name):
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    image.save(tmp_path / name)
    picture = read_picture(tmp_path / name)
    assert picture.shape == (8, 8, 3)
    assert np.abs(picture.astype(int) - [255, 0, 0]).max() < 8


@pytest.mark.parametrize("how", [{}, {"compression": "jpeg"}], ids=["jpg", "jpeg in tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_is_read_in_its_channels(tmp_path, channels, how):
    path = tmp_path / ("a.tif" if how else "a.jpg")
    save(path, np.full((16, 24, channels), 90, np.uint8), **how)
    picture = read_picture(path)
    assert picture.shape == (16, 24, channels)
    assert np.abs(picture.astype(int) - 90).max() < 3


@pytest.mark.parametrize("name", ["a.png", "late.png", "a.jpg", "a.tif", "lzw.tif"])
@pytest.mark.parametrize("orientation", range(9))
def test_every_orientation_is_seen_upright(tmp_path, name, orientation):
    seen = np.zeros((8, 16, 1), np.uint8)
    seen[:, 8:], seen[:4, :8] = 255, 80
    turn = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}.get(orientation)  # which turning undoes it
    steps = [None, *Image.Transpose]
    order = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # Pillow's own names for what a viewer does
    image = Image.fromarray(seen[:, :, 0])
    if turn:
        image = image.transpose(steps[1 + order[turn]])
    path = tmp_path / name
    if name.endswith(".png"):
        pixels = np.asarray(image)[:, :, None]
        write_png(
            path, pixels, **{"late" if name.startswith("late") else "extra": exif(orientation, "<>"[orientation % 2])}
        )
    elif name == "lzw.tif":
        image.save(path, compression="tiff_lzw", tiffinfo={274: orientation or 1})  # libtiff writes no 0
    elif name == "a.tif":
        image.save(path, tiffinfo={274: orientation})
    else:
        image.save(path, exif=b"Exif\0\0" + exif(orientation), quality=95)
    found = read_picture(path)
    assert found.shape == seen.shape
    assert extent(path).size == (8, 16)
    assert np.abs(found.astype(int) - seen).max() < (40 if name == "a.jpg" else 1)
    if name != "a.jpg":
        same(read_mask(path), seen[:, :, 0])


def test_imagemagicks_exif_in_a_text_counts_too(tmp_path):
    from PIL.PngImagePlugin import PngInfo

    block = b"Exif\0\0" + exif(6)
    text = PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(block):8d}\n{block.hex()}\n", zip=True)
    Image.fromarray(GREY8[:, :, 0]).save(tmp_path / "a.png", pnginfo=text)
    same(read_picture(tmp_path / "a.png"), np.rot90(GREY8, -1))


def test_a_damaged_exif_block_is_said(tmp_path):
    write_png(tmp_path / "a.png", GREY8, extra=exif(6)[:12])
    with pytest.raises(DataError, match="EXIF block is damaged"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("array", [RGB8, RGB16], ids=["8 bit", "16 bit"])
def test_grey_of_rgb_is_the_luma(tmp_path, array):
    write_png(tmp_path / "a.png", array)
    grey = read_picture(tmp_path / "a.png", 1)
    assert grey.dtype == array.dtype
    assert np.abs(grey[:, :, 0] - array @ [0.299, 0.587, 0.114]).max() < 0.51


@pytest.mark.parametrize("array", [GREY8, GREY16], ids=["8 bit", "16 bit"])
def test_grey_is_repeated_and_comes_back(tmp_path, array):
    write_png(tmp_path / "a.png", array)
    rgb = read_picture(tmp_path / "a.png", 3)
    same(rgb, np.repeat(array, 3, axis=2))
    write_png(tmp_path / "b.png", rgb)
    same(read_picture(tmp_path / "b.png", 1), array)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_white_is_one_as_a_float(dtype):
    white = 1 if dtype == np.float32 else np.iinfo(dtype).max
    same(as_float(np.array([[[0], [white]]], dtype)), np.array([[[0], [1]]], np.float32))


def test_a_mask_of_16_bits_is_not_clipped(tmp_path):
    save(tmp_path / "a.png", GREY16)
    same(read_mask(tmp_path / "a.png"), GREY16[:, :, 0])


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_mask_of_equal_channels_is_a_mask(tmp_path, channels):
    array = np.repeat(GREY8, channels, axis=2)
    if channels != 3:
        array[:, :, -1] = 255
    save(tmp_path / "a.png", array)
    same(read_mask(tmp_path / "a.png"), GREY8[:, :, 0])


def test_a_mask_of_colours_is_refused(tmp_path):
    save(tmp_path / "a.png", RGB8)
    with pytest.raises(DataError, match=r"a\.png: is a mask of colours; save the number"):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["a.bmp", "a.webp"])
def test_bmp_and_webp_come_back_as_they_were_written(tmp_path, name):
    how = {"lossless": True} if name == "a.webp" else {}
    save(tmp_path / name, RGB8, **how)
    same(read_picture(tmp_path / name), RGB8)
    save(tmp_path / name, GREY8, **how)
    same(read_picture(tmp_path / name, 1), GREY8)
    same(read_mask(tmp_path / name), GREY8[:, :, 0])
    assert extent(tmp_path / name).size == (9, 13)


def test_a_bmp_of_one_bit_or_a_palette_is_as_in_png(tmp_path):
    Image.fromarray(BITS[:, :, 0] > 0).save(tmp_path / "a.bmp")
    same(read_picture(tmp_path / "a.bmp"), BITS * np.uint8(255))
    same(read_mask(tmp_path / "a.bmp"), BITS[:, :, 0])
    image = Image.new("P", (13, 9))
    image.putdata((GREY8 % 5).ravel().tolist())
    image.putpalette(RGB8.reshape(-1, 3)[:5].ravel().tolist())
    image.save(tmp_path / "a.bmp")
    same(read_mask(tmp_path / "a.bmp"), GREY8[:, :, 0] % 5)


def test_a_webp_with_loss_is_a_picture_and_a_mask_of_black_and_white_alone(tmp_path):
    array = np.zeros((32, 32, 1), np.uint8)
    array[8:24, 8:24] = 255
    save(tmp_path / "a.webp", array, quality=90)
    same(read_mask(tmp_path / "a.webp"), array[:, :, 0])
    save(tmp_path / "a.webp", array // 255 * np.uint8(100), quality=90)
    assert read_picture(tmp_path / "a.webp").shape == (32, 32, 3)
    with pytest.raises(DataError, match=r"a\.webp: is a WebP with loss, which changes values"):
        read_mask(tmp_path / "a.webp")
    save(tmp_path / "a.webp", array // 255 * np.uint8(100), lossless=True)
    same(read_mask(tmp_path / "a.webp"), array[:, :, 0] // 255 * np.uint8(100))


def test_a_webp_that_moves_is_refused_and_of_a_gif_the_first_picture_is_read(tmp_path):
    frames = [Image.new("L", (8, 8), 9 * n) for n in range(1, 4)]
    for name in ("a.gif", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"a\.webp: is an animation of 3 pictures"):
        read_picture(tmp_path / "a.webp")
    same(read_mask(tmp_path / "a.gif"), np.full((8, 8), 9, np.uint8))


def test_a_gif_of_colours_holds_indices_and_one_of_greys_holds_greys(tmp_path):
    image = Image.new("P", (13, 9))
    image.putdata((GREY8 % 5).ravel().tolist())
    image.putpalette(RGB8.reshape(-1, 3)[:5].ravel().tolist())
    image.save(tmp_path / "a.gif")
    same(read_mask(tmp_path / "a.gif"), GREY8[:, :, 0] % 5)
    same(read_picture(tmp_path / "a.gif"), RGB8.reshape(-1, 3)[GREY8[:, :, 0] % 5])
    greys = GREY8 % 2 * np.uint8(200) + np.uint8(7)
    save(tmp_path / "a.gif", greys)
    with Image.open(tmp_path / "a.gif") as image:
        assert set(np.unique(np.asarray(image))) == {0, 1}, "the control: Pillow numbers the greys of each file anew"
    same(read_mask(tmp_path / "a.gif"), greys[:, :, 0])
    same(read_picture(tmp_path / "a.gif"), greys)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_arrays_come_back_as_they_were_written(tmp_path, name):
    write = np.save if name == "a.npy" else np.savez
    for array in (GREY8, RGB8, GREY16, RGB16, RNG.random((9, 13, 6)).astype(np.float32)):
        write(tmp_path / name, array)
        same(read_picture(tmp_path / name), array)
        assert extent(tmp_path / name).size == (9, 13)
    write(tmp_path / name, np.asfortranarray(GREY16[:, :, 0].astype(">i4")))
    same(read_mask(tmp_path / name), GREY16[:, :, 0])
    write(tmp_path / name, BITS[:, :, 0] > 0)
    same(read_mask(tmp_path / name), BITS[:, :, 0])
    same(read_picture(tmp_path / name), BITS * np.uint8(255))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([[{}]], object), "holds object values"),
        (np.array([["a"]]), "holds str32 values"),
        (np.zeros((2, 2), complex), "holds complex128 values"),
        (np.zeros((2, 2), [("a", "u1")]), "holds void8 values"),
        (np.zeros(4), r"is an array of shape \(4,\); save height x width"),
        (np.zeros((1, 1, 2, 3, 4)), "is an array of shape"),
        (np.zeros((0, 3)), "has no pixels"),
        (np.full((2, 2), 1.5), "holds fractions from 1.5 to 1.5; scale them to 0..1"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(DataError, match=rf"a\.npy: {words}"):
        read_picture(tmp_path / "a.npy")


def test_an_npz_of_several_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=GREY8, b=GREY8)
    with pytest.raises(DataError, match=r"a\.npz: holds a\.npy, b\.npy, where one array is wanted"):
        read_picture(tmp_path / "a.npz")


def test_an_array_that_promises_too_much_is_refused_by_its_header(tmp_path):
    with (tmp_path / "a.npy").open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (99999, 99999, 9)}
        np.lib.format.write_array_header_1_0(file, header)
    for reads in (read_picture, read_mask, extent):
        with pytest.raises(DataError, match=r"a\.npy: 99999x99999 pixels of 9 samples are too many"):
            reads(tmp_path / "a.npy")


def test_a_mask_of_whole_floats_is_taken_and_of_fractions_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY8[:, :, 0].astype(np.float32))
    same(read_mask(tmp_path / "a.tif"), GREY8[:, :, 0].astype(np.uint16))
    tifffile.imwrite(tmp_path / "a.tif", np.full((3, 4), 0.5, np.float32))
    with pytest.raises(DataError, match="mask of fractions"):
        read_mask(tmp_path / "a.tif")


@pytest.mark.parametrize("channels", [1, 3])
def test_a_black_and_white_jpeg_is_a_mask(tmp_path, channels):
    array = np.zeros((32, 32, channels), np.uint8)
    array[8:24, 8:24] = 255
    save(tmp_path / "a.jpg", array, quality=90)
    same(read_mask(tmp_path / "a.jpg"), array[:, :, 0])


@pytest.mark.parametrize("value", [1, 49, 128, 200])
def test_a_jpeg_of_other_values_is_no_mask(tmp_path, value):
    array = np.full((16, 16, 1), value, np.uint8)
    save(tmp_path / "a.jpg", array, quality=95)
    if value == 1:
        same(read_mask(tmp_path / "a.jpg"), np.zeros((16, 16), np.uint8))
    else:
        with pytest.raises(DataError, match=r"a\.jpg: is a JPEG, which changes values"):
            read_mask(tmp_path / "a.jpg")


def test_the_size_is_told_without_decoding(tmp_path):
    for name in ("a.png", "a.jpg", "a.tif"):
        save(tmp_path / name, RGB8)
        assert extent(tmp_path / name).size == (9, 13)
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[:-40])
    assert extent(tmp_path / "a.png").size == (9, 13)


FORMATS = {
    "a.png": {},
    "a.jpg": {"quality": 95},
    "progressive.jpg": {"progressive": True},
    "a.tif": {},
    "lzw.tif": {"compression": "tiff_lzw"},
    "deflate.tif": {"compression": "tiff_adobe_deflate"},
    "jpeg.tif": {"compression": "jpeg"},
    "a.bmp": {},
    "a.webp": {},
    "lossless.webp": {"lossless": True},
}


def truncated(path, ends, rest):
    """Only of the last bytes, which stand behind the pixels, so many may be missing; else one line says so."""
    data, whole = path.read_bytes(), read_picture(path)
    for end in ends(len(data)):
        path.write_bytes(data[:end])
        if end > len(data) - rest:
            with contextlib.suppress(DataError):
                same(read_picture(path), whole)
            continue
        with pytest.raises(DataError) as caught:
            read_picture(path)
        assert str(caught.value).startswith(f"{path}: "), end
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_found_at_every_byte(tmp_path, name):
    path = tmp_path / name
    save(path, RNG.integers(0, 256, (20, 20, 3), np.uint8), **FORMATS[name])
    truncated(path, lambda length: range(0, length, max(1, length // 150)), 60)


@pytest.mark.parametrize("name", few(["a.gif", "a.npy", "a.npz"], "a.npy"))
def test_a_truncated_raster_is_found_at_every_byte(tmp_path, name):
    """Of the formats that Pillow does not write, or only from a palette."""
    path, grey = tmp_path / name, RNG.integers(0, 256, (20, 20), np.uint8)
    if name == "a.gif":
        Image.fromarray(grey).save(path)
    else:
        {"a.npy": np.save, "a.npz": np.savez_compressed}[name](path, grey)
    same(read_picture(path)[:, :, 0], grey)
    truncated(path, range, 4 if name == "a.gif" else 0)


@pytest.mark.parametrize("how", [{}, {"tile": (16, 16)}, {"compression": "zlib"}], ids=str)
def test_a_truncated_tiff_with_its_header_in_front_is_found(tmp_path, how):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RNG.integers(0, 256, (32, 32), np.uint8), **({"rowsperstrip": 4} | how))
    data = path.read_bytes()
    for end in range(0, len(data), 23):
        path.write_bytes(data[:end])
        with pytest.raises(DataError):
            read_picture(path)


def test_a_flipped_bit_in_a_png_is_found(tmp_path):
    write_png(tmp_path / "a.png", GREY8)
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[60] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError):
        read_picture(tmp_path / "a.png")


def test_several_pages_are_channels_and_no_mask(tmp_path):
    pages = RNG.integers(0, 4096, (5, 8, 9), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pages)
    same(read_picture(tmp_path / "a.tif"), np.moveaxis(pages, 0, 2))
    with pytest.raises(DataError, match=r"a\.tif: holds 5 pages, where a mask has one"):
        read_mask(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", pages[0])
    tifffile.imwrite(tmp_path / "b.tif", pages[0, :4], append=True)
    with pytest.raises(DataError, match=r"b\.tif: has pages of several kinds, as the first and the 2\.; save each"):
        read_picture(tmp_path / "b.tif")


def test_an_animation_is_no_picture(tmp_path):
    frames = [Image.new("L", (8, 8), n) for n in range(3)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"a\.png: is an animation of 3 pictures"):
        read_mask(tmp_path / "a.png")


def test_what_is_no_picture_is_said(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello, world")
    Image.new("L", (4, 4)).save(tmp_path / "a.ppm")
    (tmp_path / "a.ppm").rename(tmp_path / "ppm.png")
    (tmp_path / "folder.png").mkdir()
    os.mkfifo(tmp_path / "fifo.png")
    said = {
        "missing.png": "cannot be read: no such file or directory",
        "empty.png": "is empty",
        "text.png": "is no PNG, JPEG, TIFF, GIF, BMP, WebP or NumPy array",
        "ppm.png": "is no PNG, JPEG, TIFF, GIF, BMP, WebP or NumPy array",
        "folder.png": "is a directory",
        "fifo.png": "is a special file",
    }
    for name, words in said.items():
        for reads in (read_picture, read_mask, extent):
            with pytest.raises(DataError, match=f"{name}: {words}"):
                reads(tmp_path / name)


def header_of_png(height, width):
    data = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    tail = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (data, tail, b"IEND")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


def header_of_tiff(height, width, compression=1, samples=1):
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1), (273, 4, 8)]
    tags += [(277, 3, samples), (278, 4, height), (279, 4, 200)]
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 300) + b"\0" * 292 + struct.pack("<H", len(tags)) + body + b"\0" * 4


@pytest.mark.parametrize("make", [header_of_png, header_of_tiff])
@pytest.mark.parametrize(("size", "words"), [((13378, 13378), "too many"), ((0, 5), ""), ((2**31, 2**31), "")])
def test_a_bomb_and_a_void_are_refused_by_their_headers(tmp_path, make, size, words):
    assert size[0] ** 2 > MOST_PIXELS or not size[0]
    (tmp_path / "a.png").write_bytes(make(*size))
    for reads in (read_picture, read_mask, extent):
        with pytest.raises(DataError, match=rf"a\.png: .*{words}"):
            reads(tmp_path / "a.png")


@pytest.mark.parametrize("compression", [1, 5, 8])
def test_a_small_tiff_that_claims_a_large_picture_is_refused(tmp_path, compression):
    (tmp_path / "a.tif").write_bytes(header_of_tiff(13000, 13000, compression))
    with pytest.raises(DataError, match=r"a\.tif: "):
        read_picture(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(header_of_tiff(10000, 10000, 8, samples=60000))
    with pytest.raises(DataError, match="of 60000 samples are too many"):
        read_picture(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("name", "how"),
    [("a.png", {"compress_level": 1}), pytest.param("a.tif", {"compression": "packbits"}, marks=pytest.mark.slow)],
)
def test_a_large_picture_is_read_without_a_warning(tmp_path, name, how):
    limit = Image.MAX_IMAGE_PIXELS
    Image.new("1", (10_000, 10_000), 1).save(tmp_path / name, **how)
    picture = read_picture(tmp_path / name)
    assert picture.shape == (10_000, 10_000, 1)
    assert picture[-1, -1, 0] == 255
    assert limit == Image.MAX_IMAGE_PIXELS


def test_without_pillow_the_package_is_named(tmp_path):
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "from unet_core.data.pictures import as_float, read_picture\n"
        "try: read_picture(sys.argv[1])\n"
        "except ImportError as error: print(type(error).__name__, error)"
    )
    for name in ("a.png", "a.tif"):
        save(tmp_path / name, GREY8)
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], capture_output=True, text=True)
        assert done.stdout.startswith("MissingFrameworkError"), done.stderr
        assert "[train]'" in done.stdout


SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([1, 3]))
ARRAYS = st.one_of(*(arrays(dtype, SHAPES) for dtype in (np.uint8, np.uint16)))


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(array=ARRAYS, tiff=st.booleans(), compression=st.sampled_from([None, "zlib"]))
def test_any_picture_reads_back_bit_for_bit(tmp_path, array, tiff, compression):
    path = tmp_path / ("a.tif" if tiff else "a.png")
    if tiff:
        stored, photometric = (array, "rgb") if array.shape[2] == 3 else (array[:, :, 0], "minisblack")
        tifffile.imwrite(path, stored, photometric=photometric, compression=compression)
    else:
        write_png(path, array)
    same(read_picture(path), array)
    if array.shape[2] == 1:
        same(read_mask(path), array[:, :, 0])
