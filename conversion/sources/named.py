"""A network as a source names it: its own module, with its weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class NamedCode:
    """A module whose class the source itself tells, and what else the source tells of it."""

    module: "nn.Module"
    """In eval mode, on the CPU, its weights those of the source, their dtypes kept."""
    name: str
    """The class, with the package that has it."""
    version: str
    """The package and its version, or what wrote the file."""
    in_channels: int
    """Channels of its input."""
    size: tuple[int, ...]
    """Height and width, before them depth in 3-D, of a small input that it takes."""
    files: tuple[Path, ...]
    """What was read: settings and weights."""
    usual: tuple[int, ...] | None = None
    """The size that it was trained at, where the source tells."""
    notes: tuple[str, ...] = ()
    """What a person should know, each in a line: which fold, versions that differ."""

    @property
    def dimensions(self) -> int:
        """2 or 3."""
        return len(self.size)

    @property
    def source(self) -> str:
        """The class, the package and its version, for the evidence."""
        return f"{self.name}, {self.version}"

    def example(self, batch: int = 1) -> "Tensor":
        """An input of random numbers, the same every time, in the dtype of its weights."""
        import torch

        generator = torch.Generator().manual_seed(0)
        floats = [tensor.dtype for tensor in self.module.parameters() if tensor.is_floating_point()]
        shape = (batch, self.in_channels, *self.size)
        return torch.randn(shape, generator=generator).to(floats[0] if floats else torch.float32)
