"""Where an Orbax directory keeps an array's numbers: how it spreads them over its files differs from run to run."""

from pathlib import Path
from typing import NamedTuple

import tensorstore


class Packed(NamedTuple):
    """The packed numbers of an array, or of its first part."""

    file: Path
    first: int
    """Where they begin in the file."""
    length: int

    def flip(self, part: float) -> None:
        """One bit, so far into them."""
        data = bytearray(self.file.read_bytes())
        data[self.first + int(self.length * part)] ^= 4
        self.file.write_bytes(data)


def packed(path: Path, name: str = "bottom.conv2.kernel", item: str = "state") -> Packed:
    """Those of a kernel."""
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{(path / item).resolve()}/"}).result()
    values = bytes(store.read(f"{name}/0.0.0.0").result().value)
    files = (file for file in (path / item).rglob("d/*") if file.is_file())
    return next(
        Packed(file, data.index(values), len(values)) for file in files if values in (data := file.read_bytes())
    )
