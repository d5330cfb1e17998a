"""An ONNX graph that is being written: operators by the names of their answers, and sizes that it computes."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from unet_core.errors import UNetError
from unet_core.graph.sizes import AXES, Dim, Shape, Size

OPSET = 21
"""Of 2024: what onnxruntime runs from 1.18 on."""

WHOLE = np.dtype(np.int64)


class UnwritableError(UNetError):
    """What ONNX has no form for."""


class Writer:
    """Writes operators one after the other, and knows the shape and dtype of every answer.

    Args:
        answer: what the model's answer is called.
    """

    def __init__(self, answer: str) -> None:
        self.dtype = np.dtype(np.float32)
        """Of the numbers that have none of their own."""
        self.answer = answer
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, np.ndarray] = {}
        self.shapes: dict[str, Shape] = {}
        self.dtypes: dict[str, np.dtype] = {}
        self._taken = {answer}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._sizes: dict[Dim, str] = {}
        self._axes: dict[str, tuple[str, int]] = {}
        """Of each axis of a picture, what has it, and which one it is there."""

    def take_in(self, name: str, shape: Shape, dtype: Any = None) -> None:
        """Say what an input of the model is."""
        self._named(name, shape, dtype or self.dtype)
        for axis, size in enumerate(shape):
            if isinstance(size, Size) and str(size) in AXES:
                self._axes.setdefault(str(size), (name, axis))

    def tensor(self, name: str, value: np.ndarray) -> str:
        """A tensor of the network."""
        if name not in self.initializers:
            self.initializers[name] = value
            self._named(name, value.shape, value.dtype)
        return name

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Numbers; equal ones are kept once."""
        array = np.asarray(value, dtype or self.dtype)
        key = array.dtype.name, array.shape, array.tobytes()
        if key not in self._constants:
            name = self._free("constant")
            self._constants[key] = name
            self.initializers[name] = array
            self._named(name, array.shape, array.dtype)
        return self._constants[key]

    def add(
        self,
        operator: str,
        *inputs: str,
        shape: Shape = (),
        dtype: Any = None,
        name: str = "",
        **attributes: Any,
    ) -> str:
        """One operator.

        Args:
            operator: its name in ONNX.
            inputs: names of what it takes; empty for one that is left out.
            shape: of its answer.
            dtype: of its answer; None: that of its first input.
            name: of its answer, by default that of the operator.
            attributes: by their names in ONNX; those that are None are left out.

        Returns:
            The name of its answer.
        """
        name = self._free(name or operator.lower())
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **given))
        self._named(name, shape, dtype or self.dtypes[inputs[0]])
        return name

    def like(self, operator: str, x: str, *more: str, **attributes: Any) -> str:
        """An operator whose answer has the shape of what it takes first."""
        return self.add(operator, x, *more, shape=self.shapes[x], **attributes)

    def sizes(self, dims: Iterable[Dim]) -> str:
        """Some sizes in one row of whole numbers."""
        parts = list(dims)
        if not any(isinstance(part, Size) for part in parts):
            return self.constant(parts, WHOLE)
        names = [self.size(part) for part in parts]
        return names[0] if len(names) == 1 else self.add("Concat", *names, shape=(len(names),), axis=0)

    def size(self, dim: Dim) -> str:
        """A size in a row of its own, computed from the picture's."""
        if not isinstance(dim, Size):
            return self.constant([dim], WHOLE)
        if dim not in self._sizes:
            terms = [self._product(times, atoms) for atoms, times in dim.terms]
            total = terms[0]
            for term in terms[1:]:
                total = self.add("Add", total, term, shape=(1,))
            self._sizes[dim] = total
        return self._sizes[dim]

    def number(self, value: int | float | Size, dtype: np.dtype) -> str:
        """A number, which may be a size, in this dtype."""
        if not isinstance(value, Size):
            return self.constant(value, dtype)
        whole = self.add("Squeeze", self.size(value), self.constant([0], WHOLE))
        return self.cast(whole, dtype)

    def cast(self, x: str, dtype: Any) -> str:
        """The same in another dtype."""
        dtype = np.dtype(dtype)
        if self.dtypes[x] == dtype:
            return x
        return self.like("Cast", x, to=helper.np_dtype_to_tensor_dtype(dtype), dtype=dtype)

    def _product(self, times: int, atoms: Sequence[Any]) -> str:
        names = [self._atom(atom) for atom in atoms]
        if times != 1 or not names:
            names.append(self.size(times))
        product = names[0]
        for name in names[1:]:
            product = self.add("Mul", product, name, shape=(1,))
        return product

    def _atom(self, atom: Any) -> str:
        if isinstance(atom, str):
            name, axis = self._axes[atom]
            return self.add("Shape", name, shape=(1,), dtype=WHOLE, name=atom, start=axis, end=axis + 1)
        function, one, other = atom
        a, b = self.size(one), self.size(other)
        if function != "//":
            return self.add(function.capitalize(), a, b, shape=(1,))
        rest = self.add("Mod", a, b, shape=(1,))  # ONNX rounds a quotient towards zero, and sizes are rounded down
        return self.add("Div", self.add("Sub", a, rest, shape=(1,)), b, shape=(1,))

    def _named(self, name: str, shape: Shape, dtype: Any) -> None:
        self._taken.add(name)
        self.shapes[name], self.dtypes[name] = tuple(shape), np.dtype(dtype)

    def _free(self, name: str) -> str:
        number = 1
        found = name
        while found in self._taken:
            number += 1
            found = f"{name}#{number}"
        return found

    def model(self, inputs: Sequence[str], last: str, *, title: str) -> onnx.ModelProto:
        """The model.

        Args:
            inputs: the names of what it takes in.
            last: the name of what it answers.
            title: of the network.
        """
        self.nodes.append(helper.make_node("Identity", [last], [self.answer], name=self.answer))
        given, answer = [self._declared(name, name) for name in inputs], self._declared(self.answer, last)
        used = {name for node in self.nodes for name in node.input}
        weights = [numpy_helper.from_array(value, name) for name, value in self.initializers.items() if name in used]
        graph = helper.make_graph(self.nodes, title, given, [answer], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="unet-twins")
        model.ir_version = 10  # that of the opset
        return model

    def _declared(self, called: str, name: str) -> onnx.ValueInfoProto:
        shape = [str(size) if isinstance(size, Size) else size for size in self.shapes[name]]
        return helper.make_tensor_value_info(called, helper.np_dtype_to_tensor_dtype(self.dtypes[name]), shape)
