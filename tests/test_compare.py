"""`unet compare`: what it looks at, what it writes, and its exit codes."""

import dataclasses
import json
import shlex
import shutil

import numpy as np
import pytest
from conftest import trained_tensors
from PIL import Image

from unet_cli.main import main
from unet_core import UNetConfig
from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import Checkpoint

torch = pytest.importorskip("torch")
pytest.importorskip("jax")
pytest.importorskip("jinja2")
pytest.importorskip("grain")

from conversion.backends.pairs import converted
from unet_cli.compare import Compare
from unet_compare.compare import compare
from unet_compare.crops import Crops, Truth
from unet_compare.divergence import COTANGENT, GRADIENT, MOVED, OUTPUT, STATISTICS, STEP, TIED
from unet_compare.limits import Effort
from unet_compare.report import FIGURES, PAGE
from unet_torch import checkpoint as torch_file

CONFIG = UNetConfig(1, 1, (6, 8))
QUICK = ["--pictures", "0", "--steps", "0", "--rounds", "0"]


def write(path, config=CONFIG, **changed):
    torch_file.write(path, Checkpoint(config, {**trained_tensors(config), **changed}))
    return path


def files(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A comparison of a checkpoint with its conversion, all parts but the cost; exit code and folder."""
    folder = tmp_path_factory.mktemp("whole")
    path = write(folder / '<script>alert(1)<!--&".pt')
    code = main(
        ["compare", str(path), "--out", str(folder / "report"), "--pictures", "2", "--steps", "2", "--rounds", "0"]
    )
    return code, folder / "report"


def test_a_conversion_is_the_same_network(whole):
    code, report = whole
    assert code == 0
    assert files(report) == [PAGE, FIGURES]
    found = json.loads((report / FIGURES).read_text())
    assert found["equal"] is True
    assert found["identical"] == found["tensors"]
    assert (found["a"]["framework"], found["b"]["framework"]) == ("torch", "jax")
    assert found["verdict"] == "The networks are the same: every layer is within its budget, in every pass."


def test_every_part_is_in_the_files(whole):
    _, report = whole
    found = json.loads((report / FIGURES).read_text())
    tables = found["divergence"]["tables"]
    assert {(table["pass"], table["mode"]) for table in tables} == {
        (pass_, mode) for pass_ in ("eval", "training", "backward", "update") for mode in ("isolated", "cumulative")
    }
    assert {row["quantity"] for table in tables for row in table["rows"]} == {
        *(OUTPUT, STATISTICS, MOVED, COTANGENT, GRADIENT, TIED, STEP)
    }
    assert found["divergence"]["trials"] == []
    assert [curve["role"] for curve in found["trajectories"]["curves"]] == ["A", "B", "band", "band", "band"]
    assert {rung["precision"] for rung in found["ladder"]["rungs"]} == {"float64", "float32", "bfloat16"}
    assert len(found["pictures"]) == 2
    assert found["cost"] is None
    page = (report / PAGE).read_text()
    assert "SAME" in page
    assert page.count("<img") >= 16


def test_a_hostile_name_is_harmless(whole):
    _, report = whole
    page = (report / PAGE).read_text()
    assert "<script" not in page.lower()
    assert "&lt;script&gt;alert(1)" in page


def test_a_difference_is_named_and_exits_with_1(tmp_path, capsys):
    one = write(tmp_path / "a.pt")
    other = write(tmp_path / "b.pt", dataclasses.replace(CONFIG, align_corners=False))
    out = tmp_path / "report"
    assert main(["compare", str(one), str(other), "--out", str(out), *QUICK]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "DIFFERENT: The networks differ: interpolate" in said
    assert "half-pixel corners" in said
    assert "vanishes" in said
    assert json.loads((out / FIGURES).read_text())["divergence"]["layer"] == "interpolate"
    assert "half-pixel corners" in (out / PAGE).read_text()


def test_networks_of_other_shapes_make_a_short_report(tmp_path, capsys):
    one, other = write(tmp_path / "a.pt"), write(tmp_path / "b.pt", UNetConfig(1, 1, (6, 9)))
    assert main(["compare", str(one), str(other), "--out", str(tmp_path / "report")]) == 1
    assert "bottom.conv.0" in capsys.readouterr().out
    assert files(tmp_path / "report") == [PAGE, FIGURES]


def test_an_earlier_report_is_replaced_only_with_force(tmp_path, capsys):
    one, other = write(tmp_path / "a.pt"), write(tmp_path / "b.pt", UNetConfig(1, 1, (6, 9)))
    report = tmp_path / "report"
    command = ["compare", str(one), str(other), "--out", str(report)]
    main(command)
    before = (report / FIGURES).read_bytes()
    assert main(command) == 2
    assert "exists already" in capsys.readouterr().err
    assert (report / FIGURES).read_bytes() == before
    assert main([*command, "--force"]) == 1
    shutil.rmtree(report)
    report.mkdir()
    assert main([*command, "--force"]) == 1, "an empty folder has nothing to lose"


def test_another_folder_is_never_replaced(tmp_path, capsys):
    one, out = write(tmp_path / "a.pt"), tmp_path / "kept"
    out.mkdir()
    (out / "report.html").write_text("mine")
    assert main(["compare", str(one), "--out", str(out), "--force"]) == 2
    assert "is a directory of something else" in capsys.readouterr().err
    assert files(out) == ["report.html"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--band", "2"], "--band 2: give a whole number from 3 up"),
        (["--steps", "-1"], "--steps -1: give a whole number from 0 up"),
        (["--perturbation", "seed"], "perturbation"),
        (["--size", "4x1"], "size 4x1: too small"),
        (["--size", "large"], "give height and width as HxW"),
        (["--data", "nowhere"], "nowhere"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_bad_input_is_said_in_one_line_and_writes_nothing(tmp_path, capsys, options, message):
    one = write(tmp_path / "a.pt")
    assert main(["compare", str(one), "--out", str(tmp_path / "report"), *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert files(tmp_path) == ["a.pt"]


def test_pictures_of_other_classes_are_refused_where_they_were_chosen(tmp_path, capsys):
    one = write(tmp_path / "a.pt", UNetConfig(1, 5, (6, 8)))
    from unet_core.data.synthetic import Synthetic, write_folder

    write_folder(Synthetic(count=3, size=32), tmp_path / "cells")
    assert main(["compare", str(one), "--out", str(tmp_path / "report"), "--data", str(tmp_path / "cells")]) == 2
    assert "the pictures have 2 classes, the network answers 5 logits" in capsys.readouterr().err


def test_built_in_pictures_of_other_classes_leave_those_parts_out(tmp_path):
    path = write(tmp_path / "a.pt", UNetConfig(1, 5, (6, 8)))
    found = compare(path, path, effort=Effort(rounds=0))
    assert found.equal
    assert (found.pictures, found.ladder, found.trajectories) == ((), None, None)
    assert "the network answers 5 logits" in found.notes[0]


def folder_of(path, sizes, classes=2):
    """A data folder of noise."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (path / part).mkdir(parents=True)
    for number, size in enumerate(sizes):
        labels = rng.integers(classes, size=size).astype(np.uint8)
        labels.flat[:classes] = range(classes)
        Image.fromarray(rng.integers(256, size=size).astype(np.uint8)).save(path / "images" / f"{number}.png")
        Image.fromarray(labels).save(path / "masks" / f"{number}.png")
    return str(path)


def test_what_cannot_be_trained_on_leaves_the_training_out(tmp_path):
    """One picture; or a background without a logit of its own."""
    effort = Effort(rounds=0, pictures=1)
    one = write(tmp_path / "one.pt")
    found = compare(one, one, data=folder_of(tmp_path / "single", [(9, 30)]), effort=effort)
    assert (len(found.pictures), found.trajectories) == (1, None)
    assert found.notes == ("Nothing was trained: that takes two pictures, one of them to validate on.",)
    many = write(tmp_path / "many.pt", UNetConfig(1, 3, (6, 8), output="sigmoid"))
    found = compare(many, many, data=folder_of(tmp_path / "classes", [(16, 16)] * 2, 4), effort=effort)
    assert (len(found.pictures), found.trajectories) == (1, None)
    assert "a logit for each of the 4 classes, the network answers 3" in found.notes[0]


def test_pictures_that_are_too_small_are_refused_before_anything_runs(tmp_path, capsys):
    one, data = write(tmp_path / "a.pt"), folder_of(tmp_path / "small", [(9, 9), (1, 9)])
    assert main(["compare", str(one), str(one), "--out", str(tmp_path / "report"), "--data", data]) == 2
    assert "small: 1: the network takes 2x2 pixels at least" in capsys.readouterr().err


@pytest.mark.slow
def test_pictures_that_are_too_small_do_not_matter_where_none_is_looked_at(tmp_path):
    """The control of the refusal."""
    one, data = write(tmp_path / "a.pt"), folder_of(tmp_path / "small", [(9, 9), (1, 9)])
    assert main(["compare", str(one), str(one), "--out", str(tmp_path / "report"), "--data", data, *QUICK]) == 0


def test_a_file_is_never_replaced_by_a_report(tmp_path, capsys):
    one = write(tmp_path / "a.pt")
    before = one.read_bytes()
    assert main(["compare", str(one), "--out", str(one), "--force"]) == 2
    assert "is a file; a report is a folder" in capsys.readouterr().err
    assert one.read_bytes() == before


def test_a_run_without_a_network_is_refused(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    assert main(["compare", str(run), "--out", str(tmp_path / "report")]) == 2
    assert "comes with the run's first validation" in capsys.readouterr().err


def test_a_file_without_a_framework_meets_its_twin(tmp_path):
    path = tmp_path / "a.safetensors"
    safetensors_file.write(path, Checkpoint(CONFIG, trained_tensors(CONFIG)))
    assert [runner.framework for runner in converted(path)] == ["torch", "jax"]


def test_ignored_pixels_are_in_no_score():
    image, labels = np.zeros((1, 3, 1), np.float32), np.array([[0, 1, 255]], np.uint8)
    predicted = np.array([[[0, 1, 1]]], np.uint8)
    judged = [
        Crops(("a",), (Truth(image, truth),), 2, "sigmoid").judged(predicted).mean_iou
        for truth in (labels, labels % 255)
    ]
    assert judged[0] == 1
    assert judged[1] < 1, "the control: counted as background"


def test_the_command_on_the_page_is_the_one_that_was_typed(tmp_path):
    import tyro

    typed = ["a b.pt", "b.pt", "--out", "re port", "--steps", "3", "--perturbation", "order", "--skip-first", "True"]
    typed += ["--ignore", "255", "--skip-unlabelled"]
    command = tyro.cli(Compare, args=typed, config=(tyro.conf.OmitArgPrefixes,))
    again = tyro.cli(Compare, args=shlex.split(command.typed)[2:], config=(tyro.conf.OmitArgPrefixes,))
    assert again == command
