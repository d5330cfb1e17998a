"""How fast single 3x3 convolutions and their gradients are on a CPU, in every way that the network may take.

    python -m benchmarks.convolutions [--batch 2] [--layers 64x64x256 512x1024x16]

Prints GFLOP/s of the direct convolution's operations, by the median of some calls, each layer compiled alone, as the
network is. "Direct" is XLA's convolution. "Rows" takes fewer multiplications (`unet_jax.kernels.winograd.by_rows`):
"prepared" with the taps summed beforehand, as for prediction; otherwise, as for gradients, with the time of these sums.
"Along rows" is for few channels, or few pixels (`unet_jax.kernels.convolution.convolve_along_rows`).
"""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from jax import Array
from rich.console import Console
from rich.table import Table

from unet_jax.compilation import compiler_options
from unet_jax.kernels import winograd
from unet_jax.kernels.convolution import convolve_along_rows, convolve_plain

HEADINGS = ("direct", "along rows", "rows, prepared", "rows", "direct", "rows", "direct", "blocks of rows")
LAYERS = ("32x32x256", "64x64x256", "64x128x128", "128x128x128", "128x256x64", "256x256x64", "256x512x32", "512x512x32")
LAYERS += ("512x1024x16", "1024x1024x16", "1024x1024x8")


@dataclass(frozen=True)
class Convolutions:
    """Time single convolutions on a CPU."""

    layers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="CxDxHW ...")] = LAYERS
    """Channels in and out, and the height and width of the map."""
    batch: int = 1
    """Maps."""
    calls: int = 9
    """Of which the median is taken."""

    def run(self) -> None:
        """Measure and print, a line at a time."""
        table = Table(title=f"GFLOP/s, batch {self.batch}, jax {jax.__version__}", title_justify="left")
        table.add_column("channels, map", no_wrap=True)
        for heading, part in zip(HEADINGS, 4 * ("forward",) + 2 * ("by input",) + 2 * ("by kernel",), strict=True):
            table.add_column(f"{part}:\n{heading}", justify="right")
        for layer in self.layers:
            channels, out, size = map(int, layer.split("x"))
            operations = 2 * 9 * channels * out * self.batch * size**2
            rates = (operations / self._seconds(*one) / 1e9 for one in ways(self.batch, size, channels, out))
            table.add_row(f"{channels} to {out}, {size}x{size}", *(f"{rate:.0f}" for rate in rates))
        Console(width=120).print(table)

    def _seconds(self, function: Callable[..., Any], *given: Any) -> float:
        compiled = jax.jit(function, compiler_options=compiler_options("cpu")).lower(*given).compile()
        times = []
        for _ in range(self.calls + 1):
            started = time.perf_counter()
            jax.block_until_ready(compiled(*given))
            times.append(time.perf_counter() - started)
        return statistics.median(times[1:])


def ways(batch: int, size: int, channels: int, out: int) -> Iterator[tuple[Any, ...]]:
    """Functions and what they are given, in the order of `HEADINGS`."""
    rng = np.random.default_rng(0)
    shapes = (batch, size, size, channels), (3, 3, channels, out), (batch, size, size, out)
    x, kernel, gradient = (jax.device_put(rng.standard_normal(shape, np.float32)) for shape in shapes)

    def back(index: int, function: Callable[[Array, Array], Array], *given: Array) -> Array:
        return jax.vjp(function, *given[:2])[1](given[2])[index]

    def turned(gradient: Array, kernel: Array) -> Array:
        return winograd.convolve(gradient, kernel[::-1, ::-1].swapaxes(2, 3))

    yield convolve_plain, x, kernel
    yield convolve_along_rows, x, kernel
    yield winograd.by_rows, x, *jax.jit(winograd.summed_taps)(kernel)
    yield winograd.convolve, x, kernel
    yield partial(back, 0, convolve_plain), x, kernel, gradient
    yield turned, gradient, kernel
    yield partial(back, 1, convolve_plain), x, kernel, gradient
    yield winograd.kernel_gradient, x, gradient


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    tyro.cli(Convolutions).run()
