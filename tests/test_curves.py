"""The pictures of runs, and the two stories that are told with them: `examples.switching` and `examples.demo`."""

import json
import re
import shlex

import numpy as np
import pytest

pytest.importorskip("grain")
pytest.importorskip("matplotlib")
Image = pytest.importorskip("PIL.Image")

from matplotlib.figure import Figure

from unet_compare.curves import LOOKS, draw_pieces, draw_runs
from unet_core.errors import ConfigError
from unet_core.training.run import HISTORY, RunConfig, read_run_config, write_run_config
from unet_core.training.train_config import TrainConfig

BLUE, ORANGE, GREEN = "#0072b2", "#d55e00", "#009e73"


@pytest.fixture
def make(tmp_path):
    """Writes the folder of a run of ten steps, with two validations, as far as a picture needs it."""

    def make(name, backend="torch", switches=()):
        path = tmp_path / name
        path.mkdir()
        settings = RunConfig(backend, TrainConfig(), "synthetic", ("0",), ("1",), "", 1, (0, 255), {}, tuple(switches))
        write_run_config(path, settings)
        entries = [{"step": step, "loss": 1 / step, "norm": 1.0, "rate": 0.1} for step in range(1, 11)]
        entries += [{"step": step, "validation": {"loss": 0.5, "mean_iou": 0.7}} for step in (4, 10)]
        (path / HISTORY).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        return path

    return make


def drawn(tmp_path, *runs):
    """The SVG of the runs, in which every text is a comment."""
    draw_runs(runs, tmp_path / "curves.svg")
    return (tmp_path / "curves.svg").read_text()


def test_a_moved_run_has_each_frameworks_colour_and_a_mark_at_every_switch(make, tmp_path):
    svg = drawn(tmp_path, make("c", "torch", [(4, "torch"), (8, "jax")]))
    assert "<!-- c: PyTorch, JAX, PyTorch -->" in svg
    assert svg.count("<!-- → JAX -->") == svg.count("<!-- → PyTorch -->") == 2
    assert BLUE in svg
    assert ORANGE in svg


def test_a_run_that_stayed_has_no_mark(make, tmp_path):
    svg = drawn(tmp_path, make("a"))
    assert "<!-- a (torch) -->" in svg
    assert "→" not in svg
    assert ORANGE not in svg


def test_beside_a_moved_run_no_other_has_a_frameworks_colour(make, tmp_path):
    alone = drawn(tmp_path, make("a"), make("b", "jax"))
    beside = drawn(tmp_path, make("c"), make("d", "jax", [(4, "torch")]))
    assert GREEN not in alone
    assert GREEN in beside


def test_pieces_join_at_the_switch():
    panel = Figure().subplots()
    first, second, third = draw_pieces(
        panel,
        np.arange(1, 11),
        np.arange(1, 11),
        [(0, 4, LOOKS["torch"]), (4, 8, LOOKS["jax"]), (8, None, LOOKS["torch"])],
        linewidth=3,
    )
    assert [list(line.get_xdata()) for line in (first, second, third)] == [[1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9, 10]]
    assert [line.get_linestyle() for line in (first, second, third)] == ["-", "--", "-"]
    assert first.get_linewidth() == 3


def test_a_piece_without_a_step_yet_is_drawn_empty(make, tmp_path):
    assert "<!-- c: PyTorch, JAX -->" in drawn(tmp_path, make("c", "jax", [(10, "torch")]))


@pytest.mark.slow
@pytest.mark.usefixtures("small_proof", "one_thread")
def test_a_training_in_both_frameworks_by_turns(tmp_path, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    from examples.switching import Switching

    Switching(tmp_path / "example", tmp_path / "switch.png", features=(3, 4), steps=6).run()
    said = capsys.readouterr().out
    assert read_run_config(tmp_path / "example" / "c_3_torch").pieces == (
        (0, 2, "torch"),
        (2, 4, "jax"),
        (4, None, "torch"),
    )
    assert said.count("the trainings are the same") == 2
    distances = re.findall(r"^(\w - \w) +(\S+) +(\S+) +(\S+) +(\S+)$", said, re.MULTILINE)
    assert [row[0] for row in distances] == ["c - a", "c - b", "a - b"]
    assert distances[0][1] == "0.0e+00", "c is a until the first switch"
    assert all(float(figure) < 1e-3 for row in distances for figure in row[1:])
    with Image.open(tmp_path / "switch.png") as picture:
        assert picture.size == (1430, 660)


def test_the_distances_are_those_of_the_runs(make, capsys):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    from examples.switching import Trained, print_distances

    settings = read_run_config(make("c", "jax", [(2, "torch")]))
    losses, parameters = np.ones(4), np.array([3.0, 4.0])
    runs = {
        "a": Trained(settings, losses, parameters),
        "b": Trained(settings, losses - np.array([0, 0.5, 0, 0]), parameters),
        "c": Trained(settings, losses + np.array([0, 0, 0, 0.25]), np.array([3.0, 5.0])),
    }
    print_distances(runs)
    rows = [line.split()[-3:] for line in capsys.readouterr().out.splitlines() if " - " in line]
    assert rows == [
        ["0.0e+00", "2.5e-01", "2.0e-01"],
        ["5.0e-01", "2.5e-01", "2.0e-01"],
        ["5.0e-01", "0.0e+00", "0.0e+00"],
    ]


def test_too_few_steps_for_three_pieces(tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    from examples.switching import Switching

    with pytest.raises(ConfigError, match="--steps 2: give 3 or more"):
        Switching(tmp_path / "example", steps=2).run()
    assert not (tmp_path / "example").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("small_proof", "one_thread")
def test_the_demo(tmp_path, capsys, monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("jax")
    import unet_torch
    from examples.demo import Demo
    from unet_cli.main import _parse

    monkeypatch.chdir(tmp_path)
    demo = Demo(features=(3, 4), steps=7)
    demo.run()
    said = capsys.readouterr().out
    assert read_run_config(tmp_path / "demo/run_jax").pieces == ((0, 5, "torch"), (5, None, "jax"))
    assert "SAME: the trainings are the same" in said
    assert re.search(r"All \d+ arrays of the state are the same in every bit", said)
    assert re.search(r"All \d+ arrays of the network are the same in every bit", said)
    with Image.open("demo/story.png") as picture:
        assert picture.size[0] == 1430
    model = unet_torch.UNet(1, 1, features=(3, 4))
    model.load_state_dict(torch.load("demo/unet.pt"), strict=True)

    commands = [shlex.split(line) for line in re.findall(r"^\$ unet (.*)$", said, re.MULTILINE)]
    assert [command[0] for command in commands] == ["train", "convert", "train", "convert", "convert"]
    parsed = [_parse(command) for command in commands]
    assert (parsed[0].recipe, parsed[0].until) == (demo.recipe, 5), "the command that is shown does the same"
    assert (parsed[2].recipe, parsed[2].backend) == (demo.recipe, "jax")


def test_the_demo_says_what_a_conversion_changed():
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    from examples.demo import check_same
    from unet_core import UNetError

    with pytest.raises(UNetError, match="the state was changed by its conversion: step"):
        check_same("state", ["step"], 3)


def test_the_score_of_an_answer():
    from unet_compare.page.picture import Answers

    mask = np.array([[1, 1, 0, 0]], np.uint8)
    ours, theirs = np.array([[0.9, 0.1, 0.8, 0.2]]), np.array([[0.9, 0.1, 0.8, 0.1]])
    answers = Answers(np.zeros((1, 4, 1)), mask, theirs, ours, 0.0)
    assert answers.iou == pytest.approx(1 / 3)
    assert answers.apart == pytest.approx(0.1)
