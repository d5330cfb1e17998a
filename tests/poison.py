"""Every kind of bad checkpoint as a small file built by hand, and the few odd ones that are accepted all the same."""

import functools
import io
import json
import os
import pickle
import pickletools
import shutil
import socket
import struct
import tempfile
import warnings
import zipfile
import zlib
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
import tensorstore
import torch
from conftest import TINY, trained_tensors
from packed import packed
from torch import Tensor

from unet_core.checkpoints import safetensors_file
from unet_core.checkpoints.checkpoint import RECORD_KEY, Checkpoint, seal
from unet_core.config import UNetConfig
from unet_core.graph.canonical import tensor_specs
from unet_jax import checkpoint as orbax
from unet_jax.canonical import nest, translate
from unet_torch import checkpoint as torch_file
from unet_torch.canonical import as_torch

Make = Callable[[Path], object]
Arrays = dict[str, np.ndarray]

KERNEL, SCALE, SHIFT, MEAN, VAR = (
    f"down1.conv.{name}" for name in ("0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var")
)
COUNT = "down1.conv.1.num_batches_tracked"

MARK, LEFTOVER = "_CHECKPOINT_METADATA", "a.orbax-checkpoint-tmp-123"
PARTS = (MARK, "state", "state/_METADATA", "state/manifest.ocdbt", "metadata", "metadata/metadata")


def weights() -> Arrays:
    return trained_tensors(TINY)


@dataclass(frozen=True)
class Case:
    """One file, or one target, and what must come of it."""

    row: int
    """The number in the list of bad checkpoints."""
    name: str
    file: str
    """What is given as SRC, relative to the folder; its suffix is its kind."""
    make: Make
    """Makes the file at exactly that path, and whatever must lie beside it."""
    accepted: bool = False
    says: str = ""
    """What the message must contain; empty: anything."""
    expected: Callable[[], Arrays] = weights
    """The tensors that an accepted file must give, bit for bit."""
    dst: str = "b.safetensors"
    occupy: Make | None = None
    """Makes what lies at DST before; the message must then name DST."""
    room: int | None = None
    """How many bytes fit into a file, in place of a full disk; the message must then name DST."""
    unreadable: bool = False
    """The system is to say that the file may not be read."""
    apart: bool = False
    """Run in a process of its own: a careless reader crashes or never comes back."""

    @property
    def about_the_target(self) -> bool:
        return self.occupy is not None or self.room is not None


# --- good files, to be damaged


def pt(path: Path) -> None:
    torch_file.write(path, Checkpoint(TINY, weights()))


def safetensors(path: Path) -> None:
    safetensors_file.write(path, Checkpoint(TINY, weights()))


@functools.cache
def _orbax_files() -> dict[str, bytes]:
    """Orbax takes its time to write: once is enough."""
    with tempfile.TemporaryDirectory() as folder:
        good = Path(folder) / "good"
        orbax.write(good, Checkpoint(TINY, weights()))
        return {str(path.relative_to(good)): path.read_bytes() for path in good.rglob("*") if path.is_file()}


def orbax_directory(path: Path) -> None:
    for name, data in _orbax_files().items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def torch_state() -> dict[str, Any]:
    return {key: as_torch(value) for key, value in weights().items()}


def torch_saved(change: Callable[[dict[str, Any]], Any], legacy: bool = False) -> Make:
    """A file as torch.save writes it, after `change` to the state_dict: in place, or into what it returns."""

    def make(path: Path) -> None:
        state = torch_state()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch is about to drop some of what is written here
            torch.save(change(state) or state, path, _use_new_zipfile_serialization=not legacy)

    return make


def torch_with(**changes: Any) -> Make:
    """A state_dict with other values at some keys, given by the constants' names in lower case."""
    return torch_saved(lambda state: state.update({globals()[name.upper()]: value for name, value in changes.items()}))


def arrays_saved(change: Callable[[Arrays], Any]) -> Callable[[str], Make]:
    """The same arrays in each kind of file, without a record; by the kind's suffix."""

    def changed() -> Arrays:
        tensors = weights()
        return change(tensors) or tensors

    return lambda kind: {
        ".pt": lambda path: torch.save({key: as_torch(value) for key, value in changed().items()}, path),
        ".safetensors": lambda path: header_and_data(path, changed()),
        "": lambda path: orbax_saved(path, nest(translate(changed(), "jax", TINY))),
    }[kind]


def orbax_saved(path: Path, state: dict[str, Any], record: str | None = None) -> None:
    """What plain Orbax writes: the product's own writer would look at it first."""
    items: dict[str, Any] = {"state": ocp.args.PyTreeSave(state)}
    items["metadata"] = ocp.args.JsonSave({} if record is None else {RECORD_KEY: record})
    handlers = ocp.CompositeCheckpointHandler(state=ocp.PyTreeCheckpointHandler(), metadata=ocp.JsonCheckpointHandler())
    with ocp.Checkpointer(handlers) as checkpointer:
        checkpointer.save(path.resolve(), args=ocp.args.Composite(**items))


def edited(make: Make, edit: Callable[[bytes], bytes], part: Callable[[Path], Path] = lambda path: path) -> Make:
    """A good file with other bytes, or a good directory with other bytes in one of its files."""

    def damaged(path: Path) -> None:
        make(path)
        part(path).write_bytes(edit(part(path).read_bytes()))

    return damaged


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


def flipped_in(tensor: str) -> Callable[[bytes], bytes]:
    """One bit of one tensor's values, wherever they lie in the file."""
    return lambda data: flipped(data, data.index(weights()[tensor].tobytes()) + 5)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def one_short(data: bytes) -> bytes:
    return data[:-1]


# --- torch's zip and its pickle, by hand


def number(value: int) -> bytes:
    """A whole number of any size."""
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def several(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def numbers(values: Iterable[int]) -> bytes:
    return several(*map(number, values))


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return named(module, name) + several(*arguments) + b"R"


def mapping(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"}(" + b"".join(key + value for key, value in pairs) + b"u"


def storage(key: str, size: int, kind: str = "FloatStorage") -> bytes:
    return several(text("storage"), named("torch", kind), text(key), text("cpu"), number(size)) + b"Q"


def tensor(held: bytes, shape: Iterable[int], strides: Iterable[int], *more: bytes) -> bytes:
    hooks = call("collections", "OrderedDict")
    place = (number(0), numbers(shape), numbers(strides), b"\x89")
    return call("torch._utils", "_rebuild_tensor_v2", held, *place, hooks, *more)


def pickled(body: bytes) -> bytes:
    return b"\x80\x02" + body + b"."


def good_values() -> dict[str, bytes]:
    """The opcodes of each tensor; storage `n` is the n-th tensor's."""
    values = {}
    for n, (key, value) in enumerate(weights().items()):
        kind = "LongStorage" if value.dtype == np.int64 else "FloatStorage"
        strides = (stride // value.itemsize for stride in value.strides)
        values[key] = tensor(storage(str(n), value.size, kind), value.shape, strides)
    return values


def members(body: bytes | None = None, storages: Mapping[str, bytes] | None = None) -> dict[str, bytes]:
    """The members of a good .pt; `body` makes other opcodes of it, `storages` adds or replaces values."""
    if body is None:
        body = state_body()
    held = {str(n): value.tobytes() for n, value in enumerate(weights().values())} | dict(storages or {})
    return {
        "archive/data.pkl": pickled(body),
        "archive/byteorder": b"little",
        **{f"archive/data/{key}": data for key, data in held.items()},
        "archive/version": b"3\n",
    }


def state_body(instead: Mapping[str, bytes] | None = None, beside: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    values = good_values() | dict(instead or {})
    return mapping([*((text(key), value) for key, value in values.items()), *beside])


def zipped(path: Path, found: Iterable[tuple[str, bytes]], deflated: Iterable[str] = ()) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # zipfile's own, about a name that is there twice
        for name, data in found:
            archive.writestr(name, data, zipfile.ZIP_DEFLATED if name in deflated else zipfile.ZIP_STORED)


def pt_of(body: bytes, storages: Mapping[str, bytes] | None = None) -> Make:
    return lambda path: zipped(path, members(body, storages).items())


def pt_beside(value: Callable[[], bytes], key: bytes = text("x")) -> Make:
    """Good weights, and one value more; made late, since some are large."""
    return lambda path: pt_of(state_body(beside=[(key, value())]))(path)


def pt_instead(storages: Mapping[str, bytes] | None = None, **values: bytes) -> Make:
    return lambda path: pt_of(state_body({globals()[key.upper()]: v for key, v in values.items()}), storages)(path)


def pt_members(change: Callable[[dict[str, bytes]], Any]) -> Make:
    def make(path: Path) -> None:
        found = members()
        zipped(path, (change(found) or found).items())

    return make


BOMB = b"\x80\x02" + call("builtins", "bytearray", b"J" + struct.pack("<i", 800_000_000)) + b"."


def in_other_letters(found: dict[str, bytes]) -> dict[str, bytes]:
    """torch finds a member whatever its letters' case."""
    return {name: data for name, data in found.items() if not name.endswith("data.pkl")} | {"archive/DATA.PKL": BOMB}


def zip_part(found: Mapping[str, bytes], base: int) -> tuple[bytes, bytes]:
    """Members as they stand in a zip from `base` on, and the table of them."""
    body = table = b""
    for name, data in found.items():
        entry = struct.pack("<5H3L2H", 20, 0, 0, 0, 0, zlib.crc32(data), len(data), len(data), len(name), 0)
        table += b"PK\x01\x02" + struct.pack("<H", 20) + entry + struct.pack("<3H2L", 0, 0, 0, 0, base + len(body))
        table += name.encode()
        body += b"PK\x03\x04" + entry + name.encode() + data
    return body, table


def two_tables(path: Path) -> None:
    """torch reads the first table of members, Python's zipfile the one right before the end."""
    good = members()
    body, table = zip_part(good | {"archive/data.pkl": BOMB}, 0)
    room = len(zip_part(good, 0)[0]) - len(body)
    body += bytes(room + 64)
    begin = len(body) + len(table)
    rest = len(zip_part(good, 0)[0])
    true_body, true_table = zip_part(good, begin - (begin + rest - len(body)))
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, len(good), len(good), len(true_table), len(body), 0)
    path.write_bytes(body + table + true_body + true_table + end)


def two_tables_of_64_bits(path: Path) -> None:
    """The locator points at one record; zipfile takes the one right before it."""
    good = members()

    def record(length: int, offset: int) -> bytes:
        return struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, len(good), len(good), length, offset)

    body, table = zip_part(good | {"archive/data.pkl": BOMB}, 0)
    file = body + table
    place = len(file)
    file += record(len(table), len(body))
    body, table = zip_part(good, len(file))
    file += body + table + record(len(table), len(file) + len(body))
    file += struct.pack("<4sLQL", b"PK\x06\x07", 0, place, 1)
    most, long = 0xFFFF, 0xFFFFFFFF
    path.write_bytes(file + struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, most, most, long, long, 0))


def fifth_pickle(path: Path) -> None:
    """A legacy file's last pickle lists its storages."""
    torch_saved(lambda state: None, legacy=True)(path)
    data = path.read_bytes()
    file, ends = io.BytesIO(data), []
    for _ in range(5):
        for _ in pickletools.genops(file):
            pass
        ends.append(file.tell())
    path.write_bytes(data[: ends[3]] + BOMB + data[ends[4] :])


def growing_lists() -> bytes:
    """Lists that grow after they were put into others: 790 bytes that take for ever to walk through."""
    made = b"".join(b"]q" + bytes([200 + number]) + b"0" for number in range(9))
    grown = b"".join(
        b"h" + bytes([200 + number]) + b"(" + (b"h" + bytes([201 + number])) * 10 + b"e0" for number in range(8)
    )
    return made + grown + b"h" + bytes([200])


def index_of(key: str) -> str:
    return str(list(weights()).index(key))


def huge_storage(path: Path) -> None:
    value = tensor(storage("spare", 10**13), (10**13,), (1,))
    pt_of(state_body(beside=[(text("x"), value)]), {"spare": bytes(4)})(path)


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch pwned",)


def codec_bomb() -> bytes:
    """Each hex encoding doubles its input: a few hundred bytes become gigabytes."""
    body = text("x" * 64)
    for n in range(25):
        body = call("_codecs", "encode", body, text("hex_codec" if n else "utf-8"))
    return body


def deflated_bomb(path: Path) -> None:
    """200 MB of zeros, of which the tensor shows the first few: its shape is right."""
    size = 50_000_000
    key = index_of(SHIFT)
    body = state_body({SHIFT: tensor(storage(key, size), (4,), (1,))})
    zipped(path, members(body, {key: bytes(4 * size)}).items(), deflated=[f"archive/data/{key}"])


def overlapping_entries(path: Path) -> None:
    """The directory says of one storage that it lies where another one does."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members().items():
            archive.writestr(name, data)
        first, second = (archive.getinfo(f"archive/data/{index_of(key)}") for key in (SCALE, SHIFT))
        second.header_offset, second.CRC = first.header_offset, first.CRC


def encrypted_member(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members().items():
            archive.writestr(name, data)
        archive.getinfo(f"archive/data/{index_of(SHIFT)}").flag_bits |= 1


def member_twice(path: Path) -> None:
    name = f"archive/data/{index_of(SHIFT)}"
    zipped(path, [*members().items(), (name, bytes(16))])


def names_twice(path: Path) -> None:
    zipped(path, [("archive/data.pkl", pickled(call("builtins", "eval", text("1")))), *members().items()])


def wide_network(path: Path) -> None:
    """Every tensor of a network of terabytes, each one number under strides of 0."""
    config = UNetConfig(features=(100_000, 200_000))
    kinds = {False: torch.zeros(()), True: torch.zeros((), dtype=torch.int64)}
    specs = tensor_specs(config)
    torch.save({key: kinds[key.endswith("tracked")].expand(spec.shape) for key, spec in specs.items()}, path)


def torchscript(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), path)


def deep_list() -> bytes:
    return b"]" * 200_000 + b"a" * 199_999


def deep_dict() -> bytes:
    return (b"}" + text("x")) * 200_000 + b"N" + b"s" * 200_000


def deep_tuple() -> bytes:
    return b")" + b"\x85" * 200_000


def doubling_lists(levels: int = 30) -> bytes:
    """Each list holds the one before it twice; all are kept in a tuple, as torch's reader has no POP."""
    lists = [b"]q\0", *(b"](" + 2 * bytes([0x68, n]) + b"eq" + bytes([n + 1]) for n in range(levels))]
    return several(*lists)


def doubling_tuples(levels: int = 60) -> bytes:
    """Each tuple holds the one before it twice, and a tuple does not remember its hash."""
    return b")" + b"".join(bytes([0x71, n, 0x68, n, 0x86]) for n in range(levels))


def quantised() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8)


def own_attributes(**attributes: bytes) -> bytes:
    """A tensor that carries attributes, which hide the methods of those names."""
    n = index_of(SHIFT)
    plain = several(storage(n, 4), number(0), numbers([4]), numbers([1]), b"\x89", call("collections", "OrderedDict"))
    rebuild = named("torch._utils", "_rebuild_tensor_v2")
    state = mapping((text(key), value) for key, value in attributes.items())
    return call("torch._tensor", "_rebuild_from_type_v2", rebuild, named("torch", "Tensor"), plain, state)


def dict_with_attributes(**attributes: bytes) -> bytes:
    pairs = b"".join(text(key) + value for key, value in good_values().items())
    state = mapping((text(key), value) for key, value in attributes.items())
    return call("collections", "OrderedDict") + b"(" + pairs + b"u" + state + b"b"


def recorded(change: Callable[[dict[str, Any]], Any]) -> str:
    """The record of the good weights after `change`, in place or into what it returns."""
    record = json.loads(seal(Checkpoint(TINY, weights())))
    changed = change(record) or record
    return changed if isinstance(changed, str) else json.dumps(changed)


def pt_recorded(change: Callable[[dict[str, Any]], Any]) -> Make:
    def make(path: Path) -> None:
        state: Any = OrderedDict(torch_state())
        state._metadata = {RECORD_KEY: {"record": recorded(change)}}
        torch.save(state, path)

    return make


def rezipped(path: Path, edit: Callable[[bytes], bytes]) -> None:
    """A good file with its record, one member changed under a checksum that fits."""
    pt(path)
    with zipfile.ZipFile(path) as archive:
        found = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(name for name, data in found.items() if data == weights()[KERNEL].tobytes())
    zipped(path, (found | {name: edit(found[name])}).items())


# --- safetensors' header, by hand


def entries(tensors: Arrays) -> tuple[list[tuple[str, Any]], bytes]:
    """The header's entries in the order of the data, and the data."""
    names = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32"}
    names |= {"complex64": "C64"}
    found, data = [], b""
    for key, value in tensors.items():
        place = [len(data), len(data) + value.nbytes]
        found.append((key, {"dtype": names[value.dtype.name], "shape": list(value.shape), "data_offsets": place}))
        data += value.tobytes()
    return found, data


def raw(header: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + data


def header_of(found: Iterable[tuple[str, Any]]) -> bytes:
    """JSON in which a name may stand twice."""
    return b"{" + b",".join(f"{json.dumps(key)}:{json.dumps(value)}".encode() for key, value in found) + b"}"


def header_and_data(path: Path, tensors: Arrays) -> None:
    found, data = entries(tensors)
    path.write_bytes(raw(header_of(found), data))


def headed(change: Callable[[list[tuple[str, Any]]], Any], tail: bytes = b"") -> Make:
    """Good data under a header that `change` has changed."""

    def make(path: Path) -> None:
        found, data = entries(weights())
        found = change(found) or found
        path.write_bytes(raw(header_of(found), data + tail))

    return make


def entry(key: str, **changes: Any) -> Make:
    return headed(lambda found: dict(found)[key].update(changes))


def swapped_metadata(metadata: Any) -> Make:
    return headed(lambda found: found.insert(0, ("__metadata__", metadata)))


def overlapping(found: list[tuple[str, Any]]) -> None:
    dict(found)[SHIFT]["data_offsets"] = dict(found)[SCALE]["data_offsets"]


def twice(found: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The later one counts for the library, and is right; the first one claims the same bytes."""
    return [(SHIFT, dict(found)[SHIFT] | {"dtype": "I32"}), *found]


@functools.cache
def empties() -> bytes:
    entry = json.dumps(nothing())
    return ",".join(f'"t{n}":{entry}' for n in range(100_000)).encode()


def beside_empties(path: Path) -> None:
    found, data = entries(weights())
    path.write_bytes(raw(header_of(found)[:-1] + b"," + empties() + b"}", data))


def only_empties(path: Path) -> None:
    path.write_bytes(raw(b"{" + empties() + b"}"))


def hole(path: Path) -> None:
    """Eight bytes that belong to no tensor, before the last one."""
    found, data = entries(weights())
    last = found[-1][1]["data_offsets"]
    found[-1][1]["data_offsets"] = [place + 8 for place in last]
    path.write_bytes(raw(header_of(found), data[: last[0]] + bytes(8) + data[last[0] :]))


def written(data: bytes) -> Make:
    return lambda path: path.write_bytes(data)


def not_utf8(path: Path) -> None:
    found, data = entries(weights())
    path.write_bytes(raw(header_of(found).replace(b"down1", b"down\xff"), data))


# --- Orbax directories


def orbax_tree() -> dict[str, Any]:
    return nest(translate(weights(), "jax", TINY))


def orbax_of(change: Callable[[dict[str, Any]], Any]) -> Make:
    def make(path: Path) -> None:
        tree = orbax_tree()
        orbax_saved(path, change(tree) or tree)

    return make


def orbax_without(name: str) -> Make:
    def make(path: Path) -> None:
        orbax_directory(path)
        target = path / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()

    return make


def zstd_of_zeros(size: int) -> bytes:
    """A frame of a few kilobytes that unpacks to `size` zeros: RFC 8878, blocks of one repeated byte."""
    frame, left = bytes.fromhex("28B52FFDC038") + struct.pack("<Q", size), size
    while left:
        block = min(left, 131_072)
        left -= block
        frame += struct.pack("<I", (left == 0) | 2 | block << 3)[:3] + b"\0"
    return frame


def orbax_chunk(path: Path, *, honest: bool) -> None:
    """One array of two numbers whose only part unpacks to 2 GB."""
    orbax_directory(path)
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": f"file://{path / 'state'}/"}).result()
    if not honest:
        array = json.loads(store.read("out.bias/.zarray").result().value)
        store.write("out.bias/.zarray", json.dumps(array | {"chunks": [500_000_000]}).encode()).result()
    store.write("out.bias/0", zstd_of_zeros(2_000_000_000)).result()


def orbax_without_ocdbt(path: Path) -> None:
    orbax_directory(path)
    tree = json.loads((path / "state/_METADATA").read_text())
    (path / "state/_METADATA").write_text(json.dumps(tree | {"use_ocdbt": False}))


def orbax_linked(path: Path) -> None:
    """Its state lies in another folder."""
    orbax_directory(path)
    (path / "state").rename(path.parent / "elsewhere")
    (path / "state").symlink_to(path.parent / "elsewhere")


def orbax_swapped(name: str, put: Make) -> Make:
    """A good directory with something else under one file's name."""

    def make(path: Path) -> None:
        orbax_directory(path)
        (path / name).unlink()
        put(path / name)

    return make


def orbax_cut(part: float) -> Make:
    """Cut within what is needed, after this part of it: the rest of the file may be what Orbax wrote over."""

    def make(path: Path) -> None:
        orbax_directory(path)
        file, first, length = packed(path)
        file.write_bytes(file.read_bytes()[: first + int((length - 1) * part)])

    return make


def orbax_flipped(name: str, eighth: int) -> Make:
    def make(path: Path) -> None:
        orbax_directory(path)
        packed(path, name).flip(eighth / 8)

    return make


def orbax_recorded(change: Callable[[dict[str, Any]], Any]) -> Make:
    def make(path: Path) -> None:
        orbax_directory(path)
        (path / "metadata" / "metadata").write_text(json.dumps({RECORD_KEY: recorded(change)}))

    return make


def orbax_claim(path: Path) -> None:
    """One array that claims 3.6 GB of which no chunk is stored."""
    orbax_saved(path, orbax_tree())
    huge_kernel(path)


def orbax_bomb(path: Path) -> None:
    """3.6 GB of zeros, packed into the same small chunk a hundred times."""
    orbax_saved(path, orbax_tree())
    huge_kernel(path)[:, :, :1000, :1000].write(np.zeros((3, 3, 1000, 1000), np.float32)).result()
    base = f"file://{(path / 'state').resolve()}/"
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    packed = store.read("down1.conv.0.weight/0.0.0.0").result().value
    with tensorstore.Transaction() as transaction:
        for row in range(10):
            for column in range(10):
                store.with_transaction(transaction)[f"down1.conv.0.weight/0.0.{row}.{column}"] = packed


def huge_kernel(path: Path) -> tensorstore.TensorStore:
    """An array of 3.6 GB in place of a kernel of 432 bytes."""
    base = f"file://{(path / 'state').resolve()}/"
    store = {"driver": "ocdbt", "base": base, "path": "down1.conv.0.weight/"}
    metadata = {
        "shape": (3, 3, 10_000, 10_000),
        "chunks": (3, 3, 1000, 1000),
        "dtype": "<f4",
        "compressor": {"id": "zstd", "level": 1},
        "fill_value": None,
    }
    spec = {"driver": "zarr", "kvstore": store, "metadata": metadata}
    return tensorstore.open(spec, create=True, delete_existing=True).result()


def step_folders(parent: Path) -> None:
    orbax_directory(parent / "100")
    (parent / "200").mkdir()


def with_leftover(path: Path) -> None:
    orbax_directory(path)
    orbax_directory(path.with_name(LEFTOVER))


def item_left_over(path: Path) -> None:
    orbax_directory(path)
    (path / "state").rename(path / "state.orbax-checkpoint-tmp-123")


def join_to_one(tree: dict[str, Any]) -> None:
    """Two names that read the same once they are joined with dots."""
    tree["down1.conv"] = {"0": {"weight": np.zeros_like(tree["down1"]["conv"]["0"]["weight"])}}


def wrong_layout(tree: dict[str, Any]) -> None:
    tree["out"]["weight"] = np.ascontiguousarray(tree["out"]["weight"].transpose(2, 3, 1, 0))


def integers(tree: Any) -> Any:
    return {key: integers(value) for key, value in tree.items()} if isinstance(tree, dict) else tree.astype(np.int32)


def one_integer_kernel(tree: dict[str, Any]) -> None:
    tree["out"]["weight"] = tree["out"]["weight"].astype(np.int32)


# --- values that mean something else


def put(key: str, change: Callable[[np.ndarray], Any]) -> Callable[[Arrays], None]:
    """One tensor changed: by the value of its first number, or as a whole."""

    def changed(tensors: Arrays) -> None:
        value = change(tensors[key])
        if isinstance(value, np.ndarray):
            tensors[key] = value
        else:
            tensors[key].reshape(-1)[0] = value

    return changed


def renamed(prefix: str, keep: Callable[[str], bool] = lambda key: False) -> Callable[[dict[str, Any]], Any]:
    return lambda state: {key if keep(key) else prefix + key: value for key, value in state.items()}


def cast(dtype: Any) -> Callable[[], Arrays]:
    return lambda: trained_tensors(TINY, dtype=dtype)


def retyped(dtype: Any) -> Callable[[Arrays], Arrays]:
    """All but the counters."""
    return lambda tensors: {k: v if v.dtype == np.int64 else v.astype(dtype) for k, v in tensors.items()}


def channels_last(state: dict[str, Any]) -> dict[str, Any]:
    return {
        key: value.to(memory_format=torch.channels_last) if value.dim() == 4 else value for key, value in state.items()
    }


def strided(state: dict[str, Any]) -> None:
    """Every kernel as a transposed view, every vector as each second number of a longer one."""
    for key, value in state.items():
        if value.dim() == 4:
            state[key] = value.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
        elif value.dim() == 1:
            state[key] = torch.stack([value, torch.full_like(value, 9)], 1)[:, 0]


def one_buffer(state: dict[str, Any]) -> None:
    """Neighbours in one storage, none of which touches another."""
    floats = {key: value for key, value in state.items() if value.is_floating_point()}
    parts = torch.cat([value.reshape(-1) for value in floats.values()]).split([v.numel() for v in floats.values()])
    for (key, value), part in zip(floats.items(), parts, strict=True):
        state[key] = part.view(value.shape)


def negated(state: dict[str, Any]) -> None:
    """torch's negative bit: the numbers in the file have the other sign."""
    value = state[SHIFT]
    state[SHIFT] = torch.complex(torch.zeros_like(value), -value).conj().imag


def overlap(state: dict[str, Any]) -> None:
    both = torch.rand(6)
    state[SCALE], state[SHIFT] = both[:4], both[2:]


def self_overlap(state: dict[str, Any]) -> None:
    state[KERNEL] = torch.rand(state[KERNEL].numel()).as_strided(state[KERNEL].shape, (1, 1, 1, 1))


def optimiser(state: dict[str, Any]) -> dict[str, Any]:
    parameters = [torch.nn.Parameter(state[key]) for key in (KERNEL, SCALE)]
    adam = torch.optim.Adam(parameters)
    sum(parameter.sum() for parameter in parameters).backward()
    adam.step()
    return adam.state_dict()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    """Bound by its name alone: a socket's whole path must be short."""
    before = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path.name)
    finally:
        os.chdir(before)


def link_to(name: str, make: Make | None = None) -> Make:
    def linked(path: Path) -> None:
        if make:
            make(path.with_name(name))
        path.symlink_to(name)

    return linked


def loop(path: Path) -> None:
    path.symlink_to(f"other{path.suffix}")
    path.with_name(f"other{path.suffix}").symlink_to(path.name)


def directory(path: Path) -> None:
    path.mkdir()


def mine(path: Path) -> None:
    path.write_text("mine")


# --- the table


def kinds(row: int, name: str, change: Callable[[Arrays], Any], suffixes: Iterable[str], **more: Any) -> list[Case]:
    """The same tensors in several kinds of file."""
    saved = arrays_saved(change)
    words = {".pt": "a .pt", ".safetensors": "a .safetensors", "": "an Orbax directory"}
    return [Case(row, f"{name} in {words[suffix]}", f"a{suffix}", saved(suffix), **more) for suffix in suffixes]


def both(row: int, name: str, edit: Callable[[bytes], bytes], **more: Any) -> list[Case]:
    """The same damage to both kinds of file."""
    makes = {".pt": pt, ".safetensors": safetensors}
    return [Case(row, f"a {suffix} {name}", f"a{suffix}", edited(make, edit), **more) for suffix, make in makes.items()]


EVAL = call("builtins", "eval", text("open('pwned', 'w')"))
SYSTEM = call("os", "system", text("touch pwned"))
BILLIONS = number(10_000_000_000)
ALL = (".pt", ".safetensors", "")
FILES = (".pt", ".safetensors")

_TORCH = [
    Case(1, "os.system in the zip", "a.pt", lambda path: torch.save(Evil(), path)),
    Case(1, "builtins.eval in the zip", "a.pt", pt_of(EVAL), says="never run"),
    Case(1, "os.system beside the weights", "a.pt", pt_beside(lambda: SYSTEM), accepted=True),
    Case(1, "builtins.eval as a key", "a.pt", pt_beside(lambda: b"N", EVAL), accepted=True),
    Case(1, "code in the state_dict's metadata", "a.pt", pt_of(dict_with_attributes(_metadata=EVAL)), accepted=True),
    Case(
        1,
        "a bytearray of 3 GB",
        "a.pt",
        pt_beside(lambda: call("builtins", "bytearray", number(3_000_000_000))),
        accepted=True,
    ),
    Case(1, "a codec's bomb", "a.pt", pt_beside(codec_bomb), accepted=True),
    Case(
        1,
        "torch.FloatTensor of 40 GB",
        "a.pt",
        pt_beside(lambda: call("torch", "FloatTensor", BILLIONS)),
        accepted=True,
    ),
    Case(1, "torch.Tensor of 40 GB", "a.pt", pt_beside(lambda: call("torch", "Tensor", BILLIONS)), accepted=True),
    Case(
        1,
        "UntypedStorage of 10 GB",
        "a.pt",
        pt_beside(lambda: call("torch.storage", "UntypedStorage", BILLIONS)),
        accepted=True,
    ),
    Case(1, "a state_dict whose items are hidden", "a.pt", pt_of(dict_with_attributes(items=number(3))), accepted=True),
    Case(2, "a raw pickle with code", "a.pt", lambda path: path.write_bytes(pickle.dumps(Evil()))),
    Case(
        2, "a raw pickle of plain arrays", "a.pt", lambda path: path.write_bytes(pickle.dumps(weights())), accepted=True
    ),
    Case(3, "a raw pickle named .safetensors", "a.safetensors", lambda p: p.write_bytes(pickle.dumps(Evil()))),
    Case(3, "a .pt named .safetensors", "a.safetensors", pt),
    Case(4, "an empty .pt", "a.pt", lambda path: path.touch(), says="empty"),
    Case(4, "an empty .safetensors", "a.safetensors", lambda path: path.touch(), says="empty"),
    *both(5, "cut in the middle", half),
    *both(6, "one byte short", one_short),
    *both(7, "with a flipped bit", flipped_in(KERNEL), says="damaged"),
    Case(
        7,
        "a flipped bit under a right checksum",
        "a.pt",
        lambda path: rezipped(path, flipped_in(KERNEL)),
        says="sha256",
    ),
    Case(8, "a deflated bomb", "a.pt", deflated_bomb, says="compressed"),
    Case(8, "members that lie in one place", "a.pt", overlapping_entries),
    Case(8, "a member marked as encrypted", "a.pt", encrypted_member),
    Case(8, "two tables of members", "a.pt", two_tables, says="table of its members"),
    Case(8, "two tables of members, of 64 bits", "a.pt", two_tables_of_64_bits, says="table of its members"),
    Case(1, "a bomb in DATA.PKL", "a.pt", pt_members(in_other_letters), says="of other names"),
    Case(9, "a storage twice", "a.pt", member_twice, says="twice"),
    Case(9, "two data.pkl", "a.pt", names_twice, says="twice"),
    Case(10, "a member named ../pwned", "a.pt", pt_members(lambda found: found.update({"../pwned": b"x"}))),
    Case(10, "a member two folders up", "a.pt", pt_members(lambda found: found.update({"archive/../../pwned": b"x"}))),
    Case(10, "a storage named ../x", "a.pt", pt_instead(shift=tensor(storage("../x", 4), (4,), (1,)))),
    Case(11, "a missing storage", "a.pt", pt_members(lambda f: f.pop(f"archive/data/{index_of(SHIFT)}") and None)),
    Case(12, "a storage too short", "a.pt", pt_instead({index_of(SHIFT): bytes(12)})),
    Case(12, "an empty storage", "a.pt", pt_instead({index_of(SHIFT): b""})),
    Case(13, "a view of 1e13 numbers", "a.pt", pt_beside(lambda: tensor(storage("0", 108), (10**13,), (1,)))),
    Case(13, "a storage of 1e13 numbers", "a.pt", huge_storage),
    Case(
        13,
        "a legacy file with 1e13 numbers",
        "a.pt",
        edited(
            torch_saved(lambda state: {"x": torch.zeros(123)}, legacy=True), lambda d: d.replace(b"K{", number(10**13))
        ),
    ),
    Case(13, "a header of 1e13 numbers", "a.safetensors", entry(SHIFT, shape=[10**7, 10**6])),
    Case(13, "an Orbax array of 3.6 GB that is not there", "a", orbax_claim),
    Case(13, "an Orbax array of 3.6 GB of packed zeros", "a", orbax_bomb),
    Case(13, "an Orbax array in parts larger than itself", "a", functools.partial(orbax_chunk, honest=False)),
    Case(13, "an Orbax part that unpacks to 2 GB", "a", functools.partial(orbax_chunk, honest=True)),
    Case(14, "strides of 0", "a.pt", torch_saved(lambda s: {k: torch.zeros(()).expand(v.shape) for k, v in s.items()})),
    Case(14, "strides of 0 beside the weights", "a.pt", pt_beside(lambda: tensor(storage("0", 108), (10**13,), (0,)))),
    Case(14, "a network of terabytes", "a.pt", wide_network),
    Case(15, "little-endian data marked as big", "a.pt", pt_members(lambda f: f.update({"archive/byteorder": b"big"}))),
    Case(15, "an unknown byte order", "a.pt", pt_members(lambda f: f.update({"archive/byteorder": b"middle"}))),
    Case(16, "a legacy file", "a.pt", torch_saved(lambda state: None, legacy=True), accepted=True),
    Case(16, "a legacy file with code", "a.pt", torch_saved(lambda s: s.update(x=Evil()), legacy=True), accepted=True),
    Case(16, "a legacy file cut in the middle", "a.pt", edited(torch_saved(lambda state: None, legacy=True), half)),
    Case(16, "a legacy file one byte short", "a.pt", edited(torch_saved(lambda state: None, legacy=True), one_short)),
    Case(16, "a legacy file whose list of storages is a bomb", "a.pt", fifth_pickle, says="does not list the storages"),
    Case(17, "TorchScript", "a.pt", torchscript),
    Case(
        17,
        "weights with a constants.pkl",
        "a.pt",
        pt_members(lambda f: f.update({"archive/constants.pkl": b"x"})),
        accepted=True,
    ),
    Case(18, "a pickled module", "a.pt", lambda path: torch.save(torch.nn.Linear(1, 1), path), says="--trust"),
    Case(19, "a list 200k deep", "a.pt", pt_beside(deep_list)),
    Case(19, "a dict 200k deep", "a.pt", pt_beside(deep_dict)),
    Case(19, "a key 200k deep", "a.pt", pt_beside(lambda: b"N", deep_tuple()), apart=True),
    Case(20, "lists that grow after they were put into others", "a.pt", pt_beside(growing_lists)),
    Case(
        20,
        "100 kB of letters 4,000 times",
        "a.pt",
        torch_saved(lambda s: s | {"x": ["y" * 100_000] * 4000}),
        accepted=True,
    ),
    Case(20, "lists that double 30 times", "a.pt", pt_beside(doubling_lists)),
    Case(20, "a key that doubles 60 times", "a.pt", pt_beside(lambda: b"N", doubling_tuples()), apart=True),
    Case(21, "a sparse tensor", "a.pt", torch_with(shift=torch.ones(4).to_sparse())),
    Case(21, "a quantised tensor", "a.pt", torch_saved(lambda state: state.update({SHIFT: quantised()}))),
    Case(21, "a meta tensor", "a.pt", torch_with(shift=torch.zeros(4, device="meta"))),
    Case(22, "a Namespace", "a.pt", torch_saved(lambda state: state.update(args=Namespace(lr=1))), accepted=True),
    Case(22, "a Path", "a.pt", torch_saved(lambda state: state.update(root=Path("x"))), accepted=True),
    Case(
        22, "a tensor whose numel is hidden", "a.pt", pt_instead(shift=own_attributes(numel=number(3))), accepted=True
    ),
]


_SAFETENSORS = [
    Case(23, "a header of 2^63 bytes", "a.safetensors", written(struct.pack("<Q", 2**63) + b"{}")),
    Case(23, "a header of 2^64 - 1 bytes", "a.safetensors", written(struct.pack("<Q", 2**64 - 1) + b"{}")),
    Case(24, "a header longer than the file", "a.safetensors", written(struct.pack("<Q", 5000) + b"{}")),
    Case(24, "a header shorter than it says", "a.safetensors", written(b"\x02\x00")),
    Case(25, "a header that is not UTF-8", "a.safetensors", not_utf8),
    Case(25, "a header that is not JSON", "a.safetensors", written(raw(b"{'a': 1}"))),
    Case(25, "a header 100k deep", "a.safetensors", written(raw(b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"))),
    Case(26, "a key twice", "a.safetensors", headed(twice)),
    Case(
        26,
        "the metadata twice",
        "a.safetensors",
        headed(lambda found: [("__metadata__", {"format": "pt"}), ("__metadata__", {"format": "np"}), *found]),
    ),
    Case(27, "tensors that overlap", "a.safetensors", headed(overlapping)),
    Case(28, "a hole between tensors", "a.safetensors", hole),
    Case(29, "trailing bytes", "a.safetensors", headed(lambda found: None, tail=bytes(8))),
    Case(30, "a shape that overflows", "a.safetensors", entry(SHIFT, shape=[2**40, 2**40])),
    Case(30, "a shape beyond 64 bits", "a.safetensors", entry(SHIFT, shape=[2**70])),
    Case(30, "a shape of infinity", "a.safetensors", entry(SHIFT, shape=[float("inf")])),
    Case(31, "a negative shape", "a.safetensors", entry(SHIFT, shape=[-4])),
    Case(31, "two negative sides", "a.safetensors", entry(SHIFT, shape=[-2, -2])),
    Case(32, "an unknown dtype", "a.safetensors", entry(SHIFT, dtype="F31")),
    Case(32, "a dtype that NumPy has not", "a.safetensors", entry(SHIFT, dtype="F4", shape=[32])),
    Case(33, "metadata with a number", "a.safetensors", swapped_metadata({"epoch": 3})),
    Case(33, "metadata that is a list", "a.safetensors", swapped_metadata(["pt"])),
    Case(34, "100,000 empty tensors beside the weights", "a.safetensors", beside_empties),
    Case(34, "100,000 empty tensors alone", "a.safetensors", only_empties),
]


def record_cases(name: str, change: Callable[[dict[str, Any]], Any], makers: str = "tso", **more: Any) -> list[Case]:
    """The same false record in each kind of file."""
    cases = {
        "t": Case(45, f"{name} in a .pt", "a.pt", pt_recorded(change), **more),
        "s": Case(
            45,
            f"{name} in a .safetensors",
            "a.safetensors",
            lambda path: swapped_metadata({RECORD_KEY: recorded(change)})(path),
            **more,
        ),
        "o": Case(45, f"{name} in an Orbax directory", "a", orbax_recorded(change), **more),
    }
    return [cases[maker] for maker in makers]


def set_config(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda record: record["config"].update(fields)


def many_digits(record: dict[str, Any]) -> str:
    return json.dumps(record).replace('"in_channels": 3', '"in_channels": ' + "9" * 5000)


def odd_names() -> list[Case]:
    """Each must be told in one line that leaves the terminal as it was."""
    names = {
        "a newline": "two\nlines",
        "control characters": "\x1b[2J\x07\r",
        "a NUL": "a\0b",
        "no characters": "",
        "100 kB": "x" * 100_000,
        "a line separator": "two\u2028lines",
    }
    found = []
    for name, key in names.items():
        found.append(Case(46, f"a .pt with a name of {name}", "a.pt", pt_key(text(key))))
        change = headed(lambda entries, key=key: entries.append((key, nothing())))
        found.append(Case(46, f"a .safetensors with a name of {name}", "a.safetensors", change))
    keys = {
        "a number": number(3),
        "None": b"N",
        "a tuple": several(text("a"), number(1)),
        "bytes": call("_codecs", "encode", text("abc"), text("latin1")),
        "not a number": b"G" + struct.pack(">d", float("nan")),
        "a lone surrogate": text("a\ud800b"),
    }
    found.extend(Case(46, f"a key that is {name}", "a.pt", pt_key(key)) for name, key in keys.items())
    surrogate = headed(lambda entries: entries.append(("\ud800", nothing())))
    found.append(Case(46, "a .safetensors with a lone surrogate", "a.safetensors", surrogate))
    newline = orbax_of(lambda tree: tree.update({"two\nlines\x1b[2J": {"kernel": np.zeros(1)}}))
    found.append(Case(46, "an Orbax name with a newline", "a", newline))
    found.append(Case(46, "Orbax names that join to one", "a", orbax_of(join_to_one)))
    return found


def pt_key(key: bytes) -> Make:
    """Good weights, and one tensor more under an odd key."""
    value = tensor(storage("spare", 1), (1,), (1,))
    return pt_of(state_body(beside=[(key, value)]), {"spare": bytes(4)})


def nothing() -> dict[str, Any]:
    return {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}


_MEANING = [
    *kinds(35, "NaN", put(SHIFT, lambda value: np.nan), ALL, says="NaN"),
    *kinds(35, "Inf", put(VAR, lambda value: np.inf), ALL),
    *kinds(36, "a missing key", lambda tensors: tensors.pop(SHIFT) is None or None, FILES, says="missing"),
    Case(
        36, "a missing key in an Orbax directory", "a", orbax_of(lambda tree: tree["out"].pop("bias") is None or None)
    ),
    *kinds(37, "an extra key", lambda tensors: tensors.update(head=np.zeros(3, np.float32)), FILES, says="head"),
    Case(
        37, "an extra key in an Orbax directory", "a", orbax_of(lambda tree: tree.update(head=np.zeros(3))), says="head"
    ),
    *(
        Case(38, f"the prefix {prefix}", "a.pt", torch_saved(renamed(prefix)), accepted=True)
        for prefix in ("module.", "_orig_mod.", "model.", "net.", "module._orig_mod.model.", "model.module.module.")
    ),
    *kinds(38, "the prefix module._orig_mod.", renamed("module._orig_mod."), [".safetensors"], accepted=True),
    Case(38, "a prefix before some keys only", "a.pt", torch_saved(renamed("module.", lambda key: "down" in key))),
    Case(38, "the same keys with and without a prefix", "a.pt", torch_saved(lambda s: s | renamed("module.")(s))),
    *kinds(38, "the prefix of a class of one's own", renamed("segmenter."), [".pt", ".safetensors"], accepted=True),
    *kinds(39, "an HWIO kernel", put("out.weight", lambda v: v.transpose(2, 3, 1, 0).copy()), FILES, says="shape"),
    *kinds(39, "a flat kernel", put(KERNEL, lambda value: value.reshape(4, 27)), FILES, says="shape"),
    *kinds(39, "a bias as a column", put(SHIFT, lambda value: value.reshape(4, 1)), FILES, says="shape"),
    Case(39, "an HWIO kernel in an Orbax directory", "a", orbax_of(wrong_layout)),
    *kinds(40, "a negative variance", put(VAR, lambda value: -0.5), ALL, says="negative"),
    *kinds(41, "float64", retyped(np.float64), ALL, accepted=True, expected=lambda: retyped(np.float64)(weights())),
    *kinds(
        41,
        "bfloat16",
        retyped(ml_dtypes.bfloat16),
        ALL,
        accepted=True,
        expected=lambda: retyped(ml_dtypes.bfloat16)(weights()),
    ),
    *kinds(41, "float16", retyped(np.float16), ALL, accepted=True, expected=lambda: retyped(np.float16)(weights())),
    *kinds(41, "complex numbers", retyped(np.complex64), ALL),
    *kinds(41, "one complex tensor", put(SHIFT, lambda value: value.astype(np.complex64)), FILES),
    Case(42, "channels_last", "a.pt", torch_saved(channels_last), accepted=True),
    Case(42, "transposed and strided views", "a.pt", torch_saved(strided), accepted=True),
    Case(42, "all weights in one buffer", "a.pt", torch_saved(one_buffer), accepted=True),
    Case(42, "a tensor with torch's negative bit", "a.pt", torch_saved(negated), accepted=True),
    Case(43, "tied tensors", "a.pt", torch_saved(lambda state: state.update({SHIFT: state[SCALE]}))),
    Case(43, "tied counters", "a.pt", torch_saved(lambda s: s.update({"down1.conv.4.num_batches_tracked": s[COUNT]}))),
    Case(43, "views that overlap", "a.pt", torch_saved(overlap)),
    Case(43, "a tensor that overlaps itself", "a.pt", torch_saved(self_overlap)),
    Case(44, "an optimiser's dict", "a.pt", torch_saved(optimiser)),
    *record_cases("other features", set_config(features=[4, 6, 10])),
    *record_cases("one level fewer", set_config(features=[4, 6]), "ts"),
    *record_cases("an impossible network", set_config(features=[]), "t"),
    *record_cases("a digest too few", lambda record: record["sha256"].pop(SHIFT) and None, "tso", says="sha256"),
    *record_cases("a record 100k deep", lambda record: "[" * 100_000 + "]" * 100_000, "tso"),
    *record_cases("a million levels", set_config(features=[1] * 1_000_000), "s"),
    *record_cases("a number of 5,000 digits", many_digits, "ts"),
    *odd_names(),
]

_FILES = [
    *(
        Case(47, f"a link to a good {suffix}", f"a{suffix}", link_to(f"good{suffix}", make), accepted=True)
        for suffix, make in ((".pt", pt), (".safetensors", safetensors), ("", orbax_directory))
    ),
    *(Case(47, f"a link to nothing named a{suffix}", f"a{suffix}", link_to(f"gone{suffix}")) for suffix in ALL),
    *(Case(47, f"a loop of links named a{suffix}", f"a{suffix}", loop) for suffix in ALL),
    Case(47, "a link as the target", "a.pt", pt, occupy=link_to("elsewhere.safetensors")),
    Case(47, "a link to a file as the target", "a.pt", pt, occupy=link_to("elsewhere.safetensors", mine)),
    Case(48, "a directory named .pt", "a.pt", directory, says="directory"),
    Case(48, "a directory named .safetensors", "a.safetensors", directory, says="directory"),
    Case(48, "an Orbax directory named .pt", "a.pt", orbax_directory, says="directory"),
    Case(48, "a directory that is no checkpoint", "a", directory),
    *(Case(49, f"a FIFO named a{suffix}", f"a{suffix}", fifo) for suffix in ALL),
    Case(49, "a FIFO in place of Orbax's tree", "a", orbax_swapped("state/_METADATA", fifo)),
    Case(49, "a FIFO in place of Orbax's record", "a", orbax_swapped("metadata/metadata", fifo)),
    Case(
        49, "a device in place of Orbax's tree", "a", orbax_swapped("state/_METADATA", link_to("/dev/zero")), apart=True
    ),
    Case(49, "a link to a device", "a.pt", link_to("/dev/zero")),
    Case(49, "a socket", "a.pt", unix_socket),
    Case(50, "a file in the target's place", "a.pt", pt, occupy=mine, says="exists"),
    Case(50, "a directory in the target's place", "a.pt", pt, dst="b", occupy=directory, says="exists"),
    Case(50, "a checkpoint in the target's place", "a.pt", pt, dst="b", occupy=orbax_directory, says="exists"),
    *(
        Case(51, f"no room for b{suffix}", "a.pt", pt, dst=f"b{suffix}", room=4096, says="not written")
        for suffix in ALL
    ),
    Case(52, "an unreadable .pt", "a.pt", pt, unreadable=True, says="permission"),
    Case(52, "an unreadable .safetensors", "a.safetensors", safetensors, unreadable=True, says="permission"),
    Case(52, "an unreadable Orbax directory", "a", orbax_directory, unreadable=True, says="permission"),
]

_ORBAX = [
    *(
        Case(53, f"a bit flipped at {eighth}/8 of Orbax's {name}", "a", orbax_flipped(name, eighth))
        for name, eighth in (("bottom.conv.3.weight", 2), ("bottom.conv.3.weight", 5), ("bottom.conv.0.weight", 4))
    ),
    Case(54, "an Orbax payload cut in the middle", "a", orbax_cut(0.5)),
    Case(54, "an Orbax payload one byte short", "a", orbax_cut(1)),
    Case(54, "an Orbax tree cut in the middle", "a", edited(orbax_directory, half, lambda a: a / "state/_METADATA")),
    Case(
        54, "an Orbax record cut in the middle", "a", edited(orbax_directory, half, lambda a: a / "metadata/metadata")
    ),
    Case(54, "an Orbax tree that points to other files", "a", orbax_without_ocdbt, says="arrays are missing"),
    Case(47, "a link to a folder in an Orbax directory", "a", orbax_linked, says="link to a directory"),
    Case(54, "an empty Orbax mark", "a", edited(orbax_directory, lambda data: b"", lambda a: a / MARK)),
    *(Case(55, f"an Orbax directory without {part}", "a", orbax_without(part)) for part in PARTS),
    Case(56, "an empty latest step", "a/200", lambda path: step_folders(path.parent)),
    Case(56, "a folder of steps", "a", step_folders),
    Case(57, "an Orbax directory of int32", "a", orbax_of(integers), says="int32"),
    Case(57, "an Orbax directory with one int32 kernel", "a", orbax_of(one_integer_kernel), says="int32"),
    Case(58, "a temporary directory beside a good one", "a", with_leftover, accepted=True),
    Case(58, "a whole temporary directory", LEFTOVER, orbax_directory),
    Case(58, "an item left in a temporary directory", "a", item_left_over),
]

CASES: tuple[Case, ...] = (*_TORCH, *_SAFETENSORS, *_MEANING, *_FILES, *_ORBAX)
