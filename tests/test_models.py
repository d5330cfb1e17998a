"""The two networks against each other, in every mode and precision, through `to_jax` and `to_torch`."""

import dataclasses

import numpy as np
import pytest
from conftest import SHALLOW, TINY, batch, few, trained_tensors
from hypothesis import given, settings
from strategies import configs

from unet_core import CheckpointError, UNetConfig
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.graph.canonical import tensor_specs

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import jax.numpy as jnp
from flax import nnx

import conversion
import unet_jax
import unet_torch
from conversion.modules import is_own
from unet_core.graph.family import graph
from unet_jax.canonical import to_canonical as jax_canonical
from unet_torch.canonical import to_canonical as torch_canonical
from unet_torch.canonical import unwrapped
from unet_torch.checkpoint import from_checkpoint

CONFIGS = {
    "default": TINY,
    "half-pixel": dataclasses.replace(TINY, align_corners=False),
    "skip first": dataclasses.replace(TINY, skip_first=True),
    "other norm": dataclasses.replace(TINY, norm_epsilon=1e-3, norm_momentum=0.3),
    "one level": UNetConfig(1, 1, (5, 3)),
    "deep and narrow": UNetConfig(4, 3, (2, 3, 4, 5, 6)),
    "conv biases": dataclasses.replace(TINY, conv_bias=True),
    "padded": dataclasses.replace(TINY, fit="pad"),
    "transposed": dataclasses.replace(TINY, upsampling="transposed"),
    "transposed, padded": dataclasses.replace(TINY, upsampling="transposed", fit="pad", upsampled_features=(3, 5)),
    "narrower decoder": dataclasses.replace(TINY, decoder_features=(3, 4), middle_features=(5, 7)),
    "all at once": UNetConfig(
        2, 3, (4, 6, 6), "transposed", False, True, "pad", True, "softmax", (5, 4), (3, 7), (2, 3), 1e-4, 0.2
    ),
}


def pair(config=SHALLOW, dtype=np.float64):
    model = from_checkpoint(Checkpoint(config, trained_tensors(config, dtype=dtype)))
    return model, conversion.to_jax(model)


def torch_logits(model, x):
    with torch.no_grad():
        return model.logits(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()


@nnx.jit
def compiled_logits(model, x):
    return model.logits(x)


def assert_close(found, reference, tolerance):
    assert np.abs(np.asarray(found, np.float64) - reference).max() <= tolerance * np.abs(reference).max()


@pytest.mark.parametrize("config", few(CONFIGS, "default", "half-pixel", "all at once"))
@pytest.mark.parametrize(("n", "height", "width"), [pytest.param(1, 16, 16, marks=pytest.mark.slow), (3, 19, 21)])
def test_logits_agree_in_float64(x64, config, n, height, width):
    if config.depth == 4:
        height, width = height + 8, width + 8
    in_torch, in_jax = pair(config)
    x = batch(config, n, height, width, np.float64)
    assert_close(jax.jit(in_jax.logits)(jnp.asarray(x)), torch_logits(in_torch, x), 1e-12)


@pytest.mark.parametrize(
    ("asked", "training"),
    few(
        {
            f"{asked}-{name}": (asked, name == "training")
            for asked in ("by the input", "by dtype")
            for name in ("eval", "training")
        },
        *("by the input-eval", "by dtype-training"),
    ),
)
def test_float32_parameters_compute_exactly_in_float64(x64, training, asked):
    """As `model.double()` does in torch: nothing on the way is rounded to float32."""
    in_torch, in_jax = pair(dtype=np.float32)
    x = batch(SHALLOW, 3, 19, 21, np.float64)
    if asked == "by dtype":
        model = unet_jax.UNet.from_config(SHALLOW, dtype=jnp.float64, rngs=None)
        nnx.update(model, nnx.state(in_jax))
        in_jax, x = model, x.astype(np.float32).astype(np.float64)
    in_torch.double().train(training), (in_jax.train() if training else in_jax.eval())
    found = compiled_logits(in_jax, jnp.asarray(x, np.float32 if asked == "by dtype" else None))
    assert found.dtype == jnp.float64
    assert_close(found, torch_logits(in_torch, x), 1e-12)


@pytest.mark.parametrize("name", few(["default", "all at once"], "all at once"))
def test_training_mode_agrees_in_float64(x64, name):
    config = CONFIGS[name]
    in_torch, in_jax = pair(config)
    x = batch(config, 3, 19, 21, np.float64)
    in_torch.train(), in_jax.train()
    assert_close(compiled_logits(in_jax, jnp.asarray(x)), torch_logits(in_torch, x), 1e-12)
    ours, theirs = jax_canonical(in_jax), torch_canonical(in_torch)
    for key, value in theirs.items():
        assert_close(ours[key], value, 1e-12)


@pytest.mark.parametrize(
    "control",
    few(
        {
            next(iter(control)): control
            for control in ({"align_corners": False}, {"skip_first": True}, {"norm_epsilon": 1e-3}, {"fit": "pad"})
        },
        *("align_corners", "norm_epsilon"),
    ),
)
def test_another_meaning_would_be_seen(x64, control):
    """The control: the same weights under one other option do not pass for the same network."""
    tensors = trained_tensors(SHALLOW, dtype=np.float64)
    in_torch = from_checkpoint(Checkpoint(SHALLOW, tensors))
    other = conversion.to_jax(from_checkpoint(Checkpoint(dataclasses.replace(SHALLOW, **control), tensors)))
    x = batch(SHALLOW, 1, 19, 21, np.float64)
    with pytest.raises(AssertionError):
        assert_close(jax.jit(other.logits)(jnp.asarray(x)), torch_logits(in_torch, x), 1e-6)


@pytest.mark.parametrize(
    ("output", "function"),
    few(
        {
            "sigmoid": ("sigmoid", jax.nn.sigmoid),
            "softmax": ("softmax", lambda logits: jax.nn.softmax(logits, axis=-1)),
            "logits": ("logits", lambda logits: logits),
        },
        "softmax",
    ),
)
def test_call_is_the_output_function_of_the_logits(output, function):
    in_torch, in_jax = pair(dataclasses.replace(SHALLOW, output=output), dtype=np.float32)
    x = batch(SHALLOW)
    logits, answer = jax.jit(lambda x: (in_jax.logits(x), in_jax(x)))(jnp.asarray(x))
    np.testing.assert_array_equal(answer, function(logits))
    answers = in_torch(torch.from_numpy(x).permute(0, 3, 1, 2))
    np.testing.assert_allclose(answer, answers.permute(0, 2, 3, 1).detach().numpy(), atol=1e-6)


def test_runs_under_jit_with_split_and_merge():
    _, model = pair(dtype=np.float32)
    x = jnp.asarray(batch(SHALLOW))
    graphdef, state = nnx.split(model)
    traces = []

    @jax.jit
    def logits(state, x):
        traces.append(None)
        return nnx.merge(graphdef, state).logits(x)

    np.testing.assert_allclose(logits(state, x), model.logits(x), atol=1e-5)
    logits(state, x + 1)
    assert len(traces) == 1


def test_statistics_move_under_jit():
    _, model = pair(dtype=np.float32)
    model.train()
    graphdef, state = nnx.split(model)

    @jax.jit
    def step(state, x):
        model = nnx.merge(graphdef, state)
        model.logits(x)
        return nnx.state(model)

    moved = nnx.merge(graphdef, step(state, jnp.asarray(batch(SHALLOW))))
    before, after = jax_canonical(model), jax_canonical(moved)
    for key, value in before.items():
        assert np.array_equal(value, after[key]) == ("running" not in key and "tracked" not in key)


@pytest.mark.parametrize("dtype", few(["float32", "float64", "bfloat16"], "float64"))
def test_computes_in_the_dtype_asked_for_with_float32_parameters(x64, dtype):
    model = unet_jax.UNet.from_config(SHALLOW, dtype=jnp.dtype(dtype), rngs=0)
    logits = nnx.jit(lambda model, x: model.logits(x))(model, jnp.asarray(batch(SHALLOW)))
    assert logits.dtype == jnp.dtype(dtype)
    dtypes = {variable[...].dtype for _, variable in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    assert dtypes == {np.dtype("float32")}
    assert dict(model.variables())["down1.conv.1.running_var"][...].dtype == jnp.float32


def test_bfloat16_errs_as_bfloat16_does():
    _, model = pair(dtype=np.float32)
    x = jnp.asarray(batch(SHALLOW, 1, 32, 32))
    rounded = unet_jax.UNet.from_config(SHALLOW, dtype=jnp.bfloat16, rngs=None)
    rounded.eval()
    nnx.update(rounded, nnx.state(model))
    exact, found = (np.asarray(jax.jit(network.logits)(x), np.float32) for network in (model, rounded))
    error = np.linalg.norm(found - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 3e-2


@pytest.mark.slow
def test_gradients_flow_to_every_parameter():
    _, model = pair(dtype=np.float32)
    gradients = nnx.jit(nnx.grad(lambda model: (model.logits(jnp.asarray(batch(SHALLOW))) ** 2).mean()))(model)
    assert all(jnp.abs(variable[...]).max() > 0 for _, variable in nnx.to_flat_state(gradients))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_crosses_over(training):
    in_torch, _ = pair(dtype=np.float32)
    in_jax = conversion.to_jax(in_torch.train(training))
    assert in_jax.training is training
    assert conversion.to_torch(in_jax).training is training


def test_round_trip_is_bit_exact_and_shares_no_memory():
    in_torch, in_jax = pair(dtype=np.float32)
    back = conversion.to_torch(in_jax)
    for key, value in torch_canonical(in_torch).items():
        assert np.array_equal(value, torch_canonical(back)[key])
        assert value.dtype == torch_canonical(back)[key].dtype
    expected = torch_canonical(in_torch)["out.bias"].copy()
    with torch.no_grad():
        for parameter in in_torch.parameters():
            parameter.add_(1)
    assert np.array_equal(jax_canonical(in_jax)["out.bias"], expected)
    assert np.array_equal(torch_canonical(back)["out.bias"], expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_low_precision_models_keep_their_dtype(dtype):
    model = pair(dtype=np.float32)[0].to(dtype)
    back = conversion.to_torch(conversion.to_jax(model))
    for key, value in model.state_dict().items():
        assert back.state_dict()[key].dtype == value.dtype
        assert torch.equal(back.state_dict()[key], value)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch.compile imports what torch deprecates
def test_wrapped_models_are_the_networks_inside(tmp_path):
    model = pair(dtype=np.float32)[0]
    for wrapped in (torch.compile(model), torch.nn.DataParallel(model)):
        unet_torch.save(wrapped, tmp_path / "a.pt", force=True)
        assert torch.equal(unet_torch.load(tmp_path / "a.pt").out.weight, model.out.weight)
        assert np.array_equal(jax_canonical(conversion.to_jax(wrapped))["out.bias"], model.out.bias.detach().numpy())


class Conv2d(torch.nn.Conv2d):
    """Has the name and the description of torch's own."""

    def forward(self, x):
        return 2 * super().forward(x)


def hooked(model):
    model.register_forward_hook(lambda module, given, answer: 2 * answer)


def patched(model):
    whole = model.forward
    model.forward = lambda x: 2 * whole(x)


def patched_within(model):
    convolve = model.out.forward
    model.out.forward = lambda x: 2 * convolve(x)


def replaced(model):
    model.out = Conv2d(model.out.in_channels, model.out.out_channels, 1)


def as_graph():
    return unet_torch.Network(graph(SHALLOW))


@pytest.mark.parametrize("make", [lambda: unet_torch.UNet.from_config(SHALLOW, seed=0), as_graph])
@pytest.mark.parametrize("change", [hooked, patched, patched_within, replaced])
def test_a_network_of_ours_that_was_changed_is_read_from_its_code(make, change):
    model = make()
    assert is_own(model)
    if isinstance(model, unet_torch.UNet) or change in (hooked, patched):
        change(model)
        assert not is_own(model)


class Doubled(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return 2 * self.module(x)


def test_a_class_that_holds_its_network_as_module_is_a_network_of_its_own():
    model = unet_torch.UNet.from_config(SHALLOW, seed=0)
    assert unwrapped(Doubled(model)).__class__ is Doubled
    assert unwrapped(torch.nn.DataParallel(Doubled(model))).__class__ is Doubled
    assert unwrapped(torch.nn.DataParallel(model)) is model


def test_what_cannot_be_loaded_is_not_saved(tmp_path):
    model = unet_torch.UNet.from_config(SHALLOW, seed=0)
    model.extra = torch.nn.Linear(1, 1)
    with pytest.raises(CheckpointError, match=r"not of this network: extra\.weight, extra\.bias"):
        unet_torch.save(model, tmp_path / "a.pt")
    assert not list(tmp_path.iterdir())


def test_float64_is_not_cast_to_what_jax_rounds(tmp_path):
    unet_torch.save(unet_torch.UNet.from_config(SHALLOW, seed=0), tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="jax_enable_x64"):
        unet_jax.load(tmp_path / "a.safetensors", param_dtype=jnp.float64)


def test_float64_without_x64_is_refused_not_rounded():
    model = pair(dtype=np.float32)[0].double()
    with pytest.raises(CheckpointError, match="jax_enable_x64"):
        conversion.to_jax(model)


@pytest.mark.slow
def test_a_foreign_module_with_the_same_keys_converts():
    from plain_unet import PlainUNet

    class Small(PlainUNet):
        def __init__(self):
            torch.nn.Module.__init__(self)
            for key, value in unet_torch.UNet(features=(2, 3, 4, 5, 6), seed=0).named_children():
                setattr(self, key, value)
            self.pool = torch.nn.MaxPool2d(2)

    model = Small().eval()
    converted = conversion.to_jax(model)
    assert converted.config == UNetConfig(features=(2, 3, 4, 5, 6))
    x = batch(converted.config, 1, 33, 40)
    np.testing.assert_allclose(jax.jit(converted.logits)(jnp.asarray(x)), torch_logits(model, x), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "message"), [((1, 1, 3, 3), "too small|any size from 2 up"), ((1, 16, 16, 4), "4 channels")]
)
def test_impossible_inputs_are_refused_by_both(shape, message):
    in_torch, in_jax = pair(dtype=np.float32)
    with pytest.raises(ValueError, match=message):
        in_jax(jnp.zeros(shape))
    with pytest.raises(ValueError, match=message):
        in_torch(torch.zeros(shape).permute(0, 3, 1, 2))


def test_one_value_per_channel_is_refused_by_both():
    in_torch, in_jax = pair(dtype=np.float32)
    in_torch.train(), in_jax.train()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nnx.eval_shape(lambda network, x: network(x), in_jax, jnp.zeros((1, 2, 2, 3)))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        in_torch(torch.zeros(1, 3, 2, 2))


def test_state_dict_of_the_full_network_is_the_plain_classs():
    from plain_unet import PlainUNet

    with torch.device("meta"):
        plain, ours = PlainUNet(3, 1).state_dict(), unet_torch.UNet(3, 1).state_dict()
    assert [(key, value.shape, value.dtype) for key, value in plain.items()] == [
        (key, value.shape, value.dtype) for key, value in ours.items()
    ]


@given(configs(most=4, levels=4))
@settings(max_examples=25)
def test_the_state_dict_is_canonical_in_forward_order(config):
    with torch.device("meta"):
        state = unet_torch.UNet.from_config(config).state_dict()
    assert [(key, tuple(value.shape)) for key, value in state.items()] == [
        (key, spec.shape) for key, spec in tensor_specs(config).items()
    ]


def test_torch_model_honours_default_dtype_and_device():
    torch.set_default_dtype(torch.float64)
    try:
        model = unet_torch.UNet(features=(2, 3), seed=0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert model.out.weight.dtype == torch.float64
    assert model.down1.conv[1].num_batches_tracked.dtype == torch.int64
    with torch.device("meta"):
        assert unet_torch.UNet(features=(2, 3)).out.weight.is_meta


@pytest.mark.slow
def test_lowers_for_a_tpu_in_training_without_gather_or_scatter():
    model = nnx.eval_shape(lambda: unet_jax.UNet.from_config(SHALLOW, rngs=None))
    graphdef, *states = nnx.split(model, nnx.Param, nnx.BatchStat)

    def loss(parameters, statistics, x):
        model = nnx.merge(graphdef, parameters, statistics, copy=True)
        return jnp.square(model.logits(x)).mean(), nnx.state(model, nnx.BatchStat)

    x = jax.ShapeDtypeStruct((2, 19, 21, 3), jnp.float32)
    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    text = jax.export.export(step, platforms=("tpu",))(*states, x).mlir_module()
    assert "stablehlo.convolution" in text
    assert "stablehlo.gather" not in text
    assert "stablehlo.dynamic_gather" not in text
    assert "stablehlo.scatter" not in text  # the max-pool's gradient is a select_and_scatter, which a TPU has


def test_abstract_models_hold_no_memory():
    model = nnx.eval_shape(lambda: unet_jax.UNet(rngs=nnx.Rngs(0)))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(nnx.state(model)))
