"""The weights of `torch.export` archives (.pt2), whose graph is `conversion.sources.exported`'s to read.

Of the format: torch/export/pt2_archive, torch/_export/serde/schema.py.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from unet_core.checkpoints.contents import Contents
from unet_core.checkpoints.foreign.lazily import Lazy, contents_from
from unet_core.checkpoints.pickled.parts import Part
from unet_core.checkpoints.pickled.tensors import DTYPES, Storage, stored
from unet_core.checkpoints.pickled.zip_archive import ZipArchive
from unet_core.codec import parsed
from unet_core.errors import CheckpointError, first_line, shown

_LARGEST_CONFIG = 20_000_000

_KINDS = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
}
"""Schema's ScalarType."""


def contents(path: Path) -> Contents:
    """The parameters and buffers of the exported module.

    Raises:
        CheckpointError: it is no such archive, is damaged, or has its weights in a pickle, as an older torch wrote.
    """
    archive = ZipArchive(Part(path), needs=None)
    configs = [name for name in archive.sizes if re.fullmatch(r"data/weights/[^/]+_weights_config\.json", name)]
    if len(configs) != 1 or archive.sizes[configs[0]] > _LARGEST_CONFIG:
        raise CheckpointError(f"{path}: has no weights as this torch.export writes them; export it anew")
    try:
        entries = parsed(archive.read(configs[0]).tobytes().decode())["config"]
        found = {name: _tensor(archive, entry) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a sound torch.export archive: {first_line(error)}") from error
    return contents_from(path, {"": found}, ordered=True)


def _tensor(archive: ZipArchive, entry: Any) -> Lazy:
    name, meta = entry["path_name"], entry["tensor_meta"]
    if entry["use_pickle"] is not False or f"data/weights/{name}" not in archive.sizes:
        raise ValueError(f"its weights {shown(name)} are not there as raw bytes")
    member = f"data/weights/{name}"
    dtype = DTYPES[_KINDS[meta["dtype"]]]
    shape, strides = ([size["as_int"] for size in meta[part]] for part in ("sizes", "strides"))
    storage = Storage(archive.sizes[member], lambda: archive.read(member))
    tensor = stored(storage, dtype, meta["storage_offset"]["as_int"], shape, strides)
    if tensor.spread:
        raise ValueError(f"{shown(name)} claims more numbers than the file holds")

    def load() -> np.ndarray:
        return tensor.read()

    return Lazy(tensor.shape, dtype, load)
