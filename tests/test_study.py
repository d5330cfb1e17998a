"""`unet study`: plans, runs that are made once, what is found in them, and the report."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

from unet_cli.main import main
from unet_compare.study import runs
from unet_compare.study.arms import Arm, arm_of_text
from unet_compare.study.collected import collect
from unet_compare.study.judging import judged
from unet_compare.study.page.report import faults_sentence
from unet_compare.study.plan import METRICS, Study, read_study, study_of
from unet_compare.study.result import SCORES, Cost, Result, read_result, run_folder
from unet_compare.study.runs import carry_out, finished, prepare
from unet_core import ConfigError
from unet_core.data.synthetic import Synthetic, write_folder
from unet_core.errors import RunError
from unet_core.files import sha256_of
from unet_core.prediction.scores import PictureScore


def study(arms=("torch", "jax"), seeds=4, **more):
    return study_of({"arms": list(arms), "seeds": seeds, **more})


# Plans


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("arms = ['torch', 'jax']", "lacks seeds"),
        ("seeds = 3", "lacks arms"),
        ("arms = ['torch', 'jax']\nseeds = 3\nsteps = 4", "unknown key steps"),
        ("arms = ['torch', 'tensorflow']\nseeds = 3", "arm tensorflow: names no framework"),
        ("arms = ['torch', {precision = 'bfloat16'}]\nseeds = 3", "arm 2: names no framework"),
        ("arms = ['torch', 'jax:fast']\nseeds = 3", "arm jax:fast: fast: give one of"),
        ("arms = ['torch', 'jax:setps=3']\nseeds = 3", "arm jax:setps=3: setps: is no option"),
        ("arms = ['torch', 'jax:seed=3']\nseeds = 3", "seed: is the study's to give"),
        ("arms = ['torch', 'control:sign']\nseeds = 3", "there is no such control"),
        ("arms = ['control:tf32', 'jax']\nseeds = 3", "the first one"),
        ("arms = ['torch', 'control:tf32']\nseeds = 3", "control tf32 is planted in JAX"),
        ("arms = ['torch', 'torch']\nseeds = 3", "each needs a name of its own"),
        ("arms = ['torch', 3]\nseeds = 3", "arm 2: give a text"),
        ("arms = 'torch'\nseeds = 3", "arms: give a list"),
        ("arms = ['torch']\nseeds = 3", "give two or more"),
        ("arms = ['torch', 'jax']\nseeds = 1", "from 2 up"),
        ("arms = ['torch', 'jax']\nseeds = [1, 1]", "different ones"),
        ("arms = ['torch', 'jax']\nseeds = 1000000000", "from 2 up"),
        ("arms = ['torch', 'jax']\nseeds = 'all'", "seeds is 'all'"),
        ("arms = ['torch', 'jax']\nseeds = 3\nmetric = 'auc'", "metric: one of mean_iou, "),
        ("arms = ['torch', 'jax']\nseeds = 3\nmargin = -1", "give a number above 0"),
        ("arms = ['torch', 'jax']\nseeds = 3\nlevel = 1", "level 1"),
        ("arms = ['torch', 'jax']\nseeds = 3\ndata = 3", "data is 3"),
        ("arms = ['torch', 'jax']\nseeds = 3\n[recipe]\nsteps = 'many'", "recipe: option steps is 'many'"),
        ("arms = ['torch', 'jax']\nseeds = 3\n[recipe]\nsteps = 0", "recipe: steps 0"),
        ("arms = ['torch', {backend = 'jax', name = '../x'}]\nseeds = 3", "give it a name"),
        ("arms = ['torch', 'jax']\nseeds = 3\n[recipe]\nvalidation = 0", "validation 0 leaves no pictures to score"),
        ("arms = ['torch', 'jax']\nseeds = 3\nfolds = 2\n[recipe]\nvalidation_data = 'x'", "leave out folds"),
        ("arms = [", "is no TOML"),
        ("arms = ['torch', 'jax']\nseeds = 3\nlevel = " + "9" * 5000, "is no TOML"),
        ("arms = ['torch', 'jax']\nseeds = 3\nmargin = " + "9" * 400, "margins.mean_iou is 999"),
        ("arms = ['torch', 'jax']\nseeds = 3\nmetric = ['loss']\nmargin = 1", "got ['loss']"),
        ("arms = ['torch', 'jax']\nseeds = 3\ndata = \"a\\u0000\"", "is no path"),
        ("arms = ['torch', {backend = 'jax', module = 'none.py:UNet'}]\nseeds = 3", "none.py: no such file"),
        ("arms = ['torch', {backend = 'jax', module = 'none.py'}]\nseeds = 3", "give FILE.py:Class"),
        ("arms = ['torch', {backend = 'jax', name = 'j', kwargs = {a = 1}}]\nseeds = 3", "kwargs are for the code"),
        (
            "arms = ['torch', {backend = 'jax', module = 'a.b:C', kwargs = {a = 1979-05-27}}]\nseeds = 3",
            "no dates and no NaN",
        ),
        ("arms = ['torch', {backend = 'jax', module = 'a.b:C', kwargs = {a = nan}}]\nseeds = 3", "no dates and no NaN"),
        ("arms = ['torch', {backend = 'jax', name = 'j', network = {nope = 1}}]\nseeds = 3", "arm j: network: "),
        ("arms = ['torch', {backend = 'jax', name = 'j', network = {norm_epsilon = -1}}]\nseeds = 3", "norm_epsilon"),
        ("arms = ['torch', 'jax']\nseeds = 3\n[recipe]\nfeatures = []", "features"),
        ("arms = ['torch', 'jax:validation=0.5']\nseeds = 3", "scored on the same pictures"),
    ],
)
def test_a_study_that_is_none_is_one_line(tmp_path, capsys, text, message):
    file, out = tmp_path / "study.toml", tmp_path / "out"
    file.write_text(text)
    assert main(["study", str(file), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"unet: {file}: ")
    assert message in error
    assert error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.toml"], "nothing.toml: no such file"),
        (["x.toml", "--seeds", "3"], "--seeds: with FILE, write it there"),
        (["x.toml", "--steps", "3"], "options of unet train: with FILE, write it there"),
        (["--arms", "torch", "jax"], "--seeds: needed"),
        (["--arms", "torch", "jax", "--seeds", "3", "--seed", "1"], "--seed and --fold: are for one run"),
        (["--arms", "torch", "jax", "--seeds", "3", "--folds", "2", "--fold", "1"], "takes all --folds in turn"),
        (["--arms", "torch", "jax", "--seeds", "3", "--folds", "1"], "folds 1: give 2 or more"),
        (["--arms", "torch", "jax", "--seeds", "3", "--runs", "-1"], "--runs -1"),
        (
            ["--arms", "torch", "jax", "--seeds", "3", "--data", "nowhere"],
            "nowhere: no such folder; give one that holds",
        ),
    ],
)
def test_bad_usage_is_one_line(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["study", *arguments, "--out", "out"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("given", "folds"), [(["--folds", "3"], [1, 2, 3]), ([], [None])])
def test_the_commands_folds_are_each_validated_on(tmp_path, monkeypatch, given, folds):
    planned = []

    def prepare(plan, *_, **__):
        planned.append(plan)
        raise RunError("enough")

    monkeypatch.setattr(runs, "prepare", prepare)
    assert main(["study", "--arms", "torch", "jax", "--seeds", "2", *given, "--out", str(tmp_path / "out")]) == 2
    trials = [(trial.seed, trial.fold) for trial in planned[0].trials() if trial.arm.name == "jax"]
    assert trials == [(seed, fold) for seed in (0, 1) for fold in folds]


def test_arms_in_short_say_all_that_tables_say():
    (short, table) = (
        study(["torch", one]).arms[1]
        for one in (
            "jax:bfloat16:plain:cpu:norm_parts=2",
            {
                "name": "jax:bfloat16:plain:cpu:norm_parts=2",
                "backend": "jax",
                "precision": "bfloat16",
                "rewrites": False,
                "device": "cpu",
                "norm_parts": 2,
            },
        )
    )
    assert short == table
    assert (short.recipe.precision, short.recipe.rewrites, short.recipe.norm_parts) == ("bfloat16", False, 2)
    assert arm_of_text("torch") == {"name": "torch", "backend": "torch"}


def test_a_file_and_its_recipe(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(
        "arms = ['torch', {backend = 'jax', optimizer = 'sgd', momentum = 0.9}]\nseeds = [3, 5]\ndata = 'cells'\n"
        "folds = 2\nmargin = {loss = 0.1}\n[recipe]\nsteps = 7\nloss = 'dice'\nnorm-parts = 2\n"
    )
    found = read_study(file)
    assert found.data == str(tmp_path / "cells")
    assert found.runs == len(list(found.trials())) == 8
    assert found.margins == {"loss": 0.1}
    assert [arm.recipe.optimizer.optimizer for arm in found.arms] == ["adam", "sgd"]
    assert {(arm.recipe.steps, arm.recipe.loss.loss, arm.recipe.norm_parts) for arm in found.arms} == {(7, "dice", 2)}
    assert found.arms[1].name == "jax:optimizer=sgd:momentum=0.9"
    recipe = found.arms[1].of_run(5, 2, found.folds)
    assert (recipe.seed, recipe.split.folds, recipe.split.fold) == (5, 2, 2)


def test_what_decides_an_arm_is_in_its_digest():
    plain, other, alike = (study(["torch", f"jax:{one}"]).arms[1] for one in ("steps=3", "steps=4", "steps=3:keep=1"))
    assert plain.digest != other.digest
    assert Arm(**{**vars(alike), "name": plain.name}).digest == plain.digest


# Folders


def scores(rng, mean, pictures=6):
    return tuple(
        PictureScore(f"{number}", *(mean + rng.normal(0, 0.01, len(METRICS))).tolist()) for number in range(pictures)
    )


def write_runs(plan, folder, shift=lambda trial: 0.0, noise=0.002):
    """A study whose runs nobody trained."""
    prepare(plan, folder)
    for trial in plan.trials():
        shared = np.random.default_rng(trial.seed)
        pictures = scores(shared, 0.8 + shared.normal(0, 0.02))
        own = np.random.default_rng((trial.seed, len(trial.arm.name)))
        moved = own.normal(0, noise) + shift(trial)
        pictures = tuple(
            PictureScore(
                one.name,
                *(
                    getattr(one, metric) + moved
                    for metric in ("loss", "mean_iou", "mean_dice", "calibration", "boundary")
                ),
            )
            for one in pictures
        )
        path = run_folder(folder, trial)
        path.mkdir(parents=True)
        lines = [{"step": step, "loss": 1 / step + moved, "norm": 1.0, "rate": 0.1} for step in range(1, 5)]
        lines.append({"step": 4, "validation": {"loss": 0.3 + moved, "mean_iou": 0.8}})
        history = path / "history.jsonl"
        history.write_text("".join(json.dumps(line) + "\n" for line in lines))
        cost = Cost(10.0, 20.0 if trial.arm.backend == "torch" else 40.0, 10**8, None, {"package": 5.0}, "")
        Result(
            trial.arm.digest,
            trial.seed,
            trial.fold,
            "data",
            pictures,
            "state",
            sha256_of(history),
            cost,
            {"torch": "2"},
            "CPU",
            "here",
        ).write(path)


def report(folder, plan, *more):
    return main(["study", str(plan), "--out", str(folder), "--no-where", *more])


@pytest.fixture
def plan(tmp_path):
    file = tmp_path / "study.toml"
    file.write_text(
        "arms = ['torch', 'jax', 'control:rounding', 'control:half_pixel']\nseeds = 6\nmargin = 0.01\n"
        "title = 'A <b>test</b> & more'\n"
    )
    return file


def planted(trial):
    return -0.05 if trial.arm.control == "half_pixel" else 0.0


def test_what_is_the_same_is_called_equivalent_and_a_planted_fault_is_found(tmp_path, plan, capsys):
    write_runs(read_study(plan), tmp_path / "out", planted)
    assert report(tmp_path / "out", plan) == 0
    text = capsys.readouterr().out
    assert "jax is equivalent to torch within 0.01 of mean IoU" in text
    assert "it took 0.50 of the time" in text
    assert "control:half_pixel: is found by mean IoU" in text
    page = (tmp_path / "out" / "report" / "report.html").read_text()
    assert "A &lt;b&gt;test&lt;/b&gt; &amp; more" in page
    assert "1 of 1 planted faults were found" in page
    assert 'src="http' not in page
    found = json.loads((tmp_path / "out" / "report" / "study.json").read_text())
    assert found["schema"] == 1
    assert [arm["name"] for arm in found["arms"]] == ["torch", "jax", "control:rounding", "control:half_pixel"]
    names = {
        path.relative_to(tmp_path / "out" / "report").as_posix() for path in (tmp_path / "out" / "report").rglob("*.*")
    }
    assert {
        "figures/differences.pdf",
        "figures/differences.svg",
        "tables/scores.tex",
        "tables/differences.tex",
        "figures/parting_training_loss.svg",
    } <= names
    assert not any("learning" in name for name in names)  # of one validation there is no curve
    table = (tmp_path / "out" / "report" / "tables" / "differences.tex").read_text()
    assert "control:half\\_pixel" in table
    assert table.count("\\\\") == 4


@pytest.mark.parametrize(
    ("shift", "noise", "verdicts", "faults"),
    [
        (planted, 0.002, {"equivalent"}, "1 of 1 planted faults were found."),
        (lambda trial: planted(trial) + 0.03 * (trial.arm.name == "jax"), 0.002, {"different"}, "1 of 1"),
        (planted, 0.03, {"undecided"}, "of 1 planted faults"),
        (lambda trial: 0.0, 0.002, {"equivalent"}, "0 of 1 planted faults were found; not found: control:half_pixel."),
    ],
    ids=["same", "different", "undecided", "fault not found"],
)
def test_verdicts(tmp_path, plan, shift, noise, verdicts, faults):
    """The last one has no fault where one is said to be: the study does not find it, and says so."""
    asked = read_study(plan)
    write_runs(asked, tmp_path / "out", shift, noise)
    found = judged(asked, collect(asked, tmp_path / "out"), {})
    assert {arm.contrast("mean_iou").verdict for arm in found.compared} == verdicts
    assert faults in faults_sentence(found)
    assert found.as_hoped == (verdicts == {"equivalent"} and faults.startswith("1 of 1"))


def test_what_is_not_as_hoped_exits_with_1(tmp_path, plan, monkeypatch):
    monkeypatch.setattr("unet_compare.study.page.report.charts", lambda *_: ())
    write_runs(read_study(plan), tmp_path / "out")
    assert report(tmp_path / "out", plan) == 1


def test_an_unfinished_study_is_reported_and_gone_on_with(tmp_path, plan, capsys, monkeypatch):
    monkeypatch.setattr("unet_compare.study.page.report.charts", lambda *_: ())
    write_runs(read_study(plan), tmp_path / "out", planted)
    gone = tmp_path / "out" / "runs" / "jax" / "seed-2" / SCORES
    kept = gone.read_text()
    gone.unlink()
    assert report(tmp_path / "out", plan, "--runs", "0") == 0
    assert "23 of 24 runs are finished" in capsys.readouterr().out
    gone.write_text(kept)
    assert report(tmp_path / "out", plan, "--runs", "0") == 0
    assert "runs are finished" not in capsys.readouterr().out


def test_a_study_of_nothing_yet_is_reported(tmp_path, plan, capsys):
    assert report(tmp_path / "out", plan, "--runs", "0") == 0
    assert "0 of 24 runs are finished" in capsys.readouterr().out


def test_runs_of_another_study_are_refused(tmp_path, plan, capsys):
    write_runs(read_study(plan), tmp_path / "out")
    plan.write_text("arms = ['torch', 'jax']\nseeds = 6\n[recipe]\nsteps = 7\nrate = 0.1\n")
    assert report(tmp_path / "out", plan) == 2
    assert "holds runs of another study: another steps, rate; give another --out" in capsys.readouterr().err
    assert not (tmp_path / "out" / "report").exists()


def test_what_has_no_run_yet_may_be_put_right(tmp_path):
    """With one, it may not."""
    prepare(study(recipe={"crop": 1}), tmp_path)
    prepare(study(), tmp_path)
    assert json.loads((tmp_path / "runs" / "jax" / "arm.json").read_text())["recipe"]["crop"] != 1
    (tmp_path / "runs" / "jax" / "seed-0").mkdir()
    with pytest.raises(RunError, match="another crop"):
        prepare(study(recipe={"crop": 1}), tmp_path)


def test_a_study_that_another_process_begins_is_one(tmp_path, monkeypatch):
    """At every file that is written: the folder is looked at by a second process."""
    real, looks = runs.atomic, []

    def atomic(file, **how):
        monkeypatch.setattr(runs, "atomic", real)
        prepare(study(), tmp_path / "out")
        monkeypatch.setattr(runs, "atomic", atomic)
        looks.append(file.name)
        return real(file, **how)

    monkeypatch.setattr(runs, "atomic", atomic)
    prepare(study(), tmp_path / "out")
    assert looks == ["study.json", "arm.json", "arm.json"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.unlink(),
        lambda file: file.write_text("".join(file.read_text().splitlines(keepends=True)[1:])),
        lambda file: file.write_text(file.read_text()[:-20]),
        lambda file: file.write_text("x"),
    ],
    ids=["gone", "a line less", "cut off", "other"],
)
def test_a_history_that_is_not_that_of_the_scores_is_one_line(tmp_path, damage):
    plan = study()
    write_runs(plan, tmp_path)
    assert len(collect(plan, tmp_path)) == 2
    damage(tmp_path / "runs" / "jax" / "seed-1" / "history.jsonl")
    with pytest.raises(RunError, match=r"history.jsonl: is not as it was when the run was scored; .*made again"):
        collect(plan, tmp_path)


def test_a_history_that_was_cut_before_the_run_was_scored_is_one_line(tmp_path):
    plan = study(seeds=3)
    write_runs(plan, tmp_path)
    run = tmp_path / "runs" / "jax" / "seed-1"
    history = run / "history.jsonl"
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:-1]))
    cut = dataclasses.replace(read_result(run), history=sha256_of(history))
    cut.write(run)
    with pytest.raises(RunError, match=f"{history}: lacks steps that other runs have; remove {run}: it is made again"):
        collect(plan, tmp_path)
    shutil.rmtree(run)
    assert [arm.seeds for arm in collect(plan, tmp_path)] == [(0, 1, 2), (0, 2)]  # the control


def test_a_single_foreign_run_is_refused(tmp_path):
    plan = study()
    write_runs(plan, tmp_path)
    file = tmp_path / "runs" / "jax" / "seed-1" / SCORES
    file.write_text(file.read_text().replace('"arm": "', '"arm": "0'))
    with pytest.raises(RunError, match="seed-1: is a run of another study; give another --out"):
        carry_out(plan, tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda out: out.write_text("x"), "is a file"),
        (lambda out: (out.mkdir(), (out / "notes.txt").write_text("x")), "exists and is no study"),
        (
            lambda out: ((out / "runs" / "jax" / "seed-0").mkdir(parents=True), (out / "study.json").touch()),
            "is not of this study",
        ),
    ],
)
def test_other_folders_are_left_alone(tmp_path, make, message):
    make(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=message):
        prepare(study(), tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"arm": 3}'])
def test_damaged_scores_are_one_line(tmp_path, text):
    plan = study()
    write_runs(plan, tmp_path)
    (tmp_path / "runs" / "jax" / "seed-1" / SCORES).write_text(text)
    with pytest.raises(RunError, match=r"scores.json: is damaged .*; remove it, and the run is scored again"):
        prepare(plan, tmp_path)


def test_other_data_in_between_is_refused(tmp_path, plan, capsys):
    write_runs(read_study(plan), tmp_path / "out")
    file = tmp_path / "out" / "runs" / "jax" / "seed-1" / SCORES
    file.write_text(file.read_text().replace('"data": "data"', '"data": "others"'))
    assert report(tmp_path / "out", plan) == 2
    assert "the data has changed" in capsys.readouterr().err


def test_a_study_that_another_process_begins_while_it_is_looked_for_is_one(tmp_path, monkeypatch):
    look = Path.iterdir

    def iterdir(folder):
        monkeypatch.setattr(Path, "iterdir", look)
        prepare(study(), tmp_path)
        return look(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    prepare(study(), tmp_path)
    assert Path.iterdir is look


@pytest.fixture
def on_pictures(tmp_path, plan, monkeypatch):
    """A study of a folder, of whose runs two are finished."""
    monkeypatch.setattr("unet_compare.study.page.report.charts", lambda *_: ())
    write_folder(Synthetic(chosen=(0, 1, 2, 3)), tmp_path / "cells")
    plan.write_text(f"data = 'cells'\n{plan.read_text()}")
    write_runs(read_study(plan), tmp_path / "out")
    for scored in sorted((tmp_path / "out").glob("runs/*/seed-*/scores.json"))[2:]:
        scored.unlink()
    return tmp_path


@pytest.mark.parametrize("more", [pytest.param([], marks=pytest.mark.slow), ["--runs", "1"]])
def test_data_that_have_changed_are_found_before_a_run_is_made(on_pictures, plan, capsys, more, monkeypatch):
    monkeypatch.setattr(runs, "_made", lambda *_: pytest.fail("a run is made"))
    mask = on_pictures / "cells" / "masks" / "001.png"
    shutil.copy(on_pictures / "cells" / "masks" / "002.png", mask)
    before = {path: path.read_bytes() for path in (on_pictures / "out").rglob("*") if path.is_file()}
    assert report(on_pictures / "out", plan, *more) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{on_pictures / 'cells'}: is not the data that {on_pictures / 'out'} was begun with; restore it" in line
    assert {path: path.read_bytes() for path in (on_pictures / "out").rglob("*") if path.is_file()} == before
    assert report(on_pictures / "out", plan, "--runs", "0") == 0  # what is there is not of the new data


def test_the_same_data_is_gone_on_with(on_pictures, plan, monkeypatch):
    made = []
    monkeypatch.setattr(runs, "_made", lambda order, _: made.append(order) or "not made")
    assert report(on_pictures / "out", plan) == 2
    assert len(made) == 1


def test_pairs_that_are_the_same_need_no_test(tmp_path, plan, capsys, monkeypatch):
    monkeypatch.setattr("unet_compare.study.page.report.charts", lambda *_: ())
    write_runs(read_study(plan), tmp_path / "out", planted, noise=0.0)
    assert report(tmp_path / "out", plan) == 0
    text = capsys.readouterr().out
    assert "(the same for every picture in all 6 pairs of runs; there is nothing to test)" in text
    page = (tmp_path / "out" / "report" / "report.html").read_text()
    table = (tmp_path / "out" / "report" / "tables" / "differences.tex").read_text()
    assert "p = 0" not in text + page
    assert "& - & - & equivalent" in table
    found = json.loads((tmp_path / "out" / "report" / "study.json").read_text())
    assert [arm["contrasts"][0]["identical"] for arm in found["arms"][1:]] == [True, True, False]


@pytest.mark.parametrize(("moved", "verdict"), [(0.0, "equivalent"), (0.1, "undecided")])
def test_what_is_identical_is_equivalent_within_no_margin_too(tmp_path, moved, verdict):
    """As where all runs of the first arm score the same, whose spread is the margin; one that differs is not."""
    plan = study()
    write_runs(plan, tmp_path)
    first, other = collect(plan, tmp_path)
    flat = {name: np.full_like(table, 0.8) for name, table in first.scores.items()}
    apart = {name: table.copy() for name, table in flat.items()}
    for table in apart.values():
        table[0] += moved
    arms = [dataclasses.replace(first, scores=flat), dataclasses.replace(other, scores=apart)]
    of = judged(plan, arms, {}).arms[1].contrast("mean_iou")
    assert of is not None
    assert (of.margin, of.verdict) == (pytest.approx(0, abs=1e-12), verdict)


def test_more_seeds_may_be_asked_for_later(tmp_path):
    write_runs(study(seeds=3), tmp_path)
    prepare(study(seeds=4), tmp_path)
    assert [finished(tmp_path, trial) for trial in study(seeds=4).trials()] == [True] * 6 + [False] * 2


def test_numbers_of_a_study_are_checked():
    arms = study().arms
    with pytest.raises(ConfigError, match="runs: give fewer"):
        Study(arms, tuple(range(9000)))
    with pytest.raises(ConfigError, match="whole numbers"):
        Study(arms, (0, 2**32))


def test_a_study_is_nowhere_where_nothing_is_written(capsys):
    assert main(["study", "--arms", "torch", "jax", "--seeds", "2", "--out", "hf://owner/name"]) == 2
    assert "unet push" in capsys.readouterr().err


def test_the_data_of_a_study_may_be_elsewhere(tmp_path):
    assert study(data="gs://bucket/cells").data == "gs://bucket/cells"
    assert study_of({"arms": ["torch", "jax"], "seeds": 2, "data": "cells"}, tmp_path).data == str(tmp_path / "cells")
