"""Where two networks part: layer by layer, forward, backward and in an update, against a float64 reference.

Each pass is run twice: as it is, so that errors travel from layer to layer, and with each layer fed the reference's
numbers, so that it errs by itself alone. What rounding does is not guessed but measured: A's own float32 error at a
layer, or what rounding the layer's input would do to A's float64 output, if that is more, is the measure of B's error
there; and the same times the ratio of the two unit roundoffs of what float64 may leave.
"""

import numpy as np

from conversion.backends.backend import Precision, Runner
from conversion.proof.samples import Sample
from unet_compare.divergence.departure import first, trials
from unet_compare.divergence.rows import COTANGENT, GRADIENT, MOVED, OUTPUT, STATISTICS, STEP, TIED, tables_of
from unet_compare.divergence.traces import WHOLE, of_programs, traced
from unet_compare.findings import Divergence
from unet_core.progress import Progress, silent

__all__ = ["COTANGENT", "GRADIENT", "MOVED", "OUTPUT", "STATISTICS", "STEP", "TIED", "WHOLE", "divergence"]


def divergence(a: Runner, b: Runner, sample: Sample, *, seed: int = 0, progress: Progress = silent) -> Divergence:
    """Trace both networks on one input, judge every layer, and try the switches on the first that departs.

    Args:
        a, b: networks whose tensors have the same shapes; A in float64 is the reference.
        sample: the input, float32.
        seed: of the gradient that is sent backward.
        progress: called before each stage with a few words and the fraction that is done.
    """
    shape = a.predict(sample.x, "float32").shape
    cotangent = np.random.default_rng(seed + 1).standard_normal(shape, np.float32)
    progress("layer by layer, eval", 0.0)
    predicted = traced(a, b, sample.x, None, seed)
    progress("layer by layer, training", 0.3)
    trained = traced(a, b, sample.x, cotangent, seed)
    progress("layer by layer, update", 0.9)
    programs = of_programs(a, b, sample.x, cotangent, seed)
    tables = tables_of(a, b, predicted, trained, programs, seed)
    part = first(tables)
    if part is None:
        return Divergence(sample.name, tuple(tables), None, None, None, None, (), None)
    table, row = part
    error = row.other if row.wide_ok else row.wide
    parted: Precision = "float32" if row.wide_ok else "float64"
    progress(f"switching what {row.layer} means", 0.95)
    special = row.quantity in (MOVED, TIED)
    traces = (predicted if table.pass_ == "eval" else trained)["odd" if special else table.mode]
    tried, cause = trials(a, b, sample, table.pass_, row, traces, parted, seed)
    return Divergence(sample.name, tuple(tables), row.layer, row.quantity, parted, error, tried, cause)
