"""What a file of PyTorch has beside the classes of its network: how it is loaded."""

from collections.abc import Mapping

HEAD = '''"""{title} in PyTorch: {origin}.

    model = load("{weights}")
    answer = model(pictures)  # of [n, {channels}, {axes}], float32{scaled}
"""

import json
{more}from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
'''

HELPERS: Mapping[str, str] = {
    "Unused": '''class Unused(nn.Module):
    """Tensors on which no answer depends: parameters by their shapes, and buffers."""

    def __init__(self, **tensors: tuple[int, ...] | Tensor) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            own = nn.Buffer(tensor) if isinstance(tensor, Tensor) else nn.Parameter(torch.zeros(tensor))
            setattr(self, name, own)
''',
}

LOAD = '''DTYPES = {{
    "F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}}


def load(path: str) -> {title}:
    """The network in eval mode, with the weights of a .safetensors file under its own names."""
    data = bytearray(Path(path).read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    tensors = {{}}
    for name, entry in header.items():
        first, last = (start + offset for offset in entry["data_offsets"])
        tensor = torch.frombuffer(data[first:last], dtype=DTYPES[entry["dtype"]])
        tensors[name] = tensor.reshape(entry["shape"])
    model = {title}()
    model.load_state_dict(tensors)
    return model.eval()
'''
