"""What was packed of a data folder trains as the folder does, and nothing damaged in it is taken for data."""

import json
import re
import resource
import shutil

import numpy as np
import pytest
from conftest import mostly_torch

from unet_cli.main import main
from unet_core.errors import CheckpointError, ConfigError, DataError

pytest.importorskip("PIL")
pytest.importorskip("grain")

from PIL import Image

from unet_core.data import packing, shards
from unet_core.data.folder import open_folder
from unet_core.data.manifest import check_digests, read_manifest
from unet_core.data.masks import Masks
from unet_core.data.opening import masks_for, open_dataset, recheck
from unet_core.data.packing import pack
from unet_core.data.shards import open_packed
from unet_core.data.synthetic import Synthetic, write_folder

RECIPE = ("--steps", "4", "--features", "3", "4", "--crop", "16", "--batch", "2", "--validate-every", "2")
RED, GREEN, BLACK = (200, 0, 0), (0, 200, 0), (0, 0, 0)


@pytest.fixture(scope="module")
def packed(cells, tmp_path_factory):
    """Six pairs in three shards."""
    path = tmp_path_factory.mktemp("packed") / "set"
    pack(cells, path, shard_size=3000)
    assert len(read_manifest(path).shards) == 3
    return path


@pytest.fixture
def own(packed, tmp_path):
    """A set that may be damaged."""
    return shutil.copytree(packed, tmp_path / "set")


def same(a, b):
    pairs = [(a.pair(n), b.pair(n)) for n in range(len(a))]
    return all(x.dtype == y.dtype and np.array_equal(x, y) for one in pairs for x, y in zip(*one, strict=True))


def save(path, array, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path, **how)


def alike(folder, packed, **how):
    """Whether both are the same data, or are refused for the same reason."""
    found = []
    for path in (folder, packed):
        try:
            found.append(open_dataset(str(path), **{**how, "masks": masks_for(str(packed), how.get("masks", Masks()))}))
        except (DataError, ConfigError) as error:
            found.append(re.sub(r"(?:images|masks)/(\w+)\.png", r"\1", str(error).removeprefix(f"{path}: ")))
    a, b = found
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    names = ("names", "channels", "classes", "sizes")
    return all(getattr(a, name) == getattr(b, name) for name in names) and same(a, b)


def test_a_packed_set_is_its_folder(cells, packed):
    folder, found = open_dataset(str(cells)), open_dataset(str(packed))
    assert alike(cells, packed)
    assert (found.digest(), found.remarks, found.aside) == (folder.digest(), (), None)
    assert same(found.subset([4, 1]), folder.subset([4, 1]))
    assert not same(found.subset([4, 1]), folder.subset([1, 4])), "the control"
    assert found.subset([4, 1]).digest() != found.digest()


def test_every_format_comes_back_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    tifffile = pytest.importorskip("tifffile")
    kinds = ("png", "jpg", "bmp", "webp", "gif", "tif", "lzw.tif", "jpeg.tif", "npy", "npz")
    for number, kind in enumerate(kinds):
        file = tmp_path / f"cells/images/{number}.{kind}"
        picture = rng.integers(0, 256, (6, 8, 3), np.uint8)
        file.parent.mkdir(parents=True, exist_ok=True)
        if kind in ("lzw.tif", "jpeg.tif"):
            Image.fromarray(picture).save(file, compression={"lzw.tif": "tiff_lzw"}.get(kind, "jpeg"))
        elif kind == "tif":
            tifffile.imwrite(file, picture.astype(np.uint16) * 200, photometric="rgb")
        elif kind == "npy":
            np.save(file, picture / np.float32(255))
        elif kind == "npz":
            np.savez(file, picture)
        else:
            Image.fromarray(picture).save(file)
        save(tmp_path / f"cells/masks/{file.stem}.{'png' if number else 'bmp'}", rng.integers(0, 2, (6, 8)) * 255)
    pack(tmp_path / "cells", tmp_path / "set")
    assert alike(tmp_path / "cells", tmp_path / "set")
    assert alike(tmp_path / "cells", tmp_path / "set", channels=1)


@mostly_torch
def test_it_trains_as_its_folder_does_and_goes_on_with_the_folders_run(backend, cells, packed, tmp_path):
    def history(name, data, *more):
        assert main(["train", "--backend", backend, "--data", str(data), "--out", str(tmp_path / name), *more]) == 0
        return (tmp_path / name / "history.jsonl").read_bytes()

    whole = history("folder", cells, *RECIPE)
    assert history("set", packed, *RECIPE) == whole
    history("begun", cells, *RECIPE, "--until", "2")
    assert history("begun", packed, "--resume") == whole
    assert history("other", packed, *RECIPE, "--seed", "1") != whole, "the control"


def test_opening_it_reads_no_shard(packed, monkeypatch):
    opened = []
    real = shards._reader
    monkeypatch.setattr(shards, "_reader", lambda file, shard: opened.append(shard.name) or real(file, shard))
    found = open_packed(packed)
    found.digest()
    assert opened == []
    found.pair(5)
    assert opened == [read_manifest(packed).shards[-1].name]


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Masks with a number that is to be ignored, one of them with nothing else."""
    path = tmp_path_factory.mktemp("labelled")
    for name, values in enumerate(([0, 1, 255], [2, 255, 255], [255] * 3, [1, 2, 0])):
        save(path / f"cells/images/{name}.png", np.full((3, 3), name))
        save(path / f"cells/masks/{name}.png", [values] * 3)
    pack(path / "cells", path / "all", masks=Masks(classes=256))
    pack(path / "cells", path / "ignoring", masks=Masks(ignore=255))
    return path


def test_how_masks_are_read_is_kept_and_may_be_said_anew(labelled):
    ignoring = open_packed(labelled / "ignoring")
    assert (ignoring.values, ignoring.classes.ignore, ignoring.names) == ((0, 1, 2), 255, ("0", "1", "3"))
    assert ignoring.digest() == open_folder(labelled / "cells", masks=Masks(ignore=255)).digest()
    every = open_packed(labelled / "all")
    assert every.values == tuple(range(256))
    fewer = open_packed(labelled / "all", masks=Masks(ignore=255, classes=3))
    assert (fewer.names, fewer.values) == (("0", "1", "3"), (0, 1, 2))
    assert fewer.remarks == ("left out, for they hold nothing but what is ignored: 2",)
    assert fewer.digest() not in (every.digest(), ignoring.digest())


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"channels": 3},
        {"channels": 2},
        {"masks": Masks(ignore=255)},
        {"masks": Masks(ignore=255, classes=3)},
        {"masks": Masks(ignore=255, classes=2)},
        {"masks": Masks(ignore=0)},
        {"masks": Masks(ignore="#ffffff")},
        {"values": (0, 1, 2), "masks": Masks(ignore=255)},
        {"values": (0, 1)},
    ],
)
def test_options_decide_as_they_do_for_the_folder(labelled, how):
    assert alike(labelled / "cells", labelled / "all", **how)


def test_what_is_ignored_is_so_in_a_training(labelled, tmp_path):
    pytest.importorskip("torch")
    recipe = ["train", "--backend", "torch", *RECIPE, "--validation", "1"]
    assert main([*recipe, "--data", str(labelled / "cells"), "--ignore", "255", "--out", str(tmp_path / "a")]) == 0
    assert main([*recipe, "--data", str(labelled / "ignoring"), "--out", str(tmp_path / "b")]) == 0
    a, b = ((tmp_path / name / "history.jsonl").read_bytes() for name in "ab")
    assert a == b
    assert json.loads((tmp_path / "b/config.json").read_text())["recipe"]["masks"]["ignore"] == 255
    assert main(["train", "--resume", "--out", str(tmp_path / "b"), "--steps", "6"]) == 0
    assert main(["eval", str(tmp_path / "b"), "--data", str(labelled / "all")]) == 0


def coloured(folder):
    for name, colours in enumerate(([BLACK, RED], [RED, GREEN], [GREEN, BLACK])):
        save(folder / f"images/{name}.png", np.zeros((2, 2)))
        save(folder / f"masks/{name}.png", [colours, colours])
    return folder


def test_colours_come_along(tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("ground,0,0,0\nroad,200,0,0\ntree,#00c800\n")
    folder = coloured(tmp_path / "cells")
    pack(folder, tmp_path / "set", masks=Masks(colors=str(table)))
    pack(folder, tmp_path / "found")
    expected = open_folder(folder, masks=Masks(colors=str(table)))
    assert alike(folder, tmp_path / "found"), "found by themselves"
    assert alike(folder, tmp_path / "found", masks=Masks(colors=str(table)))
    table.unlink()
    found = open_packed(tmp_path / "set")
    assert (found.classes, found.names) == (expected.classes, expected.names)
    assert same(found, expected)
    (tmp_path / "set/colors.csv").write_text("ground,0,0,0\ntree,200,0,0\nroad,#00c800\n")
    refused(tmp_path / "set", r"set/colors\.csv: is not what was packed; restore it")
    again = open_packed(tmp_path / "found", values=expected.values, coloured=True)
    assert same(again, expected)
    with pytest.raises(DataError, match="its masks were packed by their colours; pack the data anew"):
        open_packed(tmp_path / "set", values=(0, 1))


def test_masks_that_were_packed_by_numbers_are_not_read_by_colours(packed, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("a,0,0,0\nb,255,255,255\n")
    with pytest.raises(DataError, match="its masks were packed with another table of colours, or with none"):
        open_packed(packed, masks=Masks(colors=str(table)))


def test_how_pairs_were_matched_is_not_said_anew(packed, cells, tmp_path):
    with pytest.raises(DataError, match=r"--mask-suffix _x: the pairs of .* were matched when they were packed"):
        open_packed(packed, masks=Masks(mask_suffix="_x"))


def refused(path, words, read=open_packed):
    with pytest.raises(DataError, match=words) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def shard(path, number=0):
    return path / read_manifest(path).shards[number].name


def read_all(path):
    found = open_packed(path)
    return [found.pair(n) for n in range(len(found))]


def test_a_shard_that_is_gone_or_cut_short_is_named(own):
    first, last = shard(own), shard(own, 2)
    first.write_bytes(first.read_bytes()[:-1])
    last.unlink()
    refused(own, f"{first.name} has .* bytes in place of .*, {last.name} is missing; restore what is lost")


def test_a_shard_that_goes_while_it_is_read_is_named(own):
    found = open_packed(own)
    shard(own).unlink()
    refused(own, f"{shard(own).name}: 000 is damaged .*No such file", lambda _: found.pair(0))


def test_shards_that_were_exchanged_are_found(own):
    sizes = [one.stat().st_size for one in (shard(own), shard(own, 1))]
    assert sizes[0] == sizes[1]
    first, second = shard(own).read_bytes(), shard(own, 1).read_bytes()
    shard(own).write_bytes(second)
    shard(own, 1).write_bytes(first)
    refused(own, "000 is damaged .another content than was packed.", read_all)
    refused(own, "damaged are .*00000-of.*00001-of", check_digests)


def test_no_damage_of_a_shard_goes_unseen(own):
    """Wherever a byte is changed, the pairs are those that were packed, or refused."""
    whole, file = open_packed(own), shard(own)
    expected = [whole.pair(n) for n in range(whole.records.shards[0].pairs)]
    content = file.read_bytes()
    used = [place for place, byte in enumerate(content) if byte]
    seen = 0
    for place in (*used[:: max(1, len(used) // 60)], len(content) - 1):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        file.write_bytes(damaged)
        shards._reader.cache_clear()
        for number, pair in enumerate(expected):
            try:
                found = whole.pair(number)
            except DataError:
                seen += 1
            else:
                assert all(np.array_equal(a, b) for a, b in zip(found, pair, strict=True))
        refused(own, file.name, check_digests)
    assert seen


@pytest.mark.parametrize("name", ["manifest.json", "pairs.npz"])
def test_no_damage_of_the_manifest_goes_unseen(own, name):
    file = own / name
    content = file.read_bytes()
    for place in range(0, len(content) - 1, len(content) // 50):
        damaged = bytearray(content)
        damaged[place] ^= 0x11
        file.write_bytes(damaged)
        refused(own, re.escape(str(file)))
    for cut in (0, 1, len(content) // 2, len(content) - 2):
        file.write_bytes(content[:cut])
        refused(own, re.escape(str(file)))
    if name == "pairs.npz":
        file.unlink()
        refused(own, "pairs.npz: no such file")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"version": 2}, "was written by a later release; update unet-twins"),
        ({"kind": "another"}, "is of something else than a packed data set"),
        ({"pairs": 7}, "manifest.json: is damaged: it does not hold what was written"),
        ({"masks": 3}, "manifest.json: is damaged"),
    ],
)
def test_a_manifest_of_something_else_is_refused(own, fields, words):
    file = own / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))
    refused(own, words)


def test_recheck_reads_all_shards(own):
    recheck(str(own), None)
    content = bytearray(shard(own, 1).read_bytes())
    content[-1] ^= 1
    shard(own, 1).write_bytes(content)
    open_packed(own)
    refused(own, f"damaged are {shard(own, 1).name}; restore them", lambda path: recheck(str(path)))


@pytest.mark.parametrize(("validation", "aside"), [(1, ("005",)), (0.5, ("003", "004", "005"))])
def test_pictures_are_put_aside_for_validation(cells, tmp_path, capsys, validation, aside):
    pytest.importorskip("torch")
    data, run = str(tmp_path / "set"), str(tmp_path / "run")
    assert main(["pack", str(cells), data, "--validation", str(validation)]) == 0
    assert f"6 pairs, {len(aside)} of them put aside for validation, in 1 file of" in capsys.readouterr().out
    train = ["train", "--backend", "torch", "--data", data, "--out", run, *RECIPE]
    assert main([*train, "--validation", "1"]) == 2
    were = "1 of the pictures was" if len(aside) == 1 else "3 of the pictures were"
    assert f"{were} put aside for validation when they were packed" in capsys.readouterr().err
    assert main(train) == 0
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert tuple(config["validation"]) == aside
    assert set(config["training"]) == {"000", "001", "002", "003", "004", "005"} - set(aside)


def test_groups_are_not_parted(cells, tmp_path):
    groups = tmp_path / "groups.csv"
    groups.write_text("".join(f"{n:03d}.png,{'late' if n in (3, 5) else n}\n" for n in range(6)))
    pack(cells, tmp_path / "set", validation=2, groups=str(groups))
    found = open_packed(tmp_path / "set")
    assert [found.names[n] for n in found.aside] == ["003", "004", "005"]
    with pytest.raises(DataError, match="give --validation too"):
        pack(cells, tmp_path / "other", groups=str(groups))


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_there_is_not_replaced_by_chance(cells, tmp_path, capsys):
    target = tmp_path / "set"
    pack(cells, target)
    before = (target / "manifest.json").read_bytes()
    for path, words, force in (
        (target, "exists already; give another name, or --force", False),
        (cells, "is a directory of something else, which is not replaced", True),
        (tmp_path / "no/set", "the folder .* does not exist", False),
    ):
        with pytest.raises(CheckpointError, match=words):
            pack(cells, path, force=force)
    assert main(["pack", str(target), str(tmp_path / "again")]) == 2
    assert "is packed already" in capsys.readouterr().err
    pack(cells, target, force=True, validation=1)
    assert (target / "manifest.json").read_bytes() != before
    assert len(read_all(target)) == 6
    assert left(tmp_path) == ["set"]


@pytest.mark.parametrize("content", ['{"name": "an app"}', "[1]", "{", '{"kind": 3}'])
def test_a_manifest_of_something_else_is_left_alone(cells, tmp_path, content):
    folder = shutil.copytree(cells, tmp_path / "cells")
    (tmp_path / "app").mkdir()
    for place in (folder, tmp_path / "app"):
        (place / "manifest.json").write_text(content)
    assert len(open_dataset(str(folder))) == 6
    with pytest.raises(CheckpointError, match="is a directory of something else"):
        pack(folder, tmp_path / "app", force=True)
    assert (tmp_path / "app/manifest.json").read_text() == content


@pytest.mark.parametrize("size", ["0", "-1", "x"])
def test_a_size_that_is_none_is_refused(cells, tmp_path, capsys, size):
    assert main(["pack", str(cells), str(tmp_path / "set"), "--shard-size", size]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert left(tmp_path) == []


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path, monkeypatch):
    write_folder(Synthetic(count=3, size=32), tmp_path / "cells")
    real = packing._Writer._record

    def change(self, index):
        if index == 1:
            (tmp_path / "cells/masks/001.png").write_bytes((tmp_path / "cells/masks/002.png").read_bytes())
        return real(self, index)

    monkeypatch.setattr(packing._Writer, "_record", change)
    with pytest.raises(DataError, match=r"masks/001\.png: has changed since it was read; start anew"):
        pack(tmp_path / "cells", tmp_path / "set")
    assert left(tmp_path) == ["cells"]


def test_nothing_is_left_of_what_was_interrupted(cells, tmp_path):
    def interrupt(text, done):
        if "3 of 6 pairs packed" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(cells, tmp_path / "set", progress=interrupt)
    assert left(tmp_path) == []


def test_a_full_disk_is_a_line(cells, tmp_path, capsys):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        assert main(["pack", str(cells), str(tmp_path / "set")]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "cannot be written" in capsys.readouterr().err
    assert left(tmp_path) == []


def test_names_of_every_kind_come_back(tmp_path):
    names = ("a b", "zwei\nzeilen", "日本", "7'\"", "x" * 200, "sub/1")
    for number, name in enumerate(names):
        save(tmp_path / f"cells/images/{name}.png", np.full((3, 3), number))
        save(tmp_path / f"cells/masks/{name}.png", [[0, 255, 0]] * 3)
    pack(tmp_path / "cells", tmp_path / "set", shard_size=1)
    assert len(read_manifest(tmp_path / "set").shards) == len(names), "a pair is never parted"
    assert alike(tmp_path / "cells", tmp_path / "set")


def test_compare_and_eval_take_it(cells, packed, tmp_path, capsys):
    pytest.importorskip("torch")
    run = tmp_path / "run"
    assert main(["train", "--backend", "torch", "--data", str(packed), "--out", str(run), *RECIPE]) == 0
    found = []
    for data in (cells, packed):
        capsys.readouterr()
        assert main(["eval", str(run), "--data", str(data), "--json", "--recheck"]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] == found[1]
