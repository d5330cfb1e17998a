"""A command line from a dataclass, as tyro makes one, for where tyro is not installed."""

import argparse
import ast
import dataclasses
import inspect
import itertools
import typing
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, TypeVar

from unet_core.errors import ConfigError
from unet_core.paths import as_path

T = TypeVar("T")


def parsed(kind: type[T], prog: str, arguments: Sequence[str] | None = None) -> T:
    """What the command line asks for.

    Args:
        kind: a dataclass with a default for every field; its docstring is the help, as are those below the fields.
            The fields are flags, choices (Literal), tuples, or of a type that takes a string, or that or None.
        prog: the command.
        arguments: left out: the process's.

    Raises:
        ConfigError: bad usage; in one line.
    """
    parser = _Parser(prog=prog, description=inspect.getdoc(kind), formatter_class=argparse.RawDescriptionHelpFormatter)
    texts, kinds = _docstrings(kind), typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]  # a dataclass
        option = f"--{field.name.replace('_', '-')}"
        text = texts[field.name] + _default(field.default)
        parser.add_argument(option, default=field.default, help=text, **_reading(kinds[field.name]))
    values = vars(parser.parse_args(arguments)).items()
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values})


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def _reading(kind: Any) -> dict[str, Any]:
    """How argparse reads a value of this type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is bool:
        return {"action": "store_true"}
    if origin is tuple:
        return {"type": inner[0], "nargs": "*"}
    if origin is Literal:
        return {"choices": inner}
    one = inner[0] if origin is UnionType else kind
    return {"type": as_path if one is Path else one}


def _default(value: Any) -> str:
    """How a default stands in the help."""
    words = " ".join(map(str, value)) if isinstance(value, tuple) else str(value or "")
    return f" (default: {words})" if words else ""


def _docstrings(kind: type) -> dict[str, str]:
    """The texts below the fields of a class."""
    tree = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(tree, ast.ClassDef)
    return {
        ast.unparse(field.target): inspect.cleandoc(ast.literal_eval(text.value)).replace("%", "%%")
        for field, text in itertools.pairwise(tree.body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    }
