"""Checkpoints of networks that were read from code: every tensor comes back, under all its names, with the graph."""

import dataclasses
import json
import shutil
import time

import ml_dtypes
import numpy as np
import pytest
from conftest import TINY, trained_tensors
from graphs import CODE, network, small, trained

from conversion.formats import module_of
from conversion.inspection import inspect
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import RECORD_KEY, Checkpoint, Origin
from unet_core.checkpoints.containers import existing_container
from unet_core.errors import CheckpointError, ConfigError
from unet_core.graph import Graph, Node, Sizes, Tensor
from unet_core.graph.family import graph

FILES = ["a.pt", "a.safetensors", "a"]
NEEDS = {"a.pt": "torch", "a": "orbax.checkpoint"}


def written(path, checkpoint):
    pytest.importorskip(NEEDS.get(path.name, "numpy"))
    container = {"a.pt": "unet_torch.checkpoint", "a": "unet_jax.checkpoint"}
    module = pytest.importorskip(container.get(path.name, "unet_core.checkpoints.safetensors_file"))
    module.write(path, checkpoint)
    return path


def read(path):
    return module_of(existing_container(path)).read(path)


def assert_same(found, checkpoint):
    assert found.config == checkpoint.config
    assert found.evidence == checkpoint.evidence
    assert found.origin == checkpoint.origin
    assert list(found.tensors) == list(checkpoint.tensors)
    for name, value in checkpoint.tensors.items():
        assert found.tensors[name].dtype == value.dtype, name
        assert found.tensors[name].tobytes() == value.tobytes(), name


def changed(checkpoint, **tensors):
    named = {name.replace("_", "."): value for name, value in tensors.items()}
    return dataclasses.replace(checkpoint, tensors={**checkpoint.tensors, **named})


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ml_dtypes.bfloat16], ids=str)
def test_a_file_gives_back_graph_tensors_and_evidence(tmp_path, name, dtype):
    checkpoint = dataclasses.replace(network(dtype=dtype), origin=Origin(extras='{"epoch": 3}'))
    assert_same(read(written(tmp_path / name, checkpoint)), checkpoint)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "values", [np.array([[True, False, True]] * 2), np.full((2, 3), 7, np.uint8), np.full((2, 3), -5)], ids=str
)
def test_a_buffer_keeps_its_dtype(tmp_path, name, values):
    checkpoint = changed(network(), table=values)
    assert_same(read(written(tmp_path / name, checkpoint)), checkpoint)


@pytest.mark.parametrize("name", FILES)
def test_a_mask_may_hold_minus_infinity_and_a_weight_not(tmp_path, name):
    checkpoint = changed(network(), table=np.full((2, 3), -np.inf, np.float32))
    assert_same(read(written(tmp_path / name, checkpoint)), checkpoint)
    (tmp_path / "bad").mkdir()
    path = written(tmp_path / "bad" / name, changed(checkpoint, logits_bias=np.full(2, -np.inf, np.float32)))
    with pytest.raises(CheckpointError, match=r"logits.bias: 2 of 2 values are NaN or infinite"):
        read(path)


@pytest.mark.parametrize("name", [pytest.param("a.pt", marks=pytest.mark.slow), "a.safetensors"])
def test_a_graph_of_a_megabyte_is_kept(tmp_path, name):
    nodes = list(small().nodes)
    for number in range(6000):
        nodes.append(Node(f"{'encoder.blocks.' * 8}{number}", "relu", (nodes[-1].name,)))
    checkpoint = network(dataclasses.replace(small(), nodes=tuple(nodes)))
    assert len(checkpoint.config.to_json()) > 1_000_000
    assert_same(read(written(tmp_path / name, checkpoint)), checkpoint)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_a_class_of_the_user_loads_the_file(tmp_path, name):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    from unet_torch.checkpoint import from_checkpoint

    class Block(torch.nn.Sequential):
        def __init__(self):
            super().__init__(torch.nn.Conv2d(3, 4, 3, padding=1, bias=False), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
            self.all = torch.nn.ModuleList([self[1]])

        def forward(self, x):
            return self[2](self[1](self[0](x)))

    class Theirs(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.down = Block()
            self.bottom = torch.nn.Sequential(
                torch.nn.Conv2d(4, 6, 3, padding=1), torch.nn.GroupNorm(2, 6), torch.nn.LeakyReLU()
            )
            self.up = torch.nn.ConvTranspose2d(6, 4, 2, 2)
            self.logits = torch.nn.Conv2d(8, 2, 1)
            self.unused = torch.nn.Conv2d(4, 2, 1)
            self.register_buffer("table", torch.zeros(2, 3, dtype=torch.int64))

        def forward(self, x):
            skip = self.down(x)
            x = self.up(self.bottom(torch.nn.functional.max_pool2d(skip, 2)))
            return self.logits(torch.cat((skip, x), 1))

    checkpoint = network()
    path = written(tmp_path / name, checkpoint)
    theirs = Theirs()
    state = torch.load(path, weights_only=True) if name == "a.pt" else load_file(path)
    theirs.load_state_dict(state, strict=True)
    assert list(theirs.state_dict()) == list(checkpoint.config.tensors)
    x = torch.rand(2, 3, 8, 12)
    ours = from_checkpoint(checkpoint)
    assert torch.allclose(theirs.eval()(x), ours(x), atol=1e-6)
    assert (theirs.train()(x) - ours(x)).abs().max() > 1e-3, "the control: training mode answers otherwise"
    for key, value in checkpoint.tensors.items():
        assert state[key].numpy().tobytes() == value.tobytes()


def test_a_tensor_with_two_names_stays_one_in_torch(tmp_path):
    torch = pytest.importorskip("torch")
    import unet_torch

    unet_torch.save(unet_torch.load(written(tmp_path / "a.pt", network())), tmp_path / "b.pt")
    model = unet_torch.load(tmp_path / "b.pt")
    assert "down.all.0.weight" in model.state_dict()
    with torch.no_grad():
        model.get_parameter("down.1.weight").mul_(2)
    unet_torch.save(model, tmp_path / "c.pt")
    state = torch.load(tmp_path / "c.pt", weights_only=True)
    assert torch.equal(state["down.all.0.weight"], state["down.1.weight"])
    np.testing.assert_array_equal(
        read(tmp_path / "c.pt").tensors["down.1.weight"], 2 * network().tensors["down.1.weight"]
    )


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_two_tensors_under_two_names_of_one_are_refused(tmp_path, name):
    def apart(tensors):
        tensors["down.all.0.bias"] = tensors["down.all.0.bias"] + 1

    path = written(tmp_path / name, network())
    if name == "a.pt":
        torch = pytest.importorskip("torch")
        state = torch.load(path, weights_only=True)
        apart(state)
        torch.save(state, path)
    else:
        tamper(path, lambda record, tensors: apart(tensors))
    with pytest.raises(CheckpointError, match=r"is one tensor in the network, but two here: down.all.0.bias"):
        read(path)


def tamper(path, change):
    """Change the record and the tensors of a `.safetensors` file."""
    from safetensors.numpy import load_file, save_file

    with safetensors_file._opened(path) as file:
        metadata = file.metadata()
    record, tensors = json.loads(metadata[RECORD_KEY]), load_file(path)
    change(record, tensors)
    save_file(tensors, path, metadata={**metadata, RECORD_KEY: json.dumps(record)})


@pytest.mark.parametrize("name", FILES)
def test_a_changed_tensor_is_found(tmp_path, name):
    checkpoint, other = network(), network(seed=1)
    path = written(tmp_path / name, checkpoint)
    if name == "a":
        (tmp_path / "other").mkdir()
        shutil.rmtree(path / "state")
        shutil.copytree(written(tmp_path / "other" / name, other) / "state", path / "state")
    elif name == "a.pt":
        torch = pytest.importorskip("torch")
        state = torch.load(path, weights_only=True)
        state["up.bias"] += 1
        torch.save(state, path)
    else:
        tamper(path, lambda record, tensors: tensors.update({"up.bias": tensors["up.bias"] + 1}))
    with pytest.raises(CheckpointError, match=r"the file is damaged: the sha256 of .*(up.bias|in all).* is not"):
        read(path)


def deep(record):
    """Sizes that grow with every node, and beyond all bounds."""
    nodes = record["graph"]["nodes"]
    for number in range(5000):
        before = nodes[-1]["name"]
        attributes = {"mode": "nearest", "scale": [1.5, 1.5]}
        nodes.append({"name": f"n{number}", "operation": "interpolate", "inputs": [before], "attributes": attributes})


def wide(record):
    nodes = record["graph"]["nodes"]
    for number in range(5000):
        before = nodes[-1]["name"]
        nodes.append(
            {"name": f"n{number}", "operation": "tile", "inputs": [before], "attributes": {"times": ["height + width"]}}
        )


DAMAGES = {
    "no operation": (lambda record: record["graph"]["nodes"][0].update(operation="exec"), "there is no operation exec"),
    "no node": (lambda record: record["graph"]["nodes"][1].update(inputs=["gone"]), "takes gone, which is not there"),
    "no tensor": (lambda record: record["graph"]["tensors"].pop("up.bias"), "takes up.bias, which is not there"),
    "no sizes": (lambda record: record["graph"].pop("sizes"), "the graph is damaged"),
    "no graph": (lambda record: record.update(graph=[1]), "the graph is damaged"),
    "a module": (lambda record: record["graph"]["tensors"].update(up=[[1], "buffer"]), "tensor up: no module has one"),
    "another shape": (
        lambda record: record["graph"]["tensors"].update({"unused.bias": [[3], "parameter"]}),
        "unused.bias is 2, not 3",
    ),
    "one more": (lambda record: record["graph"]["tensors"].update(more=[[10**15], "buffer"]), "missing: more"),
    "deep": (deep, "a size of more than"),
    "wide": (wide, "a size of more than"),
    "too long": (lambda record: record.update(more="x" * 20_000_000), "a trap"),
}


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        pytest.param(name, damage, marks=pytest.mark.slow if (name, damage) == ("a.safetensors", "wide") else ())
        for name in ("a.safetensors", "a")
        for damage in DAMAGES
        if (name, damage) != ("a.safetensors", "too long")  # safetensors itself refuses a header of that length
    ],
)
def test_a_damaged_graph_is_refused_in_one_line_and_at_once(tmp_path, name, damage):
    change, message = DAMAGES[damage]
    path = written(tmp_path / name, network())
    if name == "a":
        file = path / "metadata" / "metadata"
        record = json.loads(json.loads(file.read_text())[RECORD_KEY])
        change(record)
        file.write_text(json.dumps({RECORD_KEY: json.dumps(record)}))
    else:
        tamper(path, lambda record, _: change(record))
    began = time.monotonic()
    with pytest.raises(CheckpointError) as error:
        read(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize(
    ("name", "message"),
    [("a..b", "no module has one"), ("a." * 200 + "b", "no module has one"), ("x" * 2000, "no module has one")],
)
def test_a_name_that_no_module_has_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(small(), tensors={**small().tensors, name: Tensor((1,), "buffer")})


@pytest.mark.parametrize("name", FILES)
def test_inspect_tells_what_it_is(tmp_path, name):
    checkpoint = network()
    found = inspect(written(tmp_path / name, checkpoint))
    assert found.config == checkpoint.config
    assert (found.sound, found.config_stored, found.digests) == (True, True, True)
    assert found.problems == ()
    assert found.batches_tracked == int(checkpoint.tensors["down.1.num_batches_tracked"])
    assert Graph.from_dict(json.loads(found.to_json())["config"]) == checkpoint.config


def test_oddities_are_told_of_what_is_there():
    from unet_core.checkpoints.soundness import oddities

    tensors = trained(small())
    assert not list(oddities(tensors, config=small()))
    low = {**tensors, "down.1.bias": np.full(4, -100, np.float32)}
    assert list(oddities(low, config=small())) == ["dead channels, whose ReLU never fires: down.1 4 of 4"]
    leaky = [
        dataclasses.replace(node, operation="leaky_relu", attributes={"slope": 0.01})
        if node.operation == "relu"
        else node
        for node in small().nodes
    ]
    assert not list(oddities(low, config=dataclasses.replace(small(), nodes=tuple(leaky))))
    unnormalised = {name: value for name, value in tensors.items() if "down.1" not in name}
    assert not list(oddities(unnormalised, config=small())), "there is no BatchNorm that could be untrained"


# JAX's names


def test_the_description_decides_what_names_mean():
    """A graph may have the very names of this project's family: then nothing is transposed."""
    pytest.importorskip("jax")
    from unet_jax.canonical import translate

    tensors = trained_tensors(TINY)
    same, other = (translate(tensors, "jax", config) for config in (graph(TINY), TINY))
    assert list(same) == list(tensors)
    assert same["down1.conv.0.weight"] is tensors["down1.conv.0.weight"]
    assert other["down1.conv.0.weight"].shape == tensors["down1.conv.0.weight"].shape


def test_an_orbax_directory_of_such_a_graph_is_read_by_its_record(tmp_path):
    checkpoint = Checkpoint(graph(TINY), trained_tensors(TINY), evidence=CODE)
    assert_same(read(written(tmp_path / "a", checkpoint)), checkpoint)


def test_names_that_jax_has_taken_are_changed_there_and_come_back():
    pytest.importorskip("jax")
    from unet_jax.canonical import translate

    tensors = trained(small())
    there = translate(tensors, "jax", small())
    assert set(there) - set(tensors) == {"logits_.weight", "logits_.bias"}
    assert list(translate(there, "torch", small())) == list(tensors)


def test_what_is_not_of_the_graph_and_what_is_missing_are_listed():
    pytest.importorskip("jax")
    from unet_jax.canonical import translate

    tensors = trained(small())
    tensors["more"] = tensors.pop("up.bias")
    with pytest.raises(CheckpointError, match=r"not of it: more; missing: up.bias"):
        translate(tensors, "jax", small())
    with pytest.raises(CheckpointError, match=r"not of it: down.all.0.weight; missing: none"):
        translate({"down.all.0.weight": tensors["down.1.weight"]}, "jax", small(), whole=False)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("table", np.array([[2**31]]), "table is 2147483648; JAX counts from -2147483648 to 2147483647"),
        ("down.1.num_batches_tracked", np.array(-1), "num_batches_tracked is -1; JAX counts from 0 to 2147483647"),
        ("table", np.zeros((2, 3), np.int32), "table is int32, which would come back from JAX as int64"),
    ],
)
def test_integers_that_would_not_come_back_are_refused(key, value, message):
    pytest.importorskip("jax")
    from unet_jax.canonical import translate

    with pytest.raises(CheckpointError, match=message):
        translate({key: value}, "jax", small(), whole=False)


def test_a_model_in_jax_gives_back_what_it_was_given(tmp_path):
    pytest.importorskip("jax")
    import unet_jax
    from unet_jax.checkpoint import from_checkpoint, to_checkpoint

    checkpoint = network()
    model = from_checkpoint(checkpoint)
    assert not model.training
    assert_same(to_checkpoint(model), checkpoint)
    for name in ("a", "a.safetensors"):
        unet_jax.save(model, tmp_path / name)
        assert_same(to_checkpoint(unet_jax.load(tmp_path / name)), checkpoint)


def test_param_dtype_is_for_parameters_alone():
    pytest.importorskip("jax")
    import jax.numpy as jnp

    from unet_jax.checkpoint import from_checkpoint, to_checkpoint

    checkpoint = network(dtype=np.float64)
    with pytest.raises(CheckpointError, match="the weights are float64, which JAX rounds"):
        from_checkpoint(checkpoint)
    found = to_checkpoint(from_checkpoint(checkpoint, param_dtype=jnp.float32)).tensors
    assert found["up.weight"].dtype == np.float32
    np.testing.assert_array_equal(found["table"], checkpoint.tensors["table"])
    assert found["table"].dtype == np.int64


def test_the_sizes_that_it_takes_are_kept(tmp_path):
    only = small(sizes=Sizes(only=((8, 8), (10, 12))))
    found = read(written(tmp_path / "a.safetensors", network(only)))
    assert found.config.sizes == only.sizes
