"""Sizes as expressions: whatever is done to them, they are the numbers that Python computes."""

import pytest
from conftest import by_examples
from hypothesis import strategies as st

from unet_core.graph.sizes import Size, evaluate, largest, named

HEIGHT, WIDTH = named("height"), named("width")

ATOMS = st.one_of(st.sampled_from(["height", "width", "batch"]), st.integers(0, 9).map(str))


def _joined(inner):
    whole = st.tuples(inner, st.sampled_from(["+", "-", "*"]), inner).map(lambda parts: f"({' '.join(parts)})")
    divided = st.tuples(inner, st.sampled_from(["//", "%"]), st.integers(1, 9)).map(
        lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"
    )
    extreme = st.tuples(st.sampled_from(["max", "min"]), inner, inner).map(
        lambda parts: f"{parts[0]}({parts[1]}, {parts[2]})"
    )
    return st.one_of(whole, divided, extreme)


EXPRESSIONS = st.recursive(ATOMS, _joined, max_leaves=8)


@by_examples(100, 300, EXPRESSIONS, st.integers(1, 300), st.integers(1, 300))
def test_an_expression_has_the_value_that_python_computes(text, height, width):
    sizes = {"height": height, "width": width, "batch": 3}
    assert evaluate(Size.from_text(text), sizes) == eval(text, {"max": max, "min": min}, sizes)


@by_examples(100, 300, EXPRESSIONS)
def test_a_size_is_read_back_from_its_text(text):
    size = Size.from_text(text)
    assert Size.from_text(str(size)) == size


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((HEIGHT - 2) // 2 + 1, HEIGHT // 2),
        (HEIGHT // 2 // 2, HEIGHT // 4),
        ((HEIGHT + 2 - 3) // 2 + 1, (HEIGHT + 1) // 2),
        (2 * HEIGHT // 2, HEIGHT),
        ((2 * HEIGHT + 1) // 4, HEIGHT // 2),
        (HEIGHT * WIDTH // WIDTH, HEIGHT),
        (largest(HEIGHT, HEIGHT - 1), HEIGHT),
        (HEIGHT - HEIGHT, 0),
    ],
)
def test_equal_sizes_are_equal_however_they_were_made(one, other):
    assert one == other


@pytest.mark.parametrize(
    ("one", "other"), [(HEIGHT // 2 * 2, HEIGHT), (HEIGHT, WIDTH), (HEIGHT // 2, (HEIGHT + 1) // 2)]
)
def test_other_sizes_are_not(one, other):
    assert one != other


@pytest.mark.parametrize(
    "text",
    ["", "depth.x", "channels", "height / 2", "height // 0", "height ** 9", "max(height)", "__import__('os')", "1.5",
     "True", "(" * 900 + "1" + ")" * 900, "height" * 1000],
)  # fmt: skip
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="size"):
        Size.from_text(text)
