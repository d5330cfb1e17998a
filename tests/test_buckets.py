"""Data, checkpoints and predictions in buckets, on servers that answer as Google's and Amazon's do."""

import uuid

import numpy as np
import pytest
from conftest import TINY, batch, few, trained_tensors

import conversion
from conversion.inference import open_network
from unet_cli.main import main
from unet_core import objects
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.safetensors_file import read_tensors, write
from unet_core.data.folder import open_folder
from unet_core.errors import CheckpointError, DataError, StorageError
from unet_core.paths import as_path
from unet_core.staging import COMMITTED, put

KINDS = ["gs", "s3"]


@pytest.fixture(params=KINDS)
def bucket(request):
    """An address in either store that nothing is below."""
    return as_path(f"{request.getfixturevalue(f'{request.param}_bucket')}/{uuid.uuid4().hex}")


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "own.safetensors"
    write(file, Checkpoint(TINY, trained_tensors(TINY)))
    return file


@pytest.mark.parametrize("bucket", few(KINDS, "s3"), indirect=True)
def test_a_data_folder_in_a_bucket_is_that_here(bucket, cells):
    put(cells, bucket / "cells")
    there, here = open_folder(str(bucket / "cells")), open_folder(cells)
    assert there.names == here.names
    assert there.digest() == here.digest()
    for index in range(len(here)):
        for a, b in zip(there.pair(index), here.pair(index), strict=True):
            np.testing.assert_array_equal(a, b)
    objects.write(str(there.masks[0]), (cells / "masks" / f"{here.names[1]}.png").read_bytes())
    assert open_folder(str(bucket / "cells")).digest() != here.digest()


def test_a_folder_that_is_not_there_is_one_line(bucket):
    with pytest.raises(DataError, match=f"{bucket}/cells: no such folder"):
        open_folder(str(bucket / "cells"))


@pytest.mark.parametrize(
    ("bucket", "name"),
    few(
        {f"{kind}-{name}": (kind, name) for kind in KINDS for name in ("model.safetensors", "model.pt", "model")},
        *("gs-model.safetensors", "gs-model"),
    ),
    indirect=["bucket"],
)
def test_checkpoints_go_to_buckets_and_back(bucket, source, name):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    there = bucket / name
    done = conversion.convert(str(source), str(there), verify=False)
    assert done.dst == there
    back = conversion.convert(str(there), source.with_name("back.safetensors"), verify=False)
    assert str(back.src) == str(there)
    for key, value in read_tensors(source).items():
        np.testing.assert_array_equal(read_tensors(source.with_name("back.safetensors"))[key], value)
    assert conversion.inspect(str(there)).path == str(there)
    with pytest.raises(CheckpointError, match=f"{there}: exists already"):
        conversion.convert(str(source), str(there), verify=False)
    conversion.convert(str(source), str(there), verify=False, force=True)


@pytest.mark.parametrize("bucket", ["gs"], indirect=True)
def test_frameworks_load_and_save_in_buckets(bucket):
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    import unet_jax
    import unet_torch

    network = unet_torch.UNet(3, 1, features=(4, 8))
    unet_torch.save(network, str(bucket / "a.pt"))
    x = batch(TINY)
    with torch.no_grad():
        expected = unet_torch.load(str(bucket / "a.pt"))(torch.from_numpy(np.moveaxis(x, -1, 1))).numpy()
    conversion.convert(str(bucket / "a.pt"), str(bucket / "a_jax"), verify=False)
    model = unet_jax.load(str(bucket / "a_jax"))
    np.testing.assert_allclose(np.moveaxis(np.asarray(model(jax.numpy.asarray(x))), -1, 1), expected, atol=1e-5)
    unet_jax.save(model, str(bucket / "b_jax"))
    assert COMMITTED in objects.listed(str(bucket / "b_jax"))
    with pytest.raises(CheckpointError, match=f"{bucket}/none.pt: no such object"):
        unet_torch.load(str(bucket / "none.pt"))


@pytest.mark.parametrize("name", ["net.onnx", "net.py"])
@pytest.mark.parametrize("bucket", ["gs"], indirect=True)
def test_what_is_exported_from_and_to_a_bucket_is_what_it_is_here(bucket, source, tmp_path, name):
    for package in ("jax", "onnx", "onnxruntime"):
        pytest.importorskip(package)
    put(source, bucket / "own.safetensors")
    assert main(["export", f"{bucket}/own.safetensors", f"{bucket}/{name}", "--no-verify"]) == 0
    assert main(["export", str(source), str(tmp_path / name), "--no-verify"]) == 0
    assert (bucket / name).read_bytes() == (tmp_path / name).read_bytes()
    if name == "net.py":
        (tmp_path / "there.safetensors").write_bytes((bucket / "net.safetensors").read_bytes())
        here, there = (read_tensors(tmp_path / one) for one in ("net.safetensors", "there.safetensors"))
        assert here.keys() == there.keys()
        assert all(value.tobytes() == there[key].tobytes() for key, value in here.items())


@pytest.mark.slow
def test_a_certificate_in_a_bucket_holds_and_finds_what_was_changed(bucket, source, small_graph_proof, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    put(source, bucket / "own.safetensors")
    assert main(["convert", f"{bucket}/own.safetensors", f"{bucket}/model"]) == 0
    assert main(["verify", "--certificate", f"{bucket}/model.certificate.json"]) == 0
    assert "/tmp/" not in capsys.readouterr().out
    objects.remove(str(bucket / "model" / "state" / "manifest.ocdbt"))
    assert main(["verify", "--certificate", f"{bucket}/model.certificate.json"]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("unet:")]
    assert len(errors) == 1
    assert f"{bucket}/model" in errors[0]


@pytest.mark.parametrize("bucket", few(KINDS, "gs"), indirect=True)
def test_predictions_of_pictures_in_a_bucket_are_those_of_pictures_here(bucket, source, cells, tmp_path):
    pytest.importorskip("torch")
    put(source, bucket / "own.safetensors")
    put(cells / "images", bucket / "images")
    where = ["--backend", "torch"]
    pictures = ["predict", f"{bucket}/own.safetensors", f"{bucket}/images", "--out", f"{bucket}/masks", *where]
    assert main(pictures) == 0
    assert main(["predict", str(source), str(cells / "images"), "--out", str(tmp_path / "masks"), *where]) == 0
    here = {path.name: path.read_bytes() for path in (tmp_path / "masks").iterdir()}
    assert {path.name: path.read_bytes() for path in (bucket / "masks").iterdir()} == here
    assert main(pictures) == 2  # they are there
    assert open_network(str(bucket / "own.safetensors"), backend="torch").config == TINY


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["inspect", "{bucket}/none.pt"], "{bucket}/none.pt: no such object, or no such bucket"),
        (["inspect", "{store}://nobodys-bucket/none.pt"], "no such object, or no such bucket"),
        (["convert", "{own}", "{store}://nobodys-bucket/a.pt"], "there is no bucket {store}://nobodys-bucket"),
        (["predict", "{own}", "{bucket}/none.png", "--out", "{bucket}/out"], "{bucket}/none.png: cannot be read"),
        (["train", "--backend", "torch", "--data", "{bucket}/none", "--out", "{bucket}/run"], "none: no such folder"),
        (["verify", "--certificate", "{bucket}/none.json"], "{bucket}/none.json: no such object"),
        (["plot", "{bucket}/none"], "{bucket}/none: is no run"),
    ],
)
def test_what_is_not_there_is_one_line_and_exit_code_2(bucket, source, command, line, capsys):
    names = {"bucket": bucket, "store": str(bucket).partition(":")[0], "own": source}
    assert main([word.format(**names) for word in command]) == 2
    error = capsys.readouterr().err
    assert line.format(**names) in error
    assert "Traceback" not in error
    assert objects.listed(str(bucket)) == {}


def test_without_credentials_it_says_how_to_log_in(s3_bucket, monkeypatch):
    s3fs = pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    objects._system_of.cache_clear()
    try:
        with pytest.raises(
            StorageError, match=r"access denied \(Unable to locate credentials\); set AWS_ACCESS_KEY_ID"
        ):
            as_path(f"{s3_bucket}/x").exists()
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        objects._system_of.cache_clear()
