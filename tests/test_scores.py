"""The scores of single pictures: calibration and the distance of boundaries, against values worked out by hand."""

import json

import numpy as np
import pytest

pytest.importorskip("scipy")

from unet_cli.main import main
from unet_core.data.synthetic import Synthetic, write_folder
from unet_core.prediction.evaluation import evaluate
from unet_core.prediction.scores import boundary_distance, calibration_error, confidence
from unet_core.training.settings import Loss


def square(top, left, size=4, shape=(16, 20)):
    mask = np.zeros(shape, bool)
    mask[top : top + size, left : left + size] = True
    return mask


def test_the_distance_of_boundaries():
    one = square(4, 4)
    assert boundary_distance(one, one) == 0
    line, moved = (np.zeros((9, 9), bool) for _ in range(2))
    line[4], moved[6] = True, True
    assert boundary_distance(line, moved) == 2
    assert boundary_distance(one, square(4, 6)) == boundary_distance(square(4, 6), one) > 0
    assert boundary_distance(one, np.zeros_like(one)) == np.hypot(16, 20)
    assert boundary_distance(np.zeros_like(one), np.zeros_like(one)) == 0


def test_the_edge_of_the_picture_is_no_boundary():
    half, other = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    half[:, :4], other[:, :5] = True, True
    assert boundary_distance(half, other) == 1


def test_confidence_is_that_of_the_class_that_is_chosen():
    one = confidence(np.array([[[0.0], [np.log(3)], [-np.log(3)]]]), "sigmoid")
    assert one == pytest.approx(np.array([[0.5, 0.75, 0.75]]))
    several = confidence(np.log(np.array([[[0.2, 0.7, 0.1]]])), "softmax")
    assert several == pytest.approx(np.array([[0.7]]))


@pytest.mark.parametrize(
    ("sure", "right", "error"), [(0.75, 0.75, 0.0), (0.95, 0.5, 0.45), (1.0, 1.0, 0.0), (0.6, 1, 0.4)]
)
def test_the_calibration_error(sure, right, error):
    correct = np.arange(400) < 400 * right
    assert calibration_error(np.full(400, sure), correct) == pytest.approx(error)


def test_pictures_are_scored_as_the_whole_is():
    source = Synthetic(count=3, size=48)
    rng = np.random.default_rng(0)

    def bands(picture):
        logits = rng.standard_normal((*picture.shape[:2], 1)).astype(np.float32)
        yield 0, logits[:20]
        yield 20, logits[20:]

    found = evaluate(bands, source, loss=Loss(), scores=True)
    assert [one.name for one in found.pictures] == list(source.names)
    assert np.mean([one.loss for one in found.pictures]) == pytest.approx(found.loss)
    assert found.pictures[0].mean_iou != found.pictures[1].mean_iou
    assert evaluate(bands, source, loss=Loss()).pictures == ()


def test_a_picture_of_which_nothing_counts_has_no_score():
    source = Synthetic(count=2, size=32)

    class Ignored(Synthetic):
        def pair(self, index):
            image, labels = super().pair(index)
            return image, np.full_like(labels, 255) if index == 0 else labels

    def bands(picture):
        yield 0, np.ones((*picture.shape[:2], 1), np.float32)

    found = evaluate(bands, Ignored(count=2, size=32), loss=Loss(), scores=True)
    assert [one.name for one in found.pictures] == [source.names[1]]


def test_the_command_lists_them(tmp_path, capsys):
    unet_torch = pytest.importorskip("unet_torch")
    unet_torch.save(unet_torch.UNet(1, 1, features=(2, 3), seed=0), tmp_path / "net.pt")
    write_folder(Synthetic(count=2, size=32), tmp_path / "cells")
    words = ["eval", str(tmp_path / "net.pt"), "--data", str(tmp_path / "cells")]
    assert main([*words, "--pictures"]) == 0
    assert "boundary distance" in capsys.readouterr().out
    assert main([*words, "--pictures", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["pictures"]] == ["000", "001"]
    assert main([*words, "--json"]) == 0
    assert "pictures" not in json.loads(capsys.readouterr().out)
