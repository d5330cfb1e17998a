"""`verify` passes the same network and names what is wrong with any other."""

import copy
import dataclasses
import functools
import json

import numpy as np
import pytest
from conftest import few, trained_tensors
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_cli.main import main
from unet_core import UNetConfig, UNetError
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.graph.initial import initial_tensors

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
pytest.importorskip("matplotlib")

import jax.numpy as jnp
from flax import nnx

import conversion
from conversion.backends.jax_backend import JaxRunner
from conversion.backends.pairs import paired
from conversion.diagnosis.forward import Scene, forward_cause
from conversion.diagnosis.nodes import network_of
from conversion.proof import checks as judgement
from conversion.proof.checks import EVAL, GRADIENTS, STATISTICS, TRAINING
from conversion.proof.verification import verify
from unet_jax.operations import OPERATIONS
from unet_torch import checkpoint as torch_file

CONFIG = UNetConfig(2, 2, (6, 8))
SIZE = (11, 13)


def in_torch(config=CONFIG, **changed):
    return torch_file.from_checkpoint(Checkpoint(config, {**trained_tensors(config), **changed}))


def changed_tensor(key, change):
    return {key: np.ascontiguousarray(change(trained_tensors(CONFIG)[key]))}


def variance(model):
    return dict(model.variables())["down1.conv.1.running_var"][...]


@pytest.fixture(scope="module")
def verified():
    """A network in both frameworks: how each was before it was verified, and is after it, and the proof."""
    model = in_torch()
    converted = conversion.to_jax(model)
    before = copy.deepcopy(model.state_dict()), np.array(variance(converted))
    proof = verify(model, converted, size=SIZE)
    return before, (model, converted), proof


def test_the_same_network_passes_in_both_frameworks(verified):
    _, _, proof = verified
    assert proof.equal, proof.verdict
    assert {check.quantity for check in proof.checks} == {EVAL, TRAINING, GRADIENTS, STATISTICS}
    assert {check.sample for check in proof.checks} == {"random 3x11x13", "grace_hopper 11x13"}
    assert (proof.identical, proof.tensors) == (len(trained_tensors(CONFIG)),) * 2
    assert (proof.a.framework, proof.b.framework) == ("torch", "jax")


def test_verifying_changes_neither_network(verified):
    (before, statistics), (model, converted), _ = verified
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert np.array_equal(variance(converted), statistics)
    assert not model.training
    assert not converted.training


WEIGHTS = {
    "height and width swapped": ("up1.conv.0.weight", lambda k: k.swapaxes(2, 3), "up1.conv.0", "height and width"),
    "channels swapped": (
        "bottom.conv.3.weight",
        lambda k: k.swapaxes(0, 1),
        "bottom.conv.3",
        "input and output channels",
    ),
    "taken for HWIO": (
        "down1.conv.3.weight",
        lambda k: k.transpose(2, 3, 1, 0).reshape(k.shape),
        "down1.conv.3",
        "HWIO order",
    ),
    "turned": ("down1.conv.0.weight", lambda k: k[:, :, ::-1, ::-1], "down1.conv.0", "180 degrees"),
    "shuffled": ("up1.conv.3.weight", lambda k: np.roll(k, 1, 0), "up1.conv.3", "another order"),
    "scaled": ("bottom.conv.0.weight", lambda k: k * 1.001, "bottom.conv.0", "values of bottom.conv.0.weight differ"),
    "a variance": ("up1.conv.4.running_var", lambda v: v * 16 / 15, "up1.conv.4", "up1.conv.4.running_var differ"),
    "a bias": ("out.bias", lambda b: b + 1e-6, "out", "out.bias differ"),
    "a counter": (
        "down1.conv.4.num_batches_tracked",
        lambda n: n + 1,
        "down1.conv.4",
        "down1.conv.4.num_batches_tracked differ",
    ),
    "not a number": ("up1.conv.1.bias", lambda b: b * np.nan, "up1.conv.1", "not finite"),
}


@pytest.mark.parametrize(
    ("key", "change", "layer", "cause"),
    few(WEIGHTS, *(name for name in WEIGHTS if name not in ("channels swapped", "a bias"))),
)
def test_a_changed_tensor_is_traced_to_its_layer(key, change, layer, cause):
    proof = verify(in_torch(), in_torch(**changed_tensor(key, change)), size=SIZE)
    assert not proof.equal
    assert proof.departure.layer == layer
    assert cause in proof.departure.cause
    assert proof.identical == proof.tensors - 1


def test_swapped_statistics_are_named():
    tensors = trained_tensors(CONFIG)
    mean, variance = (f"bottom.conv.1.running_{name}" for name in ("mean", "var"))
    proof = verify(in_torch(), in_torch(**{mean: tensors[variance], variance: np.abs(tensors[mean])}), size=SIZE)
    assert proof.departure.layer == "bottom.conv.1"
    proof = verify(in_torch(), in_torch(**{mean: tensors[variance], variance: tensors[mean]}), size=SIZE)
    assert "are swapped" in proof.departure.cause


MEANINGS = {
    "half-pixel corners": ({"align_corners": False}, "interpolate", "half-pixel corners"),
    "concatenation order": (
        {"skip_first": True},
        "concatenate",
        "order is swapped: [down1.conv.5, interpolate]",
    ),
    "both": ({"skip_first": True, "align_corners": False}, "interpolate", "half-pixel corners"),
    "fit": ({"fit": "pad"}, "interpolate", "an odd size is padded with zeros instead of resized"),
    "fit and order": ({"fit": "pad", "skip_first": True}, "interpolate", "an odd size is padded with zeros"),
    "epsilon": ({"norm_epsilon": 1e-3}, "down1.conv.1", "epsilon is 0.001 instead of 1e-05"),
    "momentum": ({"norm_momentum": 0.01}, "down1.conv.1", "momentum is 0.01 instead of 0.1"),
}


@pytest.mark.parametrize(
    ("fields", "layer", "cause"),
    few(MEANINGS, *(name for name in MEANINGS if name not in ("concatenation order", "half-pixel corners", "fit"))),
)
def test_another_meaning_of_the_same_weights_is_named(fields, layer, cause):
    proof = verify(in_torch(), in_torch(dataclasses.replace(CONFIG, **fields)), size=SIZE)
    assert proof.departure.layer == layer
    assert cause in proof.departure.cause
    assert proof.identical == proof.tensors


FAMILY = UNetConfig(2, 2, (6, 8), "transposed", skip_first=True, conv_bias=True, upsampled_features=(5,))


@pytest.mark.slow
def test_a_network_of_the_family_passes_in_both_frameworks():
    """The gradient of a bias before BatchNorm is rounding alone: it raises no alarm."""
    model = in_torch(FAMILY, **trained_tensors(FAMILY))
    proof = verify(model, conversion.to_jax(model), size=SIZE)
    assert proof.equal, proof.verdict


@pytest.mark.parametrize(
    ("fields", "cause"),
    [
        ({"skip_first": False}, "the concatenation order is swapped: [interpolate, down1.conv.5]"),
        ({"fit": "pad"}, "an odd size is padded with zeros instead of resized"),
        ({"align_corners": False}, "half-pixel corners instead of align_corners"),
    ],
)
def test_another_meaning_is_named_under_transposed_upsampling_too(fields, cause):
    model, other = (
        in_torch(config, **trained_tensors(FAMILY)) for config in (FAMILY, dataclasses.replace(FAMILY, **fields))
    )
    proof = verify(model, other, size=SIZE)
    assert proof.departure.layer in ("interpolate", "concatenate")
    assert cause in proof.departure.cause


def test_a_changed_transposed_kernel_is_traced_to_its_layer():
    tensors = trained_tensors(FAMILY)
    kernel = tensors["up1.up.weight"]
    changed = in_torch(FAMILY, **{**tensors, "up1.up.weight": np.ascontiguousarray(kernel.swapaxes(2, 3))})
    proof = verify(in_torch(FAMILY, **tensors), changed, size=SIZE)
    assert proof.departure.layer == "up1.up"
    assert "height and width of the kernel are swapped" in proof.departure.cause


def test_another_output_function_is_a_difference():
    proof = verify(in_torch(), in_torch(dataclasses.replace(CONFIG, output="softmax")), size=SIZE)
    assert not proof.equal
    assert "the network answers sigmoid in A, softmax in B" in proof.verdict


def test_the_reference_may_be_the_other_meaning():
    proof = verify(in_torch(dataclasses.replace(CONFIG, align_corners=False)), in_torch(), size=SIZE)
    assert "align_corners, not half-pixel" in proof.departure.cause


class Nearest(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for name, child in in_torch().named_children():
            setattr(self, name, child)

    def forward(self, x):
        skip = self.down1(x)
        low = self.bottom(torch.nn.functional.max_pool2d(skip, 2))
        up = torch.nn.functional.interpolate(low, skip.shape[2:], mode="nearest")
        return torch.sigmoid(self.out(self.up1(torch.cat([up, skip], 1))))


def test_a_foreign_module_is_judged_by_what_it_does():
    proof = verify(in_torch(), Nearest(), size=SIZE)
    assert proof.departure.layer == "interpolate"


def tracking_biased(row, x, *, run, **given):
    y = row(x, run=run, **given)
    if run.training:
        n = x.size // x.shape[-1]
        run.track("variance", run.tracked["variance"] - 0.1 * x.var((0, 1, 2), ddof=1) / n)
    return y


BROKEN_JAX = {
    "biased variance": (
        "batch_norm",
        tracking_biased,
        ("down1.conv.1", STATISTICS, "biased one (divided by n = 429 instead of n - 1)"),
    ),
    "half-pixel corners": (
        "interpolate",
        lambda row, x, *, align_corners, **given: row(x, align_corners=False, **given),
        ("interpolate", EVAL, "half-pixel corners"),
    ),
    "leaky ReLU": (
        "relu",
        lambda row, x: jnp.maximum(x, 0.01 * x),
        ("down1.conv.2", EVAL, "the ReLU leaks"),
    ),
    "something unheard of": (
        "relu",
        lambda row, x: jnp.maximum(x, 0.02 * x),
        ("down1.conv.2", EVAL, None),
    ),
    "bfloat16 products": (
        "convolution",
        lambda row, x, **given: row(_rounded(x), **given),
        ("down1.conv.0", f"{EVAL} in float32", "its input is rounded to bfloat16"),
    ),
}


@pytest.fixture
def breaking(monkeypatch):
    """Makes an operation compute something else in JAX, and every graph run as it is."""

    def broken(operation, fault):
        row = OPERATIONS[operation]
        run = ["run"] if row.needs_run else []

        def function(*inputs, **given):
            return fault(row.function, *inputs, **given)

        if run:
            function = functools.wraps(row.function)(function)
        monkeypatch.setitem(OPERATIONS, operation, dataclasses.replace(row, function=function))
        monkeypatch.setattr("unet_jax.rewrites.rewritten", lambda graph, tensors: (graph, tensors))

    return broken


def _rounded(x):
    return x.astype(jnp.bfloat16).astype(jnp.float32) if x.dtype == jnp.float32 else x


@pytest.mark.parametrize(("operation", "fault", "found"), few(BROKEN_JAX, *list(BROKEN_JAX)[4::2]))
def test_a_broken_jax_twin_is_found(breaking, operation, fault, found):
    breaking(operation, fault)
    model = in_torch()
    departure = verify(model, conversion.to_jax(model), size=SIZE).departure
    layer, quantity, cause = found
    assert (departure.layer, departure.quantity) == (layer, quantity)
    assert departure.cause is None if cause is None else cause in departure.cause


def test_a_wrong_gradient_alone_is_found(breaking):
    @jax.custom_jvp
    def relu(x):
        return jnp.maximum(x, 0)

    relu.defjvp(lambda primals, tangents: (relu(*primals), tangents[0] * (primals[0] >= 0) * 1.001))
    breaking("relu", lambda row, x: relu(x))
    model = in_torch()
    departure = verify(model, conversion.to_jax(model), size=SIZE).departure
    assert departure.quantity == GRADIENTS
    assert departure.layer == "up1.conv.4", "the one nearest to the loss, where the error enters"


@pytest.mark.slow
def test_float32_statistics_are_traced_to_their_layer(monkeypatch):
    model = in_torch()
    converted = conversion.to_jax(model)
    step = JaxRunner.step

    def imprecise(self, x, cotangent, precision):
        found = step(self, x, cotangent, precision)
        if precision == "float32":
            key = "up1.conv.4.running_var"
            found.statistics[key] = found.statistics[key] * np.float32(1.01)
        return found

    monkeypatch.setattr(JaxRunner, "step", imprecise)
    for a, b in ((model, converted), (converted, model)):
        departure = verify(a, b, size=SIZE).departure
        assert (departure.layer, departure.quantity) == ("up1.conv.4", f"{STATISTICS} in float32")


def test_frozen_parameters_are_judged_like_others():
    model = in_torch().requires_grad_(False)
    assert verify(model, in_torch(), size=SIZE).equal
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_networks_of_different_shapes_differ():
    proof = verify(in_torch(), in_torch(UNetConfig(2, 2, (6, 9))), size=SIZE)
    assert proof.departure.layer == "bottom.conv.0"
    assert proof.departure.quantity == "shapes"
    assert not proof.checks


@settings(deadline=None, max_examples=2)
@given(st.integers(0, 10**6), st.lists(st.integers(4, 12), min_size=2, max_size=3).map(tuple))
def test_no_false_alarm(seed, features):
    """Random networks against themselves, laid out otherwise in memory: torch sums in another order."""
    config = UNetConfig(3, 2, features)
    tensors = trained_tensors(config, seed)
    a, b = (torch_file.from_checkpoint(Checkpoint(config, tensors)) for _ in range(2))
    proof = verify(a, b.to(memory_format=torch.channels_last))
    assert proof.equal, proof.verdict


@pytest.mark.parametrize(
    ("threads", "config", "seed"),
    [
        (2, UNetConfig(3, 1, (4, 6, 8)), 2),
        (
            1,
            UNetConfig(
                2,
                3,
                (4, 6, 8),
                upsampling="transposed",
                skip_first=True,
                fit="pad",
                conv_bias=True,
                output="softmax",
                upsampled_features=(5, 7),
                norm_epsilon=1e-3,
            ),
            1,
        ),
    ],
    ids=["bilinear", "transposed"],
)
@pytest.mark.slow
def test_no_number_of_threads_makes_a_narrow_network_another(threads, config, seed):
    """Torch sums in another order with each; of so few channels its own error is small by luck now and then."""
    rng = np.random.default_rng(seed)
    tensors = {
        key: value + np.float32(0.1) * rng.random(value.shape, np.float32) if value.dtype == np.float32 else value
        for key, value in initial_tensors(config, seed).items()
    }
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = torch_file.from_checkpoint(Checkpoint(config, tensors))
        proof = verify(model, conversion.to_jax(model))
    finally:
        torch.set_num_threads(before)
    assert proof.equal, proof.verdict


@pytest.mark.parametrize("training", [False, True])
def test_no_sums_of_a_batch_are_blamed_for_a_prediction(training):
    """Rounding may look like them; in eval mode BatchNorm has none."""
    model, x = in_torch(), np.random.default_rng(0).standard_normal((2, 11, 13, 2), np.float32)
    a, b = paired(model, conversion.to_jax(model), ("a", "b"))
    handed = a.tracer("float64", training=training)(x).outputs
    one, other = (network_of(runner, x, handed, training=training) for runner in (a, b))
    target = handed["up1.conv.4"] * (1 + 3e-7)
    cause = forward_cause(Scene(one, other, "up1.conv.4", handed["up1.conv.4"], target, "float32", 1e-7))
    assert ("E[x^2]" in str(cause)) == training


@pytest.mark.slow
def test_networks_that_share_a_program_answer_each_by_its_own_weights():
    model, x = in_torch(), np.random.default_rng(0).standard_normal((2, 11, 13, 2), np.float32)
    _, first = paired(model, conversion.to_jax(model), ("a", "b"))
    tensors = {key: value * 2 if value.dtype == np.float32 else value for key, value in first.tensors.items()}
    other = torch_file.from_checkpoint(Checkpoint(CONFIG, tensors))
    _, fresh = paired(other, conversion.to_jax(other), ("a", "b"))
    cotangent = np.ones((2, 11, 13, 2), np.float32)
    before = first.predict(x, "float64"), first.step(x, cotangent, "float64").logits
    moved = first.with_tensors(tensors)
    found = moved.predict(x, "float64"), moved.step(x, cotangent, "float64").logits
    exact = fresh.predict(x, "float64"), fresh.step(x, cotangent, "float64").logits
    np.testing.assert_array_equal(found, exact)
    assert not np.array_equal(found, before)
    assert not np.array_equal(first.as_called().predict(x, "float64"), before[0]), "a sigmoid more"


@pytest.mark.parametrize(("moved", "most"), [(0.0, 1.25), (1.0, 1.75), (0.1, 1.25)])
def test_what_the_weights_last_place_moves_counts_beside_torchs_error(moved, most):
    def judged(other):
        error = judgement.Float32Error(1e-6, other * 1e-6, moved * 1e-6)
        (check,) = judgement.float32_checks("a sample", [dict.fromkeys([EVAL], error)] * 5)
        return check.ok

    assert judged(most)
    assert not judged(most + 0.05)


def test_a_doubtful_float32_ratio_is_judged_on_more_inputs(monkeypatch):
    """Errors of 1.4 times torch's on one input pass where four more bring the ratio under 1.25."""
    model, errors = in_torch(), iter([1.4, *[1.0] * 100])
    measured = judgement.norm_difference

    def once_unlucky(found, reference):
        calls.append(None)
        return measured(found, reference) * (next(errors) if len(calls) == 2 else 1.0)

    calls = []
    monkeypatch.setattr(judgement, "norm_difference", once_unlucky)
    monkeypatch.setattr(judgement, "FLOAT32_UNIT", 0.0)
    proof = verify(model, in_torch(), size=SIZE)
    assert proof.equal
    assert {check.sample for check in proof.checks if check.precision == "float32"} == {
        "random 3x11x13 +4",
        "grace_hopper 11x13",
    }


def test_json_holds_everything():
    proof = verify(in_torch(), in_torch(**changed_tensor("up1.conv.1.bias", lambda b: b * np.nan)), size=SIZE)
    report = json.loads(proof.to_json())
    assert report["equal"] is False
    assert report["departure"]["layer"] == "up1.conv.1"
    assert report["checks"][0] | {"error": 0} == {
        "sample": "random 3x11x13",
        "quantity": EVAL,
        "precision": "float64",
        "error": 0,
        "budget": 1e-12,
        "tensor": "",
        "baseline": None,
        "ok": False,
    }
    assert report["a"]["versions"] == {"torch": torch.__version__}


@pytest.mark.parametrize(("size", "message"), [((1, 8), "too small"), ((2, 2), "too small")])
def test_a_size_that_cannot_train_is_refused(size, message):
    with pytest.raises(UNetError, match=message):
        verify(in_torch(), in_torch(), size=size)


def test_something_else_is_refused():
    with pytest.raises(UNetError, match="got dict"):
        verify(in_torch(), {})
    with pytest.raises(UNetError, match="got Linear"):
        verify(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), in_torch())


@pytest.mark.slow
def test_convert_proves_and_writes(tmp_path, capsys):
    torch_file.write(tmp_path / "a.pt", Checkpoint(CONFIG, trained_tensors(CONFIG)))
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "a")]) == 0
    out = capsys.readouterr().out
    assert "SAME" in out
    assert "verified" in out
    assert (tmp_path / "a").is_dir()


def test_convert_writes_nothing_when_the_proof_fails(tmp_path, capsys, breaking):
    torch_file.write(tmp_path / "a.pt", Checkpoint(CONFIG, trained_tensors(CONFIG)))
    breaking("relu", lambda row, x: x)
    assert main(["convert", str(tmp_path / "a.pt"), str(tmp_path / "a")]) == 1
    assert "DIFFERENT" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


CONTROLS = {
    "transposed kernel": ({}, ("bottom.conv.3.weight", 0, 1), "bottom.conv.3"),
    "swapped height and width": ({}, ("up1.conv.0.weight", 2, 3), "up1.conv.0"),
    "half-pixel corners": ({"align_corners": False}, None, "interpolate"),
    "swapped concatenation": ({"skip_first": True}, None, "concatenate"),
    "epsilon 1e-3": ({"norm_epsilon": 1e-3}, None, "down1.conv.1"),
}


@pytest.mark.parametrize(("fields", "swap", "layer"), few(CONTROLS, "transposed kernel", "swapped concatenation"))
def test_each_control_exits_with_1_and_names_the_layer(tmp_path, capsys, fields, swap, layer):
    tensors = trained_tensors(CONFIG)
    torch_file.write(tmp_path / "a.pt", Checkpoint(CONFIG, tensors))
    if swap is not None:
        tensors |= changed_tensor(swap[0], lambda kernel: kernel.swapaxes(*swap[1:]))
    torch_file.write(tmp_path / "b.pt", Checkpoint(dataclasses.replace(CONFIG, **fields), tensors))
    assert main(["verify", str(tmp_path / "a.pt"), str(tmp_path / "b.pt"), "--size", "11x13"]) == 1
    assert f"{layer} departs first" in capsys.readouterr().out


def test_a_biased_variance_exits_with_1_and_names_the_layer(tmp_path, capsys, breaking):
    breaking("batch_norm", tracking_biased)
    for path, module in (("a.pt", torch_file), ("b.safetensors", safetensors_file)):
        module.write(tmp_path / path, Checkpoint(CONFIG, trained_tensors(CONFIG)))
    paths = [str(tmp_path / "a.pt"), str(tmp_path / "b.safetensors")]
    assert main(["verify", *paths, "--size", "11x13"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "down1.conv.1 departs first (statistics" in said
    assert "biased one (divided by n = 429 instead of n - 1)" in said


def test_verify_exits_with_1_and_names_the_layer(tmp_path, capsys):
    key = "bottom.conv.3.weight"
    torch_file.write(tmp_path / "a.pt", Checkpoint(CONFIG, trained_tensors(CONFIG)))
    wrong = trained_tensors(CONFIG) | changed_tensor(key, lambda kernel: kernel.swapaxes(0, 1))
    safetensors_file.write(tmp_path / "b.safetensors", Checkpoint(CONFIG, wrong))
    report = tmp_path / "report.json"
    paths = [str(tmp_path / name) for name in ("a.pt", "b.safetensors")]
    assert main(["verify", *paths, "--size", "11x13", "--json", str(report)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "DIFFERENT: the networks differ: bottom.conv.3 departs first" in out
    assert "input and output channels of the kernel are swapped" in out
    assert json.loads(report.read_text())["departure"]["layer"] == "bottom.conv.3"
    assert json.loads(report.read_text())["b"]["framework"] == "jax"


def test_a_file_that_is_no_image_is_refused(tmp_path, capsys):
    torch_file.write(tmp_path / "a.pt", Checkpoint(CONFIG, trained_tensors(CONFIG)))
    (tmp_path / "photo.png").write_bytes(b"no picture")
    checkpoint, photo = str(tmp_path / "a.pt"), tmp_path / "photo.png"
    assert main(["verify", checkpoint, checkpoint, "--image", str(photo)]) == 2
    assert f"{photo}: cannot be read as an image: " in capsys.readouterr().err
