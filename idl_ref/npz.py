"""This module opens files of foreign origin, and reads the arrays of .npz files, as `numpy.savez` writes them.

An .npz file is a ZIP archive. It consists of members, each with a local header before it, a list of all members, and an
end record with the position of this list. Sizes and positions are read from the list.

The contents of a file are not trusted. Only the arrays that are asked for are read, and no array is read twice. A model
file is refused if it is compressed, because a small compressed file can expand to an enormous array; from it, no more
memory is allocated than the file has bytes. A data file may be compressed, as by `numpy.savez_compressed`. The sizes of
its arrays are limited, and are checked before anything is unpacked.

The module `zipfile` of Python is not used, because importing it takes as long as predicting a thousand samples.
"""

from __future__ import annotations

import io
import math
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

import numpy as np

from idl_ref import checks

# The arrays of a data file may unpack to FREE bytes, plus RATIO times the size of the file. MNIST, compressed with its
# images in float32, has 15 times the size of its file.
FREE, RATIO = 1 << 26, 32
MESSAGE_LIMIT = 600  # The largest length of a message in characters, because a message may quote text of the file.
PREFIX = 10 + 10_000  # The bytes at the start of an array that can describe it: NumPy reads no longer description.
CHUNK = 1 << 16  # Compressed bytes are unpacked in pieces of this size.
LIST_LIMIT = 1 << 16  # The largest size of the list of members in bytes; a list in our own files has less than 1,000.
# These bytes mark the beginning of each kind of record in a ZIP archive; "long" records have 64-bit fields.
END, LONG_END, LOCATOR, ENTRY, LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
LONG = 0xFFFFFFFF  # This value in a 32-bit field means that the size or position is in a 64-bit field elsewhere.


class FileFormatError(ValueError):
    """This error means that a file is not of the kind that was asked for, or that the file is damaged."""


# --- files of any kind ------------------------------------------------------------------------------------------------

KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe, whose size is not known: write its content to a file first"),
    (stat.S_ISSOCK, "a socket"),
    (lambda mode: True, "a device"),
)


def regular(path: str | os.PathLike[str]) -> int:
    """Return the size of a file in bytes, and refuse what is no regular file, before it is opened.

    To open a pipe waits until somebody writes to it, and to open some devices changes their state.
    """
    shown = checks.printable(os.fspath(path))
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: the name has a character that none can.
        raise FileNotFoundError(f"there is no file {shown}.") from None
    if not stat.S_ISREG(found.st_mode):
        kind = next(words for matches, words in KINDS if matches(found.st_mode))
        raise (IsADirectoryError if stat.S_ISDIR(found.st_mode) else OSError)(f"{shown} must be a file; got {kind}.")
    return found.st_size


def whole(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the bytes of a regular file, whose size is checked before it is read."""
    if (size := regular(path)) > limit:
        raise FileFormatError(f"{checks.printable(os.fspath(path))} must have at most {limit} bytes; got {size}.")
    with open(path, "rb") as stream:
        return stream.read(limit)


def exactly(path: str | os.PathLike[str], size: int, due: str) -> bytes:
    """Return the bytes of a regular file that has the given size, which `due` describes.

    The path may lead to anything, and may change while it is looked at: what is opened is looked at once more, and no
    more is read than is due.
    """
    name = checks.printable(os.path.basename(os.fspath(path)))
    regular(path)
    with open(path, "rb", opener=lambda file, flags: os.open(file, flags | getattr(os, "O_NONBLOCK", 0))) as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size != size:
            raise FileFormatError(f"{name} must have {due}; got {found.st_size}.")
        data = stream.read(size)
    if len(data) != size:
        raise FileFormatError(f"{name} must have {due}; got {len(data)}, because the file was changed meanwhile.")
    return data


@contextmanager
def reading(path: str | os.PathLike[str], kind: str) -> Iterator[BinaryIO]:
    """Open a file of foreign origin for a reader.

    Malformed bytes make NumPy, json, struct and zlib raise many kinds of exceptions. Each of them becomes a
    FileFormatError, whose message names the file, has a limited length, and is safe to print.
    """
    regular(path)
    with open(path, "rb") as stream:
        try:
            yield stream
        except FileFormatError as reason:
            text = str(reason)
        except Exception as reason:
            text = f"the file is damaged or not {kind} ({type(reason).__name__})."
        else:
            return
    text = checks.printable(text)
    text = text if len(text) <= MESSAGE_LIMIT else f"{text[:MESSAGE_LIMIT]} …"
    raise FileFormatError(f"{checks.printable(os.fspath(path))}: {text}") from None


# --- archives ---------------------------------------------------------------------------------------------------------


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
    deflated : bool
        Whether the bytes are compressed in the file.
    """

    name: str
    size: int
    crc: int
    place: int
    deflated: bool


def members(stream: BinaryIO, deflated: bool = False) -> dict[str, Member]:
    """Return the members of the archive by their names. With `deflated`, members may be compressed."""
    length = os.fstat(stream.fileno()).st_size
    found: dict[str, Member] = {}
    occupied = 0
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
        if flags & 1 or method not in ((0, 8) if deflated else (0,)):
            way_out = "write it with numpy.savez." if deflated else "save the model again."
            raise FileFormatError(
                f"{name[:40]} must be neither compressed nor encrypted; got a member that is: {way_out}"
            )
        if name in found or (size != packed and method == 0) or disk != 0 or place + packed > length:
            raise FileFormatError("the file is damaged: its list of members contradicts the file.")
        found[name] = Member(name, size, crc, place, method == 8)
        listed, occupied = listed[end:], occupied + packed
    if occupied > length:
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

    The header length is the number of bytes before the first number.
    """
    start = io.BytesIO(_content(stream, member, min(member.size, PREFIX)).tobytes())
    version = np.lib.format.read_magic(start)
    if version != (1, 0):
        raise FileFormatError(f"{member.name[:40]} must have the array format (1, 0); got {version}: save it again.")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(start)
    return shape, fortran_order, dtype, start.tell()


def _content(stream: BinaryIO, member: Member, size: int) -> np.ndarray:
    """Return the first `size` bytes of a member; fewer if the file or the compressed data end before."""
    stream.seek(member.place)
    local = stream.read(30)
    if len(local) < 30 or not local.startswith(LOCAL):
        raise FileFormatError(
            f"the file is damaged: {member.name[:40]} is not at the position that the list of members gives."
        )
    stream.seek(sum(struct.unpack("<26xHH", local)), os.SEEK_CUR)
    if not member.deflated:
        return np.fromfile(stream, np.uint8, size)
    content, filled, unpack = np.empty(size, np.uint8), 0, zlib.decompressobj(-zlib.MAX_WBITS)
    while filled < size and (chunk := unpack.unconsumed_tail or stream.read(CHUNK)):
        piece = unpack.decompress(chunk, min(CHUNK, size - filled))
        content[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
        if unpack.eof:
            break
    return content[:filled]


def read(stream: BinaryIO, member: Member) -> np.ndarray:
    """Return the array of a member. The caller must have checked shape and dtype before, by `describe`."""
    shape, fortran_order, dtype, before = describe(stream, member)
    if member.size != before + dtype.itemsize * math.prod(shape):
        raise FileFormatError(
            f"the file is damaged: {member.name} has {member.size} bytes, which does not agree with its shape {shape}."
        )
    content = _content(stream, member, member.size)
    if content.size != member.size or zlib.crc32(content.data) != member.crc:
        raise FileFormatError(f"the file is damaged: the checksum of {member.name} does not agree.")
    array = content[before:].view(dtype).reshape(shape, order="F" if fortran_order else "C")
    return array if array.flags.aligned else array.copy()


# --- data files -------------------------------------------------------------------------------------------------------


def arrays(
    path: str | os.PathLike[str], required: Iterable[str], optional: Iterable[str] = (), present: Iterable[str] = ()
) -> dict[str, np.ndarray]:
    """Return arrays of a data file by name. Those in `present` must be there, too, but are not read.

    Raises
    ------
    FileFormatError
        The file is damaged, or not an .npz file; it lacks an array in `required`; an array holds Python objects; or the
        arrays are larger than a file of this size may ask for.
    """
    with reading(path, "a .npz file of numeric arrays") as stream:
        found, required = members(stream, deflated=True), list(required)
        if not found.keys() >= {*required, *present}:
            got = ", ".join(list(found)[:20]) or "no arrays"
            raise FileFormatError(f"the file must hold {', '.join(present or required)}; got {got}.")
        wanted = [found[name] for name in (*required, *optional) if name in found]
        for member in wanted:
            _check_entries(member.name, describe(stream, member)[2])
        size, limit = sum(member.size for member in wanted), FREE + RATIO * os.fstat(stream.fileno()).st_size
        if size > limit:
            raise FileFormatError(
                f"the arrays {', '.join(member.name for member in wanted)} must have at most {limit:,} bytes in a file "
                f"of this size; got {size:,}: write them with numpy.savez, which does not compress."
            )
        return {member.name: read(stream, member) for member in wanted}


def names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the arrays of a data file."""
    with reading(path, "a .npz file of numeric arrays") as stream:
        return list(members(stream, deflated=True))
    raise AssertionError  # for type checkers: `reading` raises what it catches


def single(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the array of an .npy file, as `numpy.save` writes it; its size is checked before it is read."""
    with reading(path, "an .npy file of one numeric array") as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise FileFormatError(f"the file must have the array format (1, 0); got {version}: save it again.")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
        _check_entries("the array", dtype)
        size, left = dtype.itemsize * math.prod(shape), os.fstat(stream.fileno()).st_size - stream.tell()
        if size != left:
            raise FileFormatError(f"the file is damaged: it has {left} bytes for an array of {size}.")
        flat = np.fromfile(stream, dtype, math.prod(shape))
        return flat.reshape(shape, order="F" if fortran_order else "C")
    raise AssertionError  # for type checkers: `reading` raises what it catches


def _check_entries(name: str, dtype: np.dtype) -> None:
    """Refuse an array of Python objects, which only pickle could read, and entries without a size."""
    if dtype.hasobject or dtype.itemsize == 0:
        got = "Python objects" if dtype.hasobject else "entries without a size"
        raise FileFormatError(
            f"the file must be a .npz file of numeric arrays; got an array of {got} as {name[:40]}: before "
            "numpy.savez, convert it with numpy.asarray(…, dtype=float) or, if it holds labels, with dtype=str."
        )
