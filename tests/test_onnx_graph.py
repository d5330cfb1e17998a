"""ONNX files as networks: every row against onnxruntime, what exporters write, and files that are none."""

import json

import numpy as np
import pytest
from conftest import TINY, trained_tensors

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array

from conversion.sources.onnx_graph import file, reading, rows
from conversion.sources.onnx_graph.reading import Session
from conversion.sources.onnx_graph.translation import translated
from unet_cli.main import main
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.foreign.onnx_file import model_at
from unet_core.errors import UNetError
from unet_torch.execution import execute

RNG = np.random.default_rng(0)
VECTOR = RNG.uniform(0.5, 1.5, 4).astype(np.float32)
"""A number for each of the four channels of the pictures below."""


def program_of(path):
    return file.program_of(path, model_at(path))


def read(path):
    return reading.read(path, model_at(path))


def kernel(*shape):
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def ints(*numbers):
    return np.array(numbers, np.int64)


def saved(path, nodes, opset=17, shape=("n", 4, "h", "w"), channels=4, more=()):
    """A model of one picture `x` whose answer is `y`; arrays among a node's inputs become initialisers."""
    tensors, made = [], []
    for number, (kind, inputs, attributes) in enumerate(nodes):
        names = []
        for place, value in enumerate(inputs):
            if isinstance(value, str):
                names.append(value)
            else:
                names.append(f"layer{number}.t{place}")
                tensors.append(from_array(np.asarray(value), names[-1]))
        outputs = attributes.pop("outputs", ["y" if number == len(nodes) - 1 else f"v{number}"])
        made.append(make_node(kind, names, outputs, f"/node{number}", **attributes))
    inputs = [make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", *more)]
    outputs = [make_tensor_value_info("y", TensorProto.FLOAT, ("n", channels, "a", "b")[: len(shape)])]
    if len(shape) == 5:
        outputs = [make_tensor_value_info("y", TensorProto.FLOAT, ("n", channels, "a", "b", "c"))]
    graph = make_graph(made, "g", inputs, outputs, tensors)
    model = make_model(graph, opset_imports=[make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return path


def apart(path, sizes=((6, 8), (7, 5)), batch=2):
    """How far the graph of a file is from what onnxruntime makes of the file."""
    program, model = program_of(path)
    graph, tensors = translated(program)
    session = Session(model, program)
    worst = 0.0
    for size in sizes:
        x = np.random.default_rng(1).standard_normal((batch, *size, 4)).astype(np.float32)
        theirs = session.predict(x)
        given = {name: torch.from_numpy(value.copy()) for name, value in tensors.items()}
        with torch.no_grad():
            ours = execute(graph, given, torch.from_numpy(x).movedim(-1, 1)).answer.movedim(1, -1).numpy()
        assert ours.shape == theirs.shape
        worst = max(worst, float(np.abs(ours - theirs).max() / np.abs(theirs).max()))
    return worst


def one(kind, *inputs, **attributes):
    return [(kind, ["x", *inputs], attributes)]


CONV = kernel(4, 4, 3, 3)
SHAPE = ("Shape", ["x"], {})
CASES = {
    "Conv": one("Conv", CONV, VECTOR, pads=[1, 1, 1, 1]),
    "Conv, uneven": one("Conv", CONV, pads=[0, 1, 2, 1], strides=[2, 1], dilations=[1, 2]),
    "Conv, groups": one("Conv", kernel(4, 2, 3, 3), group=2),
    "Conv, SAME_UPPER": one("Conv", CONV, auto_pad="SAME_UPPER", strides=[2, 2]),
    "Conv, SAME_LOWER": one("Conv", CONV, auto_pad="SAME_LOWER", strides=[2, 3]),
    "ConvTranspose": one("ConvTranspose", kernel(4, 4, 2, 2), VECTOR, strides=[2, 2]),
    "ConvTranspose, padded": one(
        "ConvTranspose", CONV, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1], dilations=[1, 1]
    ),
    "BatchNormalization": one("BatchNormalization", VECTOR, VECTOR, VECTOR, VECTOR, epsilon=1e-3),
    "InstanceNormalization": one("InstanceNormalization", VECTOR, VECTOR, epsilon=1e-3),
    "GroupNorm of torch": [
        ("Reshape", ["x", ints(0, 2, -1)], {}),
        ("InstanceNormalization", ["v0", np.ones(2, np.float32), np.zeros(2, np.float32)], {}),
        SHAPE,
        ("Reshape", ["v1", "v2"], {}),
        ("Mul", ["v3", VECTOR.reshape(4, 1, 1)], {}),
    ],
    "LayerNormalization": [
        ("Transpose", ["x"], {"perm": [0, 2, 3, 1]}),
        ("LayerNormalization", ["v0", VECTOR, VECTOR], {"epsilon": 1e-3}),
        ("Transpose", ["v1"], {"perm": [0, 3, 1, 2]}),
    ],
    "MatMul": [
        ("Transpose", ["x"], {"perm": [0, 2, 3, 1]}),
        ("MatMul", ["v0", kernel(4, 4)], {}),
        ("Add", ["v1", VECTOR], {}),
        ("Transpose", ["v2"], {"perm": [0, 3, 1, 2]}),
    ],
    "squeeze and excitation": [
        ("GlobalAveragePool", ["x"], {}),
        ("Flatten", ["v0"], {}),
        ("Gemm", ["v1", kernel(4, 4), VECTOR], {"transB": 1}),
        ("Unsqueeze", ["v2", ints(2, 3)], {}),
        ("HardSigmoid", ["v3"], {}),
        ("Mul", ["x", "v4"], {}),
    ],
    "attention": [
        ("Reshape", ["x", ints(0, 4, -1)], {}),
        ("Transpose", ["v0"], {"perm": [0, 2, 1]}),
        ("MatMul", ["v1", "v0"], {}),
        ("Softmax", ["v2"], {"axis": -1}),
        ("MatMul", ["v0", "v3"], {}),
        SHAPE,
        ("Reshape", ["v4", "v5"], {}),
    ],
    "MaxPool": one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1),
    "AveragePool": one("AveragePool", kernel_shape=[3, 3], strides=[2, 1], pads=[1, 1, 1, 1]),
    "AveragePool, padding counts": one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
    "Resize, nearest": one(
        "Resize", "", np.float32([1, 1, 2, 3]), coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    ),
    "Resize, nearest by default": one("Resize", "", np.float32([1, 1, 2, 2])),
    "Resize, nearest exact": one("Resize", "", "", ints(2, 4, 9, 11), nearest_mode="round_prefer_ceil"),
    "Resize, linear": one("Resize", "", np.float32([1, 1, 1.5, 2]), mode="linear"),
    "Resize, corners": one(
        "Resize", "", "", ints(2, 4, 9, 11), mode="linear", coordinate_transformation_mode="align_corners"
    ),
    "Resize, cubic": one("Resize", "", np.float32([1, 1, 2, 2]), mode="cubic"),
    "Resize to the size of another map": [
        ("MaxPool", ["x"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        SHAPE,
        ("Slice", ["v1", ints(2), ints(4), ints(0)], {}),
        ("Shape", ["v0"], {}),
        ("Slice", ["v3", ints(0), ints(2), ints(0)], {}),
        ("Concat", ["v4", "v2"], {"axis": 0}),
        ("Resize", ["v0", "", "", "v5"], {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}),
    ],
    "a size by a factor": [
        SHAPE,
        ("Gather", ["v0", ints(2)], {}),
        ("Gather", ["v0", ints(3)], {}),
        ("Concat", ["v1", "v2"], {"axis": 0}),
        ("Cast", ["v3"], {"to": TensorProto.FLOAT}),
        ("Mul", ["v4", np.float32(1.5)], {}),
        ("Floor", ["v5"], {}),
        ("Cast", ["v6"], {"to": TensorProto.INT64}),
        ("Concat", [ints(2, 4), "v7"], {"axis": 0}),
        ("Resize", ["x", "", "", "v8"], {"mode": "linear"}),
    ],
    "Pad": one("Pad", ints(0, 0, 1, 2, 0, 0, 0, 1), np.float32(0.5)),
    "Pad, reflected": one("Pad", ints(0, 0, 1, 2, 0, 0, 0, 1), mode="reflect"),
    "Pad, repeated": one("Pad", ints(0, 0, 1, 2, 0, 0, 0, 1), mode="edge"),
    "padding by what is missing": [
        ("MaxPool", ["x"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Resize", ["v0", "", np.float32([1, 1, 2, 2])], {}),
        SHAPE,
        ("Shape", ["v1"], {}),
        ("Sub", ["v2", "v3"], {}),
        ("Concat", [ints(0, 0, 0, 0), "v4"], {"axis": 0}),
        ("Pad", ["v1", "v5"], {}),
        ("Add", ["x", "v6"], {}),
    ],
    "DepthToSpace": [*one("DepthToSpace", blocksize=2), ("Concat", ["v0"] * 4, {"axis": 1})],
    "DepthToSpace, CRD": [*one("DepthToSpace", blocksize=2, mode="CRD"), ("Concat", ["v0"] * 4, {"axis": 1})],
    "Split": [
        ("Split", ["x", ints(1, 3)], {"axis": 1, "outputs": ["a", "b"]}),
        ("Concat", ["b", "a"], {"axis": 1}),
    ],
    "Slice": one("Slice", ints(1, -3), ints(2**62, -1), ints(2, 3)),
    "Slice, backward": one("Slice", ints(-1), ints(-(2**62)), ints(3), ints(-1)),
    "Gather": one("Gather", ints(2, 0, 1, 3), axis=1),
    "Clip": one("Clip", np.float32(0), np.float32(0.5)),
    "PRelu": one("PRelu", VECTOR.reshape(4, 1, 1)),
    "x times its sigmoid": [*one("Sigmoid"), ("Mul", ["x", "v0"], {})],
    "Sub, from the left": [("Sub", [np.float32(1), "x"], {})],
    "Pow and Div": [*one("Pow", np.float32(2)), ("Div", ["v0", np.float32(3)], {})],
    "Where": [*one("Greater", np.float32(0)), ("Where", ["v0", "x", np.float32(0.1)], {})],
    "ReduceMean": [*one("ReduceMean", axes=[1], keepdims=1), ("Sub", ["x", "v0"], {})],
    **{name: one(name) for name in ("Relu", "LeakyRelu", "Elu", "Selu", "Tanh", "HardSwish", "Softplus", "Erf", "Neg")},
    **{name: one(name, axis=1) for name in ("Softmax", "LogSoftmax")},
}


@pytest.mark.parametrize("case", CASES)
def test_an_operation_is_what_onnxruntime_makes_of_it(tmp_path, case):
    nodes = [(kind, list(inputs), dict(attributes)) for kind, inputs, attributes in CASES[case]]
    path = saved(tmp_path / "a.onnx", nodes)
    assert apart(path) <= 1e-5


OLD = {
    "Upsample": (9, one("Upsample", np.float32([1, 1, 2, 2]), mode="nearest")),
    "Resize 10": (10, one("Resize", np.float32([1, 1, 2, 2]), mode="nearest")),
    "Pad 9": (9, one("Pad", pads=[0, 0, 1, 2, 0, 0, 0, 1], value=0.5)),
    "Slice 9": (9, one("Slice", axes=[2, 3], starts=[1, 0], ends=[2**31 - 1, -1])),
    "Clip 9": (9, one("Clip", min=0.0, max=6.0)),
    "Split 11": (11, [("Split", ["x"], {"axis": 1, "outputs": ["a", "b"]}), ("Concat", ["b", "a"], {"axis": 1})]),
    "Squeeze 11": (11, [*one("Unsqueeze", axes=[2]), ("Squeeze", ["v0"], {"axes": [2]})]),
    "ReduceMean 18": (18, [*one("ReduceMean", ints(2, 3)), ("Sub", ["x", "v0"], {})]),
    "GroupNormalization 21": (21, one("GroupNormalization", VECTOR, VECTOR, num_groups=2)),
    "Gelu 20": (20, one("Gelu", approximate="tanh")),
}


@pytest.mark.parametrize("case", OLD)
def test_versions_of_an_operation_differ(tmp_path, case):
    opset, nodes = OLD[case]
    nodes = [(kind, list(inputs), dict(attributes)) for kind, inputs, attributes in nodes]
    assert apart(saved(tmp_path / "a.onnx", nodes, opset)) <= 1e-5


UNREAD = {
    "operations without a row, all of them": (
        [*one("Lp"), ("ArgMax", ["v0"], {}), ("Relu", ["v1"], {})],
        "operations that a graph does not have: ArgMax, Lp",
    ),
    "a mode": (
        one("Resize", "", np.float32([1, 1, 2, 2]), mode="linear", coordinate_transformation_mode="asymmetric"),
        "asymmetric",
    ),
    "an attribute": (one("Relu", alpha=1.0), "with alpha=1.0"),
    "corners left out": (
        one("Resize", "", np.float32([1, 1, 2, 2]), mode="cubic", exclude_outside=1),
        "exclude_outside",
    ),
    "a cycle": (
        [("Add", ["x", "v1"], {}), ("Relu", ["v0"], {}), ("Relu", ["v1"], {})],
        "takes v1, which nothing before",
    ),
    "a name twice": ([*one("Relu"), ("Tanh", ["x"], {"outputs": ["v0"]}), ("Relu", ["v0"], {})], "v0 is made twice"),
    "a map without end": (
        [("Expand", ["x", ints(1, 4, 2**40, 2**40)], {})],
        "would have",
    ),
    "factors without end": (one("Resize", "", np.float32([1, 1, 2**20, 2**20])), "would have"),
    "a constant without end": (
        [("ConstantOfShape", [ints(2**20, 2**20)], {}), ("Add", ["x", "v0"], {})],
        "a constant of",
    ),
}


@pytest.mark.parametrize("case", UNREAD)
def test_what_is_not_read_is_said_in_one_line(tmp_path, capsys, case):
    nodes, why = UNREAD[case]
    nodes = [(kind, list(inputs), dict(attributes)) for kind, inputs, attributes in nodes]
    path = saved(tmp_path / "a.onnx", nodes)
    assert main(["convert", str(path), str(tmp_path / "b.pt")]) == 2
    said = capsys.readouterr().err.strip()
    assert why in said
    assert "\n" not in said
    assert [one.name for one in tmp_path.iterdir()] == ["a.onnx"]


def edited(change):
    def make(folder):
        path = saved(folder / "a.onnx", one("Conv", CONV))
        model = onnx.load(path)
        change(model)
        path.write_bytes(model.SerializeToString())
        return path

    return make


def elsewhere(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")


BAD = {
    "data elsewhere": (edited(elsewhere), "does not lie beside it"),
    "dims that lie": (edited(lambda model: model.graph.initializer[0].dims.__setitem__(0, 2**50)), "claim"),
    "a tensor twice": (edited(lambda model: model.graph.initializer.append(model.graph.initializer[0])), "two tensors"),
    "another opset": (edited(lambda model: setattr(model.opset_import[0], "version", 900)), "version 900"),
    "no output": (edited(lambda model: model.graph.ClearField("output")), "answers 0 tensors"),
    "two pictures": (
        lambda folder: saved(folder / "a.onnx", one("Add", "z"), more=["z"]),
        "takes x, z, not one picture",
    ),
    "rows": (lambda folder: saved(folder / "a.onnx", one("Relu"), shape=("n", 4)), "not a batch of pictures"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused(tmp_path, case):
    make, why = BAD[case]
    with pytest.raises(UNetError, match=why):
        read(make(tmp_path))


def test_a_file_that_is_cut_off_is_refused(tmp_path):
    whole = saved(tmp_path / "a.onnx", [*one("Conv", CONV, VECTOR), ("Relu", ["v0"], {})]).read_bytes()
    for length in range(1, len(whole), 13):
        (tmp_path / "a.onnx").write_bytes(whole[:length])
        with pytest.raises(UNetError):
            program_of(tmp_path / "a.onnx")


def small(path, **changed):
    """Two convolutions, a pool, and a map that goes back to the picture's size."""
    resize = {"mode": "linear", "coordinate_transformation_mode": "half_pixel", **changed}
    rng = np.random.default_rng(2)
    first, second = (rng.standard_normal((4, 4, 3, 3)).astype(np.float32) / 6 for _ in range(2))
    nodes = [
        ("Conv", ["x", first, VECTOR], {"pads": [1, 1, 1, 1]}),
        ("LeakyRelu", ["v0"], {}),
        ("MaxPool", ["v1"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Resize", ["v2", "", np.float32([1, 1, 2, 2])], resize),
        ("Add", ["v1", "v3"], {}),
        ("Conv", ["v4", second], {"pads": [1, 1, 1, 1]}),
    ]
    return saved(path, nodes)


def test_the_sizes_are_found_by_trying(tmp_path):
    found = read(small(tmp_path / "a.onnx"))
    assert str(found.config.sizes) == "multiples of 2 from 2 up"
    assert list(found.tensors) == ["layer0.t1", "layer0.t2", "layer5.t1"]
    assert found.evidence.by == "code"
    assert found.evidence.source.startswith("a.onnx, sha256 ")
    assert "float32, eval mode alone" in found.evidence.detail
    assert found.evidence.eval_alone


def test_fixed_sizes_are_the_only_ones(tmp_path):
    path = saved(tmp_path / "a.onnx", one("Reshape", ints(1, 4, 8, 12)), shape=(1, 4, 12, 8))
    found = read(path)
    assert str(found.config.sizes) == "12x8 alone"
    assert found.config.shapes["node0"][0] == found.config.shapes["input"][0]


@pytest.mark.parametrize(
    ("operation", "change"),
    [
        ("LeakyRelu", lambda w, at, x: w.add("leaky_relu", x, slope=at("alpha", 0.01) + 0.001)),
        ("Resize", lambda w, at, x, *_: w.add("interpolate", x, mode="linear", scale=(2.0, 2.0), align_corners=True)),
    ],
)
def test_a_row_that_does_otherwise_is_found(tmp_path, monkeypatch, capsys, operation, change):
    """The negative control."""

    def row(w, at, *given):
        at("mode"), at("coordinate_transformation_mode")
        return change(w, at, *given)

    monkeypatch.setitem(rows.ROWS, operation, row)
    path = small(tmp_path / "a.onnx")
    assert main(["convert", str(path), str(tmp_path / "b.pt")]) == 2
    assert "answers otherwise than the file" in capsys.readouterr().err
    assert not (tmp_path / "b.pt").exists()


@pytest.mark.slow
def test_a_file_whose_attribute_was_changed_is_another_network(tmp_path, capsys):
    pytest.importorskip("jax")
    path = small(tmp_path / "a.onnx")
    assert main(["convert", str(path), str(tmp_path / "b.pt")]) == 0
    assert main(["verify", str(path), str(tmp_path / "b.pt")]) == 0
    other = small(tmp_path / "other.onnx", coordinate_transformation_mode="align_corners")
    assert main(["verify", str(other), str(tmp_path / "b.pt")]) == 1


def test_what_is_exported_here_comes_back(tmp_path, capsys):
    source = tmp_path / "a.safetensors"
    safetensors_file.write(source, Checkpoint(TINY, trained_tensors(TINY)))
    assert main(["export", str(source), str(tmp_path / "a.onnx"), "--no-verify"]) == 0
    found = read(tmp_path / "a.onnx")
    x = torch.randn(2, 3, 21, 18, dtype=torch.float64)
    from unet_torch import load

    own = load(source).double().eval()
    tensors = {name: torch.from_numpy(value.copy()).double() for name, value in found.tensors.items()}
    with torch.no_grad():
        ours, theirs = execute(found.config, tensors, x).answer, own(x)
    assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()  # folded weights are rounded to float32
    capsys.readouterr()
    assert main(["inspect", str(tmp_path / "a.onnx"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["next"] == f"unet convert {tmp_path / 'a.onnx'} a_jax"


def test_tensors_in_a_file_beside_it_are_read(tmp_path):
    path = small(tmp_path / "a.onnx")
    inside = read(path).tensors
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="a.data", size_threshold=0)
    assert {name: value.tobytes() for name, value in read(path).tensors.items()} == {
        name: value.tobytes() for name, value in inside.items()
    }


PUBLIC = ("monai.BasicUNet", "nnunet.PlainConvUNet", "smp.Unet-resnet34")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dynamo", [False, True], ids=["legacy", "dynamo"])
@pytest.mark.parametrize("name", ["unet", *(pytest.param(name, marks=pytest.mark.long) for name in PUBLIC)])
def test_what_torch_exports_is_the_same_network(tmp_path, name, dynamo):
    """In float64 beside the module as well, but for weights that were rounded when BatchNorm was folded into them."""
    module, channels = exported(tmp_path / "a.onnx", name, dynamo=dynamo)
    found = read(tmp_path / "a.onnx")
    x = torch.randn(2, channels, 96, 64, dtype=torch.float64)
    tensors = {name: torch.from_numpy(value.copy()).double() for name, value in found.tensors.items()}
    with torch.no_grad():
        ours, theirs = execute(found.config, tensors, x).answer, module.double()(x)
    folds = any(isinstance(part, torch.nn.BatchNorm2d) for part in module.modules())
    assert (ours - theirs).abs().max() <= (2e-6 if folds else 1e-13) * theirs.abs().max()


def exported(path, name, *, dynamo):
    """A module, exported with free sizes, and the channels of its picture."""
    from unet_torch.checkpoint import from_checkpoint

    if name == "unet":
        module, channels = from_checkpoint(Checkpoint(TINY, trained_tensors(TINY))).eval(), 3
    else:
        networks = pytest.importorskip("benchmarks.public_networks")
        pytest.importorskip(networks.NETWORKS[name].package)
        module, channels = networks.built(name), networks.NETWORKS[name].channels
    x = torch.randn(2, channels, 64, 96)
    if dynamo:
        pytest.importorskip("onnxscript")
        free = dict.fromkeys((0, 2, 3), torch.export.Dim.AUTO)
        torch.onnx.export(module, (x,), path, dynamo=True, dynamic_shapes=(free,), verbose=False)
    else:
        axes = {"x": {0: "n", 2: "h", 3: "w"}, "y": {0: "n", 2: "a", 3: "b"}}
        names = {"input_names": ["x"], "output_names": ["y"]}
        torch.onnx.export(module, (x,), path, dynamo=False, opset_version=17, dynamic_axes=axes, **names)
    return module, channels
