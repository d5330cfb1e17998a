"""`unet verify RUN_A RUN_B`: in what two runs differ."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from conftest import few
from test_converting_runs import RECIPE, contents, cut, edit_config, remove, states_of

from conversion.runs import read_run
from conversion.training import train
from unet_cli.main import main
from unet_core.training.lock import locked

torch = pytest.importorskip("torch")

import unet_torch.training.states

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def trained(cells, tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "run"
    train(path, backend="torch", data=cells, recipe=RECIPE)
    return path


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def twin(run, tmp_path):
    """Another copy."""
    return shutil.copytree(run, tmp_path / "twin")


@pytest.fixture
def different(run, twin, capsys):
    """What is said of the two copies, which are not the same any more."""

    def compare():
        capsys.readouterr()
        assert main(["verify", str(run), str(twin)]) == 1
        return " ".join(capsys.readouterr().out.split())

    return compare


def test_a_run_is_not_compared_with_a_network(run, capsys):
    assert main(["verify", str(run), str(run / "best.safetensors")]) == 2
    message = capsys.readouterr().err
    assert f"is a run, {run / 'best.safetensors'} is none; name {run / 'best.safetensors'}" in message
    assert message.count("\n") == 1


def test_a_run_that_trains_is_not_compared(run, twin, capsys):
    with locked(twin):
        assert main(["verify", str(run), str(twin)]) == 2
    assert f"{twin}: another process trains here" in capsys.readouterr().err


def test_comparing_changes_nothing(run, twin, tmp_path):
    before = contents(tmp_path)
    main(["verify", str(run), str(twin)])
    assert contents(tmp_path) == before


def test_a_damaged_state_is_passed_over_and_said(run, twin, capsys):
    cut(states_of(twin)[-1])
    assert main(["verify", str(run), str(twin)]) == 1
    assert f"{states_of(twin)[-1]} is damaged and passed over: " in capsys.readouterr().out


def test_a_copy_is_the_same_however_it_is_run(run, twin, capsys):
    edit_config(twin, compile=True)
    assert main(["verify", str(run), str(twin)]) == 0
    assert "SAME: the trainings are the same" in capsys.readouterr().out


def test_more_parts_of_a_batch_than_the_next_update_has_pictures(run, twin, capsys):
    """It is made with fewer of both."""
    for folder in (run, twin):
        edit_config(folder, batch=8, norm_parts=4)
    assert main(["verify", str(run), str(twin)]) == 0
    edit_config(twin, batch=8, norm_parts=8)
    assert main(["verify", str(run), str(twin)]) == 1
    assert "the recipes differ: --norm-parts" in " ".join(capsys.readouterr().out.split())


def test_runs_at_different_steps_are_told_apart(twin, different):
    remove(states_of(twin)[-1])
    assert "DIFFERENT: the trainings differ: A has made 6 updates, B 4" in different()


def test_runs_of_different_recipes_are_told_apart(twin, different):
    edit_config(twin, seed=3, batch=3)
    assert "DIFFERENT: the trainings differ: the recipes differ: --seed, --batch" in different()


def test_runs_of_different_networks_are_told_apart(twin, cells, different):
    shutil.rmtree(twin)
    recipe = dataclasses.replace(RECIPE, features=(4, 8), steps=2)
    train(twin, backend="torch", data=cells, recipe=recipe)
    assert "DIFFERENT: the trainings differ: the networks are not of one config" in different()


def test_runs_whose_rate_dropped_otherwise_are_told_apart(twin, different):
    lines = [json.loads(line) for line in (twin / "history.jsonl").read_text().splitlines()]
    for number, line in enumerate(line for line in lines if "validation" in line):
        line["validation"]["loss"] = 1.0 + number
    (twin / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "the learning rate of the next update is " in different()


def rewrite(run, change):
    """Change the newest state of a run in torch."""
    found = read_run(run)
    unet_torch.training.states.write(run / "states", change(found.state), found.settings.recipe, 0.1)


def with_moments(state, change):
    moments = change(state.optimizer.moments)
    return dataclasses.replace(state, optimizer=dataclasses.replace(state.optimizer, moments=moments))


def positive(moments):
    return {name: {key: np.abs(value) for key, value in tensors.items()} for name, tensors in moments.items()}


def swapped(moments):
    return {"exp_avg": moments["exp_avg_sq"], "exp_avg_sq": moments["exp_avg"]}


def test_swapped_moments_are_named(run, twin, different):
    """Where both are positive; else they are no mean squares."""
    for path in (run, twin):
        rewrite(path, lambda state: with_moments(state, positive))
    rewrite(twin, lambda state: with_moments(state, swapped))
    assert "exp_avg and exp_avg_sq are swapped" in different()


def turned(tensors):
    """With one of its values moved by one unit in the last place."""
    value = tensors["up1.conv.0.weight"].copy()
    value.flat[0] = np.nextafter(value.flat[0], np.float32(9))
    return {**tensors, "up1.conv.0.weight": value}


CHANGES = {
    "average": lambda state: dataclasses.replace(state, average=turned(state.average)),
    "exp_avg": lambda state: with_moments(state, lambda moments: {**moments, "exp_avg": turned(moments["exp_avg"])}),
}


@pytest.mark.parametrize("name", few(list(CHANGES), "exp_avg"))
def test_a_bit_that_changed_is_named(name, twin, different):
    rewrite(twin, CHANGES[name])
    assert f"the states differ before it: {name} of up1.conv.0.weight" in different()


def test_runs_on_other_data_are_told_apart(twin, different):
    config = json.loads((twin / "config.json").read_text())
    (twin / "config.json").write_text(json.dumps({**config, "digest": "0" * 64}))
    assert "DIFFERENT: the trainings differ: the two train on other data" in different()
