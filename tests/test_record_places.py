"""Every record of an array_record file is found where it lies, whatever blocks it crosses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

module = pytest.importorskip("array_record.python.array_record_module")

from unet_core.data.record_places import record_places, span, without_headers

LENGTHS = st.one_of(st.integers(0, 400), st.integers(65_300, 65_700), st.integers(130_000, 200_000))


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return tmp_path_factory.mktemp("records") / "a.array_record"


def written(file, records, options="group_size:1,uncompressed"):
    writer = module.ArrayRecordWriter(str(file), options)
    for record in records:
        writer.write(record)
    writer.close()
    return file.read_bytes()


@settings(max_examples=30)
@given(st.lists(LENGTHS, min_size=1, max_size=12), st.integers(0, 2**32))
def test_records_lie_where_it_says(file, lengths, seed):
    rng = np.random.default_rng(seed)
    records = [rng.bytes(length) for length in lengths]
    content = written(file, records)
    places = list(record_places(file, len(records)))
    assert [length for _, length in places] == lengths
    parts = [content[begin : begin + span(begin, length)] for begin, length in places]
    assert [without_headers(part, begin) for part, (begin, _) in zip(parts, places, strict=True)] == records


@pytest.mark.parametrize("options", ["group_size:1,zstd:3", "group_size:2,uncompressed"])
def test_a_file_of_another_kind_is_refused(file, options):
    written(file, [bytes(300), bytes(300)], options)
    with pytest.raises(ValueError, match="a chunk is not of one record as it is"):
        list(record_places(file, 2))


def test_a_file_that_is_cut_short_is_refused(file):
    content = written(file, [bytes(70_000)] * 2)
    file.write_bytes(content[:100_000])
    with pytest.raises(ValueError, match="cut short"):
        list(record_places(file, 3))
