"""How exact every precision is, and what time costs: small networks, whose figures are those of large ones."""

import dataclasses

import numpy as np
import pytest
from conftest import trained_tensors

import unet_compare.cost
from conversion.backends.backend import runner_of_checkpoint
from unet_compare.cost import cost
from unet_compare.crops import centre_crops
from unet_compare.precisions import ladder, predictions
from unet_compare.speed.report import CaseReport, Environment
from unet_core.checkpoints.checkpoint import Checkpoint, new_network
from unet_core.config import UNetConfig
from unet_core.data.synthetic import Synthetic
from unet_core.errors import ConfigError, DataError, UNetError
from unet_core.graph.family import graph

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = UNetConfig(in_channels=1, features=(4, 6, 8))
SOURCE = Synthetic(count=5, size=48)


def network(framework="torch", config=CONFIG, tensors=None):
    pytest.importorskip(framework)
    return runner_of_checkpoint(Checkpoint(config, tensors or trained_tensors(config)), framework, "a network")


def laddered(a, b, *, pictures=2, crop=40):
    return ladder(predictions(a, b, centre_crops(SOURCE, a.config, count=pictures, side=crop)))


@pytest.fixture(scope="module")
def faithful():
    return laddered(network("torch"), network("jax"))


def rung(found, role, precision):
    return next(one for one in found.rungs if (one.role, one.precision) == (role, precision))


@pytest.mark.parametrize("role", ["A", "B"])
@pytest.mark.parametrize(
    ("precision", "least", "most"), [("float64", 0, 1e-12), ("float32", 1e-9, 1e-5), ("bfloat16", 5e-4, 5e-2)]
)
def test_every_precision_errs_by_its_own_size(faithful, role, precision, least, most):
    assert least <= rung(faithful, role, precision).error <= most


def test_rungs_are_in_order(faithful):
    order = [("A", "torch"), ("B", "jax")]
    assert [(one.role, one.framework) for one in faithful.rungs] == order * 3
    assert [one.precision for one in faithful.rungs[::2]] == ["float64", "float32", "bfloat16"]
    assert (faithful.pictures, faithful.pixels) == (2, 2 * 40 * 40)


def test_a_in_float64_is_the_reference(faithful):
    exact = rung(faithful, "A", "float64")
    assert (exact.error, exact.flipped, exact.dice_change, exact.iou_change) == (0, 0, 0, 0)
    assert 0 <= exact.iou <= exact.dice <= 1
    for one in faithful.rungs:
        assert one.dice_change == one.dice - exact.dice
        assert one.iou_change == one.iou - exact.iou
    assert rung(faithful, "B", "float64").flipped == 0


def test_what_the_device_lacks_is_told(faithful):
    if any(one.precision == "tf32" for one in faithful.rungs):
        pytest.skip("this device has TF32")
    assert faithful.absent == {"tf32": "PyTorch runs on a CPU; JAX runs on a CPU"}


def test_a_reason_is_told_once():
    found = laddered(network("torch"), network("torch"))
    if found.absent:
        assert found.absent == {"tf32": "PyTorch runs on a CPU"}
    assert rung(found, "A", "bfloat16").error == rung(found, "B", "bfloat16").error > 0


def test_a_permuted_kernel_flips_pixels():
    tensors = trained_tensors(CONFIG)
    broken = {**tensors, "up1.conv.0.weight": np.roll(tensors["up1.conv.0.weight"], 1, axis=1)}
    found = laddered(network(), network(tensors=broken))
    for precision in ("float64", "float32", "bfloat16"):
        other = rung(found, "B", precision)
        assert other.error > 0.01
        assert other.flipped > 0
    assert rung(found, "A", "float32").flipped == 0


def test_crops_that_the_network_cannot_take_are_refused():
    with pytest.raises(UNetError, match="crops of 3x3: the network takes 4 pixels a side at least"):
        laddered(network(), network(), crop=3)


def test_networks_of_other_shapes_are_refused():
    other = UNetConfig(in_channels=1, features=(4, 6, 9))
    with pytest.raises(UNetError, match="tensors of other shapes"):
        laddered(network(), network(config=other))


class Pictures:
    """Pictures of several sizes; every pixel tells its row and column."""

    names, channels, values = ("a", "b", "c", "d"), 1, (0, 255)
    sizes = ((10, 20), (31, 12), (16, 16), (40, 40))

    def __len__(self):
        return len(self.sizes)

    def pair(self, index):
        rows, columns = np.indices(self.sizes[index])
        return (rows * 5 + columns).astype(np.uint8)[..., None], (rows % 2).astype(np.uint8)


def test_crops_are_the_centres_in_one_size():
    crops = centre_crops(Pictures(), CONFIG, count=3, side=16)
    assert crops.names == ("a", "c", "d")
    assert [image.shape for image in crops.images] == [(10, 16, 1)] * 3
    np.testing.assert_array_equal(crops.images[2][0, 0, 0], np.float32(15 * 5 + 12) / np.float32(255))
    np.testing.assert_array_equal(crops.pairs[1].labels[:, 0], np.arange(3, 13) % 2)


def test_no_more_pictures_than_there_are():
    assert centre_crops(Pictures(), CONFIG, count=9, side=8).names == Pictures.names


@pytest.mark.parametrize(
    "change", [{"in_channels": 3}, {"out_channels": 3}, {"out_channels": 3, "output": "softmax"}], ids=str
)
def test_pictures_that_the_network_cannot_see_are_refused(change):
    with pytest.raises(DataError, match="the pictures have 1 channels and 2 classes; the network takes"):
        centre_crops(Pictures(), dataclasses.replace(CONFIG, **change), count=1, side=16)


def test_costs_are_asked_of_both_frameworks(monkeypatch):
    asked = []

    def measured(plan, subject, config, case, environment, missing, progress):
        progress(str(case), 0.5)
        asked.append((str(case), [one.name for one in plan.chosen], plan.rounds, config))
        return CaseReport(case, 1, None, (), missing)

    monkeypatch.setattr(unet_compare.cost, "look_around", lambda *_: (Environment({}, {}, {}), {"jax": "not there"}))
    monkeypatch.setattr(unet_compare.cost, "measured", measured)
    told = []
    network = new_network(CONFIG, 0)
    found = cost(network, rounds=3, progress=lambda text, done: told.append((text, done)))
    candidates = ["jax:ours", "torch:eager+channels_last"]
    assert asked == [
        ("inference 1x256x256", candidates, 3, CONFIG),
        ("training 2x128x128", candidates, 3, CONFIG),
    ]
    assert told == [("looking for devices", 0), ("inference 1x256x256", 0.25), ("training 2x128x128", 0.75)]
    assert [case.failed for case in found.cases] == [{"jax": "not there"}] * 2
    assert "torch.compile" in found.note


def test_what_cannot_be_timed_is_said(monkeypatch):
    network = Checkpoint(dataclasses.replace(graph(CONFIG), untrained="its code fails"), new_network(CONFIG, 0).tensors)
    monkeypatch.setattr(unet_compare.cost, "look_around", lambda *_: (Environment({}, {}, {}), {}))
    monkeypatch.setattr(unet_compare.cost, "measured", lambda *given: CaseReport(given[3], 1, None, (), {}))
    found = cost(network)
    assert [case.case.kind for case in found.cases] == ["inference"]
    assert "Not timed: --training 2x128x128: the network cannot be trained: its code fails." in found.note


def test_less_than_a_round_is_refused():
    with pytest.raises(ConfigError, match="--rounds 0"):
        cost(new_network(CONFIG, 0), rounds=0)


@pytest.mark.slow
def test_costs_are_measured():
    pytest.importorskip("torch")
    found = cost(new_network(UNetConfig(features=(2, 3)), 0), rounds=1)
    for case in found.cases:
        assert [one.framework for one in case.candidates]
        assert not case.failed
        assert all(one.median > 0 for one in case.candidates)
