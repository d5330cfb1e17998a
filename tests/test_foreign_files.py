"""Each kind of file that other programs write, made by them or by their specification, read as torch would give it."""

import dataclasses
import json
import pickle
import random
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from conftest import TINY, few, trained_tensors

from unet_cli.main import main
from unet_core import CheckpointError
from unet_core.checkpoints import readers
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.containers import Container, existing_container
from unet_core.errors import UNetError

torch = pytest.importorskip("torch")
from safetensors.torch import load_file, save_file

from unet_torch import checkpoint as torch_file
from unet_torch.canonical import as_torch

WEIGHTS = trained_tensors(TINY)


def state_dict():
    return {name: as_torch(value) for name, value in WEIGHTS.items()}


def halves(state):
    names = list(state)
    return [{name: state[name] for name in part} for part in (names[::2], names[1::2])]


def index(folder, name, parts):
    places = {key: file for file, part in parts.items() for key in part}
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 3}, "weight_map": places}))


def sharded_safetensors(folder):
    parts = {f"model-0000{number}-of-00002.safetensors": part for number, part in enumerate(halves(state_dict()), 1)}
    for name, part in parts.items():
        save_file(part, folder / name)
    index(folder, "model.safetensors.index.json", parts)
    return folder


def sharded_bin(folder):
    parts = {f"pytorch_model-0000{number}-of-00002.bin": part for number, part in enumerate(halves(state_dict()), 1)}
    for name, part in parts.items():
        torch.save(part, folder / name)
    index(folder, "pytorch_model.bin.index.json", parts)
    return folder / "pytorch_model.bin.index.json"


def distributed(folder):
    import torch.distributed.checkpoint as dcp

    dcp.save({"model": state_dict(), "step": 3}, checkpoint_id=str(folder / "dcp"), no_dist=True)
    return folder / "dcp"


def flat(folder, **model):
    """A folder of DeepSpeed's, ZeRO stage 2 of two processes: two groups of parameters, their masters in two parts."""
    state = state_dict()
    parameters = [name for name in state if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    groups = [OrderedDict((name, state[name].shape) for name in part) for part in (parameters[:7], parameters[7:])]
    step = folder / "global_step3"
    step.mkdir()
    (folder / "latest").write_text("global_step3")
    half = {name: value.bfloat16() if name in parameters else value for name, value in state.items()}
    buffers = [name for name in state if name not in parameters]
    about = {
        "module": half,
        "param_shapes": groups,
        "buffer_names": buffers,
        "shared_params": {},
        "ds_version": "0.14.0",
    }
    torch.save(about | model, step / "mp_rank_00_model_states.pt")
    whole = [torch.cat([state[name].reshape(-1) for name in group]) for group in groups]
    whole = [torch.cat([one, torch.zeros(-len(one) % 4)]) for one in whole]  # padded to a multiple, as DeepSpeed does
    for rank in range(2):
        parts = [one.chunk(2)[rank].clone() for one in whole]
        states = {"zero_stage": 2, "partition_count": 2, "single_partition_of_fp32_groups": parts}
        torch.save({"optimizer_state_dict": states}, step / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    return folder


def saved(save, name):
    def make(folder):
        save(state_dict(), folder / name)
        return folder / name

    return make


def npz(folder):
    np.savez_compressed(folder / "a.npz", **WEIGHTS)
    return folder / "a.npz"


def flax_msgpack(folder):
    serialization = pytest.importorskip("flax.serialization")
    tree = {}
    for name, value in WEIGHTS.items():
        *parts, last = name.split(".")
        inner = tree
        for part in parts:
            inner = inner.setdefault(part, {})
        inner[last] = value
    (folder / "a.msgpack").write_bytes(serialization.msgpack_serialize(tree))
    return folder / "a.msgpack"


def onnx_initialisers(folder):
    onnx = pytest.importorskip("onnx")
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in WEIGHTS.items()]
    graph = onnx.helper.make_graph([], "g", [], [], tensors)
    onnx.save(onnx.helper.make_model(graph), folder / "a.onnx")
    return folder / "a.onnx"


def exported(folder):
    program = torch.export.export(model(), (torch.zeros(2, 3, 16, 16),), strict=False)
    torch.export.save(program, folder / "a.pt2")
    return folder / "a.pt2"


def plain(state, path):
    torch.save(state, path)


def legacy(state, path):
    torch.save(state, path, _use_new_zipfile_serialization=False)


def lightning(state, path):
    settings = {"lr": 1e-3}
    torch.save(
        {"state_dict": {f"model.{key}": value for key, value in state.items()}, "hyper_parameters": settings}, path
    )


def model():
    import unet_torch

    made = unet_torch.UNet.from_config(TINY, seed=0).eval()
    made.load_state_dict(state_dict())
    return made


def whole_module(folder):
    torch.save(model(), folder / "a.pt")
    return folder / "a.pt"


class Parts(torch.nn.Module):
    """A network's layers, none of which is run: what checks types at run time does not take how tracing calls them."""

    def __init__(self, network):
        super().__init__()
        for name, part in network.named_children():
            self.add_module(name, part)

    def forward(self, x):
        return x


def torchscript(folder):
    torch.jit.trace(Parts(model()), torch.zeros(1, 3, 16, 16)).save(folder / "a.pt")
    return folder / "a.pt"


def pickle_of_arrays(folder):
    (folder / "a.pkl").write_bytes(pickle.dumps(WEIGHTS))
    return folder / "a.pkl"


def one_safetensors(folder):
    save_file(state_dict(), folder / "a.safetensors")
    return folder / "a.safetensors"


def pushed(folder):
    save_file(state_dict(), folder / "model.safetensors")
    (folder / "README.md").write_text("# a card")
    return folder


KINDS = {
    "`.pt`, `.pth`": (saved(plain, "a.pt"), Container.TORCH),
    "`.pt` of torch before 1.6": (saved(legacy, "a.pt"), Container.TORCH),
    "`.bin`": (saved(plain, "pytorch_model.bin"), Container.TORCH),
    "`.ckpt`": (saved(lightning, "a.ckpt"), Container.TORCH),
    "`.pth.tar`": (saved(lambda state, path: plain({"state_dict": state}, path), "a.pth.tar"), Container.TORCH),
    "a module pickled whole": (whole_module, Container.TORCH),
    "TorchScript": (torchscript, Container.TORCH),
    "a pickle of arrays": (pickle_of_arrays, Container.TORCH),
    "`.safetensors`": (one_safetensors, Container.SAFETENSORS),
    "sharded safetensors": (sharded_safetensors, Container.SHARDS),
    "sharded `pytorch_model.bin`": (sharded_bin, Container.SHARDS),
    "a folder with `model.safetensors`": (pushed, Container.SHARDS),
    "a folder of torch.distributed.checkpoint": (distributed, Container.DISTRIBUTED),
    "a folder of DeepSpeed": (flat, Container.DEEPSPEED),
    "`.pt2`": (exported, Container.EXPORTED),
    "`.onnx`": (onnx_initialisers, Container.ONNX),
    "`.msgpack`": (flax_msgpack, Container.MSGPACK),
    "`.npz`": (npz, Container.NPZ),
}
"""By the first column of the table in docs/checkpoints.md."""

ELSEWHERE = {
    "an Orbax directory": "tests/test_checkpoints.py",
    "an Orbax directory of another project": "tests/test_foreign_names.py",
    "`hf://owner/name[@revision][/file]`": "tests/test_hub.py",
}


def test_the_page_lists_what_opens():
    text = (Path(__file__).parents[1] / "docs" / "checkpoints.md").read_text()
    table = text.split("## What opens")[1].split("\n\n")[1]
    assert [row.split("|")[1].strip() for row in table.splitlines()[2:]] == [*KINDS, *ELSEWHERE]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_file_gives_every_tensor_bit_for_bit(tmp_path, kind):
    make, container = KINDS[kind]
    path = make(tmp_path)
    assert existing_container(path) is container
    found = readers.read(path, container)
    assert found.config == TINY
    assert {key: value.tobytes() for key, value in found.tensors.items()} == {
        key: value.tobytes() for key, value in WEIGHTS.items()
    }
    other = trained_tensors(TINY, seed=1)
    assert all(value.tobytes() != other[key].tobytes() for key, value in found.tensors.items() if "weight" in key)


@pytest.mark.filterwarnings("ignore")
def test_the_command_converts_a_folder_of_many_processes(tmp_path, capsys):
    assert main(["convert", str(distributed(tmp_path)), str(tmp_path / "b.safetensors"), "--no-verify"]) == 0
    assert existing_container(tmp_path / "b.safetensors") is Container.SAFETENSORS


def test_the_halves_in_the_module_are_not_what_is_taken(tmp_path):
    """The negative control: DeepSpeed's module has the weights rounded to bfloat16."""
    path = flat(tmp_path, param_shapes=None)
    found = readers.read(path, Container.DEEPSPEED).tensors
    assert found["out.weight"].dtype.name == "bfloat16"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("optimize", [False, True])
def test_what_torch_exports_to_onnx_has_its_weights_unless_they_were_folded(tmp_path, optimize):
    pytest.importorskip("onnxscript")
    x = torch.zeros(1, 3, 16, 16)
    torch.onnx.export(model(), (x,), tmp_path / "a.onnx", dynamo=True, verbose=False, optimize=optimize)
    found = readers.contents(tmp_path / "a.onnx", Container.ONNX)
    names = [name for name in WEIGHTS if not name.endswith("num_batches_tracked")]
    if optimize:
        assert not set(names) <= set(found.groups[""])
    else:
        read = found.fetch("", names)
        assert all(value.tobytes() == WEIGHTS[name].tobytes() for name, value in read.items())


# --- damage


def rewritten(path, **changes):
    entries = json.loads(path.read_text())
    entries["weight_map"].update(changes)
    path.write_text(json.dumps(entries))


def huge(metadata):
    """The metadata of a folder whose one tensor has 1e12 numbers."""
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, TensorStorageMetadata

    found = pickle.loads(metadata)
    name = next(name for name in found.state_dict_metadata if name.endswith("out.bias"))
    size = torch.Size([10**12])
    properties = found.state_dict_metadata[name].properties
    chunk = ChunkStorageMetadata(torch.Size([0]), size)
    found.state_dict_metadata = {name: TensorStorageMetadata(properties, size, [chunk])}
    return pickle.dumps(found)


def part(folder):
    return next(iter(sorted(folder.glob("*.safetensors"))))


DAMAGE = {
    "an index that leads elsewhere": (
        sharded_safetensors,
        lambda folder: rewritten(folder / "model.safetensors.index.json", **{"out.bias": "../x.safetensors"}),
        "does not lie beside it",
    ),
    "an index that leads to nothing": (
        sharded_safetensors,
        lambda folder: rewritten(folder / "model.safetensors.index.json", **{"out.bias": "x.safetensors"}),
        "is missing",
    ),
    "an index of other tensors": (
        sharded_safetensors,
        lambda folder: rewritten(folder / "model.safetensors.index.json", more=part(folder).name),
        "which does not have it",
    ),
    "an index that is none": (
        sharded_safetensors,
        lambda folder: (folder / "model.safetensors.index.json").write_text("[]"),
        "is no index",
    ),
    "two indexes": (
        sharded_safetensors,
        lambda folder: (folder / "b.safetensors.index.json").write_text("{}"),
        "several indexes",
    ),
    "a part that is gone": (sharded_safetensors, lambda folder: part(folder).unlink(), "is missing"),
    "a process that is gone": (
        distributed,
        lambda folder: next((folder / "dcp").glob("*.distcp")).unlink(),
        "is missing",
    ),
    "a part cut short": (
        distributed,
        lambda folder: next((folder / "dcp").glob("*.distcp")).write_bytes(b"PK"),
        "was cut short",
    ),
    "a tensor of 4 TB": (
        distributed,
        lambda folder: (folder / "dcp" / ".metadata").write_bytes(huge((folder / "dcp" / ".metadata").read_bytes())),
        "its tensors claim 4000000000000 bytes",
    ),
    "no metadata": (
        distributed,
        lambda folder: (folder / "dcp" / ".metadata").write_bytes(b"\x80\x02}."),
        "no Metadata",
    ),
    "a process of DeepSpeed's that is gone": (
        flat,
        lambda folder: next(folder.rglob("*rank_0_mp*")).unlink(),
        "part of process 0 is missing",
    ),
    "a DeepSpeed step that is gone": (flat, lambda folder: (folder / "latest").write_text("../x"), "names no folder"),
    "an .npz of objects": (
        npz,
        lambda folder: np.savez(folder / "a.npz", a=np.array([None])),
        "no sound .npz",
    ),
    "an .npz that is a bomb": (
        npz,
        lambda folder: np.savez_compressed(folder / "a.npz", a=np.zeros(10**7)),
        "a trap",
    ),
    "an .npz that is none": (npz, lambda folder: (folder / "a.npz").write_bytes(b"x" * 100), "no sound .npz"),
    "msgpack of something else": (
        flax_msgpack,
        lambda folder: (folder / "a.msgpack").write_bytes(b"\xc1"),
        "not as flax.serialization writes it",
    ),
    "msgpack of an array that lies": (
        flax_msgpack,
        lambda folder: (folder / "a.msgpack").write_bytes(
            b"\x81\xa1a\xc7\x0e\x01\x93\x91\xce\x7f\xff\xff\xff\xa4int8\xa0"
        ),
        "not as flax.serialization writes it",
    ),
    "ONNX of something else": (
        onnx_initialisers,
        lambda folder: (folder / "a.onnx").write_bytes(b"\xff" * 20),
        "no sound ONNX file",
    ),
    "an archive without weights": (
        exported,
        lambda folder: zipfile.ZipFile(folder / "a.pt2", "w").close(),
        "torch.export",
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_one_is_refused_in_one_line(tmp_path, capsys, name):
    make, damage, message = DAMAGE[name]
    path = make(tmp_path)
    damage(tmp_path)
    capsys.readouterr()
    assert main(["convert", str(path), str(tmp_path / "b.safetensors"), "--no-verify"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err[:-1].isprintable()
    assert message in err
    assert not (tmp_path / "b.safetensors").exists()


def keras(folder):
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "a.weights.h5", "w") as file:
        file["conv/kernel:0"] = np.zeros((3, 3, 1, 2))
    return folder / "a.weights.h5"


def keras_of_another_name(folder):
    return keras(folder).rename(folder / "weights")


def saved_model(folder):
    (folder / "saved_model.pb").write_bytes(b"\x08\x01")
    return folder


def tensorflow_checkpoint(folder):
    (folder / "checkpoint").write_text('model_checkpoint_path: "model"')
    (folder / "model.index").write_bytes(b"x")
    return folder


@pytest.mark.parametrize("make", [keras, keras_of_another_name, saved_model, tensorflow_checkpoint])
def test_what_is_not_read_is_named_with_the_way_to_go(tmp_path, make):
    with pytest.raises(CheckpointError, match=r"(a Keras file|of TensorFlow): .* numpy\.savez\('weights\.npz'"):
        existing_container(make(tmp_path))


SHARE = """
import sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
whole = torch.load(f"{folder}/whole.pt")
state = {name: distribute_tensor(value, mesh, [Shard(0)]) if value.ndim else value for name, value in whole.items()}
dcp.save({"model": state}, checkpoint_id=f"{folder}/dcp")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_a_folder_that_two_processes_wrote(tmp_path):
    torch.save(state_dict(), tmp_path / "whole.pt")
    command = [sys.executable, "-W", "ignore", "-c", SHARE]
    jobs = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [job.wait(120) for job in jobs] == [0, 0]
    assert len(list((tmp_path / "dcp").glob("*.distcp"))) == 2
    found = readers.read(tmp_path / "dcp", Container.DISTRIBUTED).tensors
    assert all(value.tobytes() == WEIGHTS[key].tobytes() for key, value in found.items())


# --- written here

OTHER = dataclasses.replace(TINY, align_corners=False, skip_first=True, norm_epsilon=1e-3)
TARGETS = {
    "a.pt": [],
    "a.safetensors": [],
    "a.npz": [],
    "a.dcp": [],
    "shards": ["--shard-size", "5KB"],
    "orbax": [],
}


@pytest.mark.parametrize(
    "name", few([name for name in TARGETS if name != "a.pt"], "a.safetensors", "a.npz", "shards", "orbax")
)
def test_what_is_written_comes_back_bit_for_bit_with_its_config(tmp_path, name):
    pytest.importorskip("jax")
    tensors = trained_tensors(OTHER)
    torch_file.write(tmp_path / "a.pt", Checkpoint(OTHER, tensors))
    there, back = tmp_path / name, tmp_path / "back.pt"
    assert main(["convert", str(tmp_path / "a.pt"), str(there), "--no-verify", *TARGETS[name]]) == 0
    assert main(["convert", str(there), str(back), "--no-verify"]) == 0
    found = torch_file.read(back)
    assert found.config == OTHER
    assert found.digests_stored
    assert {key: value.tobytes() for key, value in found.tensors.items()} == {
        key: value.tobytes() for key, value in tensors.items()
    }
    assert main(["convert", str(tmp_path / "a.pt"), str(there), "--no-verify", *TARGETS[name]]) == 2
    assert main(["convert", str(tmp_path / "a.pt"), str(there), "--no-verify", "--force", *TARGETS[name]]) == 0


def written(folder, name):
    torch_file.write(folder / "a.pt", Checkpoint(TINY, WEIGHTS))
    assert main(["convert", str(folder / "a.pt"), str(folder / name), "--no-verify", *TARGETS[name]]) == 0
    return folder / name


def by_torch_distributed(folder):
    import torch.distributed.checkpoint as dcp

    state = {name: torch.zeros_like(value) for name, value in state_dict().items()}
    dcp.load(state, checkpoint_id=str(written(folder, "a.dcp")), no_dist=True)
    return state


def by_numpy(folder):
    found = np.load(written(folder, "a.npz"))
    return {name: torch.from_numpy(found[name]) for name in WEIGHTS}


def by_safetensors(folder):
    path = written(folder, "shards")
    places = json.loads((path / "model.safetensors.index.json").read_text())["weight_map"]
    assert len(set(places.values())) > 2
    assert all((path / file).stat().st_size < 15_000 for file in places.values())
    return {name: load_file(path / file)[name] for name, file in places.items()}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("read", [by_torch_distributed, by_numpy, by_safetensors])
def test_others_read_what_is_written(tmp_path, read):
    pytest.importorskip("jax")
    found = read(tmp_path)
    assert list(found) == list(WEIGHTS)
    assert all(torch.equal(value, as_torch(WEIGHTS[name])) for name, value in found.items())


def test_numpys_files_have_no_bfloat16(tmp_path, capsys):
    tensors = trained_tensors(TINY, dtype=ml_dtypes.bfloat16)
    torch_file.write(tmp_path / "a.pt", Checkpoint(TINY, tensors))
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "a.npz"), "--no-verify"]) == 2
    assert "NumPy's files have no bfloat16" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


@pytest.mark.parametrize("size", ["0MB", "5", "1.5GB", "-1KB", "2TB"])
def test_a_size_that_is_none(tmp_path, capsys, size):
    torch_file.write(tmp_path / "a.pt", Checkpoint(TINY, WEIGHTS))
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "b"), f"--shard-size={size}"]) == 2
    assert "give it as 500MB or 2GB" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "more"), [("b.pt", []), ("b", ["--to", "jax"])])
def test_a_folder_of_shards_has_no_suffix(tmp_path, capsys, name, more):
    torch_file.write(tmp_path / "a.pt", Checkpoint(TINY, WEIGHTS))
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / name), "--shard-size", "5KB", *more]) == 2
    assert "give a name without a suffix, and no --to" in capsys.readouterr().err


def test_an_index_beside_another_one_is_not_certified_for_both(tmp_path, capsys):
    sharded_safetensors(tmp_path)
    path = sharded_bin(tmp_path)
    assert readers.read(path, existing_container(path)).config == TINY
    assert main(["convert", str(path), str(tmp_path / "b.pt"), "--no-verify"]) == 2
    assert "has another index beside it" in capsys.readouterr().err


def damaged_at_random(path, files, chance):
    """One of the files with some bytes changed, put in or taken out, mostly near its begin or end; then as it was."""
    file = chance.choice(files)
    good = file.read_bytes()
    data = bytearray(good)
    for _ in range(chance.randint(1, 3)):
        near = chance.randrange(min(len(data), 3000))
        at = (
            near
            if chance.random() < 0.5
            else len(data) - 1 - near
            if chance.random() < 0.5
            else chance.randrange(len(data))
        )
        data[at : at + chance.choice([0, 1, 1, 1, 4])] = chance.randbytes(chance.choice([0, 1, 1, 1, 4]))
        data = data[: chance.randint(1, len(data))] if chance.random() < 0.1 else data or bytearray(b"x")
    file.write_bytes(data)
    try:
        contents = readers.contents(path, existing_container(path))
        for group, shapes in contents.groups.items():
            contents.fetch(group, list(shapes))
    finally:
        file.write_bytes(good)


QUICKLY = ("sharded safetensors", "a folder of torch.distributed.checkpoint", "`.npz`")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", few(KINDS.keys(), *QUICKLY))
def test_damage_at_random_is_one_line_or_nothing(tmp_path, kind):
    path = KINDS[kind][0](tmp_path)
    files, chance = [file for file in sorted(tmp_path.rglob("*")) if file.is_file()], random.Random(0)
    refused = 0
    for _ in range(25 if kind in QUICKLY else 300):
        try:
            damaged_at_random(path, files, chance)
        except UNetError as error:
            assert str(error).isprintable()  # noqa: PT017  (either outcome is right)
            refused += 1
    assert refused


CODE = """
import torch
class Net(torch.nn.Module):
    def __init__(self, channels=2):
        super().__init__()
        self.one, self.two = torch.nn.Conv2d(1, channels, 3, padding=1), torch.nn.Conv2d(channels, 1, 1)
    def forward(self, x):
        return self.two(torch.relu(self.one(x)))
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["shards", "distributed"])
def test_a_folder_of_any_network_is_read_by_its_code(tmp_path, capsys, kind):
    import torch.distributed.checkpoint as dcp

    (tmp_path / "net.py").write_text(CODE)
    state = {"one.weight": torch.ones(2, 1, 3, 3), "one.bias": torch.zeros(2)}
    state |= {"two.weight": torch.ones(1, 2, 1, 1), "two.bias": torch.ones(1)}
    path = tmp_path / "folder"
    path.mkdir()
    if kind == "shards":
        save_file(state, path / "model-00001-of-00001.safetensors")
        index(path, "model.safetensors.index.json", {"model-00001-of-00001.safetensors": state})
    else:
        dcp.save({"model": state}, checkpoint_id=str(path), no_dist=True)
    convert = ["convert", str(path), str(tmp_path / "a.npz"), "--no-verify", "--module", f"{tmp_path}/net.py:Net"]
    assert main([*convert, "--kwargs", "channels=3"]) == 2
    assert "wrong shape" in capsys.readouterr().err, "the control"
    assert main(convert) == 0
    with np.load(tmp_path / "a.npz") as found:
        assert all(found[name].tobytes() == value.numpy().tobytes() for name, value in state.items())
