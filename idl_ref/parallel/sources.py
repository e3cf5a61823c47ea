"""This module reads rows of files by their numbers, in any process: what travels is the name of a file, not an array.

A source is a file or a folder of files, whose rows follow one another in the order of the names. A file with an array
that is not compressed is mapped. Any other is first copied to such a file, once.
"""

from __future__ import annotations

import math
import mmap
import os
import shutil
import struct
import zipfile
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from idl_ref import checks, files, npz, tables
from idl_ref.commands import rows as samples
from idl_ref.model import load
from idl_ref.npz import FileFormatError

ZARR = ("zarr.json", ".zarray")  # One of these files describes an array in a folder: by version 3, and by version 2.
ENDINGS = ".npy, .npz, .csv, .tsv, .parquet or .zarr"
MEMBERS = ("x_test", "X")  # The array of an .npz file that has several, as for `idl-ref predict`.


class Layout(NamedTuple):
    """How an array lies in a file: what `numpy.ndarray` needs to find it among the bytes."""

    offset: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None  # None for C order


class File(NamedTuple):
    """A file of a source, and what tells that it was changed."""

    path: str
    size: int
    changed: int  # the time of the last change, in nanoseconds
    member: str = ""  # of an .npz file
    layout: Layout | None = None  # None where the file must be copied first, and for .zarr

    @property
    def mark(self) -> list[Any]:
        """What must be the same when the work is taken up again; the folder may have moved."""
        return [os.path.basename(self.path), self.size, self.changed, self.member, self.layout]


class Piece(NamedTuple):
    """Consecutive rows of a source in one file: rows first … first + length − 1."""

    file: File
    first: int
    length: int


def found(source: Any, p: int) -> list[File]:
    """Return the files of a source, and refuse what has no samples of p numbers as far as its head tells."""
    if isinstance(source, np.memmap):
        result = [_of_map(source)]
    elif isinstance(source, tuple) and len(source) == 2:
        result = [_file(os.fspath(source[0]), str(source[1]))]
    elif isinstance(source, str | os.PathLike):
        path = os.path.abspath(source)
        result = [_file(name) for name in (_inside(path) if os.path.isdir(path) and not _is_zarr(path) else [path])]
    else:
        raise TypeError(
            "source must be the name of a file or folder, (name of an .npz file, array in it) or a numpy.memmap; got "
            f"{checks.shown(source)}: write an array to a file by numpy.save, because files travel, and not arrays."
        )
    for file in result:
        if file.layout is not None:
            _check(file.path, file.layout.dtype, file.layout.shape, p)
    return result


def _inside(folder: str) -> list[str]:
    """Return the files of a folder in the order of their names, without those that begin with a dot or with _."""
    names = sorted(name for name in os.listdir(folder) if name[0] not in "._")
    if not names:
        raise ValueError(f"source must have at least one file; got the empty folder {checks.printable(folder)}.")
    return [os.path.join(folder, name) for name in names]


def _is_zarr(path: str) -> bool:
    return any(os.path.exists(os.path.join(path, name)) for name in ZARR)


def _file(path: str, member: str = "") -> File:
    """Return a file of a source, with its layout if it can be mapped."""
    path, ending = os.path.abspath(path), os.path.splitext(path)[1].lower()
    if os.path.isdir(path) and _is_zarr(path):
        head = next(name for name in ZARR if os.path.exists(os.path.join(path, name)))
        found = os.stat(os.path.join(path, head))
        return File(path, found.st_size, found.st_mtime_ns)
    size = npz.regular(path)
    if member and ending != ".npz":
        raise ValueError(f"source may name an array in an .npz file only; got {checks.printable(path)}.")
    if ending not in (".npy", ".npz") and not tables.is_table(path):
        raise ValueError(
            f"source must end in {ENDINGS}; got {checks.printable(path)}: convert it, or take it out of the folder."
        )
    changed, layout = os.stat(path).st_mtime_ns, None
    if ending in (".npy", ".npz"):
        with npz.reading(path, f"an {ending} file of numeric arrays") as stream:
            member, layout = ("", _of_npy(stream, size)) if ending == ".npy" else _of_npz(stream, member)
    return File(path, size, changed, member, layout)


def _of_npy(stream: BinaryIO, end: int) -> Layout:
    """Return the layout of the array in .npy format that begins here, and refuse one that does not fit the file."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise FileFormatError(f"the file must have the array format (1, 0) or (2, 0); got {version}: save it again.")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(stream)
    offset, size = stream.tell(), dtype.itemsize * math.prod(shape)
    if dtype.hasobject or offset + size > end:
        got = (
            "Python objects" if dtype.hasobject else f"a file of {end} bytes for an array that ends at {offset + size}"
        )
        raise FileFormatError(f"the file must hold an array of numbers, and all of it; got {got}: write it again.")
    strides = tuple(dtype.itemsize * math.prod(shape[:k]) for k in range(len(shape))) if fortran_order else None
    return Layout(offset, dtype.str, shape, strides)


def _of_npz(stream: BinaryIO, wanted: str) -> tuple[str, Layout | None]:
    """Return the name of the array to take from an .npz file, and its layout unless it is compressed."""
    listed = npz.members(stream, deflated=True)
    name = wanted or next((name for name in MEMBERS if name in listed), next(iter(listed), ""))
    if name not in listed or (not wanted and name not in MEMBERS and len(listed) > 1):
        raise FileFormatError(
            f"the file must hold {wanted or 'x_test or X, or one array'}; got {', '.join(listed)}: name the array of "
            "a source by (file, array)."
        )
    member = listed[name]
    if member.deflated:
        return name, None
    stream.seek(member.place)
    stream.seek(sum(struct.unpack("<26xHH", stream.read(30))), os.SEEK_CUR)
    return name, _of_npy(stream, stream.tell() + member.size)


def _of_map(source: np.memmap) -> File:
    """Return the file of a memory map; a view of one has its own place in the file."""
    path, whole = source.filename, source._mmap  # type: ignore[attr-defined]
    if path is None or source.mode == "c":
        raise ValueError(
            "source must be a map of a file, whose changes are written to it; got one without a file, or of mode 'c': "
            "save it by numpy.save, and pass the name."
        )
    if source.mode != "r":
        source.flush()
    start = source.offset - source.offset % mmap.ALLOCATIONGRANULARITY  # There the map begins.
    offset = start + source.ctypes.data - np.frombuffer(whole, np.uint8).ctypes.data
    found = os.stat(path)
    layout = Layout(offset, source.dtype.str, source.shape, source.strides)
    return File(os.path.abspath(path), found.st_size, found.st_mtime_ns, "", layout)


def _check(path: str, dtype: Any, shape: tuple[int, ...], p: int) -> None:
    """Refuse an array that does not hold samples of p real numbers."""
    shown = checks.printable(path)
    checks.real_array(shown, np.empty(0, dtype))
    if len(shape) < 2 or math.prod(shape[1:]) != p:
        raise ValueError(
            f"source must hold samples of shape (m, p) with p = {p}; got {tuple(shape)} in {shown}: samples are rows."
        )


# --- copies -----------------------------------------------------------------------------------------------------------


def needs_copy(file: File) -> bool:
    """Tell whether the rows of a file cannot be found by their numbers."""
    return file.layout is None and not _is_zarr(file.path)


def copy(file: File, target: str, model: str) -> None:
    """Copy a file to one that can be mapped, unless that is done: a table as inputs (m, p), NaN for a row without any.

    The copy is there as a whole or not at all. `model` is the file of the model, which knows the columns.
    """
    if os.path.exists(target):
        return
    unchanged(file)
    with files.replacing(target) as stream:
        if file.member:
            with zipfile.ZipFile(file.path) as archive, archive.open(f"{file.member}.npy") as member:
                shutil.copyfileobj(member, stream, 1 << 20)
        else:
            for part in samples.source(load(model, mitr=1, grad_mitr=1), Path(file.path)).rows():
                stream.write(np.ascontiguousarray(part.U, np.float64).data)


def copied(file: File, target: str, p: int) -> File:
    """Return the copy of a file, with its layout."""
    size = npz.regular(target)
    if file.member:
        with npz.reading(target, "an .npy file") as stream:
            layout = _of_npy(stream, size)
    else:
        layout = Layout(0, "<f8", (size // (8 * p), p))
    _check(file.path, layout.dtype, layout.shape, p)
    return File(target, size, os.stat(target).st_mtime_ns, "", layout)


# --- rows -------------------------------------------------------------------------------------------------------------


def pieces(opened: list[File], p: int) -> list[Piece]:
    """Return the rows of all files, one after the other."""
    result, first = [], 0
    for file in opened:
        if file.layout is None:
            array = _zarr(file.path)
            _check(file.path, array.dtype, array.shape, p)
            length = int(array.shape[0])
        else:
            length = file.layout.shape[0]
        result.append(Piece(file, first, length))
        first += length
    return result


def between(all_pieces: list[Piece], start: int, stop: int) -> list[Piece]:
    """Return the pieces that have some of the rows start … stop − 1."""
    begin = max(bisect_right(all_pieces, start, key=_first) - 1, 0)
    return all_pieces[begin : bisect_left(all_pieces, stop, begin, key=_first)]


def _first(piece: Piece) -> int:
    return piece.first


def read(parts: list[Piece], start: int, stop: int) -> np.ndarray:
    """Return the rows start … stop − 1 of a source (stop − start, p), as an array of its own in C order.

    Its place in the memory is hence the same for every layout, on which the last bits of NumPy's products may depend.
    """
    return np.concatenate(list(_rows(parts, start, stop)))


def _rows(parts: list[Piece], start: int, stop: int) -> Iterator[np.ndarray]:
    """Yield the rows start … stop − 1, file by file."""
    for file, first, length in parts:
        a, b = max(start - first, 0), min(stop - first, length)
        if a < b:
            block = _zarr(file.path)[a:b] if file.layout is None else _mapped(file, file.layout)[a:b]
            yield np.ascontiguousarray(block).reshape(b - a, -1)


def _mapped(file: File, layout: Layout) -> np.ndarray:
    """Return the array of a file as a map, after a look at it: a map of a file that was shortened kills the process."""
    unchanged(file)
    whole = np.memmap(file.path, np.uint8, "r")
    return np.ndarray(layout.shape, layout.dtype, whole, layout.offset, layout.strides)


def unchanged(file: File) -> None:
    """Refuse a file that was changed while its rows are predicted."""
    npz.regular(file.path)
    now = os.stat(file.path)
    if (now.st_size, now.st_mtime_ns) != (file.size, file.changed):
        raise OSError(
            f"source must stay as it is; {checks.printable(file.path)} was changed meanwhile: choose a new folder out."
        )


def _zarr(path: str) -> Any:
    """Open an array of zarr."""
    try:
        import zarr
    except ImportError:
        raise ImportError(".zarr arrays need zarr: pip install zarr, or write the array by numpy.save.") from None
    return zarr.open_array(path, mode="r")
