"""`unet convert RUN DST --to ...`: what it says, refuses, and leaves behind."""

import dataclasses
import errno
import json
import os
import resource
import shutil
from pathlib import Path

import pytest

from conversion import DifferentError, convert
from conversion.proof.certificate import read_certificate
from conversion.training import train
from unet_cli.main import main
from unet_core.training.lock import locked
from unet_core.training.run import read_run_config
from unet_core.training.schedule import Schedule
from unet_core.training.train_config import TrainConfig

torch = pytest.importorskip("torch")
pytest.importorskip("jax")
pytest.importorskip("grain")

import unet_jax.training.optimizers
import unet_jax.training.states
from unet_jax.training import step as in_jax

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = TrainConfig(
    features=(4, 6),
    steps=6,
    batch=2,
    crop=16,
    validation=2,
    validate_every=2,
    save_every=2,
    log_every=3,
    ema=0.9,
    keep=2,
    schedule=Schedule("plateau", patience=0),
)
KINDS = {"torch": "jax", "jax": "torch"}


@pytest.fixture(scope="session")
def runs(cells, tmp_path_factory):
    """A run in torch and where it was moved to JAX, both with the states of steps 4 and 6."""
    folder = tmp_path_factory.mktemp("runs")
    train(folder / "torch", backend="torch", data=cells, recipe=RECIPE)
    for name, states in (("jax", 2), ("earlier", 1)):
        run = shutil.copytree(folder / "torch", folder / "copy")
        for state in states_of(run)[states:]:
            remove(state)
        convert(run, folder / name, to="jax", verify=False)
        shutil.rmtree(run)
    (folder / "earlier/states/4").rename(folder / "jax/states/4")
    return folder


@pytest.fixture
def run(runs, tmp_path):
    """A copy of the one in torch."""
    return shutil.copytree(runs / "torch", tmp_path / "run")


def contents(folder):
    """Every file in it, byte for byte, and every folder."""
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def refused(capsys, tmp_path):
    """Runs a command that is refused in one line, which it returns, and that changes nothing."""

    def refuse(*arguments):
        before = contents(tmp_path)
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert contents(tmp_path) == before
        return lines[0]

    return refuse


def remove(state):
    shutil.rmtree(state) if state.is_dir() else state.unlink()


def states_of(run):
    return sorted((run / "states").iterdir(), key=lambda state: int(state.stem))


def largest(state):
    """Its largest file."""
    files = [path for path in (state, *state.rglob("*")) if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def cut(state):
    largest(state).write_bytes(largest(state).read_bytes()[: largest(state).stat().st_size // 2])


def flip(state):
    data = bytearray(largest(state).read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(value ^ 1 for value in data[middle : middle + 200])
    largest(state).write_bytes(data)


def without(name):
    """Without a part of it."""

    def lose(state):
        remove(state / name)

    lose.__name__ = f"without {name}"
    return lose


DAMAGES = [
    *(("torch", how) for how in (cut, flip)),
    *(("jax", how) for how in (flip, without("digests"))),
    *(
        pytest.param("jax", how, marks=pytest.mark.slow)
        for how in (cut, *map(without, ("training", "state", "_CHECKPOINT_METADATA")))
    ),
]


def edit_config(run, **changes):
    """Change the recipe of a run."""
    config = json.loads((run / "config.json").read_text())
    config["recipe"] |= changes
    (run / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("framework", KINDS)
def test_the_framework_that_it_trains_in_already_is_refused(framework, runs, tmp_path, refused):
    message = refused("convert", runs / framework, tmp_path / "new", "--to", framework)
    assert f"trains in {framework} already" in message


def test_a_run_is_not_converted_without_saying_to_what(run, tmp_path, refused):
    message = refused("convert", run, tmp_path / "new")
    assert "is a run; say --to jax or --to torch" in message
    assert str(run / "best.safetensors") in message


def test_a_run_tells_its_dialect_itself(run, tmp_path, refused):
    message = refused("convert", run, tmp_path / "new", "--to", "jax", "--dialect", "milesial")
    assert "is a run, which tells all of its network; leave dialects and the like out" in message


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: None], ids=["folder", "file", "nothing"])
def test_what_is_no_run_is_refused(make, tmp_path, refused):
    make(tmp_path / "thing")
    assert "thing" in refused("convert", tmp_path / "thing", tmp_path / "new", "--to", "jax")


def test_a_run_without_a_saved_state_is_refused(run, tmp_path, refused):
    shutil.rmtree(run / "states")
    assert "has no saved state yet; train until the first one" in refused(
        "convert", run, tmp_path / "new", "--to", "jax"
    )


def test_a_run_that_trains_is_refused(run, tmp_path, refused):
    with locked(run):
        assert "another process trains here" in refused("convert", run, tmp_path / "new", "--to", "jax")


def test_a_history_that_does_not_reach_the_state_is_refused(run, tmp_path, refused):
    lines = (run / "history.jsonl").read_text().splitlines(keepends=True)
    (run / "history.jsonl").write_text("".join(lines[:5]))
    assert "does not have the steps up to 6" in refused("convert", run, tmp_path / "new", "--to", "jax")


@pytest.mark.parametrize("framework", KINDS)
def test_without_any_sound_state_nothing_is_written(framework, runs, tmp_path, refused, capsys):
    run = shutil.copytree(runs / framework, tmp_path / "run")
    for state in states_of(run):
        cut(state)
    message = refused("convert", run, tmp_path / "new", "--to", KINDS[framework])
    assert f"{run}: no state of 2 is sound" in message


@pytest.mark.parametrize(("framework", "how"), DAMAGES, ids=lambda value: getattr(value, "__name__", value))
def test_a_damaged_state_is_passed_over_and_said(framework, how, runs, tmp_path, caplog):
    run = shutil.copytree(runs / framework, tmp_path / "run")
    how(states_of(run)[-1])
    before = contents(run)
    done = convert(run, tmp_path / "new", to=KINDS[framework], verify=False)
    assert done.state.step == 4
    assert [f"{states_of(run)[-1]} is damaged and passed over: " in line for line in caplog.messages] == [True]
    assert contents(run) == before


def test_what_came_after_the_state_that_is_taken_is_left_behind(run, tmp_path):
    cut(states_of(run)[-1])
    convert(run, tmp_path / "new", to="jax", verify=False)
    assert read_run_config(tmp_path / "new").switches == ((4, "torch"),)
    lines = (run / "history.jsonl").read_text().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["step"] <= 4]
    assert 0 < len(kept) < len(lines)
    assert (tmp_path / "new/history.jsonl").read_text() == "".join(kept)


@pytest.mark.parametrize(
    ("framework", "option"), [pytest.param("torch", "compile", marks=pytest.mark.slow), ("jax", "remat")]
)
def test_what_is_for_one_framework_alone_is_left_out_and_said(framework, option, runs, tmp_path, capsys):
    run, target = shutil.copytree(runs / framework, tmp_path / "run"), tmp_path / "new"
    edit_config(run, **{option: True})
    assert main(["convert", str(run), str(target), "--to", KINDS[framework], "--no-verify"]) == 0
    assert f"--{option} is left out: it is for {framework} alone" in capsys.readouterr().out
    assert read_run_config(target).recipe == RECIPE


def test_the_settings_tell_where_the_run_was(runs):
    found, before = (read_run_config(runs / framework) for framework in ("jax", "torch"))
    assert found == dataclasses.replace(before, backend="jax", switches=((6, "torch"),))
    assert "jax" in found.versions
    assert "torch" not in found.versions


def test_the_curves_come_along(runs):
    assert contents(runs / "jax/tensorboard") == contents(runs / "torch/tensorboard")


@pytest.mark.parametrize("force", [(), ("--force",)])
@pytest.mark.parametrize("make", ["{run}", "{run}/.", "{run}/../run", "link"])
def test_the_run_itself_is_refused_as_the_target(make, force, run, tmp_path, refused):
    (tmp_path / "link").symlink_to(run)
    target = tmp_path / "link" if make == "link" else make.format(run=run)
    message = refused("convert", run, target, "--to", "jax", *force)
    assert "is the run itself, or in its folder; name a new folder" in message


@pytest.mark.parametrize("inside", ["new", "tensorboard/new"])
def test_a_target_inside_the_run_is_refused(inside, run, refused):
    """The run would not stay as it is."""
    assert "name a " in refused("convert", run, run / inside, "--to", "jax", "--no-verify")


def test_a_target_that_exists_is_refused(run, tmp_path, refused):
    shutil.copytree(run, tmp_path / "new")
    assert "exists already" in refused("convert", run, tmp_path / "new", "--to", "jax")


def test_a_run_is_replaced_by_force(run, tmp_path, capsys):
    shutil.copytree(run, tmp_path / "new")
    assert main(["convert", str(run), str(tmp_path / "new"), "--to", "jax", "--no-verify", "--force"]) == 0
    assert f"{run} -> {tmp_path / 'new'}: step 6, " in capsys.readouterr().out
    assert read_run_config(tmp_path / "new").backend == "jax"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "run"]


def make_folder(path):
    path.mkdir()
    (path / "precious").write_text("mine")


@pytest.mark.parametrize(
    "make",
    [make_folder, lambda path: path.write_text("mine"), lambda path: path.symlink_to("run")],
    ids=["a folder", "a file", "a link"],
)
def test_nothing_but_a_run_is_replaced_by_force(make, run, tmp_path, refused):
    other = shutil.copytree(run, tmp_path / "other")
    make(tmp_path / "new")
    message = refused("convert", other, tmp_path / "new", "--to", "jax", "--force")
    assert "not replaced" in message


def test_a_run_that_trains_is_not_replaced(run, tmp_path, refused):
    target = shutil.copytree(run, tmp_path / "new")
    with locked(target):
        message = refused("convert", run, target, "--to", "jax", "--no-verify", "--force")
    assert f"{target}: another process trains here" in message


def test_a_folder_that_does_not_exist_is_not_made(run, tmp_path, refused):
    assert "does not exist; make it first" in refused("convert", run, tmp_path / "no/new", "--to", "jax")


@pytest.mark.parametrize("framework", KINDS)
def test_a_full_disk_leaves_nothing(framework, runs, tmp_path, refused):
    """A limit on file sizes stands in for it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, hard))
    try:
        message = refused("convert", runs / framework, tmp_path / "new", "--to", KINDS[framework], "--no-verify")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "not saved" in message or "not written" in message


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("name", ["copy", pytest.param("copytree", marks=pytest.mark.slow)])
def test_a_disk_that_fills_while_the_rest_is_copied_leaves_nothing(name, run, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(shutil, name, full_disk)
    message = refused("convert", run, tmp_path / "new", "--to", "jax", "--no-verify")
    assert f"{tmp_path / 'new'}: not written: the disk is full" in message


def test_a_failed_conversion_leaves_the_run_that_it_would_have_replaced(run, tmp_path, refused, monkeypatch):
    target = shutil.copytree(run, tmp_path / "new")
    monkeypatch.setattr(shutil, "copy", full_disk)
    assert "not written: the disk is full" in refused("convert", run, target, "--to", "jax", "--no-verify", "--force")


@pytest.mark.parametrize("stage", ["writing", "reading new"])
def test_whoever_interrupts_a_conversion_finds_nothing(stage, run, tmp_path):
    def interrupted(text, _):
        if text.startswith(stage):
            raise KeyboardInterrupt

    before = contents(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        convert(run, tmp_path / "new", to="jax", verify=False, progress=interrupted)
    assert contents(tmp_path) == before


def test_arrays_that_come_back_otherwise_are_not_kept(run, tmp_path, refused, monkeypatch):
    read = unet_jax.training.states.read

    def read_otherwise(*given):
        state = read(*given)
        return dataclasses.replace(
            state, average={key: value + 0 * value for key, value in state.network.tensors.items()}
        )

    monkeypatch.setattr(unet_jax.training.states, "read", read_otherwise)
    assert "came back otherwise" in refused("convert", run, tmp_path / "new", "--to", "jax", "--no-verify")


def test_a_run_goes_on_from_the_command_where_it_was_moved_to(runs, tmp_path, capsys):
    target = tmp_path / "back"
    assert main(["convert", str(runs / "jax"), str(target), "--to", "torch", "--no-verify"]) == 0
    assert main(["train", "--resume", "--out", str(target)]) == 0
    assert "going on after step 6 of 6" in capsys.readouterr().out
    assert read_run_config(target).backend == "torch"


def test_the_framework_before_is_refused_with_the_command_that_goes_back(runs, tmp_path, refused):
    run = shutil.copytree(runs / "jax", tmp_path / "run")
    message = refused("train", "--resume", "--out", run, "--backend", "torch")
    assert "was trained with --backend jax" in message
    assert f"unet convert {run} NEW --to torch" in message


def test_a_run_is_proven_before_it_gets_its_name(run, tmp_path, small_proof, capsys):
    before = contents(run)
    assert main(["convert", str(run), str(tmp_path / "new"), "--to", "jax"]) == 0
    said = capsys.readouterr().out
    assert "SAME: the trainings are the same: all 13 checks are within their budgets" in said
    assert "arrays, verified" in said
    assert contents(run) == before
    certificate = read_certificate(tmp_path / "new.certificate.json")
    assert len(certificate.checks) == 14, "one is shown, not judged"
    assert {check.quantity for check in certificate.checks if check.sample == "update 7"} > {"loss", "moments"}
    inputs = [given.name for given in certificate.inputs if " again, " not in given.name]  # of a check in doubt
    assert inputs == ["random 3x4x4", "update 7, pictures", "update 7, labels"]


@pytest.mark.slow
def test_a_moved_run_is_the_same_training(runs, small_proof, capsys):
    assert main(["verify", str(runs / "torch"), str(runs / "jax")]) == 0
    assert "SAME: the trainings are the same" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("framework", KINDS)
def test_the_whole_proof_holds(framework, runs, tmp_path):
    proof = convert(runs / framework, tmp_path / "new", to=KINDS[framework]).proof
    assert proof.equal
    assert proof.identical == proof.tensors


def another_epsilon(monkeypatch):
    scale = unet_jax.training.optimizers._scale_by_adam
    monkeypatch.setattr(unet_jax.training.optimizers, "_scale_by_adam", lambda *given: scale(*given[:2], 1e-5))


def betas_swapped(monkeypatch):
    scale = unet_jax.training.optimizers._scale_by_adam
    monkeypatch.setattr(
        unet_jax.training.optimizers, "_scale_by_adam", lambda one, two, epsilon: scale(two, one, epsilon)
    )


def slow_average(monkeypatch):
    averaged = in_jax.averaged
    monkeypatch.setattr(in_jax, "averaged", lambda old, new, renewal: averaged(old, new, renewal / 2))


@pytest.mark.parametrize(
    ("breaks", "quantity"),
    [
        (another_epsilon, "parameters"),
        (betas_swapped, "moments"),
        (slow_average, "average"),
    ],
)
@pytest.mark.slow
def test_a_failed_proof_leaves_nothing(breaks, quantity, run, tmp_path, small_proof, monkeypatch):
    breaks(monkeypatch)
    before = contents(tmp_path)
    with pytest.raises(DifferentError, match=r"new: not written: the trainings differ: .* departs first") as caught:
        convert(run, tmp_path / "new", to="jax")
    assert caught.value.proof.departure.quantity == quantity
    assert contents(tmp_path) == before


@pytest.mark.parametrize("better", [True, False])
def test_a_best_network_from_after_the_state_is_left_out(better, run, tmp_path, capsys):
    """As a kill after a validation, or a damaged newest state, leaves it behind."""
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    lines[-1]["validation"]["mean_iou"] = 0.99 if better else 0.0
    (run / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    remove(states_of(run)[-1])
    assert main(["convert", str(run), str(tmp_path / "new"), "--to", "jax", "--no-verify"]) == 0
    assert (tmp_path / "new/best.safetensors").exists() != better
    assert ("may be from after step 4 and is left out" in capsys.readouterr().out) == better


@pytest.mark.slow
def test_what_only_one_framework_has_may_be_set_after_a_move(run, tmp_path, cells):
    convert(run, tmp_path / "new", to="jax", verify=False)
    recipe = dataclasses.replace(read_run_config(tmp_path / "new").recipe, remat=True, steps=6)
    train(tmp_path / "new", backend="jax", data=cells, recipe=recipe, resume=True)
    assert read_run_config(tmp_path / "new").recipe.remat


def test_a_run_of_a_later_release_is_said_to_be_one(run, refused, tmp_path):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "version": 3, "new": 1}))
    assert "was written by a later release; update" in refused("convert", run, tmp_path / "new", "--to", "jax")


def test_a_run_of_an_earlier_release_is_moved(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    del config["switches"]
    (run / "config.json").write_text(json.dumps({**config, "version": 1}))
    convert(run, tmp_path / "new", to="jax", verify=False)
    assert read_run_config(tmp_path / "new").pieces == ((0, 6, "torch"), (6, None, "jax"))
