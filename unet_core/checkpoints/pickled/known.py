"""What the few functions and classes that a pickle's data needs make of their arguments; every other one is inert.

Each is known by its name and done over here. Nothing is imported, nothing of the file's is called.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from unet_core.checkpoints.pickled.standins import Dict, Inert
from unet_core.checkpoints.pickled.tensors import DTYPES, STORAGES, Storage, StoredTensor, TypedStorage, sizes, stored

_LONGEST_KEY = 100
"""Values in a tuple that is a key."""

_PLAIN_KEYS = (str, bytes, int, float, complex, type(None), Inert, StoredTensor)

_DENSE = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")

_DICTS = ("collections.OrderedDict", "collections.defaultdict", "collections.Counter", "builtins.dict")

_COPYING = (*_DICTS, "builtins.set", "_codecs.encode", "builtins.bytes", "builtins.bytearray")

_NUMBERS = "biufc"


def key(value: object) -> Any:
    """The same value, if it is sound as a key: its hash is found in no time, and comparing it takes none either.

    Raises:
        ValueError: it is not.
    """
    if isinstance(value, tuple):
        left, waiting = _LONGEST_KEY, [value]
        while waiting:
            part = waiting.pop()
            left -= len(part)
            if left < 0 or not all(isinstance(one, (*_PLAIN_KEYS, tuple)) for one in part):
                raise ValueError("a key of a kind, or of a length, that no checkpoint has")
            waiting += [one for one in part if isinstance(one, tuple)]
    elif not isinstance(value, _PLAIN_KEYS):
        raise ValueError(f"a key that is a {type(value).__name__}")
    return value


def is_small_key(value: object) -> bool:
    """Whether keys like this one cannot have been chosen so that a table of them takes for ever."""
    return isinstance(value, str | bytes | type(None) | Inert | StoredTensor) or (
        type(value) is int and 0 <= value < 2**20
    )


def put(target: dict[Any, Any], values: list[Any]) -> None:
    """Put keys and values, which alternate, into a dict."""
    if len(values) % 2:
        raise ValueError("a key without a value")
    for place in range(0, len(values), 2):
        target[key(values[place])] = values[place + 1]


def copies(name: str, args: tuple[Any, ...]) -> tuple[int, list[Any]]:
    """How many bytes a call copies, about, and which keys it puts into a new table."""
    if name not in _COPYING or not args:
        return 0, []
    if isinstance(args[0], str | bytes):
        return len(args[0]), []
    content = args[-1]
    if not isinstance(content, list | tuple | dict):
        return 0, []
    pairs = name in _DICTS and not isinstance(content, dict)
    keys = [part[0] if pairs and isinstance(part, list | tuple) and part else part for part in content]
    return 1000 * len(content), keys


def called(name: str, args: tuple[Any, ...]) -> Any:
    """What a function or class of this name makes of these arguments; an `Inert`, where it is not known."""
    make = KNOWN.get(name)
    found = make(*args) if make is not None else NotImplemented
    return Inert(name, args, made=True) if found is NotImplemented else found


def _dict(kind: str) -> Callable[..., Any]:
    def make(*args: Any) -> Any:
        found = Dict(kind)
        content = args[-1] if args and not isinstance(args[-1], Inert | type(None)) else ()
        if isinstance(content, dict):
            found.update(content)
            return found
        if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in content):
            return NotImplemented
        put(found, [part for pair in content for part in pair])
        return found

    return make


def _set(values: Any = ()) -> Any:
    return {key(value) for value in values} if isinstance(values, list | tuple) else NotImplemented


def _complex(real: Any = 0.0, imaginary: Any = 0.0) -> Any:
    both = isinstance(real, int | float) and isinstance(imaginary, int | float)
    return complex(real, imaginary) if both else NotImplemented


def _encoded(text: Any = None, encoding: Any = None) -> Any:
    """Bytes, as Python writes them into a pickle of an older protocol."""
    plain = isinstance(text, str) and encoding in ("latin1", "latin-1")
    return text.encode("latin-1") if plain else NotImplemented


def _bytes(*args: Any) -> Any:
    if len(args) < 2:
        return next((part if isinstance(part, bytes) else NotImplemented for part in args), b"")
    return _encoded(*args) if len(args) == 2 else NotImplemented


def _itself(value: Any = NotImplemented, *_: Any) -> Any:
    return value


def _size(value: Any = ()) -> Any:
    return value if isinstance(value, tuple) else NotImplemented


# --- torch


def _dense(storage: Any, offset: Any, shape: Any, strides: Any, *more: Any) -> Any:
    """A tensor in a storage; `more` are whether it is trained, hooks, its dtype where the storage has none, and marks.

    torch/_utils.py, `_rebuild_tensor`, `_v2` and `_v3`.
    """
    if not isinstance(storage, TypedStorage):
        return NotImplemented
    kinds = [part.name.removeprefix("torch.") for part in more if isinstance(part, Inert)]
    marks = next((part for part in more[2:] if isinstance(part, dict)), {})
    if kinds and kinds[0] not in DTYPES:
        return StoredTensor(None, None, sizes(shape, "a shape"), odd=f"{kinds[0]} numbers")
    found = stored(storage.storage, DTYPES[kinds[0]] if kinds else storage.dtype, offset, shape, strides)
    if not marks:
        return found
    return dataclasses.replace(found, negative=bool(marks.get("neg")), conjugate=bool(marks.get("conj")))


def _of_subclass(function: Any = None, _: Any = None, args: Any = (), *_more: Any) -> Any:
    """The plain tensor of a subclass such as MONAI's MetaTensor; its attributes are left behind."""
    dense = isinstance(function, Inert) and function.name in _DENSE and isinstance(args, tuple)
    return _dense(*args) if dense else NotImplemented


def _from_numpy(array: Any = None, *_: Any) -> Any:
    """The tensor of a device of its own, such as XLA's; the array, or the tensor, in which it was saved."""
    return array if isinstance(array, Inert | StoredTensor) else NotImplemented


def _odd(what: str, place: int) -> Callable[..., Any]:
    """A tensor that is no dense one; `place` is where its shape stands among the arguments."""

    def make(*args: Any) -> Any:
        if what == "sparse":  # indices, values and the shape in a tuple of their own
            parts = args[1] if len(args) > 1 and isinstance(args[1], tuple) else ()
            args = tuple(part for part in parts if isinstance(part, tuple))
        if not -len(args) <= place < len(args):
            return NotImplemented
        return StoredTensor(None, None, sizes(args[place], "a shape"), odd=what)

    return make


# --- NumPy


def dtype_of(value: object) -> np.dtype | None:
    """The dtype for which an `Inert` stands: NumPy's own of numbers, and those that ml_dtypes adds."""
    if not isinstance(value, Inert) or value.name != "numpy.dtype" or not value.args:
        return None
    text = value.args[0]
    if isinstance(text, Inert):
        return DTYPES.get(text.name.removeprefix("ml_dtypes.").removeprefix("numpy."))
    if not isinstance(text, str) or text[:1] not in _NUMBERS or not text[1:].isdecimal() or len(text) > 4:
        return None
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "="
    try:
        found = np.dtype(text)
    except TypeError:
        return None
    if found not in DTYPES.values():
        return None
    return found.newbyteorder(">") if order == ">" else found


def raw(value: object) -> bytes | None:
    """The bytes that a pickle has; one of Python 2 may have text in their place."""
    return value.encode() if isinstance(value, str) else value if isinstance(value, bytes) else None


def _scalar(kind: Any = None, content: Any = None) -> Any:
    """A number of NumPy's as one of Python's."""
    dtype, data = dtype_of(kind), raw(content)
    if dtype is None or data is None or len(data) != dtype.itemsize:
        return NotImplemented
    found = np.frombuffer(data, dtype)[0].item()
    return found if isinstance(found, bool | int | float | complex) else float(found)


def array_of(value: object) -> StoredTensor | None:
    """The array of numbers for which an `Inert` stands, if it is one: NumPy's ndarray, by either way of pickling it."""
    if not isinstance(value, Inert):
        return None
    if value.name == "numpy._core.multiarray._reconstruct":
        state = value.state
        if not isinstance(state, tuple) or len(state) != 5:
            return None
        _, shape, kind, by_columns, content = state
    elif value.name == "numpy._core.numeric._frombuffer" and len(value.args) == 4:
        content, kind, shape, order = value.args
        by_columns = order == "F"
    else:
        return None
    dtype, data = dtype_of(kind), raw(content)
    if dtype is None or data is None or not isinstance(shape, tuple):
        return None
    extent = sizes(shape, "a shape")
    plain, found = dtype.newbyteorder("="), np.frombuffer(data, np.uint8)
    if dtype != plain:
        found = np.frombuffer(data, dtype).astype(plain).view(np.uint8)
    steps = [1]
    for size in extent[:-1] if by_columns else extent[:0:-1]:
        steps.append(steps[-1] * size)
    ordered = steps[: len(extent)] if by_columns else steps[: len(extent)][::-1]
    return stored(Storage(found.nbytes, found.copy), plain, 0, extent, tuple(ordered))


KNOWN: dict[str, Callable[..., Any]] = {
    **{name: _dict(name.rpartition(".")[2]) for name in _DICTS},
    **dict.fromkeys(_DENSE, _dense),
    **dict.fromkeys(("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"), _itself),
    "builtins.set": _set,
    "builtins.complex": _complex,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "_codecs.encode": _encoded,
    "torch.Size": _size,
    "torch._tensor._rebuild_from_type_v2": _of_subclass,
    "torch._utils._rebuild_device_tensor_from_numpy": _from_numpy,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _from_numpy,
    "torch._utils._rebuild_xla_tensor": _from_numpy,
    "torch._utils._rebuild_sparse_tensor": _odd("sparse", -1),
    "torch._utils._rebuild_qtensor": _odd("quantised", 2),
    "torch._utils._rebuild_meta_tensor_no_storage": _odd("without numbers, on torch's meta device", 1),
    "torch._utils._rebuild_wrapper_subclass": _odd("of a subclass without numbers of its own", 2),
    **{f"torch.jit._pickle.build_{kind}list": _itself for kind in ("int", "double", "bool", "tensor")},
    "torch.jit._pickle.restore_type_tag": _itself,
    "numpy._core.multiarray.scalar": _scalar,
}
"""By name; a function answers NotImplemented where it does not know such arguments."""

REFERRED = {
    *(
        f"torch.{name}"
        for name in (*STORAGES, *DTYPES, "device", "strided", "sparse_coo", "quint8", "per_tensor_affine")
    ),
    *("torch.storage.TypedStorage", "torch.storage.UntypedStorage", "torch.serialization._get_layout"),
    *("torch.nn.parameter.Parameter", "torch._tensor.Tensor", "torch.Tensor", "numpy.ndarray", "numpy.dtype"),
    *("numpy._core.multiarray._reconstruct", "numpy._core.numeric._frombuffer"),
    *(f"ml_dtypes.{name}" for name in DTYPES),
    *(f"builtins.{kind.__name__}" for kind in (bool, int, float, str, tuple, list, object)),
}
"""What data refers to besides, and is no object of anybody's."""
