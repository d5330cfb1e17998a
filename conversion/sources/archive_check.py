"""What in a `torch.export` archive is plain data, and an archive of nothing but that.

Of the format (torch/_export/serde/schema.py, torch/export/pt2_archive) this keeps the graph, its signature, the ranges
and guards of its sizes, and tensors in raw bytes. It leaves out traces of the stack, and inputs that were recorded.
"""

import ast
import io
import json
import keyword
import math
import re
import zipfile
from pathlib import Path
from typing import Any

from unet_core.codec import parsed
from unet_core.errors import CheckpointError, first_line, shown, some

_LARGEST_JSON = 50_000_000
_MOST_NODES = 20_000
_LONGEST = 10_000
_LARGEST_NUMBER = 2**31
_NO_END = 2**63 - 1
"""The end of a slice that has none."""

_NAME = re.compile(r"[A-Za-z_]\w*")
_DOTTED = re.compile(r"[\w.]*")
_WORD = re.compile(r"[\w.:+-]*")
_TEXT = re.compile(r"[\w ,.>+-]*")
"""Of an operator's argument, such as a mode of padding or the equation of einsum."""

_TREE = re.compile(r'[\[\]{}\w\s,:."\\]*')
_TREE_TYPES = ("builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict", None)

_OPERATOR = re.compile(
    r"torch\.ops\.aten\.(?!(from_file|save|load|set|set_data|resize|resize_|as_strided\w*|segment_reduce|format)\.)"
    r"([a-z]|__|_(native|soft|log|to_copy|unsafe_view|assert|upsample|adaptive|scaled|conv|weight_norm|prelu|pad))\w*"
    r"\.\w+"
    r"|_operator\.(add|sub|mul|floordiv|mod|neg|truediv|getitem|eq|ne|ge|gt|le|lt|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc)|torch\.(sym_(int|float|max|min|not|ite)|_check\w*)"
)
"""Torch's operators on tensors and sizes, but for those that read or write files or memory that is not theirs."""

_FUNCTIONS = {
    *(
        "max",
        "min",
        "Symbol",
        "Integer",
        "Rational",
        "Float",
        "Add",
        "Mul",
        "Max",
        "Min",
        "Mod",
        "FloorDiv",
        "PythonMod",
        "CleanDiv",
    ),
    *("CeilDiv", "CeilToInt", "FloorToInt", "TruncToInt", "IntTrueDiv", "FloatTrueDiv", "ToFloat", "Identity"),
    *("Eq", "Ne", "Equality", "Unequality", "GreaterThan", "StrictGreaterThan", "LessThan", "StrictLessThan"),
    *("And", "Or", "Not"),
}
_ARITHMETIC = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Name, ast.Constant, ast.keyword),
    *(
        ast.Subscript,
        ast.Attribute,
        ast.Load,
        ast.Add,
        ast.Sub,
        ast.Mult,
        ast.FloorDiv,
        ast.Div,
        ast.Mod,
        ast.Pow,
        ast.USub,
    ),
    *(ast.Not, ast.And, ast.Or, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE),
)
_DROPPED = ("metadata", "treespec_namedtuple_fields")
_CODE = ("as_graph", "as_operator", "as_custom_obj", "custom_obj", "opaque")
"""Arguments that are programs or objects of their own."""


class _RefusedError(Exception):
    """What only a person who trusts the file may have loaded."""


def harmless(path: Path) -> tuple[bytes, str]:
    """An archive as `torch.export.save` writes it, of the graph and the tensors of this one, and of nothing else.

    Returns:
        the archive, and the version of torch that wrote the file.

    Raises:
        CheckpointError: the file is no such archive, is damaged, or asks for more.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _rewritten(archive, path)
    except _RefusedError as error:
        raise CheckpointError(
            f"{path}: loading it could run code: it has {error}; where you trust the file add --trust"
        ) from error
    except CheckpointError:
        raise
    except Exception as error:  # whatever zipfile and json meet in a damaged file
        raise CheckpointError(f"{path}: not a sound torch.export archive: {first_line(error)}") from error


def _rewritten(archive: zipfile.ZipFile, path: Path) -> tuple[bytes, str]:
    members = {info.filename: info for info in archive.infolist()}
    if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
        raise ValueError("its members are compressed")
    if sum(info.file_size for info in members.values()) > path.stat().st_size:
        raise ValueError("its members claim more than the file holds")
    models = [name for name in members if re.fullmatch(r"[^/]+/models/[^/]+\.json", name)]
    if len(models) != 1:
        raise CheckpointError(f"{path}: holds {len(models)} models as this torch.export writes them, not one")
    root, _, file = models[0].partition("/models/")
    model = file.removesuffix(".json")
    extra = [name for name in members if "/aotinductor/" in name or name.endswith((".so", ".py", ".cpp"))]
    if extra:
        raise _RefusedError(f"compiled code, {some(extra)}")
    out: dict[str, bytes] = {}
    for name in ("archive_format", "archive_version", "byteorder", ".data/version"):
        if f"{root}/{name}" in members:
            out[name] = archive.read(f"{root}/{name}")
    program = _json(archive, models[0])
    out[f"models/{model}.json"] = _program(program)
    for part in ("weights", "constants"):
        folder, settings = f"data/{part}", f"data/{part}/{model}_{part}_config.json"
        if f"{root}/{settings}" not in members:
            raise _RefusedError(f"{part} in the pickles of an older torch")
        config = _json(archive, f"{root}/{settings}")
        for name in _payloads(config, part):
            out[f"{folder}/{name}"] = archive.read(f"{root}/{folder}/{name}")
        _check_tensors(config, out, folder)
        out[settings] = json.dumps(config).encode()
    out[f"data/sample_inputs/{model}.pt"] = b""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as written:
        for name, content in out.items():
            written.writestr(f"archive/{name}", content)
    return buffer.getvalue(), str(program.get("torch_version"))


def _json(archive: zipfile.ZipFile, name: str) -> Any:
    if archive.getinfo(name).file_size > _LARGEST_JSON:
        raise ValueError(f"{name} is larger than any graph")
    return parsed(archive.read(name).decode())


def _payloads(config: Any, part: str) -> list[str]:
    """The members with the tensors' bytes."""
    names = []
    for entry in config["config"].values():
        if entry["use_pickle"] is not False:
            raise _RefusedError(f"pickled {part}")
        if not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
            raise _RefusedError(f"{part} of another kind, {shown(entry['path_name'])}")
        names.append(entry["path_name"])
    return names


def _check_tensors(config: Any, out: dict[str, bytes], folder: str) -> None:
    for name, entry in config["config"].items():
        _matched(name, _DOTTED, "the name of a tensor")
        meta = entry["tensor_meta"]
        _walk(meta, "")
        sizes = [size["as_int"] for size in meta["sizes"]]
        if any(size < 0 for size in sizes) or math.prod(sizes) > len(out[f"{folder}/{entry['path_name']}"]):
            raise ValueError(f"{shown(name)} claims more numbers than the file holds")


def _program(program: Any) -> bytes:
    """The graph without what no computation needs; refuses what could run."""
    graph = program["graph_module"]
    if len(graph["graph"]["nodes"]) > _MOST_NODES:
        raise ValueError(f"has more than {_MOST_NODES} nodes")
    graph["module_call_graph"] = graph["module_call_graph"][:1]  # the others are of the modules inside
    _walk(program, "")
    return json.dumps(program).encode()


def _walk(item: Any, key: str) -> None:
    """Hold every string of a description to what may stand at its place, and empty what only tells of the past."""
    if isinstance(item, dict):
        for name, part in item.items():
            _matched(name, _WORD, "a key")
            if name in _CODE:
                raise _RefusedError(f"an argument of its own kind, {name}")
            if name in _DROPPED:
                item[name] = {}
            else:
                _walk(part, name)
    elif isinstance(item, list):
        if key == "as_ints" and math.prod(abs(part) for part in item if part) > _LARGEST_NUMBER:
            raise ValueError(f"asks for {shown(item)} numbers")
        for part in item:
            _walk(part, key)
    elif isinstance(item, str):
        _check_string(item, key)
    elif isinstance(item, int) and abs(item) > _LARGEST_NUMBER and item != _NO_END and key != "max_val":
        raise ValueError(f"has the number {item}")


def _check_string(text: str, key: str) -> None:
    if key in ("expr_str", "guards_code"):
        _check_arithmetic(text)
    elif key == "target":
        _matched(text, _OPERATOR, "a call of")
    elif key in ("in_spec", "out_spec"):
        _matched(text, _TREE, "a structure of")
        _check_tree(parsed(text)[1])
    elif key in ("name", "as_name", "forward_arg_names"):
        if text and (keyword.iskeyword(text) or not _NAME.fullmatch(text)):
            raise _RefusedError(f"the name {shown(text)}")
    elif key == "as_string":
        _matched(text, _TEXT, "the argument")
    else:
        _matched(text, _WORD, f"as {key}")


def _matched(text: str, pattern: re.Pattern[str], what: str) -> None:
    if len(text) > _LONGEST or not pattern.fullmatch(text):
        raise _RefusedError(f"{what} {shown(text)}")


def _check_tree(tree: Any) -> None:
    if tree["type"] not in _TREE_TYPES or "{" in str(tree["context"]):
        raise _RefusedError(f"a structure of {shown(tree['type'])}")
    for part in tree["children_spec"]:
        _check_tree(part)


def _check_arithmetic(text: str) -> None:
    """Refuse an expression that is more than sums, products and comparisons of sizes: torch evaluates it as Python."""
    if len(text) > _LONGEST or not all(map(_is_arithmetic, ast.walk(ast.parse(text, mode="eval")))):
        raise _RefusedError(f"the expression {shown(text)}")


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in _FUNCTIONS or (node.func.id == "Pow" and len(node.args) == 2 and _is_small(*node.args))
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and node.func.attr == "size"
    if isinstance(node, ast.Name):
        return node.id in _FUNCTIONS or re.fullmatch(r"L|Pow|[su]\d+", node.id) is not None
    if isinstance(node, ast.Attribute):
        return node.attr == "size"
    if isinstance(node, ast.BinOp):  # a product of a string and a number would be of any length
        sides = (node.left, node.right)
        text = any(isinstance(side, ast.Constant) and isinstance(side.value, str) for side in sides)
        return not text and (not isinstance(node.op, ast.Pow) or _is_small(*sides))
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.fullmatch(r"\w+", node.value) is not None
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return abs(node.value) <= _LARGEST_NUMBER
    return isinstance(node, _ARITHMETIC)


def _is_small(base: ast.expr, exponent: ast.expr) -> bool:
    """Whether a power is such as areas have, and not a power of powers, which would be of any length."""
    inner = [node for node in ast.walk(base) if isinstance(node, ast.Pow) or getattr(node, "id", "") == "Pow"]
    return not inner and re.fullmatch(r"(Integer\()?[234]\)?", ast.unparse(exponent)) is not None
