"""Every container gives back what it was given, bit for bit, and notices when it does not."""

import dataclasses
import itertools
import json
import os
import shutil
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from conftest import TINY, few, trained_tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_core import CheckpointError, UNetConfig
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint, Origin, digest, is_intact, read_record, seal, unseal
from unet_core.checkpoints.containers import Container, container_of
from unet_core.checkpoints.contents import Contents
from unet_core.checkpoints.reading import read_contents

torch = pytest.importorskip("torch")
pytest.importorskip("jax")

from packed import packed

import conversion
import unet_jax
import unet_torch
from unet_jax import checkpoint as orbax
from unet_torch import checkpoint as torch_file
from unet_torch.canonical import as_torch

CONTAINERS = {"a.pt": torch_file, "a.safetensors": safetensors_file, "a": orbax}
DTYPES = [np.float32, np.float64, ml_dtypes.bfloat16, np.float16]
OTHER = dataclasses.replace(TINY, align_corners=False, skip_first=True, norm_epsilon=1e-3, norm_momentum=0.25)


def assert_identical(found, expected):
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        assert found[key].shape == value.shape, key
        assert found[key].tobytes() == value.tobytes(), key


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_a_container_keeps_every_bit_and_the_config(tmp_path, name, dtype):
    tensors = trained_tensors(OTHER, dtype=dtype)
    CONTAINERS[name].write(tmp_path / name, Checkpoint(OTHER, tensors))
    found = CONTAINERS[name].read(tmp_path / name)
    assert found.config == OTHER
    assert found.config_stored
    assert found.digests_stored
    assert_identical(found.tensors, tensors)


def test_mixed_dtypes_are_kept(tmp_path):
    tensors = trained_tensors(TINY)
    for key, dtype in zip(list(tensors)[:12:3], itertools.cycle(DTYPES)):
        tensors[key] = tensors[key].astype(dtype)
    for name, module in CONTAINERS.items():
        module.write(tmp_path / name, Checkpoint(TINY, tensors))
        assert_identical(module.read(tmp_path / name).tensors, tensors)


@pytest.mark.parametrize(
    ("src", "dst"),
    [
        pytest.param(*pair, marks=pytest.mark.slow if "b.pth" in pair else ())
        for pair in itertools.permutations(["a.pt", "b.pth", "a.safetensors", "a"], 2)
    ],
)
def test_convert_goes_every_way(tmp_path, src, dst):
    tensors = trained_tensors(OTHER)
    modules = {**CONTAINERS, "b.pth": torch_file}
    modules[src].write(tmp_path / src, Checkpoint(OTHER, tensors))
    done = conversion.convert(tmp_path / src, tmp_path / dst, verify=False)
    assert done.proof is None
    found = modules[dst].read(tmp_path / dst)
    assert found.config == OTHER
    assert_identical(found.tensors, tensors)
    assert {path.name for path in tmp_path.iterdir()} == {src, dst}


@pytest.mark.parametrize("examples", few([2, 6], 2))
def test_the_whole_circle_is_bit_exact(tmp_path, examples):
    @settings(max_examples=examples)
    @given(st.lists(st.integers(1, 5), min_size=2, max_size=4).map(tuple), st.sampled_from(DTYPES), st.integers(0, 9))
    def holds(features, dtype, seed):
        tensors = trained_tensors(UNetConfig(1, 2, features), seed, dtype)
        places = [tmp_path / name for name in ("0.pt", "1", "2.safetensors", "3.pt")]
        torch_file.write(places[0], Checkpoint(UNetConfig(1, 2, features), tensors))
        for src, dst in itertools.pairwise(places):
            conversion.convert(src, dst, verify=False, force=True)
        assert_identical(torch_file.read(places[3]).tensors, tensors)

    holds()


def test_layouts_of_memory_do_not_matter(tmp_path):
    """safetensors' writer takes the bytes as they lie; a transposed view or channels_last must come out right."""
    tensors = trained_tensors(TINY)
    views = {key: np.asfortranarray(value) if value.ndim == 4 else value for key, value in tensors.items()}
    assert not views["bottom.conv.0.weight"].flags["C_CONTIGUOUS"]
    for name, module in CONTAINERS.items():
        module.write(tmp_path / name, Checkpoint(TINY, views))
        assert_identical(module.read(tmp_path / name).tensors, tensors)


def test_a_channels_last_model_is_saved_right(tmp_path):
    model = torch_file.from_checkpoint(Checkpoint(TINY, trained_tensors(TINY))).to(memory_format=torch.channels_last)
    for name in ("a.pt", "a.safetensors"):
        unet_torch.save(model, tmp_path / name)
        assert_identical(CONTAINERS[name].read(tmp_path / name).tensors, trained_tensors(TINY))


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_torch_saves_and_loads(tmp_path, name):
    model = unet_torch.UNet.from_config(OTHER, seed=3)
    unet_torch.save(model, tmp_path / name)
    loaded = unet_torch.load(tmp_path / name)
    assert not loaded.training
    assert loaded.config == OTHER
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    assert next(loaded.parameters()).requires_grad


@pytest.mark.parametrize("name", ["a", "a.safetensors"])
def test_jax_saves_and_loads(tmp_path, name):
    from unet_jax.canonical import to_canonical

    model = unet_jax.UNet.from_config(OTHER, rngs=3)
    unet_jax.save(model, tmp_path / name)
    loaded = unet_jax.load(tmp_path / name)
    assert not loaded.training
    assert loaded.config == OTHER
    assert_identical(to_canonical(loaded), to_canonical(model))


def test_jax_load_casts_when_asked(tmp_path):
    import jax.numpy as jnp

    safetensors_file.write(tmp_path / "a.safetensors", Checkpoint(TINY, trained_tensors(TINY, dtype=np.float64)))
    with pytest.raises(CheckpointError, match="float64"):
        unet_jax.load(tmp_path / "a.safetensors")
    model = unet_jax.load(tmp_path / "a.safetensors", param_dtype=jnp.float32, dtype=jnp.bfloat16)
    assert model.out.weight[...].dtype == jnp.float32
    assert model.execution.dtype == jnp.bfloat16


def test_a_written_pt_is_a_plain_state_dict(tmp_path):
    """What a script without this project does with it: `load_state_dict(torch.load(path))`, strict."""
    tensors = trained_tensors(TINY)
    torch_file.write(tmp_path / "a.pt", Checkpoint(TINY, tensors))
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    assert list(state) == list(tensors)
    model = unet_torch.UNet.from_config(TINY, seed=0)
    assert model.load_state_dict(state, strict=True).missing_keys == []


def test_a_written_safetensors_is_torchs(tmp_path):
    from safetensors.torch import load_file

    tensors = trained_tensors(TINY)
    safetensors_file.write(tmp_path / "a.safetensors", Checkpoint(TINY, tensors))
    found = load_file(tmp_path / "a.safetensors")
    assert all(torch.equal(found[key], as_torch(value)) for key, value in tensors.items())


def test_plain_orbax_restores_a_written_directory(tmp_path):
    import orbax.checkpoint as ocp

    orbax.write(tmp_path / "a", Checkpoint(TINY, trained_tensors(TINY)))
    state = ocp.PyTreeCheckpointer().restore(tmp_path / "a" / "state")
    assert state["down1"]["conv"]["0"]["weight"].shape == (4, 3, 3, 3)


def test_a_file_without_a_record_is_read_by_its_shapes(tmp_path):
    tensors = trained_tensors(TINY)
    torch.save({key: as_torch(value) for key, value in tensors.items()}, tmp_path / "a.pt")
    found = torch_file.read(tmp_path / "a.pt")
    assert found.config == TINY
    assert not found.config_stored
    assert not found.digests_stored
    assert_identical(found.tensors, tensors)


def test_a_legacy_pt_is_read(tmp_path):
    tensors = trained_tensors(TINY)
    state = {key: as_torch(value) for key, value in tensors.items()}
    torch.save(state, tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    assert_identical(torch_file.read(tmp_path / "a.pt").tensors, tensors)


def test_digests_tell_dtype_shape_and_value_apart():
    value = np.zeros((2, 3), np.float32)
    others = [value.astype(np.float16), value.reshape(3, 2), value + 1, value.astype(np.int32)]
    assert len({digest(other) for other in (value, *others)}) == 5
    assert digest(np.asfortranarray(value)) == digest(value) == digest(value.astype(">f4"))


@pytest.mark.parametrize("key", ["down1.conv.0.weight", "up1.conv.4.running_var", "bottom.conv.1.num_batches_tracked"])
def test_one_changed_value_is_found_and_named(tensors, key):
    record = read_record(seal(Checkpoint(TINY, tensors)), "x")
    tensors[key] = tensors[key].copy()
    tensors[key].reshape(-1).view(np.uint8)[0] ^= 1
    with pytest.raises(CheckpointError, match=f"sha256 of {key} is not the stored one"):
        unseal(tensors, record, "x")


def test_one_flipped_bit_in_an_orbax_payload_is_found(tmp_path):
    """Orbax itself restores it without a word."""
    orbax.write(tmp_path / "a", Checkpoint(TINY, trained_tensors(TINY)))
    payload = packed(tmp_path / "a")
    pristine = payload.file.read_bytes()
    for eighth in range(8):
        payload.flip(eighth / 8)
        with pytest.raises(CheckpointError, match=r"sha256|not a sound Orbax"):
            orbax.read(tmp_path / "a")
        payload.file.write_bytes(pristine)
    assert_identical(orbax.read(tmp_path / "a").tensors, trained_tensors(TINY))


def test_a_flipped_bit_in_a_pt_is_found(tmp_path):
    torch_file.write(tmp_path / "a.pt", Checkpoint(TINY, trained_tensors(TINY)))
    data = bytearray((tmp_path / "a.pt").read_bytes())
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        member = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
    data[member.header_offset + 30 + len(member.filename) + 200] ^= 1
    (tmp_path / "a.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"fails its checksum|not a PyTorch file"):
        torch_file.read(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: "{", "damaged"),
        (lambda record: "[]", "damaged"),
        (lambda record: record.replace('"version": 1', '"version": 9'), "format 9"),
        (lambda record: record.replace('"sha256": {', '"sha256": 1, "x": {'), "damaged"),
        (lambda record: record.replace('"in_channels": 3', '"in_channels": -3'), "describes no network: in_channels"),
        (lambda record: record.replace('"in_channels": 3', '"in_channels": 4'), "wrong shape: down1.conv.0.weight"),
        (lambda record: record.replace("down1.conv.0.weight", "down1.conv.9.weight"), "sha256 of down1.conv.0.weight"),
    ],
)
def test_a_record_that_contradicts_the_tensors_is_refused(tensors, change, message):
    contents = Contents(
        "x",
        groups={"": {key: value.shape for key, value in tensors.items()}},
        fetch=lambda _, keys: {key: tensors[key] for key in keys},
        record=change(seal(Checkpoint(TINY, tensors))),
    )
    with pytest.raises(CheckpointError, match=message):
        read_contents(contents)


def test_a_copied_checkpoint_is_still_one(tmp_path):
    orbax.write(tmp_path / "a", Checkpoint(TINY, trained_tensors(TINY)))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert_identical(orbax.read(tmp_path / "b").tensors, trained_tensors(TINY))


ORIGINS = {
    "extras that are null": {"riders": None},
    "extras that are a number": {"riders": "5"},
    "extras that are no JSON": {"riders": "{"},
    "counters that are a word": {"counters": "yes"},
    "a dialect that is none": {"dialect": "nobody"},
    "a field that is none": {"colour": "red"},
    "names of a dialect with a table": {"dialect": "milesial", "names": [["out.bias", "b"]]},
    "a generic dialect without names": {"dialect": "generic"},
    "names of another network": {"dialect": "generic", "names": [["out.bias", "b"]]},
    "names that are one": {"dialect": "generic", "names": [[key, "x"] for key in trained_tensors(TINY)]},
    "names that are pairs of three": {"dialect": "generic", "names": [["a", "b", "c"]]},
    "names that are a string": {"dialect": "generic", "names": "ab"},
}


def test_a_record_keeps_the_names_of_earlier_releases(tensors):
    origin = Origin("milesial", extras='{"epoch": 3}')
    record = seal(Checkpoint(TINY, tensors, origin))
    assert json.loads(record)["origin"]["riders"] == '{"epoch": 3}'
    assert read_record(record, "x").origin == origin


@pytest.mark.parametrize("origin", ORIGINS.values(), ids=ORIGINS)
def test_an_origin_that_cannot_be_is_refused(tensors, origin):
    record = json.loads(seal(Checkpoint(TINY, tensors))) | {"origin": origin}
    with pytest.raises(CheckpointError, match=r"x: the stored (record of config and digests is damaged|names are not)"):
        read_record(json.dumps(record), "x")


@pytest.mark.parametrize("name", ["b.pt", "b.safetensors"])
def test_a_written_file_may_be_read_by_whom_the_umask_says(tmp_path, name):
    torch_file.write(tmp_path / "a.pt", Checkpoint(TINY, trained_tensors(TINY)))
    before = os.umask(0o027)
    try:
        conversion.convert(tmp_path / "a.pt", tmp_path / name, verify=False)
    finally:
        os.umask(before)
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("axis", "parts", "intact"),
    [
        (1, [slice(0, 2), slice(2, 4)], True),
        (1, [slice(2, 4), slice(0, 2)], False),
        (0, [slice(0, 2), slice(2, 4)], False),
        (1, [slice(0, 4)], True),
        (1, [], False),
        (1, [slice(0, 1)] * 3, False),
        (2, [slice(0, 4)], False),
        ("1", [slice(0, 4)], False),
    ],
)
def test_a_tensor_is_held_to_the_digests_of_its_parts(axis, parts, intact):
    tensor = np.arange(8.0).reshape(2, 4)
    stored = {"axis": axis, "sha256": [digest(tensor[:, part]) for part in parts]}
    assert is_intact(tensor, stored) == intact
    assert not is_intact(tensor + 1, stored)


@pytest.mark.parametrize("name", ["model", "model.orbax", "model.v2", "unet-0.5", "a.b.ORBAX"])
def test_a_name_may_have_a_version(name):
    assert container_of(Path(name)) is Container.ORBAX


@pytest.mark.parametrize("name", ["model.onnx", "model.h5", "model.pt2", "model.7z", "model.saftensors", "model.v2b"])
def test_another_suffix_is_no_guess(name):
    with pytest.raises(CheckpointError, match=r"unknown suffix .*; known are .*with \.orbax or a version as \.v2"):
        container_of(Path(name))


@pytest.mark.parametrize("name", ["model.orbax", "model.v2"])
def test_a_name_with_a_version_is_written_and_read(name, tmp_path):
    from unet_cli.main import main

    safetensors_file.write(tmp_path / "a.safetensors", Checkpoint(TINY, trained_tensors(TINY)))
    assert main(["convert", str(tmp_path / "a.safetensors"), str(tmp_path / name), "--no-verify"]) == 0
    assert orbax.is_orbax(tmp_path / name)
    assert main(["convert", str(tmp_path / name), str(tmp_path / "back.safetensors"), "--no-verify"]) == 0
    back = safetensors_file.read(tmp_path / "back.safetensors")
    assert all((back.tensors[key] == value).all() for key, value in trained_tensors(TINY).items())
