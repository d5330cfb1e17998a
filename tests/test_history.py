"""The lines of a run: what a stop leaves of them, and what another start takes out."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet_core.errors import RunError
from unet_core.training.history import History, read_history


def write(path, steps, validate_every=2):
    history = History(path, 0)
    for step in range(1, steps + 1):
        history.step(step, loss=1 / step, norm=step / 3, rate=0.1)
        if step % validate_every == 0:
            history.validation(step, {"loss": 2 / step, "mean_iou": 1 - 1 / step})
    history.close()


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "history.jsonl", 5)
    return tmp_path / "history.jsonl"


def steps(path):
    return [entry["step"] for entry in read_history(path) if "loss" in entry]


def test_no_file_is_no_lines(tmp_path):
    assert read_history(tmp_path / "history.jsonl") == []
    history = History(tmp_path / "history.jsonl", 0)
    history.close()
    assert (history.losses, history.best) == ([], -math.inf)


def test_steps_and_validations_are_read_back(path):
    assert steps(path) == [1, 2, 3, 4, 5]
    assert read_history(path)[:3] == [
        {"step": 1, "loss": 1.0, "norm": 1 / 3, "rate": 0.1},
        {"step": 2, "loss": 0.5, "norm": 2 / 3, "rate": 0.1},
        {"step": 2, "validation": {"loss": 1.0, "mean_iou": 0.5}},
    ]


@pytest.mark.parametrize(("step", "losses", "best"), [(5, [1.0, 0.5], 0.75), (3, [1.0], 0.5), (1, [], -math.inf)])
def test_lines_after_the_step_are_taken_out(path, step, losses, best):
    history = History(path, step)
    assert (history.losses, history.best) == (losses, best)
    history.close()
    assert steps(path) == list(range(1, step + 1))
    assert max(entry["step"] for entry in read_history(path)) == step


def test_going_on_writes_what_one_run_writes(path, tmp_path):
    history = History(path, 3)
    for step in (4, 5, 6):
        history.step(step, loss=1 / step, norm=step / 3, rate=0.1)
        if step % 2 == 0:
            history.validation(step, {"loss": 2 / step, "mean_iou": 1 - 1 / step})
    assert history.losses == [1.0, 0.5, 1 / 3]
    history.close()
    write(tmp_path / "whole.jsonl", 6)
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_a_last_line_that_was_cut_off_is_left_out(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    assert steps(path) == [1, 2, 3, 4]
    History(path, 4).close()
    assert path.read_bytes().endswith(b"}\n")


def test_a_cut_off_line_that_is_needed_is_an_error(path):
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match="does not have the steps up to 5"):
        History(path, 5)


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[1]", b"null", b"7", b'{"loss": 1}', b'{"step": null}', b'{"step": "x"}', b"\xff\xfe"]
)
def test_a_damaged_line_in_the_middle_is_an_error(path, damage):
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([*lines[:2], damage, *lines[3:]]))
    with pytest.raises(RunError, match="line 3 is damaged"):
        History(path, 5)


@pytest.mark.parametrize("kind", ["missing", "twice", "turned"])
def test_steps_that_are_not_whole_are_an_error(path, kind):
    lines = path.read_bytes().splitlines(keepends=True)
    change = {"missing": [1, 2, 3, 4, 5, 6], "twice": [0, 0, 1, 2, 3, 4, 5, 6], "turned": [1, 0, 2, 3, 4, 5, 6]}
    path.write_bytes(b"".join(lines[n] for n in change[kind]))
    before = path.read_bytes()
    with pytest.raises(RunError, match="does not have the steps up to 5; restore it"):
        History(path, 5)
    assert path.read_bytes() == before, "what cannot be gone on with stays for people to look at"


def test_a_history_that_ends_too_early_is_an_error(path):
    with pytest.raises(RunError, match="steps up to 6"):
        History(path, 6)


@settings(max_examples=20)
@given(st.lists(st.floats(allow_nan=False), min_size=3, max_size=3))
def test_floats_survive_bit_for_bit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("history") / "history.jsonl"
    history = History(path, 0)
    history.step(1, loss=values[0], norm=values[1], rate=values[2])
    history.validation(1, {"loss": values[0], "mean_iou": values[1]})
    history.close()
    again = History(path, 1)
    again.close()
    found = read_history(path)
    assert [found[0][name].hex() for name in ("loss", "norm", "rate")] == [value.hex() for value in values]
    assert again.losses[0].hex() == values[0].hex()
    shorter = json.loads(json.dumps({"loss": float(f"{math.pi:.6g}")}))
    assert shorter["loss"].hex() != math.pi.hex(), "the control: digits left out"


def test_a_flushed_line_is_on_the_disk(path):
    history = History(path, 5)
    history.step(6, loss=0.1, norm=0.1, rate=0.1)
    history.flush()
    assert steps(path)[-1] == 6
    history.close()
