"""Tensors as files keep them: bytes in a storage, and which of them are whose."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

_FLOAT8 = ("float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e4m3fnuz", "float8_e8m0fnu")

DTYPES: dict[str, np.dtype] = {
    **{name: np.dtype(name) for name in ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "bool")},
    **{name: np.dtype(name) for name in ("uint64", "uint32", "uint16", "uint8", "complex64", "complex128")},
    **{name: np.dtype(getattr(ml_dtypes, name)) for name in ("bfloat16", *_FLOAT8)},
}
"""By torch's names. Of the others NumPy knows nothing: quantised numbers, several of them in a byte, bits."""

WEIGHTS = tuple(
    DTYPES[name] for name in ("float32", "float64", "bfloat16", "float16", "int32", "int64", "uint8", "bool")
)
"""Of a network's tensors."""

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "QInt8Storage": "uint8",
    "QInt32Storage": "int32",
    "QUInt8Storage": "uint8",
    "QUInt4x2Storage": "uint8",
    "QUInt2x4Storage": "uint8",
}
"""The dtypes of torch's storages (torch/storage.py, `_dtype_to_storage_type_map`)."""

_MOST_AXES = 64
_LARGEST = 2**62


@dataclass(eq=False)
class Storage:
    """Some bytes of a file, in which one tensor or several lie."""

    nbytes: int
    load: Callable[[], np.ndarray] | None = None
    """Reads the bytes; None until it is known where they are."""

    def read(self) -> np.ndarray:
        """The bytes, in memory of their own."""
        assert self.load is not None
        return self.load()


@dataclass(frozen=True, eq=False)
class TypedStorage:
    """A storage as numbers of one kind."""

    storage: Storage
    dtype: np.dtype


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor that has not been read."""

    storage: Storage | None
    """None of those that are no dense tensors."""
    dtype: np.dtype | None
    shape: tuple[int, ...]
    strides: tuple[int, ...] = ()
    """In elements."""
    offset: int = 0
    """In elements."""
    negative: bool = False
    """The numbers are the negatives of those in the storage."""
    conjugate: bool = False
    odd: str = ""
    """What it is, where it is no dense tensor of numbers that NumPy knows."""

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def span(self) -> tuple[int, int]:
        """From which byte of the storage to which it lies; meaningless of an empty one."""
        assert self.dtype is not None
        reach = sum(stride * (size - 1) for stride, size in zip(self.strides, self.shape, strict=True))
        return self.offset * self.dtype.itemsize, (self.offset + reach + 1) * self.dtype.itemsize

    @property
    def spread(self) -> bool:
        """Whether it claims more numbers than its storage has, as one that was expanded does."""
        return self.storage is not None and self.size * _itemsize(self.dtype) > self.storage.nbytes

    @property
    def overlaps_itself(self) -> bool:
        """Whether two elements may be one number in the storage."""
        reach = 0
        for stride, size in sorted(zip(self.strides, self.shape, strict=True)):
            if size > 1:
                if stride <= reach:
                    return True
                reach += stride * (size - 1)
        return False

    def within(self, values: np.ndarray) -> np.ndarray:
        """The tensor, as a view into what its storage's `read` gave where it is as it was stored."""
        assert self.dtype is not None
        if not self.size:
            return np.empty(self.shape, self.dtype)
        strides = [stride * self.dtype.itemsize for stride in self.strides]
        found: np.ndarray = np.ndarray(self.shape, self.dtype, values.data, self.span[0], strides)
        found = np.conjugate(found) if self.conjugate else found
        return np.negative(found) if self.negative else found

    def read(self) -> np.ndarray:
        """The tensor alone."""
        assert self.storage is not None
        return self.within(self.storage.read())


def _itemsize(dtype: np.dtype | None) -> int:
    return 0 if dtype is None else dtype.itemsize


def sizes(values: object, what: str) -> tuple[int, ...]:
    """Whole numbers from 0 up, as a shape or strides have.

    Raises:
        ValueError: they are none.
    """
    found = tuple(values) if isinstance(values, list | tuple) else None
    if found is None or len(found) > _MOST_AXES or any(type(size) is not int or size < 0 for size in found):
        raise ValueError(f"{what} that is none")
    if any(size > _LARGEST for size in found):
        raise ValueError(f"{what} with a number of more than 62 bits")
    return found


def stored(storage: Storage, dtype: np.dtype, offset: int, shape: object, strides: object) -> StoredTensor:
    """A tensor in a storage.

    Raises:
        ValueError: it does not lie within it.
    """
    extent, steps = sizes(shape, "a shape"), sizes(strides, "a stride")
    (start,) = sizes((offset,), "an offset")
    if len(extent) != len(steps):
        raise ValueError("a tensor with more axes than strides, or fewer")
    found = StoredTensor(storage, dtype, extent, steps, start)
    if found.size and found.span[1] > storage.nbytes:
        raise ValueError(f"a tensor of {'x'.join(map(str, extent))} that reaches beyond its storage")
    return found
