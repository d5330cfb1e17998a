"""Data folders and packed sets in buckets: what is known of them is kept, and single records are fetched."""

import uuid

import numpy as np
import pytest
from conftest import few

from unet_cli.main import main
from unet_core import objects
from unet_core.data import folder as opening
from unet_core.data import index, packing, shards
from unet_core.data.folder import open_folder
from unet_core.data.manifest import read_manifest
from unet_core.data.opening import recheck
from unet_core.data.packing import pack
from unet_core.data.shards import open_packed
from unet_core.errors import CheckpointError, DataError, StorageError
from unet_core.paths import as_path
from unet_core.staging import UNFINISHED, put

pytest.importorskip("grain")
pytest.importorskip("PIL")

RECIPE = ("--steps", "4", "--features", "3", "4", "--crop", "16", "--batch", "2", "--validate-every", "2")


@pytest.fixture(params=["gs", "s3"])
def bucket(request, monkeypatch, tmp_path):
    """An address in either store that nothing is below."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return as_path(f"{request.getfixturevalue(f'{request.param}_bucket')}/{uuid.uuid4().hex}")


def same(a, b):
    pairs = [(a.pair(n), b.pair(n)) for n in range(len(a))]
    return all(np.array_equal(x, y) for one in pairs for x, y in zip(*one, strict=True))


@pytest.mark.parametrize("bucket", few(["gs", "s3"], "gs"), indirect=True)
def test_what_is_known_of_a_folder_in_a_bucket_is_kept_there(bucket, cells, monkeypatch):
    seen = []
    look, sha256 = opening.look_at, index.sha256_of
    monkeypatch.setattr(opening, "look_at", lambda files, name, *more: seen.append(name) or look(files, name, *more))
    monkeypatch.setattr(index, "sha256_of", lambda file: seen.append(file.name) or sha256(file))
    put(cells / "images", bucket / "cells/images")
    put(cells / "masks", bucket / "cells/masks")
    first = open_folder(str(bucket / "cells"))
    digest = first.digest()
    assert len(seen) == 6 + 12
    assert ".unet-index.npz" in objects.listed(str(bucket / "cells"))
    seen.clear()
    again = open_folder(str(bucket / "cells"))
    assert (again.names, again.digest(), seen) == (first.names, digest, [])
    objects.write(str(again.masks[2]), (cells / "masks/003.png").read_bytes())
    changed = open_folder(str(bucket / "cells"))
    assert changed.digest() != digest
    assert seen == ["002", "002.png"]
    seen.clear()
    recheck(str(bucket / "cells"))
    open_folder(str(bucket / "cells"))
    assert len(seen) == 6


@pytest.mark.parametrize("bucket", few(["gs", "s3"], "s3"), indirect=True)
def test_what_is_packed_into_a_bucket_is_read_record_by_record(bucket, cells, tmp_path, monkeypatch):
    put(cells / "images", bucket / "cells/images")
    put(cells / "masks", bucket / "cells/masks")
    target = bucket / "sets/cells"
    assert main(["pack", f"{bucket}/cells", str(target), "--validation", "1"]) == 0
    assert sorted(objects.listed(str(target))) == ["manifest.json", "pairs-00000-of-00001.array_record", "pairs.npz"]
    here = open_folder(cells)
    fetched = []
    read = shards.read_part
    monkeypatch.setattr(shards, "read_part", lambda url, begin, size: fetched.append(size) or read(url, begin, size))
    there = open_packed(target)
    assert (there.names, there.digest(), there.aside, fetched) == (here.names, here.digest(), (5,), [])
    assert same(there, here)
    sizes = [a.stat().st_size + b.stat().st_size + 8 for a, b in zip(here.images, here.masks, strict=True)]
    assert fetched == sizes


@pytest.mark.parametrize("bucket", ["gs"], indirect=True)
def test_a_set_in_a_bucket_trains_as_the_folder_does(bucket, cells, tmp_path):
    pytest.importorskip("torch")
    pack(cells, bucket / "set", shard_size=3000)
    assert len(read_manifest(bucket / "set").shards) == 3
    for name, data in (("a", cells), ("b", f"{bucket}/set")):
        assert main(["train", "--backend", "torch", "--data", str(data), "--out", str(tmp_path / name), *RECIPE]) == 0
    assert (tmp_path / "a/history.jsonl").read_bytes() == (tmp_path / "b/history.jsonl").read_bytes()


def test_damage_in_a_bucket_is_one_line(bucket, cells):
    target = bucket / "set"
    pack(cells, target, shard_size=3000)
    recheck(str(target))
    found, (one, other, last) = open_packed(target), read_manifest(target).shards
    objects.write(str(target / one.name), objects.read(str(target / other.name)))
    with pytest.raises(DataError, match=f"{target}/{one.name}: 000 is damaged"):
        found.pair(0)
    with pytest.raises(DataError, match=f"{target}: damaged are {one.name}; restore them"):
        recheck(str(target))
    objects.remove(str(target / last.name))
    with pytest.raises(DataError, match=f"{target}: {last.name} is missing"):
        open_packed(target)
    with pytest.raises(DataError, match="no such object"):
        found.pair(5)
    objects.remove(str(target / "pairs.npz"))
    objects.write(str(target / last.name), b"x" * last.size)
    with pytest.raises(DataError, match=r"pairs\.npz: no such object"):
        open_packed(target)


@pytest.mark.parametrize("bucket", ["gs"], indirect=True)
def test_nothing_is_left_of_what_was_interrupted(bucket, cells, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(packing, "write_manifest", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pack(cells, bucket / "set", shard_size=3000)
    assert objects.listed(str(bucket)) == {}


@pytest.mark.parametrize("bucket", ["gs"], indirect=True)
def test_what_was_killed_is_no_set_and_is_written_again(bucket, cells, monkeypatch, capsys):
    target = bucket / "set"

    def kill(*_):
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(packing, "write_manifest", kill)
        patch.setattr(packing, "remove_tree", lambda *_: None)  # a killed process cleans nothing up
        with pytest.raises(SystemExit):
            pack(cells, target)
    assert UNFINISHED in objects.listed(str(target))
    assert main(["train", "--backend", "torch", "--data", str(target), "--out", "none"]) == 2
    assert f"{target}/manifest.json: is missing: the set is not whole" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match="exists already; give another name, or --force"):
        pack(cells, target)
    pack(cells, target, force=True)
    assert sorted(objects.listed(str(target))) == ["manifest.json", "pairs-00000-of-00001.array_record", "pairs.npz"]


@pytest.mark.parametrize("bucket", ["gs"], indirect=True)
def test_a_set_is_not_packed_where_there_is_no_bucket_or_something_else(bucket, cells):
    with pytest.raises(StorageError, match="there is no bucket gs://nobodys-bucket"):
        pack(cells, "gs://nobodys-bucket/set")
    put(cells / "images", bucket / "images")
    with pytest.raises(CheckpointError, match="is a directory of something else"):
        pack(cells, bucket / "images", force=True)
    assert len(objects.listed(str(bucket / "images"))) == 6
