"""How quickly two cores hand each other what they wrote.

The virtual machines of a cloud are moved over their host's cores, and are not told. While two of theirs are further
apart, as where they share no cache, what hands maps from core to core takes longer.
"""

import os
import statistics
import time

import numpy as np

_BYTES = 512 * 1024
"""More than fits a core's first cache, less than its second one."""
_LINE = 64
_TIMES = 9
_PAIRS = 8
APART = 1.4
"""Times the quickest handover that was seen: from here on two cores are further apart."""


def handover() -> float | None:
    """Nanoseconds in which a core reads a cache line that another one wrote last: median, of the slowest of some pairs.

    None where this process has one core only, or where the system lets no thread choose its core.
    """
    if not hasattr(os, "sched_setaffinity") or len(allowed := sorted(os.sched_getaffinity(0))) < 2:
        return None
    first, *others = allowed
    lines = np.zeros(_BYTES // 8)
    try:
        return max(_between(first, other, lines) for other in others[:: -(-len(others) // _PAIRS)])
    finally:
        os.sched_setaffinity(0, allowed)


def _between(writer: int, reader: int, lines: np.ndarray) -> float:
    found: list[float] = []
    for _ in range(_TIMES):
        os.sched_setaffinity(0, {writer})
        lines.fill(1.0)
        os.sched_setaffinity(0, {reader})
        started = time.perf_counter()
        lines.sum()
        found.append(time.perf_counter() - started)
    return 1e9 * statistics.median(found) / (lines.nbytes / _LINE)
