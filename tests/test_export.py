"""Networks exported as files of other tools: run there, proven before they get their names, described inside."""

import dataclasses
import json
import zipfile

import numpy as np
import pytest
from conftest import TINY, few, trained_tensors
from graphs import small, trained

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("flatbuffers")
pytest.importorskip("jax")

import conversion
from conversion.exports import onnx_file, stablehlo
from conversion.exports.deployment import metadata, read_source
from conversion.exports.programs import fresh
from conversion.proof.certificate import read_certificate
from unet_cli.main import main
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.checkpoints.evidence import Evidence
from unet_core.data.formats.reading import Pictures
from unet_core.data.labels import Classes
from unet_core.graph import Node
from unet_core.prediction.metrics import decided
from unet_core.prediction.predictions import probable

CODE = Evidence("code", "their.unet:Net")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "a.safetensors"
    safetensors_file.write(path, Checkpoint(TINY, trained_tensors(TINY)))
    return path


def with_graph(path, graph):
    safetensors_file.write(path, Checkpoint(graph, trained(graph), evidence=CODE))
    return path


def ran(path, x):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": np.moveaxis(x, -1, 1)})[0]


SMALL = dataclasses.replace(TINY, features=(2, 3))


def logits_of(path, x):
    import jax
    import jax.numpy as jnp

    import unet_jax

    return np.asarray(jax.jit(unet_jax.load(path).logits)(jnp.asarray(x)))


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).standard_normal((2, 21, 18, 3), np.float32)


@pytest.mark.parametrize("answer", few(["network", "logits", "probabilities", "classes"], "probabilities", "classes"))
def test_onnxruntime_answers_what_is_asked_for(checkpoint, tmp_path, picture, answer):
    done = conversion.export(checkpoint, tmp_path / "a.onnx", answer=answer)
    assert done.proof is not None
    assert len({sample.shape[1:3] for sample in done.proof.inputs}) == 3
    logits = logits_of(checkpoint, picture)
    if answer == "classes":
        assert (ran(done.dst, picture) == decided(logits, TINY.output)).mean() > 0.999
        return
    expected = logits if answer == "logits" else probable(logits, TINY.output)
    np.testing.assert_allclose(np.moveaxis(ran(done.dst, picture), 1, -1), expected, atol=1e-5)


def test_batch_norm_is_folded_and_sizes_are_free(checkpoint, tmp_path):
    model = onnx.load(conversion.export(checkpoint, tmp_path / "a.onnx", verify=False).dst)
    assert not [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, "height", "width"]


def test_a_graph_that_was_read_from_code_is_written_too(tmp_path):
    source = with_graph(tmp_path / "a.safetensors", small(rate=0.2, output="softmax"))
    done = conversion.export(source, tmp_path / "a.onnx")
    assert done.proof.evidence == CODE
    assert read_certificate(tmp_path / "a.onnx.certificate.json").destination.framework == "onnxruntime"


def test_a_stablehlo_program_is_opened_by_jax_alone(tmp_path, picture):
    """For any number of pictures; the certificate tells of float64 as well."""
    checkpoint = tmp_path / "small.safetensors"
    safetensors_file.write(checkpoint, Checkpoint(SMALL, trained_tensors(SMALL)))
    done = conversion.export(checkpoint, tmp_path / "a.stablehlo", size=(21, 18), platforms=["cpu", "tpu"])
    assert {check.precision for check in done.proof.checks} == {"float64", "float32"}
    script = stablehlo.LOADER + (
        f"model, about = load({str(done.dst)!r})\n"
        "found = {'answer': np.asarray(model(given['x'])), 'about': np.array(json.dumps(about))}\n"
    )
    found = fresh(script, x=picture[:1])
    expected = probable(logits_of(checkpoint, picture[:1]), TINY.output)
    np.testing.assert_allclose(found["answer"], expected, atol=1e-5)
    about = json.loads(str(found["about"]))
    assert about["input"]["layout"] == "NHWC"
    assert about["input"]["size"] == [21, 18]
    assert about["input"]["platforms"] == ["cpu", "tpu"]
    assert main(["verify", "--certificate", f"{done.dst}.certificate.json", str(checkpoint), str(done.dst)]) == 0
    with zipfile.ZipFile(done.dst, "a") as file:
        file.writestr("more", b"")
    assert main(["verify", "--certificate", f"{done.dst}.certificate.json", str(checkpoint), str(done.dst)]) == 1


def changed(source, name):
    """The source with one weight a little larger."""
    checkpoint = source.checkpoint
    value = checkpoint.tensors[name].copy()
    value.flat[0] += 1e-3
    found = dataclasses.replace(checkpoint, tensors={**checkpoint.tensors, name: value})
    return dataclasses.replace(source, opened=dataclasses.replace(source.opened, checkpoint=found))


def with_corners_flipped(source):
    checkpoint = source.checkpoint
    found = dataclasses.replace(
        checkpoint, config=dataclasses.replace(checkpoint.config, align_corners=not checkpoint.config.align_corners)
    )
    return dataclasses.replace(source, opened=dataclasses.replace(source.opened, checkpoint=found))


@pytest.mark.parametrize(
    "harm", [lambda source: changed(source, "out.weight"), with_corners_flipped], ids=["weight", "corners"]
)
def test_a_file_that_answers_otherwise_gets_no_name(checkpoint, tmp_path, monkeypatch, harm):
    """The control."""
    write = onnx_file.write
    monkeypatch.setattr(onnx_file, "write", lambda path, source, answer: write(path, harm(source), answer))
    with pytest.raises(conversion.DifferentError, match="not written: the networks differ: eval logits"):
        conversion.export(checkpoint, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_what_is_written_describes_what_predict_does(checkpoint, tmp_path):
    known = Classes((0, 0xFF0000, 0x00FF00), coloured=True, names=("x", "y", "z"))
    source = dataclasses.replace(read_source(checkpoint), known=known)
    about = metadata(source, "classes", "NCHW")
    assert about["input"]["colours"] == "RGB"
    assert about["divide_by"] == {"uint8": 255, "uint16": 65535, "float32": 1}
    assert about["classes"][1] == {"class": 1, "name": "y", "colour": "#ff0000"}
    window = dataclasses.replace(source.checkpoint.origin, pictures=Pictures(window=(-160, 240)))
    opened = dataclasses.replace(source.opened, checkpoint=dataclasses.replace(source.checkpoint, origin=window))
    scaled = metadata(dataclasses.replace(source, opened=opened), "classes", "NCHW")
    assert (scaled["window"], "divide_by" in scaled, "window" in about) == ([-160, 240], False, False)
    onnx_file.write(tmp_path / "a.onnx", source, "classes")
    (kept,) = onnx.load(tmp_path / "a.onnx").metadata_props
    assert json.loads(kept.value) == about


def test_what_onnx_has_no_form_for_is_named(tmp_path, capsys):
    graph = small()
    last = Node("drawn", "dropout", (graph.nodes[-1].name,), attributes={"rate": 0.5, "always": True})
    source = with_graph(tmp_path / "a.safetensors", dataclasses.replace(graph, nodes=(*graph.nodes, last)))
    assert main(["export", str(source), str(tmp_path / "a.onnx")]) == 2
    assert "ONNX has no form for dropout that drops at random" in capsys.readouterr().err
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.tflite"], "its suffix, .tflite, is that of no format (.onnx, .stablehlo"),
        (["a"], "its suffix, none, is that of no format"),
        (["a.onnx", "--to", "stablehlo"], "its suffix says onnx, --to stablehlo"),
        (["a.stablehlo"], "a StableHLO program is of one size: say --size HxW"),
        (["a.stablehlo", "--size", "3x300"], "--size 3x300: an input of 3x300"),
        (["a.stablehlo", "--size", "32x32", "--platforms", "cpu,abacus"], "give some of cpu, cuda, rocm, tpu"),
        (["a.stablehlo", "--size", "32x32", "--batch", "0"], "--batch 0: give a whole number from 1 up"),
        (["a.onnx", "--batch", "2"], "onnx takes all that the network takes"),
        (["a.onnx", "--platforms", "tpu"], "onnx takes all that the network takes"),
        (["a.safetensors", "--to", "flax"], "a.safetensors: its suffix is a checkpoint's"),
        (["there.onnx"], "exists already; give another name, or --force"),
        (["no/a.onnx"], "does not exist; make it first"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(checkpoint, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").write_text("mine")
    assert main(["export", str(checkpoint), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]
    assert (tmp_path / "there.onnx").read_text() == "mine"


@pytest.mark.parametrize(
    ("blocked", "message"),
    [("onnx", "needs onnx, which is not installed"), ("onnxruntime", "or export without the proof: --no-verify")],
)
def test_a_package_that_is_missing_is_named(checkpoint, tmp_path, monkeypatch, capsys, blocked, message):
    monkeypatch.setitem(__import__("sys").modules, blocked, None)
    assert main(["export", str(checkpoint), str(tmp_path / "a.onnx")]) == 2
    assert message in capsys.readouterr().err


def test_where_no_run_tells_the_classes_are_numbers(checkpoint):
    source = read_source(checkpoint)
    assert source.classes == [{"class": number, "value": number} for number in range(3)]
