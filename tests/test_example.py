"""Recorded examples: files that are none, what they show of a network, and how near an answer must be."""

import re

import numpy as np
import pytest

from unet_cli.main import main
from unet_core import CheckpointError, MissingFrameworkError, UNetError

torch = pytest.importorskip("torch")

from foreign_unets import AttributeUNet, FlatUNet, ListedUNet, Milesial2019, trained

from conversion.code import Known, build
from conversion.containers import opened
from conversion.proof import example

pytestmark = pytest.mark.usefixtures("one_thread")

GENERIC = {
    "module lists": (ListedUNet, 3, {"skip_first": True, "output": "logits"}),
    "flat names": (FlatUNet, 1, {"skip_first": False, "output": "softmax", "align_corners": False}),
    "attributes": (AttributeUNet, 3, {"skip_first": False, "output": "sigmoid"}),
}
"""Networks under names that no table has; the channels of their pictures; and what their code does."""


def recorded(model, path, shape=(2, 3, 40, 48), dtype=np.float32, change=lambda answer: answer):
    """Weights, and what the model answers to random numbers."""
    torch.save(model.state_dict(), path.with_suffix(".pt"))
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    with torch.no_grad():
        answer = model.to(torch.from_numpy(x).dtype)(torch.from_numpy(x)).numpy()
    np.savez(path.with_suffix(".npz"), input=x, output=change(answer))
    return path.with_suffix(".pt"), path.with_suffix(".npz")


@pytest.mark.parametrize("name", GENERIC)
def test_what_no_name_tells_is_found(tmp_path, name):
    make, channels, told = GENERIC[name]
    weights, pair = recorded(trained(make()), tmp_path / "a", (1, channels, 40, 48))
    found = opened(weights, Known(example=pair)).checkpoint
    assert {key: getattr(found.config, key) for key in told} == told
    assert found.evidence.by == "example"
    assert found.reading.unknown == ()


def test_odd_sizes_tell_how_maps_are_made_to_fit(tmp_path):
    weights, pair = recorded(trained(ListedUNet()), tmp_path / "a", (1, 3, 43, 51))
    config = opened(weights, Known(example=pair)).checkpoint.config
    assert (config.fit, config.align_corners) == ("resize", False)


def test_a_question_of_a_known_project_is_answered(tmp_path):
    weights, pair = recorded(trained(Milesial2019(3, 1, width=4)), tmp_path / "a", (1, 3, 32, 48))
    with pytest.raises(UNetError, match="nothing in it tells output"):
        opened(weights)
    found = opened(weights, Known(example=pair)).checkpoint
    assert (found.config.output, found.origin.dialect) == ("sigmoid", "milesial-2019")


def test_what_a_person_says_is_not_tried_otherwise(tmp_path):
    weights, pair = recorded(trained(AttributeUNet()), tmp_path / "a")
    with pytest.raises(CheckpointError, match="none answers what a"):
        opened(weights, Known(example=pair, output="logits"))


def test_an_example_that_leaves_a_question_open_is_refused(tmp_path):
    model = trained(AttributeUNet())
    with torch.no_grad():
        model.outputs.weight.zero_()
    weights, pair = recorded(model, tmp_path / "a")
    with pytest.raises(CheckpointError, match="does not tell skip_first: record the answer to random numbers"):
        opened(weights, Known(example=pair))


@pytest.mark.parametrize(
    ("dtype", "off", "ok"),
    [
        (np.float32, 3e-7, True),
        pytest.param(np.float32, 3e-5, False, marks=pytest.mark.slow),
        pytest.param(np.float64, 1e-15, True, marks=pytest.mark.slow),
        (np.float64, 1e-10, False),
    ],
)
def test_the_answer_may_be_off_by_rounding_and_no_more(tmp_path, dtype, off, ok):
    weights, pair = recorded(trained(AttributeUNet()), tmp_path / "a", dtype=dtype, change=lambda y: y * dtype(1 + off))
    if ok:
        assert opened(weights, Known(example=pair)).checkpoint.evidence.by == "example"
    else:
        with pytest.raises(CheckpointError, match="off, where rounding explains"):
            opened(weights, Known(example=pair))


def test_the_code_is_held_against_the_example_too(tmp_path):
    code = tmp_path / "leaky.py"
    code.write_text(
        "from torch import nn\n"
        "def make(slope): return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.LeakyReLU(slope), nn.Conv2d(4, 2, 1))"
    )
    model = build(Known(module=f"{code}:make", kwargs={"slope": 0.1}))
    weights, pair = recorded(model, tmp_path / "a")
    known = {"module": f"{code}:make", "kwargs": {"slope": 0.1}}
    evidence = opened(weights, Known(**known, example=pair)).checkpoint.evidence
    assert evidence.by == "code"
    assert "; a.npz: 40x48, " in evidence.detail
    model[1].negative_slope = 0.2
    _, other = recorded(model, tmp_path / "b")
    with pytest.raises(CheckpointError, match=r"leaky.py:make: answers otherwise than b.npz says: .* off"):
        opened(weights, Known(**known, example=other))


X, Y = np.zeros((1, 3, 32, 32), np.float32), np.zeros((1, 2, 32, 32), np.float32)
BAD = {
    "no file": (None, "no such file"),
    "text": (lambda path: path.write_text("input"), "is no sound .npz"),
    "cut off": (
        lambda path: (np.savez(path, input=X, output=Y), path.write_bytes(path.read_bytes()[:900])),
        "is no sound",
    ),
    "one array": (
        lambda path: (np.save(path.with_suffix(".npy"), X), path.with_suffix(".npy").rename(path)),
        "is one array, no .npz",
    ),
    "no output": (lambda path: np.savez(path, input=X, y=Y), "has no array output; it has: input, y"),
    "pickled": (
        lambda path: np.savez(path, input=np.array([{}], object), output=Y),
        "is no sound .npz of plain arrays",
    ),
    "integers": (lambda path: np.savez(path, input=X.astype(np.uint8), output=Y), "uint8 of 1x3x32x32, is not float32"),
    "half": (
        lambda path: np.savez(path, input=X, output=Y.astype(np.float16)),
        "float16 of .* is not float32 or float64",
    ),
    "one picture": (lambda path: np.savez(path, input=X[0], output=Y), "is not NCHW"),
    "NaN": (lambda path: np.savez(path, input=X, output=Y * np.nan), "its output, .* has values that are not finite"),
    "another batch": (lambda path: np.savez(path, input=X, output=np.concatenate((Y, Y))), "are not of one network"),
    "empty": (lambda path: np.savez(path, input=X[:0], output=Y[:0]), "is not NCHW"),
    "other channels in": (
        lambda path: np.savez(path, input=X[:, :1], output=Y),
        "is not for this network: .*1 channels",
    ),
    "other channels out": (
        lambda path: np.savez(path, input=X, output=Y[:, :1]),
        "answers 2 channels, but in .* are 1",
    ),
    "too small": (lambda path: np.savez(path, input=X[..., :2], output=Y[..., :2]), "is not for this network"),
    "three dimensions": (lambda path: np.savez(path, input=X[..., None], output=Y[..., None]), "takes 2 dimensions"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_example_is_refused_in_one_line(tmp_path, capsys, name):
    make, message = BAD[name]
    torch.save(trained(AttributeUNet()).state_dict(), tmp_path / "a.pt")
    path = tmp_path / "pair.npz"
    if make is not None:
        make(path)
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "b"), "--example", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(message, err), err


def test_it_runs_in_jax_where_pytorch_is_not_installed(tmp_path, monkeypatch):
    pytest.importorskip("jax")
    weights, pair = recorded(trained(AttributeUNet()), tmp_path / "a", (1, 3, 8, 12))
    run, frameworks = example.runner_of_checkpoint, []

    def without_torch(network, framework, source):
        frameworks.append(framework)
        if framework == "torch":
            raise MissingFrameworkError("no PyTorch")
        return run(network, framework, source)

    monkeypatch.setattr(example, "runner_of_checkpoint", without_torch)
    said = {"skip_first": False, "output": "sigmoid"}
    assert opened(weights, Known(example=pair, **said)).checkpoint.evidence.by == "example"
    assert set(frameworks) == {"torch", "jax"}
