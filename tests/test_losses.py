"""The losses of both twins against torch's own functions and the definition in NumPy."""

import functools

import numpy as np
import pytest

from unet_core.data.labels import IGNORED
from unet_core.errors import ConfigError
from unet_core.training import losses as core
from unet_core.training.settings import Loss

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

import jax.numpy as jnp
from torch.nn import functional

from unet_jax.training.losses import loss_value as in_jax
from unet_torch.training.losses import loss_value as in_torch

NAMES = ("cross-entropy", "dice", "cross-entropy+dice")
LOGITS = (1, 3, 4)
WEIGHTS = {2: (0.3, 2.5), 3: (0.2, 1.0, 3.0), 4: (1.5, 0.1, 1.0, 4.0)}
# The class weights are the cross-entropy's alone.
CASES = [
    *(("cross-entropy", logits, weighted) for logits in LOGITS for weighted in (False, True)),
    *(("dice", logits, False) for logits in LOGITS),
    *(("cross-entropy+dice", logits, True) for logits in (1, 3)),
]


def classes_of(logits):
    return 2 if logits == 1 else logits


def loss_of(name, logits, weighted):
    return Loss(name, WEIGHTS[classes_of(logits)] if weighted else None)


def data(logits, seed=0, shape=(2, 5, 7)):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((*shape, logits)) * 3, rng.integers(classes_of(logits), size=shape).astype(np.uint8)


def nchw(z):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(z, -1, 1)))


def torchs(function, z):
    """Value and gradient, NHWC, of a function of NCHW logits in torch."""
    logits = nchw(z).requires_grad_()
    loss = function(logits)
    loss.backward()
    return loss.item(), np.moveaxis(logits.grad.numpy(), 1, -1)


@functools.cache
def compiled(loss):
    return jax.jit(
        jax.value_and_grad(lambda z, labels, ignoring: in_jax(loss, z, labels, ignoring)), static_argnames="ignoring"
    )


def jaxs(loss, z, labels, ignoring=False):
    value, gradient = compiled(loss)(z, labels, ignoring=ignoring)
    return float(value), np.asarray(gradient)


def plain_entropy(logits, labels, weights):
    """Torch's cross entropy; of one logit that of the two logits 0 and z, which also takes weights."""
    if logits.shape[1] == 1:
        logits = torch.cat((torch.zeros_like(logits), logits), 1)
    return functional.cross_entropy(
        logits, torch.from_numpy(labels).long(), weight=None if weights is None else logits.new_tensor(weights)
    )


def plain_dice(logits, labels):
    """As written in the docstring of `Loss`, class by class; of one logit the foreground."""
    single = logits.shape[1] == 1
    p = torch.sigmoid(logits) if single else torch.softmax(logits, 1)
    scores = []
    for channel, number in enumerate([1] if single else range(logits.shape[1])):
        y = torch.from_numpy((labels == number).astype(np.float64))
        scores.append((2 * (p[:, channel] * y).sum() + 1) / (p[:, channel].sum() + y.sum() + 1))
    return 1 - sum(scores) / len(scores)


def plain(loss, labels):
    parts = {
        "cross-entropy": lambda z: plain_entropy(z, labels, loss.class_weights),
        "dice": lambda z: plain_dice(z, labels),
    }
    return lambda z: sum(parts[name](z) for name in loss.parts)


def differs(a, b, rtol=1e-13):
    return abs(a - b) > rtol * abs(b)


@pytest.mark.parametrize(("name", "logits", "weighted"), CASES)
def test_torchs_twin_is_the_plain_formula(name, logits, weighted):
    loss, (z, labels) = loss_of(name, logits, weighted), data(logits)
    value, gradient = torchs(lambda z: in_torch(loss, z, torch.from_numpy(labels)), z)
    expected, slope = torchs(plain(loss, labels), z)
    assert value == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(gradient, slope, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize(("name", "logits", "weighted"), CASES)
def test_the_twins_agree_in_value_and_gradient(x64, name, logits, weighted):
    loss, (z, labels) = loss_of(name, logits, weighted), data(logits)
    value, gradient = jaxs(loss, z, labels)
    expected, slope = torchs(lambda z: in_torch(loss, z, torch.from_numpy(labels)), z)
    assert value == pytest.approx(expected, rel=1e-13)
    np.testing.assert_allclose(gradient, slope, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize(("name", "logits", "weighted"), CASES)
def test_the_definition_has_the_twins_value(name, logits, weighted):
    loss, (z, labels) = loss_of(name, logits, weighted), data(logits)
    expected = in_torch(loss, nchw(z), torch.from_numpy(labels)).item()
    assert core.value(loss, core.sums(loss, z, labels)) == pytest.approx(expected, rel=1e-13)


def test_one_logit_is_torchs_binary_cross_entropy():
    z, labels = data(1)
    expected = functional.binary_cross_entropy_with_logits(nchw(z)[:, 0], torch.from_numpy(labels.astype(np.float64)))
    assert in_torch(Loss(), nchw(z), torch.from_numpy(labels)).item() == pytest.approx(expected.item(), rel=1e-13)


@pytest.mark.parametrize("logits", LOGITS)
def test_weights_matter(logits):
    """The control: neither no weights nor the weights of other classes give the same."""
    z, labels = data(logits)
    weights = WEIGHTS[classes_of(logits)]
    right, none, turned = (
        core.value(loss, core.sums(loss, z, labels))
        for loss in (Loss(class_weights=weights), Loss(), Loss(class_weights=weights[::-1]))
    )
    assert differs(right, none)
    assert differs(right, turned)


def test_the_weighted_mean_is_over_the_weights():
    """The control: torch's binary loss divides by the number of pixels, its cross entropy by the sum of weights."""
    z, labels = data(1)
    weights = torch.tensor(WEIGHTS[2], dtype=torch.float64)[torch.from_numpy(labels).long()][:, None]
    target = torch.from_numpy(labels.astype(np.float64))[:, None]
    by_pixels = functional.binary_cross_entropy_with_logits(nchw(z), target, weights).item()
    assert differs(in_torch(Loss(class_weights=WEIGHTS[2]), nchw(z), torch.from_numpy(labels)).item(), by_pixels)


def test_dice_is_over_the_batch_and_not_the_mean_of_pictures():
    """The control: the mean of the pictures' losses is another number."""
    loss, (z, labels) = Loss("dice"), data(3)
    labels[0] = 0
    together = in_torch(loss, nchw(z), torch.from_numpy(labels)).item()
    alone = [in_torch(loss, nchw(z[[n]]), torch.from_numpy(labels[[n]])).item() for n in range(2)]
    assert differs(together, np.mean(alone), rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("logits", LOGITS)
def test_sums_of_parts_add_up(name, logits):
    loss, (z, labels) = loss_of(name, logits, True), data(logits, shape=(4, 6, 5))
    whole = core.value(loss, core.sums(loss, z, labels))
    parts = [core.sums(loss, z[:1], labels[:1]), core.sums(loss, z[1:, :2], labels[1:, :2])]
    parts.append(core.sums(loss, z[1:, 2:], labels[1:, 2:]))
    assert core.value(loss, parts[0].plus(parts[1]).plus(parts[2])) == pytest.approx(whole, rel=1e-13)
    assert differs(np.mean([core.value(loss, part) for part in parts]), whole), "the control: a mean of means"


@pytest.mark.parametrize(("name", "logits", "weighted"), CASES)
def test_labels_that_are_absent(x64, name, logits, weighted):
    """A class that no pixel has; the weight of an absent class is in no sum."""
    loss, (z, _) = loss_of(name, logits, weighted), data(logits)
    labels = np.zeros((2, 5, 7), np.uint8)
    value, gradient = torchs(lambda z: in_torch(loss, z, torch.from_numpy(labels)), z)
    ours, slope = jaxs(loss, z, labels)
    assert ours == pytest.approx(value, rel=1e-13)
    assert core.value(loss, core.sums(loss, z, labels)) == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(slope, gradient, rtol=1e-12, atol=1e-16)


def test_a_class_that_is_nowhere_costs_nothing():
    z = np.full((1, 4, 4, 1), -1e4)
    labels = np.zeros((1, 4, 4), np.uint8)
    assert core.value(Loss("dice"), core.sums(Loss("dice"), z, labels)) == 0
    labels[0, 0, 0] = 1
    assert core.value(Loss("dice"), core.sums(Loss("dice"), z, labels)) == 0.5, "the control: (0 + 1) / (1 + 1)"


@pytest.mark.parametrize(("name", "logits", "weighted"), [case for case in CASES if case[0] == "cross-entropy+dice"])
def test_huge_logits_are_finite(name, logits, weighted):
    """Pixels all right and all wrong, in float32, where a probability is 0 or 1."""
    loss, (z, labels) = loss_of(name, logits, weighted), data(logits)
    z = np.sign(z).astype(np.float32) * np.float32(1e4)
    value, gradient = torchs(lambda z: in_torch(loss, z, torch.from_numpy(labels)), z)
    ours, slope = jaxs(loss, z, labels)
    exact = core.value(loss, core.sums(loss, z, labels))
    assert np.isfinite([*gradient.ravel(), *slope.ravel()]).all()
    np.testing.assert_allclose([value, ours], exact, rtol=1e-5)
    np.testing.assert_allclose(slope, gradient, rtol=1e-5, atol=1e-9)


def test_a_logarithm_of_the_sigmoid_would_not_be_finite():
    """The control for the test above."""
    assert torch.isinf(torch.log(torch.sigmoid(torch.tensor(-1e4))))


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_half_logits_are_raised_to_float32(kind):
    loss, (z, labels) = loss_of("cross-entropy+dice", 3, True), data(3)
    half = nchw(z).to(getattr(torch, kind))
    value = in_torch(loss, half, torch.from_numpy(labels))
    assert value.dtype == torch.float32
    assert value == in_torch(loss, half.float(), torch.from_numpy(labels))
    narrow = jnp.asarray(z, kind)
    value, gradient = compiled(loss)(narrow, labels, ignoring=False)
    assert (value.dtype, gradient.dtype) == (jnp.float32, narrow.dtype)
    assert value == compiled(loss)(narrow.astype(jnp.float32), labels, ignoring=False)[0]


def test_a_loss_in_bfloat16_would_be_seen():
    """The control for the test above."""
    z, labels = data(1)
    half = nchw(z).bfloat16()
    coarse = functional.binary_cross_entropy_with_logits(half, torch.from_numpy(labels)[:, None].bfloat16())
    assert coarse.float() != in_torch(Loss(), half, torch.from_numpy(labels))


def partly_ignored(labels, seed=5):
    """The same labels with a third of the pixels ignored, and where they are not."""
    counted = np.random.default_rng(seed).random(labels.shape) > 1 / 3
    return np.where(counted, labels, IGNORED).astype(np.uint8), counted


@pytest.mark.parametrize(("name", "logits", "weighted"), CASES)
def test_ignored_pixels_are_as_if_they_were_not_there(x64, name, logits, weighted):
    """In both twins and in the definition: the value of the others alone, their gradient, and none elsewhere."""
    loss, (z, every) = loss_of(name, logits, weighted), data(logits)
    labels, counted = partly_ignored(every)
    value, gradient = torchs(lambda z: in_torch(loss, z, torch.from_numpy(labels), True), z)
    ours, slope = jaxs(loss, z, labels, ignoring=True)
    alone = z[counted][None, :, None]
    expected, sloped = torchs(plain(loss, every[counted][None, :, None]), alone)
    np.testing.assert_allclose([value, ours], expected, rtol=1e-13)
    assert core.value(loss, core.sums(loss, z[counted], every[counted])) == pytest.approx(expected, rel=1e-13)
    for found in (gradient, slope):
        np.testing.assert_array_equal(found[~counted], 0)
        np.testing.assert_allclose(found[counted], sloped[0, :, 0], rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(slope, gradient, rtol=1e-12, atol=1e-16)
    whole, _ = torchs(lambda z: in_torch(loss, z, torch.from_numpy(every)), z)
    assert differs(value, whole, rtol=1e-4), "the control: all pixels"


@pytest.mark.parametrize(("name", "logits", "weighted"), CASES)
def test_where_nothing_is_ignored_asking_changes_nothing(x64, name, logits, weighted):
    loss, (z, labels) = loss_of(name, logits, weighted), data(logits)
    value, gradient = torchs(lambda z: in_torch(loss, z, torch.from_numpy(labels)), z)
    same, slope = torchs(lambda z: in_torch(loss, z, torch.from_numpy(labels), True), z)
    assert same == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(slope, gradient, rtol=1e-13, atol=1e-17)
    assert jaxs(loss, z, labels, ignoring=True)[0] == pytest.approx(value, rel=1e-13)


@pytest.mark.parametrize(("name", "logits", "weighted"), CASES)
def test_a_batch_of_which_all_is_ignored_costs_nothing(x64, name, logits, weighted):
    loss, (z, every) = loss_of(name, logits, weighted), data(logits)
    labels = np.full_like(every, IGNORED)
    for value, gradient in (
        torchs(lambda z: in_torch(loss, z, torch.from_numpy(labels), True), z),
        jaxs(loss, z, labels, ignoring=True),
    ):
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)
    assert core.value(loss, core.sums(loss, z[:0], labels[:0])) == 0


@pytest.mark.parametrize(("weights", "classes"), [((1.0, 2.0), 3), ((1.0, 2.0, 3.0), 2)])
def test_weights_of_another_number_of_classes_are_refused(weights, classes):
    with pytest.raises(ConfigError, match=f"the masks have {classes} classes"):
        Loss(class_weights=weights).check(classes)
    Loss(class_weights=weights).check(len(weights))
