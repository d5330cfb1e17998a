"""The walk through a pickle that is not run."""

import os
import pickle
from collections import OrderedDict

import pytest

from unet_core import CheckpointError
from unet_core.checkpoints.pickles import DEEPEST, names_in

VALUES = {
    "nothing": None,
    "a dict": {"a": [1, 2.5, "x", None, True], "b": (1, (2, 3)), 4: {"c": {5, 6}}},
    "an ordered dict": OrderedDict(a=1, b=[2]),
    "shared parts": [[1, 2]] * 3,
    "a long list": list(range(5000)),
}


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


def doubled(times):
    value = [0]
    for _ in range(times):
        value = [value, value]
    return value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_sound_pickles_pass(value, protocol):
    data = pickle.dumps(value, protocol)
    names, end = names_in(data, "x")
    assert end == len(data)
    assert protocol < 2 or protocol > 3 or names <= {"collections OrderedDict", "__builtin__ set", "builtins set"}


def test_names_are_found_wherever_they_are():
    class Evil:
        def __reduce__(self):
            return os.system, ("true",)

    assert names_in(pickle.dumps({"a": [Evil()]}, 2), "x")[0] == {f"{os.system.__module__} system"}
    assert names_in(pickle.dumps({"a": [Evil()]}, 4), "x")[0] == {"STACK_GLOBAL"}


def test_a_value_that_holds_itself_is_refused():
    value = []
    value.append(value)
    with pytest.raises(CheckpointError, match=r"grows after it was put into|holds itself"):
        names_in(pickle.dumps(value, 2), "x")


# [a, b] with b = [a] put into a after a was put into b: torch's reader makes 2^n of n such steps.
GROWING = b"\x80\x02]q\x00]q\x01h\x00ah\x00h\x01a."


def test_what_grows_after_it_was_counted_is_refused():
    with pytest.raises(CheckpointError, match="grows after it was put into"):
        names_in(GROWING, "x")


@pytest.mark.parametrize(
    "value", [nested(DEEPEST + 5), doubled(24), {"a": {"b": nested(DEEPEST)}}], ids=["deep", "doubled", "deep in dicts"]
)
def test_what_would_become_endless_is_refused(value):
    with pytest.raises(CheckpointError, match="nested deeper, or holds more values"):
        names_in(pickle.dumps(value, 2), "x")


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x02.", b"\x80\x02h\x05.", b"\x80\x02ta.", b"\xff\xff"])
def test_broken_pickles_are_refused(data):
    with pytest.raises(CheckpointError, match="not a sound PyTorch file: its pickle"):
        names_in(data, "x")


def test_more_opcodes_than_any_checkpoint_has_are_refused():
    data = pickle.dumps(list(range(100)), 2)
    assert names_in(data, "x", most=1000)[1] == len(data)
    with pytest.raises(CheckpointError, match=r"x: its pickle has more opcodes than any checkpoint's \(50\)"):
        names_in(data, "x", most=50)
