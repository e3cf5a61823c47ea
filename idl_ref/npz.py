"""This module reads the arrays of an .npz file that is not compressed, as `numpy.savez` writes it.

An .npz file is a ZIP archive. It consists of members, each with a local header before it, a list of all members, and an
end record with the position of this list. Sizes and positions are read from the list.

The contents of a file are not trusted. No array is read twice, and no more memory is allocated than the file has bytes.
Compressed archives are refused, because a small compressed file can expand to an enormous array.

The module `zipfile` of Python is not used, because importing it takes as long as predicting a thousand samples.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from typing import BinaryIO, NamedTuple

import numpy as np

LIST_LIMIT = 1 << 16  # The largest size of the list of members in bytes; a list in our own files has less than 1,000.
# These bytes mark the beginning of each kind of record in a ZIP archive; "long" records have 64-bit fields.
END, LONG_END, LOCATOR, ENTRY, LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
LONG = 0xFFFFFFFF  # This value in a 32-bit field means that the size or position is in a 64-bit field elsewhere.


class FileFormatError(ValueError):
    """This error means that a file is not a model of this library, or that the file is damaged."""


class Member(NamedTuple):
    """One member of the archive, which is one array in NumPy's .npy format.

    Attributes
    ----------
    name : str
        The name without the ending .npy.
    size, crc : int
        Number of bytes, and their CRC-32.
    place : int
        The position of the local header in the file.
    """

    name: str
    size: int
    crc: int
    place: int


def members(stream: BinaryIO) -> dict[str, Member]:
    """Return the members of the archive by their names."""
    length = os.fstat(stream.fileno()).st_size
    found: dict[str, Member] = {}
    listed = _list(stream, length)
    while listed:
        if len(listed) < 46 or not listed.startswith(ENTRY):
            raise FileFormatError("the file is damaged: its list of members is broken.")
        flags, method, crc, packed, size, n, extra, comment, disk = struct.unpack("<8xHH4xIIIHHHH", listed[:36])
        (place,) = struct.unpack("<I", listed[42:46])
        end = 46 + n + extra + comment
        if len(listed) < end:
            raise FileFormatError("the file is damaged: its list of members is broken.")
        name = listed[46 : 46 + n].decode("utf-8", "replace").removesuffix(".npy")
        size, packed, place = _long(listed[46 + n : 46 + n + extra], size, packed, place)
        if method != 0 or flags & 1:
            raise FileFormatError(
                f"{name[:40]} must be neither compressed nor encrypted; got a member that is: save the model again."
            )
        if name in found or size != packed or disk != 0 or place + size > length:
            raise FileFormatError("the file is damaged: its list of members contradicts the file.")
        found[name] = Member(name, size, crc, place)
        listed = listed[end:]
    if sum(member.size for member in found.values()) > length:
        raise FileFormatError("the file is damaged: its members claim more bytes than the file has.")
    return found


def _list(stream: BinaryIO, length: int) -> bytes:
    """Return the bytes of the list of members.

    Its size and position are in the last 22 bytes of the file, or in a 64-bit record of 56 bytes near the end.
    """
    stream.seek(max(0, length - 98))
    tail = stream.read().rjust(98, b"\0")
    record, locator, end = tail[:56], tail[56:76], tail[76:]
    if not end.startswith(END) or end[20:] != b"\0\0":
        raise FileFormatError("the file is damaged or not an .npz file (its last bytes are not those of one).")
    size, place = struct.unpack("<12xII2x", end)
    if locator.startswith(LOCATOR) and record.startswith(LONG_END):
        size, place = struct.unpack("<40xQQ", record)
    if size > LIST_LIMIT:
        raise FileFormatError(f"the list of members must have at most {LIST_LIMIT} bytes; got {size}.")
    if place + size > length:
        raise FileFormatError("the file is damaged: its list of members lies outside the file.")
    stream.seek(place)
    return stream.read(size)


def _long(extra: bytes, *values: int) -> list[int]:
    """Return sizes and positions, where each value LONG is replaced by its 64-bit value.

    The 64-bit values stand in the same order in the field of kind 1 among the extra bytes.
    """
    result, longs = list(values), b""
    while len(extra) >= 4:
        kind, size = struct.unpack("<HH", extra[:4])
        if kind == 1:
            longs = extra[4 : 4 + size]
        extra = extra[4 + size :]
    for i, value in enumerate(values):
        if value == LONG:
            if len(longs) < 8:
                raise FileFormatError("the file is damaged: its list of members is broken.")
            result[i], longs = int.from_bytes(longs[:8], "little"), longs[8:]
    return result


def describe(stream: BinaryIO, member: Member) -> tuple[tuple[int, ...], bool, np.dtype, int]:
    """Return shape, Fortran order, dtype and header length of an array, as the member describes itself.

    The header length is the number of bytes before the first number. Afterwards `stream` is at the first byte of the
    member.
    """
    stream.seek(member.place)
    local = stream.read(30)
    if len(local) < 30 or not local.startswith(LOCAL):
        raise FileFormatError(
            f"the file is damaged: {member.name[:40]} is not at the position that the list of members gives."
        )
    n, extra = struct.unpack("<26xHH", local)
    start = stream.seek(member.place + 30 + n + extra)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise FileFormatError(f"{member.name[:40]} must have the array format (1, 0); got {version}: save it again.")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    before = stream.tell() - start
    stream.seek(start)
    return shape, fortran_order, dtype, before


def read(stream: BinaryIO, member: Member) -> np.ndarray:
    """Return the array of a member. The caller must have checked shape and dtype before, by `describe`."""
    shape, fortran_order, dtype, before = describe(stream, member)
    if member.size != before + dtype.itemsize * math.prod(shape):
        raise FileFormatError(
            f"the file is damaged: {member.name} has {member.size} bytes, which does not agree with its shape {shape}."
        )
    content = np.fromfile(stream, np.uint8, member.size)
    if content.size != member.size or zlib.crc32(content.data) != member.crc:
        raise FileFormatError(f"the file is damaged: the checksum of {member.name} does not agree.")
    array = content[before:].view(dtype).reshape(shape, order="F" if fortran_order else "C")
    return array if array.flags.aligned else array.copy()
