"""Read the arrays of an .npz file that holds them uncompressed, as NumPy writes them; the contents are not trusted.

An archive is its members one after the other, each behind a local header, then a list of them, and a record that tells
where the list is. Sizes and places are read from the list; nothing is read twice, and no more is allocated than the
file is long. Compressed archives are refused: there is no room in them for a bomb. The module `zipfile` would do more,
and importing it takes as long as predicting a thousand samples.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from typing import BinaryIO, NamedTuple

import numpy as np

LIST_LIMIT = 1 << 16  # bytes of the list of members; ours has less than 1,000
END, LONG_END, LOCATOR, ENTRY, LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
LONG = 0xFFFFFFFF  # a size or a place that stands in a 64-bit field elsewhere


class FileFormatError(ValueError):
    """The file is not a model of this library, or it is damaged."""


class Member(NamedTuple):
    """One array file of the archive."""

    name: str
    size: int
    crc: int
    place: int  # of its local header


def members(stream: BinaryIO) -> dict[str, Member]:
    """The list of members, by their names without the ending .npy."""
    length = os.fstat(stream.fileno()).st_size
    found: dict[str, Member] = {}
    listed = _list(stream, length)
    while listed:
        if len(listed) < 46 or not listed.startswith(ENTRY):
            raise FileFormatError("damaged: its list of members is broken.")
        flags, method, crc, packed, size, n, extra, comment, disk = struct.unpack("<8xHH4xIIIHHHH", listed[:36])
        (place,) = struct.unpack("<I", listed[42:46])
        end = 46 + n + extra + comment
        if len(listed) < end:
            raise FileFormatError("damaged: its list of members is broken.")
        name = listed[46 : 46 + n].decode("utf-8", "replace").removesuffix(".npy")
        size, packed, place = _long(listed[46 + n : 46 + n + extra], size, packed, place)
        if method != 0 or flags & 1:
            raise FileFormatError(f"{name[:40]} is compressed or encrypted; a model is stored as it is: save it anew.")
        if name in found or size != packed or disk != 0 or place + size > length:
            raise FileFormatError("damaged: its list of members contradicts the file.")
        found[name] = Member(name, size, crc, place)
        listed = listed[end:]
    if sum(member.size for member in found.values()) > length:
        raise FileFormatError("damaged: it claims to hold more than its size.")
    return found


def _list(stream: BinaryIO, length: int) -> bytes:
    """The bytes of the list. The last 22 bytes of the file, or a record of 56 bytes before them, say where it is."""
    stream.seek(max(0, length - 98))
    tail = stream.read().rjust(98, b"\0")
    record, locator, end = tail[:56], tail[56:76], tail[76:]
    if not end.startswith(END) or end[20:] != b"\0\0":
        raise FileFormatError("damaged or not an .npz file (it does not end as one).")
    size, place = struct.unpack("<12xII2x", end)
    if locator.startswith(LOCATOR) and record.startswith(LONG_END):
        size, place = struct.unpack("<40xQQ", record)
    if size > LIST_LIMIT:
        raise FileFormatError(f"its list of members has {size} bytes, more than {LIST_LIMIT}.")
    if place + size > length:
        raise FileFormatError("damaged: its list of members is not in the file.")
    stream.seek(place)
    return stream.read(size)


def _long(extra: bytes, *values: int) -> list[int]:
    """Sizes and places; those that are LONG stand, in this order, in the field of kind 1 among the extra bytes."""
    result, longs = list(values), b""
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        if kind == 1:
            longs = extra[4 : 4 + size]
        extra = extra[4 + size :]
    for i, value in enumerate(values):
        if value == LONG:
            if len(longs) < 8:
                raise FileFormatError("damaged: its list of members is broken.")
            result[i], longs = int.from_bytes(longs[:8], "little"), longs[8:]
    return result


def describe(stream: BinaryIO, member: Member) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Shape, order, dtype of an array as it describes itself; `stream` is left at its first byte, and how many of its
    bytes come before its numbers."""
    stream.seek(member.place)
    local = stream.read(30)
    if len(local) < 30 or not local.startswith(LOCAL):
        raise FileFormatError(f"damaged: {member.name[:40]} is not where the list of members says.")
    n, extra = struct.unpack("<26xHH", local)
    start = stream.seek(member.place + 30 + n + extra)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise FileFormatError(f"{member.name[:40]} has array format {version}; (1, 0) is what idl_ref writes.")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    before = stream.tell() - start
    stream.seek(start)
    return shape, fortran_order, dtype, before


def read(stream: BinaryIO, member: Member) -> np.ndarray:
    """The array of a member, whose description was checked before."""
    shape, fortran_order, dtype, before = describe(stream, member)
    if member.size != before + dtype.itemsize * math.prod(shape):
        raise FileFormatError(
            f"damaged: {member.name} has {member.size} bytes, which is not what its shape {shape} takes."
        )
    content = np.fromfile(stream, np.uint8, member.size)
    if content.size != member.size or zlib.crc32(content.data) != member.crc:
        raise FileFormatError(f"damaged: the checksum of {member.name} does not agree.")
    array = content[before:].view(dtype).reshape(shape, order="F" if fortran_order else "C")
    return array if array.flags.aligned else array.copy()
