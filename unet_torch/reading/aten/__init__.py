"""How ATen's operators, of which every PyTorch network consists, become operations of a graph."""

from unet_torch.reading.aten import arithmetic, chance, functions, layers, resampling, shapes, values
from unet_torch.reading.aten.rows import ROWS

__all__ = ["ROWS", "arithmetic", "chance", "functions", "layers", "resampling", "shapes", "values"]
