"""Where records lie in an array_record file, so that one can be read alone from a store that gives ranges of bytes.

The file is of Riegeli's format: blocks of 64 KiB, each of which begins with a header of 24 bytes, and across them
chunks, a header of 40 bytes and the data. Each record of a set is alone in a chunk and not compressed: its bytes lie
there as they are, but for the headers of blocks in between.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LENGTH = struct.Struct("<Q")
"""How many bytes are the picture's, at the beginning of a record."""

_BLOCK, _BLOCK_HEADER = 2**16, 24
_CHUNK = struct.Struct("<8xQ8xQ8x")
"""Bytes of the data; the kind of the chunk and, above 8 bits, the number of its records."""
_SIMPLE = ord("r")


def record_places(file: Path, count: int) -> Iterator[tuple[int, int]]:
    """Where each of the first records begins in the file, and how many bytes it has.

    Raises:
        ValueError: they do not lie in the file as said above.
    """
    with file.open("rb") as stream:
        place, found = 0, 0
        while found < count:
            size, kind = _CHUNK.unpack(_read(stream, place, _CHUNK.size))
            begin = place + _CHUNK.size
            if kind & 0xFF == _SIMPLE:
                head = _read(stream, begin, min(size, 24))
                compression, (sizes, after) = head[0], _number(head, 1)
                length, end = _number(head, after)
                if kind >> 8 != 1 or compression or end - after != sizes or end + length != size:
                    raise ValueError("a chunk is not of one record as it is")
                yield _in_file(begin + end), length
                found += 1
            place = begin + size


def span(place: int, length: int) -> int:
    """How many bytes of the file a record takes that begins there, headers of blocks included."""
    return _in_file(_in_chunks(place) + length - 1) + 1 - place if length else 0


def without_headers(content: bytes, place: int) -> bytes:
    """The bytes of the file from `place` on, but for the headers of blocks."""
    parts, at = [], 0
    while at < len(content):
        inside = (place + at) % _BLOCK
        if inside < _BLOCK_HEADER:
            at += _BLOCK_HEADER - inside
            continue
        parts.append(content[at : at + _BLOCK - inside])
        at += _BLOCK - inside
    return b"".join(parts)


def _read(stream: BinaryIO, place: int, length: int) -> bytes:
    """The bytes of chunks from a place that counts no headers of blocks."""
    begin = _in_file(place)
    stream.seek(begin)
    found = without_headers(stream.read(span(begin, length)), begin)
    if len(found) != length:
        raise ValueError("the file is cut short")
    return found


def _in_file(place: int) -> int:
    whole, rest = divmod(place, _BLOCK - _BLOCK_HEADER)
    return whole * _BLOCK + _BLOCK_HEADER + rest


def _in_chunks(place: int) -> int:
    whole, rest = divmod(place, _BLOCK)
    return whole * (_BLOCK - _BLOCK_HEADER) + rest - _BLOCK_HEADER


def _number(content: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
