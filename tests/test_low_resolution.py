"""PyTorch's network with the decoder's first convolutions at the low resolution is the plain one, in float64."""

import copy
import subprocess
import sys

import pytest
from conftest import trained_tensors

from unet_core import UNetConfig
from unet_core.checkpoints.checkpoint import Checkpoint

torch = pytest.importorskip("torch")

import unet_torch.model
from unet_torch import UNet, upsampled
from unet_torch.checkpoint import from_checkpoint
from unet_torch.layers import join
from unet_torch.upsampled import convolve_joined, convolve_upsampled, saves, upsampling_matrix

FAMILY = [
    UNetConfig(3, 2, (2, 3, 4)),
    UNetConfig(3, 2, (2, 3, 4), align_corners=False, skip_first=True, conv_bias=True),
    UNetConfig(3, 2, (2, 3, 4), fit="pad"),
    UNetConfig(3, 2, (2, 3, 4), fit="pad", align_corners=False, conv_bias=True),
    UNetConfig(3, 2, (2, 3, 4), upsampling="transposed"),
]


def both(config):
    """The network at the low resolution and the plain one, in float64."""
    plain = from_checkpoint(Checkpoint(config, trained_tensors(config))).double()
    ours = copy.deepcopy(plain)
    ours.low_resolution = True
    return ours, plain


def trained(model, x, cotangent):
    """Logits, statistics, and gradients of the parameters and of the input."""
    x = x.clone().requires_grad_()
    logits = model.train().logits(x)
    (logits * cotangent).mean().backward()
    return [logits.detach(), x.grad, *model.buffers(), *(value.grad for value in model.parameters())]


def apart(found, expected):
    """The largest difference of any tensor, relative to its largest value or the scale of all."""
    scale = max(b.abs().max() for b in expected)
    return max((a - b).abs().max() / max(b.abs().max(), 1e-3 * scale) for a, b in zip(found, expected, strict=True))


def drawn(*shape):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.fixture
def everywhere(monkeypatch):
    """At every level, however small; gives what it was asked of."""
    asked = []
    monkeypatch.setattr(unet_torch.model, "saves", lambda *sizes: not asked.append(sizes))
    return asked


@pytest.mark.parametrize("config", FAMILY)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_it_trains_as_the_plain_network(everywhere, config, memory_format):
    """On a size that is odd at one level for the rows, at the other for the columns; after a prediction."""
    ours, plain = (model.to(memory_format=memory_format) for model in both(config))
    x, cotangent = (drawn(2, channels, 14, 41) for channels in (3, 2))
    with torch.inference_mode():
        assert apart([ours.logits(x)], [plain.logits(x)]) < 1e-12
    assert apart(trained(ours, x, cotangent), trained(plain, x, cotangent)) < 1e-12
    assert bool(everywhere) == (config.upsampling == "bilinear")


@pytest.mark.parametrize("size", [(8, 8), (9, 12), (11, 5), (2, 3)])
@pytest.mark.parametrize("config", FAMILY[:4])
def test_any_size_is_upsampled_and_convolved_as_plainly(config, size):
    skip, x = drawn(1, 3, *size), drawn(1, 2, *(points // 2 for points in size))
    convolution = torch.nn.Conv2d(5, 4, 3, padding=1, dtype=torch.float64)
    expected = convolution(join(x, skip, config))
    torch.testing.assert_close(convolve_joined(convolution, x, skip, config), expected, rtol=0, atol=1e-13)


def test_another_upsampling_would_be_seen(everywhere, monkeypatch):
    weights = upsampled.weights
    monkeypatch.setattr(upsampled, "weights", lambda how: weights(how._replace(align_corners=False)))
    upsampled._matrix.cache_clear()
    ours, plain = both(FAMILY[0])
    x = drawn(2, 3, 16, 16)
    assert apart([ours.logits(x)], [plain.logits(x)]) > 1e-3
    upsampled._matrix.cache_clear()


@pytest.mark.parametrize("swapped", [(2, 1, 0), (1, 0, 2)])
def test_swapped_taps_would_be_seen(swapped):
    x, kernel = drawn(1, 3, 5, 6), drawn(2, 3, 3, 3)
    rows, columns = (upsampling_matrix(2 * size, size, True, "resize", x.dtype, x.device) for size in (5, 6))
    raised = torch.nn.functional.interpolate(x, (10, 12), mode="bilinear", align_corners=True)
    expected = torch.nn.functional.conv2d(raised, kernel, padding=1)
    assert apart([convolve_upsampled(x, kernel, rows, columns)], [expected]) < 1e-13
    for other in (kernel[:, :, swapped], kernel[:, :, :, swapped]):
        assert apart([convolve_upsampled(x, other, rows, columns)], [expected]) > 1e-2


def test_it_is_off_unless_asked_for_and_changes_no_checkpoint(everywhere):
    plain, ours = (UNet(1, 1, features=(2, 3), seed=0, low_resolution=low) for low in (False, True))
    assert not UNet(1, 1, features=(2, 3)).low_resolution
    assert UNet.from_config(plain.config, low_resolution=True).low_resolution
    assert ours.config == plain.config
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in ours.state_dict().items())
    assert list(ours.state_dict()) == list(plain.state_dict())
    plain(torch.zeros(2, 1, 8, 8))
    assert not everywhere
    ours(torch.zeros(2, 1, 8, 8))
    assert everywhere == [(3, 4, 4)]


def test_where_matrices_would_cost_more_a_level_stays_plain():
    assert saves(256, 64, 64)
    assert not saves(128, 128, 128)
    assert saves(128, 64, 64)


def test_a_matrix_is_made_once_and_nobody_can_change_it():
    given = 12, 6, True, "resize", torch.float64, torch.device("cpu")
    upsampling_matrix(*given).zero_()
    before = upsampled._matrix.cache_info().misses
    assert upsampling_matrix(*given).any()
    assert upsampled._matrix.cache_info().misses == before


def test_the_memory_format_is_the_networks(everywhere):
    ours, plain = both(FAMILY[0])
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = drawn(2, 3, 16, 16).to(memory_format=memory_format)
        found, expected = (model.to(memory_format=memory_format).logits(x) for model in (ours, plain))
        assert found.stride() == expected.stride()


def test_the_matrix_is_an_operator_as_torch_wants_it():
    given = 13, 6, True, "resize", torch.float32, torch.device("cpu")
    assert set(torch.library.opcheck(upsampling_matrix, given).values()) == {"SUCCESS"}


COMPILED = """
import torch, unet_torch
plain = unet_torch.UNet(features=(4, 40), seed=0).double()
ours = unet_torch.UNet(features=(4, 40), seed=0, low_resolution=True).double()
logits = torch.compile(ours.logits, backend="aot_eager", fullgraph=True)
for size in ((8, 13), (10, 9)):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    for model, run in ((ours, logits), (plain, plain.logits)):
        model.zero_grad()
        (run(x) ** 2).mean().backward()
    for a, b in zip(ours.parameters(), plain.parameters()):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-11, atol=1e-14)
"""


@pytest.mark.slow
def test_torch_compiles_it_without_a_break():
    """Forward and backward, at two sizes; in a process of its own, where no shapes are checked."""
    subprocess.run([sys.executable, "-c", COMPILED], check=True)


def test_bfloat16_errs_no_more(everywhere):
    config = UNetConfig(3, 2, (16, 32, 64))
    ours, plain = (model.eval() for model in both(config))
    x = drawn(1, 3, 32, 48)
    exact = plain.logits(x)
    errors = []
    for model in (ours, plain):
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            errors.append((model.float().logits(x.float()).double() - exact).norm() / exact.norm())
    assert errors[0] < 1.25 * errors[1]


def test_every_layer_is_traced_all_the_same(everywhere):
    from conversion.backends.torch_backend import runner_of

    x = drawn(1, 8, 8, 3).numpy()
    ours, plain = (
        runner_of(model.eval(), "a").tracer("float64", training=False)(x).outputs for model in both(FAMILY[0])
    )
    assert list(ours) == list(plain)
