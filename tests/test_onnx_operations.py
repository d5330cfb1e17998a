"""Every operation that has a form in ONNX: run by onnxruntime, against PyTorch."""

import dataclasses
from fnmatch import fnmatchcase

import numpy as np
import pytest

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from test_operations import AXES, CASES, numbers, torchs

from conversion.exports.onnx_model import ROWS, UnwritableError, Writer, write_node
from unet_core.graph.operations import OPERATIONS
from unet_core.graph.sizes import named

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {"batch": 2, "depth": 4, "height": 7, "width": 6}
EVAL = [dataclasses.replace(case, training=False) for case in CASES if case.operation != "chance"]
WITHOUT = [
    *("average_pool-*divisor=5", "interpolate-*antialias=True*", "interpolate-*size=*scale=*"),
    *("vector_norm-*order=0.0", "attention-*rate=0.4", "dropout-*always=True"),
]
"""What ONNX, or onnxruntime, does not have."""


def is_without(case):
    return any(fnmatchcase(str(case), pattern) for pattern in WITHOUT)


def narrow(array):
    return array.astype(np.float32) if array.dtype == np.float64 else array


def written(case, arrays, **changed):
    """The case as a model, in which the sizes are those of a further input; and what goes into it."""
    shapes = [
        tuple(named(AXES[s]) if s in AXES else int(s) for s in spec.split() if s.isalnum()) for spec in case.inputs
    ]
    writer, count = Writer("answer"), len(case.inputs)
    given = {"sizes": np.zeros(tuple(SIZES.values()), np.float32)}
    writer.take_in("sizes", tuple(map(named, SIZES)))
    for number, (shape, array) in enumerate(zip(shapes, arrays, strict=False)):
        writer.take_in(f"x{number}", shape, array.dtype)
        given[f"x{number}"] = array
    roles = {role: writer.tensor(role, array) for role, array in zip(case.tensors, arrays[count:], strict=True)}
    node = dataclasses.replace(case.node, attributes={**case.node.attributes, **changed})
    last = write_node(writer, node, case.shape, [f"x{number}" for number in range(count)], roles)
    model = writer.model(list(given), last, title="case")
    onnx.checker.check_model(model, full_check=True)
    return model, given


def ran(model, given):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, given)[0]


@pytest.mark.parametrize("case", [case for case in EVAL if not is_without(case)], ids=str)
def test_an_operation_answers_as_in_torch(case):
    rng = np.random.default_rng(0)
    arrays = [numbers(spec, SIZES, rng) for spec in (*case.inputs, *case.tensors.values())]
    expected = torchs(case, SIZES, [torch.tensor(array) for array in arrays])[0].numpy()
    found = ran(*written(case, [narrow(array) for array in arrays]))
    assert found.dtype == narrow(expected).dtype
    scale = max(np.abs(expected[np.isfinite(expected)]).max(initial=0), 1) if expected.dtype != bool else 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("case", [case for case in EVAL if is_without(case)], ids=str)
def test_what_onnx_has_no_form_for_is_refused(case):
    arrays = [narrow(numbers(spec, SIZES, np.random.default_rng(0))) for spec in (*case.inputs, *case.tensors.values())]
    with pytest.raises(UnwritableError):
        written(case, arrays)


def test_every_other_operation_has_a_row():
    assert {name for name, row in OPERATIONS.items() if row.stored} - ROWS.keys() == {"chance"}


@pytest.mark.parametrize("changed", [{"align_corners": True}, {"mode": "nearest"}], ids=str)
def test_an_attribute_that_is_switched_is_found(changed):
    """The control."""
    (case, *_) = [case for case in EVAL if "mode=linear-align_corners=False-size" in str(case)]
    arrays = [narrow(numbers(spec, SIZES, np.random.default_rng(0))) for spec in case.inputs]
    right, wrong = ran(*written(case, arrays)), ran(*written(case, arrays, **changed))
    assert np.abs(right - wrong).max() > 0.01
