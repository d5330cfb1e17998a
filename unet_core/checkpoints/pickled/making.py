"""What the opcodes of a pickle make of what they take: one method for each, named after it."""

from collections.abc import Callable
from typing import Any

from unet_core.checkpoints.pickled import known
from unet_core.checkpoints.pickled.standins import Dict, Inert
from unet_core.checkpoints.pickled.tensors import StoredTensor

_MOST_BYTES = 500_000_000
"""That copies may take."""

_MOST_KEYS = 10_000
"""Keys that are neither strings nor small numbers: that many can be chosen to take a second, and more to take hours."""

_LONGEST_NAME = 1000

_ELSEWHERE = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy.core": "numpy._core", "torch.cuda": "torch"}
"""Modules that are, or were, called otherwise."""


class Maker:
    """Makes plain values, tensors that are not read yet, and stand-ins; keeps count of what would grow too large.

    Args:
        persistent: what stands for the object outside of which a pickle has an id, or NotImplemented.
    """

    def __init__(self, persistent: Callable[[Any], Any] | None) -> None:
        self.names: set[str] = set()
        self._persistent = persistent
        self._copied = self._keys = 0

    # --- plain containers

    def on_dict(self, values: list[Any]) -> Any:
        return self.on_setitems({}, values)

    def on_frozenset(self, values: list[Any]) -> Any:
        return Inert("builtins.frozenset", (values,), made=True)

    def on_append(self, target: Any, value: Any) -> Any:
        return self.on_appends(target, [value])

    def on_appends(self, target: Any, values: list[Any]) -> Any:
        if not isinstance(target, list | Inert):
            raise ValueError(f"it appends to a {type(target).__name__}")
        (target.entries if isinstance(target, Inert) else target).extend(values)
        return target

    def on_additems(self, target: Any, values: list[Any]) -> Any:
        if not isinstance(target, set):
            return self.on_appends(target, values)
        self._count(values)
        target.update(map(known.key, values))
        return target

    def on_setitem(self, target: Any, key: Any, value: Any) -> Any:
        return self.on_setitems(target, [key, value])

    def on_setitems(self, target: Any, values: list[Any]) -> Any:
        if isinstance(target, dict | Inert):
            self._count(values[::2])
            known.put(target.items if isinstance(target, Inert) else target, values)
            return target
        raise ValueError(f"it puts something under a key of a {type(target).__name__}")

    def _count(self, keys: list[Any]) -> None:
        self._keys += sum(not known.is_small_key(key) for key in keys)
        if self._keys > _MOST_KEYS:
            raise ValueError(f"it has more than {_MOST_KEYS} keys that are no strings")

    # --- classes, functions and what they are given

    def on_stack_global(self, module: Any, name: Any) -> Inert:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is no text")
        if len(module) + len(name) > _LONGEST_NAME:
            raise ValueError(f"a name of {len(module) + len(name)} characters")
        for before, now in _ELSEWHERE.items():
            if module == before or module.startswith(f"{before}."):
                module = f"{now}{module[len(before) :]}"
        full = f"{module}.{name}"
        self.names.add(full)
        return Inert(full)

    def on_global(self, argument: str) -> Inert:
        return self.on_stack_global(*argument.split(" ", 1))

    def on_ext1(self, code: int) -> Inert:
        return self.on_stack_global("copyreg extension", str(code))

    on_ext2 = on_ext4 = on_ext1

    def on_newobj_ex(self, function: Any, args: Any, kwargs: Any = None) -> Any:
        """What is known of this function, or a stand-in with what it is given."""
        if not isinstance(function, Inert) or not isinstance(args, tuple):
            raise ValueError(f"it calls a {type(function).__name__}, or gives what are no arguments")
        name = function.name
        if name in ("copyreg._reconstructor", "copyreg.__newobj__") and args and isinstance(args[0], Inert):
            found = Inert(args[0].name, args[1:], made=True)
            if name == "copyreg._reconstructor" and len(args) == 3 and isinstance(args[2], dict):
                found.items = args[2]
            return found
        if kwargs or function.made:
            return Inert(name, args, kwargs, made=True)
        size, keys = known.copies(name, args)
        self._copied += size
        if self._copied > _MOST_BYTES:
            raise ValueError("it asks for more memory than any checkpoint")
        self._count(keys)
        return known.called(name, args)

    on_reduce = on_newobj = on_newobj_ex

    def on_inst(self, argument: str, values: list[Any]) -> Any:
        return self.on_newobj(self.on_global(argument), tuple(values))

    def on_obj(self, values: list[Any]) -> Any:
        return self.on_newobj(values[0], tuple(values[1:]))

    def on_build(self, target: Any, state: Any) -> Any:
        if isinstance(target, Inert | Dict):
            target.state = state
        elif not isinstance(target, StoredTensor):
            raise ValueError(f"it restores a {type(target).__name__}")
        return target

    # --- what lies outside

    def on_binpersid(self, identity: Any) -> Any:
        found = NotImplemented if self._persistent is None else self._persistent(identity)
        return Inert("an object outside the pickle", (identity,), made=True) if found is NotImplemented else found

    on_persid = on_binpersid

    def on_next_buffer(self) -> Any:
        raise ValueError("it has buffers outside, which are not here")

    def on_readonly_buffer(self, value: Any) -> Any:
        return value
