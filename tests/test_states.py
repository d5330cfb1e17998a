"""What decoding pairs showed comes back from its columns as it was."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet_core.data.columns import read_columns, text_column, words_of, write_columns
from unet_core.data.states import PairState, state_columns, states_of
from unet_core.errors import DataError

KEPT = {"channels", "size", "spacing", "values", "colours", "slices", "pages", "brightest"}
SETS = st.none() | st.frozensets(st.integers(0, 2**24 - 1), max_size=5)
LENGTHS = st.integers(1, 10**9)
STATES = st.builds(
    PairState,
    channels=st.integers(1, 300),
    size=st.tuples(LENGTHS, LENGTHS),
    values=SETS,
    colours=SETS,
    slices=st.none() | st.lists(SETS.filter(lambda one: one is not None), min_size=1, max_size=3).map(tuple),
    pages=st.sampled_from([None, "slices", "channels"]),
    brightest=st.integers(0, 2**16 - 1),
) | st.builds(
    PairState,
    size=st.tuples(LENGTHS, LENGTHS, LENGTHS),
    values=SETS,
    spacing=st.none() | st.tuples(*[st.floats(1e-6, 1e3)] * 3),
)


def test_the_columns_are_of_all_that_a_state_has():
    """But for what is wrong with it, for such a one is not kept. Whoever adds a field adds it to the columns too."""
    names = {field.name for field in dataclasses.fields(PairState)}
    assert names == {"problems", "unknown", *KEPT}


@given(st.lists(STATES, max_size=8))
def test_states_come_back(states):
    columns = state_columns(states * 2)
    assert states_of(columns) == states * 2
    sets = {one for state in states for one in (state.values, state.colours, *(state.slices or ()))}
    assert len(columns["ends"]) == len(sets - {None})


@given(
    st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])) | st.just("\udc80"), max_size=9)
)
def test_words_come_back(words):
    assert words_of(text_column(words)) == words


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_a_file_that_is_cut_short_is_named(tmp_path, cut):
    file = tmp_path / "a.npz"
    write_columns(file, {"a": np.arange(9), "b": text_column(["x"])})
    assert read_columns(file)["a"].tolist() == list(range(9))
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.npz: is damaged"):
        read_columns(file)


def test_what_would_run_code_is_not_read(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, a=np.array([{"an": "object"}], object))
    with pytest.raises(DataError, match=r"a\.npz: is damaged \(Object arrays cannot be loaded"):
        read_columns(file)
