"""Mutated checkpoints: each loads right or is refused in one line; nothing else happens, and not for long.

make fuzz               # 24,000 mutations; make fuzz FUZZ=1000 makes as many of each of the eight kinds
"""

import io
import json
import os
import time
import zipfile
from datetime import timedelta

import numpy as np
import pytest
from conftest import trained_tensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unet_core import CheckpointError, UNetConfig
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint, Origin, exported

torch = pytest.importorskip("torch")

from safetensors.numpy import save_file

from unet_torch import checkpoint as torch_file
from unet_torch.canonical import as_torch

COUNT = int(os.environ.get("FUZZ", "60"))
SECONDS = 10
CONFIG = UNetConfig(2, 1, (2, 3), "transposed", skip_first=True, fit="pad", output="logits")
TENSORS = trained_tensors(CONFIG)
NETWORK = Checkpoint(CONFIG, TENSORS, Origin("milesial"))


def milesial():
    """A state_dict as another project's script saves it: without a record."""
    return {name: as_torch(value) for name, value in exported(NETWORK, "milesial")[0].items()}


def training():
    state = {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2, 2, 3, 3)}}
    return {
        "model": milesial(),
        "optimizer": {"state": state, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "epoch": 3,
    }


def saved(folder, name):
    """The bytes of one good file."""
    path = folder / name
    if name == "own.pt":
        torch_file.write(path, NETWORK)
    elif name == "own.safetensors":
        safetensors_file.write(path, NETWORK)
    elif name == "plain.safetensors":
        save_file(exported(NETWORK, "milesial")[0], path)
    elif name == "legacy.pt":
        torch.save(milesial(), path, _use_new_zipfile_serialization=False)
    else:
        torch.save({"plain.pt": milesial, "training.pt": training}[name](), path)
    return path.read_bytes()


places = st.floats(0, 1, exclude_max=True)
payloads = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.sampled_from([b"\0" * 8, b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"-1", b"1e13", b'"', b"{", b"]", b"../", b"\n"]),
    st.sampled_from(
        ["00", "2e", "52", "62", "63", "64", "65", "68", "71", "73", "74", "75", "7d", "81", "85", "94"]
    ).map(
        bytes.fromhex  # opcodes of pickles
    ),
)
edits = st.lists(
    st.tuples(
        st.sampled_from(["overwrite", "insert", "delete", "repeat", "swap", "cut", "flip"]), places, places, payloads
    ),
    min_size=1,
    max_size=4,
)


def edited(data, changes):
    """The bytes after some edits, each at a place that is a fraction of their length."""
    data = bytearray(data)
    for kind, one, other, payload in changes:
        at, to = int(one * len(data)), int(other * len(data))
        near = at + 1 + int(other * 40)
        if kind == "overwrite":
            data[at : at + len(payload)] = payload
        elif kind == "insert":
            data[at:at] = payload
        elif kind == "delete":
            del data[at:near]
        elif kind == "repeat":
            data[at:at] = data[at:near]
        elif kind == "swap":
            data[at : at + 8], data[to : to + 8] = data[to : to + 8], data[at : at + 8]
        elif kind == "cut":
            del data[at:]
        elif data:
            data[at] ^= 1 << payload[0] % 8
    return bytes(data)


def inside_zip(data, changes, member):
    """Edit one member of a zip and give it a right checksum."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    names = [name for name in members if name.endswith("/data.pkl")] if member is None else sorted(members)
    name = names[int((member or 0) * len(names))]
    members[name] = edited(members[name], changes)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def inside_header(data, changes):
    """Edit the header of a .safetensors and give it a right length."""
    length = int.from_bytes(data[:8], "little")
    header = edited(data[8 : 8 + length], changes)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def other_value(data, where, value):
    """Put another value into the JSON of a .safetensors' header."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = sorted(header)
    entry = header[names[int(where * len(names))]]
    keys = sorted(entry)
    entry[keys[int(where * 997 % 1 * len(keys))]] = value
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def assert_loads_right_or_is_refused(path, data):
    path.write_bytes(data)
    read = safetensors_file.read if path.suffix == ".safetensors" else torch_file.read
    began = time.monotonic()
    try:
        found = read(path)
    except CheckpointError as error:
        assert str(error).isprintable()  # noqa: PT017  (either outcome is right)
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert found.config.features == CONFIG.features
        assert all(np.isfinite(value).all() for value in found.tensors.values())
        if path.stem == "own":
            assert all(found.tensors[key].tobytes() == value.tobytes() for key, value in TENSORS.items())
    assert time.monotonic() - began < SECONDS


fuzz = settings(
    max_examples=COUNT,
    derandomize="FUZZ" not in os.environ,
    deadline=timedelta(seconds=SECONDS),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("name", ["own.pt", "legacy.pt", "own.safetensors", "plain.safetensors"])
def test_edited_bytes(folder, name):
    data = saved(folder, name)

    @fuzz
    @given(edits)
    def check(changes):
        assert_loads_right_or_is_refused(folder / name, edited(data, changes))

    check()


@pytest.mark.parametrize("name", ["plain.pt", "training.pt"])
def test_edited_pickles_under_right_checksums(folder, name):
    data = saved(folder, name)

    @fuzz
    @given(edits, st.none() | st.none() | places)
    def check(changes, member):
        assert_loads_right_or_is_refused(folder / name, inside_zip(data, changes, member))

    check()


def test_edited_headers_of_right_length(folder):
    data = saved(folder, "plain.safetensors")

    @fuzz
    @given(edits)
    def check(changes):
        assert_loads_right_or_is_refused(folder / "plain.safetensors", inside_header(data, changes))

    check()


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def test_other_values_in_headers(folder):
    data = saved(folder, "plain.safetensors")

    @fuzz
    @given(places, values | st.lists(st.integers(-2, 2**64), max_size=5))
    def check(where, value):
        assert_loads_right_or_is_refused(folder / "plain.safetensors", other_value(data, where, value))

    check()
