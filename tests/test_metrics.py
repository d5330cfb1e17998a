"""Metrics against torchmetrics, and the evaluation that sums them over pictures in bands."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from unet_core.data.labels import IGNORED
from unet_core.data.pictures import Pair
from unet_core.prediction.evaluation import Evaluation, Share, evaluate
from unet_core.prediction.metrics import confusion, decided, metrics
from unet_core.prediction.overlay import grey, overlay, panel
from unet_core.training.losses import sums, value
from unet_core.training.settings import Loss


def pictures(classes, count=5, seed=0):
    """Labels and predictions of several pictures of different sizes; each class's share differs from one to another."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        shape = tuple(rng.integers(3, 12, 2))
        labels = rng.choice(classes, shape, p=rng.dirichlet(np.ones(classes))).astype(np.uint8)
        noise = rng.integers(classes, size=shape)
        yield labels, np.where(rng.random(shape) < 0.6, labels, noise).astype(np.uint8)


def total(pairs, classes):
    return sum(confusion(labels, predicted, classes) for labels, predicted in pairs)


def imported_torchmetrics():
    """It imports torchvision, where that is installed."""
    register_torchvision = pytest.importorskip("benchmarks.torchvision_operators").register_torchvision
    register_torchvision()
    return pytest.importorskip("torchmetrics")


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [("iou", "JaccardIndex"), ("dice", "F1Score"), ("precision", "Precision"), ("recall", "Recall")],
)
def test_metrics_over_several_pictures_are_torchmetrics(classes, name, theirs):
    torch, torchmetrics = pytest.importorskip("torch"), imported_torchmetrics()
    oracle = getattr(torchmetrics.classification, f"Multiclass{theirs}")(classes, average=None)
    pairs = list(pictures(classes))
    for labels, predicted in pairs:
        oracle.update(torch.from_numpy(predicted).ravel(), torch.from_numpy(labels).ravel())
    expected = oracle.compute().numpy()
    np.testing.assert_allclose(getattr(metrics(total(pairs, classes)), name), expected, rtol=1e-6)
    turned = metrics(total(((b, a) for a, b in pairs), classes))
    if name in ("precision", "recall"):
        assert not np.allclose(getattr(turned, name), expected, rtol=1e-4), "the control: masks and predictions swapped"


@pytest.mark.parametrize("classes", [2, 4])
def test_accuracy_is_torchmetrics(classes):
    torch, torchmetrics = pytest.importorskip("torch"), imported_torchmetrics()
    micro, macro = (
        torchmetrics.classification.MulticlassAccuracy(classes, average=kind) for kind in ("micro", "macro")
    )
    pairs = list(pictures(classes))
    for labels, predicted in pairs:
        for oracle in (micro, macro):
            oracle.update(torch.from_numpy(predicted).ravel(), torch.from_numpy(labels).ravel())
    found = metrics(total(pairs, classes)).accuracy
    assert found == pytest.approx(micro.compute().item(), rel=1e-6)
    assert found != pytest.approx(macro.compute().item(), rel=1e-4), "the control: the mean over classes"


def test_the_confusion_matrix_is_torchmetrics():
    torch, torchmetrics = pytest.importorskip("torch"), imported_torchmetrics()
    oracle = torchmetrics.classification.MulticlassConfusionMatrix(4)
    pairs = list(pictures(4))
    for labels, predicted in pairs:
        oracle.update(torch.from_numpy(predicted).ravel(), torch.from_numpy(labels).ravel())
    found = total(pairs, 4)
    np.testing.assert_array_equal(found, oracle.compute().numpy())
    assert (found != found.T).any(), "the control: rows and columns differ"


def test_a_mean_over_pictures_is_another_number():
    """The control: why the matrices are summed."""
    pairs = list(pictures(3))
    means = np.mean([metrics(confusion(*pair, 3)).accuracy for pair in pairs])
    assert metrics(total(pairs, 3)).accuracy != pytest.approx(means, rel=1e-3)


def test_a_class_that_is_absent_has_no_value_and_is_in_no_mean():
    labels, predicted = np.array([0, 0, 2, 2], np.uint8), np.array([0, 2, 2, 2], np.uint8)
    found = metrics(confusion(labels, predicted, 4))
    assert found.iou == (1 / 2, None, 2 / 3, None)
    assert found.mean_iou == (1 / 2 + 2 / 3) / 2
    assert found.mean_dice == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found.pixels == (2, 0, 2, 0)
    assert found.mean_iou != np.mean([iou or 0 for iou in found.iou]), "the control: zeros in their place"


def test_a_class_that_is_only_predicted_counts():
    found = metrics(confusion(np.array([0, 0], np.uint8), np.array([0, 1], np.uint8), 2))
    assert found.iou == (1 / 2, 0.0)
    assert found.recall == (1 / 2, None)
    assert found.precision == (1.0, 0.0)


def test_a_class_that_is_never_predicted_has_no_precision():
    found = metrics(confusion(np.array([0, 1], np.uint8), np.array([0, 0], np.uint8), 2))
    assert found.iou == (1 / 2, 0.0)
    assert found.precision == (1 / 2, None)
    assert found.recall == (1.0, 0.0)


def test_no_pixels_have_no_metrics():
    with pytest.raises(ValueError, match="no pixel"):
        metrics(np.zeros((2, 2), np.int64))


@given(st.data(), st.integers(2, 256))
def test_every_pixel_is_counted_once_and_metrics_are_parts(data, classes):
    shape = data.draw(arrays.array_shapes(min_dims=1, max_dims=3, max_side=5))
    drawn = arrays.arrays(np.uint8, shape, elements=st.integers(0, classes - 1))
    labels, predicted = data.draw(drawn), data.draw(drawn)
    matrix = confusion(labels, predicted, classes)
    assert matrix.sum() == labels.size
    assert matrix[labels.flat[0], predicted.flat[0]] > 0
    found = metrics(matrix)
    values = [*found.iou, *found.dice, *found.precision, *found.recall, found.mean_iou, found.mean_dice, found.accuracy]
    assert all(0 <= one <= 1 for one in values if one is not None)
    assert sum(found.pixels) == labels.size


@given(arrays.arrays(np.uint8, st.integers(1, 20), elements=st.integers(0, 3)))
def test_what_is_all_right_scores_one(labels):
    found = metrics(confusion(labels, labels, 4))
    assert (found.mean_iou, found.mean_dice, found.accuracy) == (1, 1, 1)


@pytest.mark.parametrize("output", ["sigmoid", "softmax", "logits"])
def test_one_logit_is_foreground_above_zero(output):
    z = np.array([[[-1.0], [0.0], [1e-30], [5.0]]])
    np.testing.assert_array_equal(decided(z, output), [[0, 0, 1, 1]])


@pytest.mark.parametrize("output", ["softmax", "logits"])
def test_of_several_logits_the_largest_wins(output):
    z = np.array([[-3.0, -1.0, -2.0], [1.0, 0.5, 2.0], [0.0, 0.0, -1.0]])
    found = decided(z, output)
    np.testing.assert_array_equal(found, [1, 2, 0])
    assert found.dtype == np.uint8


def test_several_sigmoids_have_a_background_besides():
    z = np.array([[-3.0, -1.0, -2.0], [1.0, 0.5, 2.0], [0.0, 0.0, -1.0]])
    np.testing.assert_array_equal(decided(z, "sigmoid"), [0, 3, 0])


class Pictures:
    """A source of random pictures in memory, the values of whose pixels are their class, mostly."""

    values = (0, 1, 2)

    def __init__(self, sizes=((9, 7), (4, 5), (12, 3))):
        self.sizes, self.names = sizes, tuple(f"picture{n}" for n in range(len(sizes)))

    def __len__(self):
        return len(self.sizes)

    def pair(self, index):
        rng = np.random.default_rng(index)
        labels = rng.integers(3, size=self.sizes[index]).astype(np.uint8)
        return Pair(rng.integers(256, size=(*labels.shape, 3)).astype(np.uint8), labels)


def logits_of(picture):
    return picture.astype(np.float64) / 64 - 2


def bands(height):
    def cut(picture):
        for start in range(0, len(picture), height):
            yield start, logits_of(picture[start : start + height])

    return cut


@pytest.mark.parametrize("height", [1, 2, 4])
def test_bands_change_nothing(height):
    loss = Loss("cross-entropy+dice", (1.0, 2.0, 0.5))
    whole, cut = (evaluate(bands(rows), Pictures(), loss=loss, output="softmax") for rows in (1000, height))
    assert cut.loss == pytest.approx(whole.loss, rel=1e-13)
    np.testing.assert_array_equal(cut.confusion, whole.confusion)
    assert cut.metrics == whole.metrics


def test_an_evaluation_is_over_all_pixels():
    source, loss = Pictures(), Loss("cross-entropy+dice")
    z = np.concatenate([logits_of(source.pair(n).image).reshape(-1, 3) for n in range(3)])
    labels = np.concatenate([source.pair(n).labels.ravel() for n in range(3)])
    found = evaluate(bands(4), source, loss=loss, output="softmax")
    assert found.loss == pytest.approx(value(loss, sums(loss, z, labels)), rel=1e-13)
    np.testing.assert_array_equal(found.confusion, confusion(labels, decided(z, "softmax"), 3))
    alone = [evaluate(bands(4), Pictures((size,)), loss=loss, output="softmax").loss for size in source.sizes]
    assert found.loss != pytest.approx(np.mean(alone), rel=1e-4), "the control: the mean over pictures"


class PartlyIgnored(Pictures):
    """The same, of which a third of the pixels count nowhere, and the second picture not at all."""

    def pair(self, index):
        image, labels = super().pair(index)
        counted = np.random.default_rng(9).random(labels.shape) > (1 if index == 1 else 1 / 3)
        return Pair(image, np.where(counted, labels, IGNORED).astype(np.uint8))


def test_an_evaluation_is_over_the_pixels_that_are_not_ignored():
    loss, pairs = Loss("cross-entropy+dice", (1.0, 2.0, 0.5)), [PartlyIgnored().pair(n) for n in range(3)]
    z = np.concatenate([logits_of(image)[labels < 3] for image, labels in pairs])
    labels = np.concatenate([labels[labels < 3] for _, labels in pairs])
    found = evaluate(bands(2), PartlyIgnored(), loss=loss, output="softmax", samples=2)
    assert found.loss == pytest.approx(value(loss, sums(loss, z, labels)), rel=1e-13)
    np.testing.assert_array_equal(found.confusion, confusion(labels, decided(z, "softmax"), 3))
    assert sum(found.metrics.pixels) == len(labels)
    assert (found.samples["picture1"][:, -5:] == grey(pairs[1].image) // 2).all(), "neither missed nor invented"
    whole = evaluate(bands(2), Pictures(), loss=loss, output="softmax")
    assert found.loss != pytest.approx(whole.loss, rel=1e-4), "the control: all pixels"
    assert found.metrics.iou != whole.metrics.iou


def test_samples_are_the_first_pictures():
    found = evaluate(bands(4), Pictures(), loss=Loss(), output="softmax", samples=2)
    assert {name: shown.shape for name, shown in found.samples.items()} == {
        "picture0": (9, 3 * 7 + 16, 3),
        "picture1": (4, 3 * 5 + 16, 3),
    }
    picture, labels = Pictures().pair(0)
    expected = panel(picture, labels, decided(logits_of(picture), "softmax"))
    np.testing.assert_array_equal(found.samples["picture0"], expected)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_processes_that_share_an_evaluation_find_what_one_does(count):
    """In every bit; four processes share three pictures. The first ones keep the samples that are theirs."""
    whole = evaluate(bands(4), Pictures(), loss=Loss("cross-entropy+dice"), output="softmax", samples=3)
    given, barrier = [None] * count, threading.Barrier(count, timeout=30)

    def part(index):
        def gathered(array):
            given[index] = array
            barrier.wait()
            parts = np.stack(given)
            barrier.wait()
            return parts

        share = Share(index, count, gathered)
        return evaluate(bands(4), Pictures(), loss=Loss("cross-entropy+dice"), output="softmax", samples=3, share=share)

    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(part, range(count)))
    assert all(one.to_dict() == whole.to_dict() for one in found)
    assert [name for one in found for name in one.samples] == list(whole.samples)


def test_a_large_sample_is_cut():
    found = evaluate(bands(300), Pictures(((600, 520),)), loss=Loss(), output="softmax", samples=1)
    assert found.samples["picture0"].shape == (512, 3 * 512 + 16, 3)


def test_an_evaluation_is_plain_json():
    import json

    found = evaluate(bands(4), Pictures(), loss=Loss(), output="softmax")
    plain = json.loads(json.dumps(found.to_dict()))
    assert plain["loss"] == found.loss
    assert plain["iou"] == list(found.metrics.iou)
    assert np.sum(plain["confusion"]) == sum(plain["pixels"]) == 9 * 7 + 4 * 5 + 12 * 3
    assert found.scalars()["mean IoU"] == found.metrics.mean_iou


def test_an_absent_class_is_a_dash_in_words():
    matrix = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert "(0.750 0.800 -)" in str(Evaluation(0.5, metrics(matrix), matrix, {}))


@pytest.mark.parametrize(("channels", "taken"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_any_picture_is_shown_in_rgb(channels, taken):
    picture = np.random.default_rng(0).integers(256, size=(4, 5, channels)).astype(np.uint8)
    np.testing.assert_array_equal(grey(picture), picture[..., taken])
    np.testing.assert_array_equal(grey(picture.astype(np.uint16) * 257), picture[..., taken])


def test_an_overlay_tints_all_but_the_background():
    picture = np.full((2, 5, 1), 100, np.uint8)
    labels = np.array([[0, 1, 2, 7, 8], [0, 0, 0, 0, 0]], np.uint8)
    shown = overlay(picture, labels)
    assert (shown[labels == 0] == 100).all()
    assert len({tuple(pixel) for pixel in shown[0, 1:4].tolist()} | {(100, 100, 100)}) == 4
    np.testing.assert_array_equal(shown[0, 4], shown[0, 1])


def test_a_panel_marks_what_is_missed_and_what_is_invented():
    labels, predicted = np.array([[1, 1, 0, 0]], np.uint8), np.array([[1, 0, 1, 0]], np.uint8)
    shown = panel(np.full((1, 4, 1), 100, np.uint8), labels, predicted)[0, -4:].tolist()
    assert shown == [[255] * 3, [230, 159, 0], [86, 180, 233], [50] * 3]
