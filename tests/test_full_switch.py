"""The full network in float32: a switched run stays closer to its first framework than the two are apart."""

import numpy as np
import pytest

from conversion import convert
from conversion.runs import read_run
from conversion.training import train
from unet_core.graph.canonical import tensor_specs
from unet_core.training.train_config import TrainConfig

pytestmark = pytest.mark.slow

RECIPE = TrainConfig(steps=8, batch=2, crop=64, validation=1, validate_every=8, save_every=8)
OTHER = {"torch": "jax", "jax": "torch"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Uninterrupted ones in both, and one that was begun in each and switched in the middle."""
    for package in OTHER:
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("runs")
    options = {"data": "synthetic", "recipe": RECIPE}
    for framework, other in OTHER.items():
        train(folder / framework, backend=framework, **options)
        train(folder / f"{framework} half", backend=framework, until=RECIPE.steps // 2, **options)
        moved = folder / f"{framework}, {other}"
        convert(folder / f"{framework} half", moved, to=other, verify=False)
        train(moved, backend=other, resume=True, **options)
    return {path.name: read_run(path).state.network for path in folder.iterdir()}


def distance(a, b):
    """Of the parameters, relative to their norm."""
    trained = [key for key, spec in tensor_specs(b.config).items() if spec.trained]
    pairs = [(a.tensors[key].astype(np.float64), b.tensors[key].astype(np.float64)) for key in trained]
    return np.sqrt(sum(np.square(x - y).sum() for x, y in pairs) / sum(np.square(y).sum() for _, y in pairs))


@pytest.mark.parametrize("framework", OTHER)
def test_a_switch_adds_less_than_the_frameworks_differ_by(runs, framework):
    switched = runs[f"{framework}, {OTHER[framework]}"]
    apart = distance(runs["jax"], runs["torch"])
    assert 0 < distance(switched, runs[framework]) <= apart
    assert distance(runs[f"{framework} half"], runs[framework]) > apart, "the control: half of the way is far away"
