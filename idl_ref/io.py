"""This module reads and writes model files, which hold a JSON header and named arrays.

The formats are .npz, for which NumPy suffices, and .safetensors. No pickle is used, and nothing in a file is executed.
The contents of a file are not trusted: the header and the list of arrays have a limited size, and no array is loaded
unless its name, dtype and shape are those that follow from the header. Every loaded array must agree with its checksum
and be finite.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable
from functools import partial
from typing import IO, Any, BinaryIO

import numpy as np

from idl_ref import npz
from idl_ref.npz import FileFormatError

__all__ = ["FileFormatError"]

FORMAT, VERSION = "idl_ref model", 2
READABLE = (1, 2)  # The versions that this module reads; in version 1, the header held the preprocessing.
HEADER_LIMIT = 1 << 20  # The largest size of a header in bytes.
HEADER = "header"

Arrays = dict[str, np.ndarray]
Layout = dict[str, tuple[int, ...]]  # The shape of every array by its name.
Describe = Callable[[dict[str, Any]], tuple[Layout, dict[str, np.dtype]]]  # Takes a header to shapes and dtypes.


def write(path: str | os.PathLike[str], settings: dict[str, Any], arrays: Arrays, form: str = FORMAT) -> None:
    """Write a model file, or another `form` of file, atomically: beside its target, and then renamed."""
    from idl_ref import files  # Imported here, because loading a model for prediction does not need it.

    source = os.fspath(path)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite to be saved; got NaN or inf: the training has diverged.")
    checksums = {name: _checksum(array) for name, array in arrays.items()}
    header = json.dumps({"format": form, "version": VERSION, **settings, "crc32": checksums}, ensure_ascii=False)
    writer = _WRITERS[_kind(source)]
    with files.replacing(source) as stream:
        writer(stream, header, arrays)


def read(path: str | os.PathLike[str], layout: Describe, form: str = FORMAT) -> tuple[dict[str, Any], Arrays]:
    """Return the header and the arrays of a model file.

    `layout` computes from the header the shapes and the dtypes that the arrays must have.

    Raises
    ------
    FileFormatError
        The file is damaged, inconsistent, or not a model file; nothing of it is returned.
    OSError
        The file cannot be opened.
    """
    source = os.fspath(path)
    suffix = _kind(source)
    package = _safetensors() if suffix == ".safetensors" else None
    with npz.reading(source, f"a {suffix} file") as stream:
        reader = partial(_read_npz, stream) if package is None else partial(_read_safetensors, package, stream)
        header, arrays = reader(layout, form)
        if header.get("crc32") != {name: _checksum(array) for name, array in arrays.items()}:
            raise FileFormatError("the file is damaged: the checksums of its arrays do not agree.")
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise FileFormatError(f"{name} must be finite; got NaN or inf: the training has diverged.")
    return header, arrays


def _kind(path: str) -> str:
    """Return the ending of a path, which determines the format."""
    suffix = os.path.splitext(path)[1]
    if suffix not in _WRITERS:
        raise ValueError(f"a model file must end in .npz or .safetensors; got {path!r}: choose another name.")
    return suffix


def _checksum(array: np.ndarray) -> int:
    """Return the CRC-32 of the entries of an array in C order."""
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def _parse(text: bytes | str, form: str) -> dict[str, Any]:
    """Return the header from its JSON text, and refuse a file of another program or version."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise FileFormatError(f"the file is not an {form}: its header is not JSON.") from None
    if not isinstance(header, dict) or header.get("format") != form:
        raise FileFormatError(f'the file is not an {form}: the format in its header is not "{form}".')
    if type(header.get("version")) is not int or header["version"] not in READABLE:
        raise FileFormatError(
            f"the format version must be 1 or {VERSION} for this idl_ref; "
            f"got {header.get('version')!r}: update idl_ref."
        )
    return header


def _check_names(found: set[str], expected: Layout) -> None:
    """Refuse a file whose arrays do not have the expected names."""
    if found != set(expected):
        raise FileFormatError(f"the file must hold the arrays {sorted(expected)}; got {sorted(found)[:9]}.")


def _check_array(name: str, shape: tuple[int, ...], dtype: Any, expected: tuple[int, ...], expected_dtype: Any) -> None:
    """Refuse an array whose shape or dtype is not the expected one."""
    if shape != expected or dtype != expected_dtype:
        raise FileFormatError(
            f"{name} must have shape {expected} and dtype {expected_dtype}; got shape {shape} and dtype {dtype}."
        )


def _write_npz(stream: IO[bytes], header: str, arrays: Arrays) -> None:
    """Write the header, as an array of bytes, and the arrays to an .npz archive."""
    text = np.frombuffer(header.encode(), np.uint8)
    np.savez(stream, **{HEADER: text, **arrays})  # type: ignore[arg-type]


def _read_npz(stream: BinaryIO, layout: Describe, form: str) -> tuple[dict, Arrays]:
    """Return the header and the arrays of an .npz file."""
    members = npz.members(stream)
    if HEADER not in members:
        raise FileFormatError(f"the file is not an {form}: it has no header.")
    header = _parse(_read_header(stream, members[HEADER]), form)
    shapes, dtypes = layout(header)
    _check_names(set(members) - {HEADER}, shapes)
    for name, shape in shapes.items():
        found = npz.describe(stream, members[name])
        _check_array(name, found[0], found[2], shape, dtypes[name])
    return header, {name: npz.read(stream, members[name]) for name in shapes}


def _read_header(stream: BinaryIO, member: npz.Member) -> bytes:
    """Return the text of the header of an .npz file, whose size is checked before it is read."""
    size = member.size
    if size <= HEADER_LIMIT:
        shape, _, dtype, _ = npz.describe(stream, member)
        if len(shape) != 1 or dtype != np.uint8:
            raise FileFormatError("the header of the file is not JSON.")
        size = max(size, shape[0])
    if size > HEADER_LIMIT:
        raise FileFormatError(f"the header of the file must have at most {HEADER_LIMIT} bytes; got {size}.")
    return npz.read(stream, member).tobytes()


def _safetensors() -> Any:
    """Import the package safetensors, or say how to install it."""
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError(
            '.safetensors files need the package safetensors: pip install "idl-ref[io]", or use .npz.'
        ) from None
    return safetensors


def _write_safetensors(stream: IO[bytes], header: str, arrays: Arrays) -> None:
    """Write the header, as metadata, and the arrays in the format of safetensors."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    stream.write(_safetensors().numpy.save(contiguous, metadata={HEADER: header}))


def _read_safetensors(package: Any, stream: BinaryIO, layout: Describe, form: str) -> tuple[dict, Arrays]:
    """Return the header and the arrays of a .safetensors file.

    The file is read, not mapped into memory: access to a mapped file that somebody shortens kills the process. The
    JSON at its start is checked before the arrays are read.
    """
    size = int.from_bytes(stream.read(8), "little")
    if size > HEADER_LIMIT:
        raise FileFormatError(f"the header of the file must have at most {HEADER_LIMIT} bytes; got {size}.")
    listed = json.loads(stream.read(size))
    header = _parse((listed.pop("__metadata__", None) or {}).get(HEADER, ""), form)
    shapes, dtypes = layout(header)
    _check_names(set(listed), shapes)
    codes = {"float32": "F32", "float64": "F64", "int32": "I32", "int64": "I64"}
    length = 8 + size
    for name, shape in shapes.items():
        _check_array(name, tuple(listed[name]["shape"]), listed[name]["dtype"], shape, codes[dtypes[name].name])
        length += dtypes[name].itemsize * math.prod(shape)
    stream.seek(0)
    arrays = package.numpy.load(stream.read(length + 1))
    return header, {name: arrays[name] for name in shapes}


_WRITERS = {".npz": _write_npz, ".safetensors": _write_safetensors}
