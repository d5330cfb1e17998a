"""Trainings side by side: what is the same stays within the band of A's own rounding, and what is not leaves it."""

import dataclasses
import math

import numpy as np
import pytest
from conftest import trained_tensors

from conversion.backends.backend import runner_of_checkpoint
from conversion.proof.samples import neighbour
from unet_compare.trajectories import UNIT, distance, trajectories
from unet_core.checkpoints.checkpoint import Checkpoint
from unet_core.config import UNetConfig
from unet_core.data.synthetic import Synthetic
from unet_core.errors import DataError, UNetError

pytest.importorskip("torch")
pytest.importorskip("jax")

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = UNetConfig(in_channels=1, features=(16, 32))
SOURCE = Synthetic(count=6, size=32)
SMALL = {"source": SOURCE, "steps": 3, "batch": 2, "crop": 16}


def network(framework="torch", config=CONFIG, tensors=None):
    return runner_of_checkpoint(Checkpoint(config, tensors or trained_tensors(config)), framework, "a network")


@pytest.fixture(scope="module")
def faithful():
    return trajectories(network("torch"), network("jax"), **SMALL)


@pytest.mark.parametrize("turned", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_faithful_conversion_stays_within_the_band(faithful, turned):
    pair = ("jax", "torch") if turned else ("torch", "jax")
    found = trajectories(*map(network, pair), **SMALL) if turned else faithful
    assert found.left is None
    assert found.start == 0
    assert found.verdict.startswith("B stays within the band of A's own runs that differ in one unit in the last place")
    assert [curve.framework for curve in found.curves] == [*pair, pair[0], pair[0], pair[0]]


def test_a_number_alone_has_neighbours_too():
    found = [neighbour({"scale": np.array(0.5, np.float32)}, seed)["scale"] for seed in range(10)]
    assert {(type(one), one.dtype, one.shape) for one in found} == {(np.ndarray, np.dtype("float32"), ())}
    assert len({*map(float, found)}) == 3


def test_a_neighbour_stays_within_the_band():
    a = network()
    found = trajectories(a, network(tensors=neighbour(a.tensors, 99)), **SMALL)
    assert found.left is None
    assert 0 < found.start <= UNIT
    assert found.verdict.startswith("B stays")


@pytest.mark.parametrize("change", [{"norm_momentum": 0.01}, {"norm_epsilon": 1e-3}], ids=str)
def test_another_batch_norm_leaves_the_band_at_once(change):
    found = trajectories(network(), network(config=dataclasses.replace(CONFIG, **change)), **SMALL)
    assert found.left == 1
    assert "leaves the band of A's own runs" in found.verdict
    assert "after step 1: its running statistics part from A's by" in found.verdict


def test_another_learning_rate_leaves_the_band(monkeypatch):
    from unet_compare.backends import jax_backend

    controls = jax_backend.controls_of
    monkeypatch.setattr(jax_backend, "controls_of", lambda rate, *rest: controls(1.5 * rate, *rest))
    found = trajectories(network("torch"), network("jax"), **SMALL)
    assert found.left == 1
    assert "its weights part from A's by 0.5 of the way" in found.verdict


@pytest.mark.slow
def test_a_rate_that_is_one_percent_off_is_seen_in_the_length_of_the_first_step(monkeypatch):
    from unet_compare.backends import jax_backend

    controls = jax_backend.controls_of
    monkeypatch.setattr(jax_backend, "controls_of", lambda rate, *rest: controls(1.01 * rate, *rest))
    found = trajectories(network("torch"), network("jax"), **SMALL)
    assert found.left == 1
    assert "B leaves the band of A's own runs" in found.verdict
    assert "the length of its first step is 1.01 times A's" in found.verdict


@pytest.mark.slow
def test_a_loss_that_is_summed_is_seen_though_adam_takes_it_out(monkeypatch):
    import unet_torch.training.step

    plain = unet_torch.training.step.loss_value
    monkeypatch.setattr(unet_torch.training.step, "loss_value", lambda *given: 512 * plain(*given))
    found = trajectories(network("jax"), network("torch"), **SMALL)
    assert found.left == 1
    assert "the loss of its first step is 512 times A's" in found.verdict


def test_other_weights_are_told():
    found = trajectories(network(), network(tensors=trained_tensors(CONFIG, seed=1)), **SMALL)
    assert found.left == 1
    assert found.verdict.startswith("A and B do not start from the same weights (they are ")


def test_curves_tell_every_step(faithful):
    a, b, *band = faithful.curves
    assert [curve.role for curve in faithful.curves] == ["A", "B", "band", "band", "band"]
    assert all(len(getattr(curve, name)) == 3 for curve in faithful.curves for name in ("loss", "norm", "weights"))
    assert a.weights == a.statistics == (0, 0, 0)
    assert all(distance > 0 for curve in (b, *band) for distance in (*curve.weights, *curve.statistics))
    assert [[step for step, _ in curve.validation] for curve in faithful.curves] == [[2, 3]] * 5
    assert all(0 <= dice <= 1 for curve in faithful.curves for _, dice in curve.validation)
    assert len(set(a.loss)) == 3
    np.testing.assert_allclose(b.loss, a.loss, rtol=1e-4)


def test_limits_are_above_the_band(faithful):
    _, _, *band = faithful.curves
    for name in ("weights", "statistics"):
        limit = getattr(faithful, f"{name}_limit")
        assert all(
            least >= 4 * value for curve in band for value, least in zip(getattr(curve, name), limit, strict=True)
        )
    assert faithful.statistics_limit[0] < 1e-4


def test_batches_in_another_order_make_a_wider_band(faithful):
    found = trajectories(network(), network(), **SMALL, perturbation="order")
    assert found.left is None
    assert "that differ in the order of the batches" in found.verdict
    a, b, *band = found.curves
    assert b.weights == b.statistics == a.weights
    assert max(curve.weights[0] for curve in band) > 100 * max(curve.weights[0] for curve in faithful.curves[2:])
    assert {round(loss, 3) for loss in band[0].loss} != {round(loss, 3) for loss in a.loss}


def test_another_seed_is_another_training(faithful):
    found = trajectories(network(), network(), **SMALL, seed=1)
    assert found.curves[0].loss != faithful.curves[0].loss


def test_wider_weights_are_trained_in_float32(faithful):
    wide = trained_tensors(CONFIG, dtype=np.float64)
    found = trajectories(network(tensors=wide), network(tensors=wide), **SMALL)
    assert found.curves[0].loss == faithful.curves[0].loss


def test_progress_rises():
    told = []
    trajectories(network(), network(), **SMALL, progress=lambda text, done: told.append((text, done)))
    assert told[0] == ("starting 5 runs", 0)
    assert ("step 2 of 3: band 1", pytest.approx(0.4667, abs=1e-3)) in told
    assert [done for _, done in told] == sorted(done for _, done in told)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "steps 0: give a whole number from 1 up"),
        ({"batch": 0}, "batch 0: give a whole number from 1 up"),
        ({"crop": 1}, "crop 1: is too small for 2 levels; 4 will do"),
        ({"rate": 0.0}, "rate 0.0: give a number above 0"),
        ({"rate": math.nan}, "rate nan: give a number above 0"),
        ({"rate": 1e-30}, "step 1: the training of A is at rest; give a larger rate"),
        ({"rate": 1e30}, "the training of A is no number any more; give a smaller rate"),
        ({"seed": -1}, "seed -1: give a whole number from 0"),
        ({"band": 2}, "band 2: give 3 runs or more"),
        ({"perturbation": "none"}, "perturbation: one of ulp, order is needed, got 'none'"),
        ({"perturbation": "order", "steps": 1}, "steps 1: one batch has no other order; give 2 or more"),
        ({"source": Synthetic(count=1, size=32)}, "the training needs 2 pictures or more"),
        ({"source": Synthetic(count=4, size=32, channels=3)}, "the pictures have 3 channels and 2 classes"),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_bad_arguments_are_one_line(given, message):
    with pytest.raises(UNetError) as caught:
        trajectories(network(), network(), **{**SMALL, **given})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_networks_of_other_shapes_are_refused():
    other = UNetConfig(in_channels=1, features=(16, 24))
    with pytest.raises(UNetError, match="tensors of other shapes"):
        trajectories(network(), network(config=other, tensors=trained_tensors(other)), **SMALL)


def test_classes_that_the_network_does_not_tell_apart_are_refused():
    config = UNetConfig(in_channels=1, out_channels=4, features=(16, 32))
    with pytest.raises((UNetError, DataError), match="masks have 2 classes"):
        trajectories(*[network(config=config, tensors=trained_tensors(config))] * 2, **SMALL)


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (2, 3, 1, 0)], ids=str)
def test_a_distance_is_that_of_the_elements_in_any_layout(axes):
    rng = np.random.default_rng(0)
    one, other = (rng.random((5, 4, 3, 3), np.float32) for _ in range(2))
    laid = np.ascontiguousarray(other.transpose(axes)).transpose(np.argsort(axes))
    wide = np.linalg.norm(one.astype(np.float64) - other)
    assert distance({"x": one}, {"x": laid}, ["x"]) == pytest.approx(wide, rel=1e-5)
    assert distance({"x": one}, {"x": other[::-1]}, ["x"]) != pytest.approx(wide, rel=1e-5)
