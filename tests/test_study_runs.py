"""The runs of a study, really trained: common random numbers, planted faults, kills, two processes in one folder."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")
torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

from unet_cli.main import main
from unet_compare.study import trial
from unet_compare.study.arms import FAULTS
from unet_compare.study.controls import planted, start_of
from unet_compare.study.energy import measured
from unet_compare.study.plan import Order, study_of
from unet_compare.study.result import read_result
from unet_core.checkpoints.checkpoint import new_network
from unet_core.data.formats.reading import Pictures
from unet_core.errors import UNetError
from unet_core.paths import as_path
from unet_core.training.history import read_history
from unet_core.training.train_config import TrainConfig

ROOT = Path(__file__).parents[1]
RECIPE = {"features": [2, 3], "steps": 3, "crop": 16, "batch": 2, "validation": 2, "validate_every": 3}


def arm(text):
    return study_of({"arms": ["torch", "jax", text], "seeds": 2, "recipe": RECIPE}).arms[2]


@pytest.mark.parametrize("control", ["flax_momentum", "half_pixel", "rounding"])
def test_controls_start_from_the_network_of_the_seed(control):
    recipe = arm(f"control:{control}").of_run(5, None, None)
    plain = new_network(recipe.network(1, 2), 5)
    start = start_of(arm(f"control:{control}"), recipe, 1, 2)
    assert (start.config == plain.config) == (control == "rounding")
    same = [start.tensors[key].tobytes() == value.tobytes() for key, value in plain.tensors.items()]
    assert all(same) == (control != "rounding")
    for key, value in plain.tensors.items():
        assert np.allclose(start.tensors[key], value, rtol=2.0**-22, atol=0)


def test_the_pictures_are_read_as_the_recipe_says(tmp_path):
    for kind, values in (("images", np.full((16, 16), -500, np.int16)), ("masks", np.eye(16, dtype=np.uint8))):
        (tmp_path / kind).mkdir()
        np.save(tmp_path / kind / "a.npy", values)
    own = arm("control:half_pixel")
    recipe = dataclasses.replace(own.recipe, pictures=Pictures(window=(-1000, 1000)))
    order = Order("run", dataclasses.replace(own, recipe=recipe), 0, None, None, str(tmp_path))
    assert trial._start(order).config.in_channels == 1
    with pytest.raises(UNetError, match="nothing tells which are black and white"):
        trial._start(dataclasses.replace(order, arm=own))


def test_arms_without_more_start_as_recipes_say():
    assert start_of(arm("jax:bfloat16"), TrainConfig(), 1, 2) is None


@pytest.mark.slow
def test_tf32_rounds_the_factors_of_products_forward_and_backward():
    from unet_compare.study.jax_faults import OPERATIONS

    rng = np.random.default_rng(0)
    x, w = (jax.numpy.asarray(rng.standard_normal(shape), np.float32) for shape in ((1, 6, 6, 2), (3, 3, 2, 3)))
    how = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}

    def loss(x, w):
        return (OPERATIONS["convolution"].function(x, weight=w, **how) ** 2).sum()

    plain = jax.value_and_grad(loss, (0, 1))(x, w)
    with planted("tf32"):
        rounded = jax.value_and_grad(loss, (0, 1))(x, w)
    again = jax.value_and_grad(loss, (0, 1))(x, w)
    for one, other, third in zip(*map(jax.tree.leaves, (plain, rounded, again)), strict=True):
        apart = float(np.abs(one - other).max() / np.abs(one).max())
        assert 1e-6 < apart < 3e-3
        assert np.array_equal(one, third)


def test_the_biased_variance_is_smaller_by_one_in_n():
    from unet_compare.study.jax_faults import OPERATIONS

    class Run:
        training, dtype, strips = True, np.float32, 1

        def __init__(self):
            self.tracked = {}

        def track(self, role, value):
            self.tracked[role] = np.asarray(value)

        def uniform(self, shape):
            raise NotImplementedError

    x = jax.numpy.asarray(np.random.default_rng(0).standard_normal((2, 3, 3, 4)), np.float32)
    zeros = jax.numpy.zeros(4)
    given = {"mean": zeros, "variance": zeros, "epsilon": 1e-5, "momentum": 0.1}
    plain, faulty = Run(), Run()
    before = OPERATIONS["batch_norm"].function(x, run=plain, **given)
    with planted("biased_variance"):
        after = OPERATIONS["batch_norm"].function(x, run=faulty, **given)
    assert np.array_equal(before, after)
    assert np.array_equal(plain.tracked["mean"], faulty.tracked["mean"])
    assert faulty.tracked["variance"] == pytest.approx(plain.tracked["variance"] * 17 / 18, rel=1e-5)


def test_energy_is_counted_or_said_to_be_absent():
    with measured() as meter:
        pass
    assert all(joules >= 0 for joules in meter.joules.values())
    assert meter.joules or meter.absent


def started(plan, out, *more):
    command = [sys.executable, "-m", "unet_cli", "study", str(plan), "--out", str(out), "--no-where", *more]
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | own)


def ended(process, timeout=300):
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def write_plan(folder, arms, **recipe):
    lines = [f"{name} = {json.dumps(value)}" for name, value in {**RECIPE, **recipe}.items()]
    file = folder / "study.toml"
    file.write_text(f"arms = {json.dumps(arms)}\nseeds = 2\n[recipe]\n" + "\n".join(lines) + "\n")
    return file


def until(happens, timeout=120):
    end = time.monotonic() + timeout
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_study_leaves_no_process_and_is_gone_on_with(tmp_path, number):
    """By a second one, which takes over at once; what was trained is not trained again."""
    plan, out = write_plan(tmp_path, ["torch", "torch:norm_parts=2"], steps=100_000, log_every=1), tmp_path / "out"
    first = started(plan, out)
    history = out / "runs" / "torch" / "seed-0" / "history.jsonl"
    until(lambda: history.exists() and history.stat().st_size)
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    assert children
    first.send_signal(number)
    ended(first)
    until(lambda: not any(Path(f"/proc/{child}/exe").exists() for child in children))
    states = [path.name for path in (out / "runs" / "torch" / "seed-0" / "states").iterdir() if path.name[0] != "."]
    assert states  # it saved where it was
    assert not (out / "runs" / "torch" / "seed-0" / "scores.json").exists()
    second = started(plan, out, "--runs", "1")
    until(lambda: (out / "claims" / "torch_seed-0.2").exists())
    second.terminate()
    ended(second)


@pytest.mark.slow
def test_a_study_of_both_frameworks_by_two_processes(tmp_path):
    """Every run is made once, from the same start and batches in every arm; another hand-over finds nothing to do."""
    plan, out = (
        write_plan(tmp_path, ["torch", "jax", "control:rounding", *(f"control:{one}" for one in FAULTS)]),
        tmp_path / "o",
    )
    both = [started(plan, out) for _ in range(2)]
    codes = [ended(process, 1200) for process in both]
    assert all(code in (0, 1) for code, _, _ in codes), codes
    claims = [path.name for path in (out / "claims").iterdir() if not path.name.startswith(".")]
    assert len(claims) == 14
    assert all(name.endswith(".1") for name in claims)

    def losses(name, seed):
        entries = read_history(out / "runs" / name / f"seed-{seed}" / "history.jsonl")
        return np.array([entry["loss"] for entry in entries if "loss" in entry])

    for name in ("jax", "control-rounding"):
        assert losses(name, 0) == pytest.approx(losses("torch", 0), rel=1e-5)
    assert losses("torch", 1) != pytest.approx(losses("torch", 0), rel=1e-2)
    assert read_result(out / "runs" / "jax" / "seed-0").cost is not None
    before = {path: path.stat().st_mtime_ns for path in out.rglob("scores.json")}
    code, text, _ = ended(started(plan, out))
    assert code in (0, 1)
    assert "report is in" in text
    assert {path: path.stat().st_mtime_ns for path in out.rglob("scores.json")} == before


@pytest.mark.slow
def test_a_study_in_a_bucket_by_two_processes(tmp_path, s3_bucket):
    plan, out = write_plan(tmp_path, ["torch", "torch:norm_parts=2"]), as_path(f"{s3_bucket}/{tmp_path.name}/study")
    both = [started(plan, out) for _ in range(2)]
    codes = [ended(process, 600) for process in both]
    assert all(code in (0, 1) for code, _, _ in codes), codes
    assert sorted(path.name for path in (out / "claims").iterdir()) == [
        f"{arm}_seed-{seed}.1" for arm in ("torch-norm_parts=2", "torch") for seed in (0, 1)
    ]
    assert read_result(out / "runs" / "torch" / "seed-1").seed == 1
    assert (out / "report" / "report.html").exists()
    code, text, _ = ended(started(plan, out))
    assert code in (0, 1)
    assert "report is in" in text


def test_a_run_that_cannot_be_made_is_one_line(tmp_path, capfd):
    plan = write_plan(tmp_path, ["torch", "torch:norm_parts=2"], crop=1)
    assert main(["study", str(plan), "--out", str(tmp_path / "out"), "--no-where"]) == 2
    error = capfd.readouterr().err
    assert error.startswith("unet: torch seed-0: crop 1: is too small")
    assert error.count("\n") == 1
