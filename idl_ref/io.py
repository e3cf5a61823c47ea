"""Model files: a JSON header and named arrays, in .npz (NumPy alone) or .safetensors; no pickle, nothing executed.

A file is read with suspicion: its lists of contents are limited in size, and every array must have the name, the dtype
and the shape that the header calls for before a byte of it is loaded. What was loaded must agree with its checksum and
be finite.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

FORMAT, VERSION = "idl_ref model", 1
HEADER_LIMIT = 1 << 20  # bytes
DIRECTORY_LIMIT = 1 << 16  # bytes of the list of members of an archive; ours has less than 1,000
MESSAGE_LIMIT = 600  # characters: a message may quote what the file says
HEADER = "header"

if TYPE_CHECKING:
    import zipfile

Arrays = dict[str, np.ndarray]
Layout = dict[str, tuple[int, ...]]  # name -> shape


class FileFormatError(ValueError):
    """The file is not a model of this library, or it is damaged."""


def write(path: str | os.PathLike[str], settings: dict[str, Any], arrays: Arrays) -> None:
    """Write a model file, all or nothing: a temporary file beside it is renamed at the end."""
    from uuid import uuid4

    target = Path(path)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite to be saved; got NaN or inf: the training has diverged.")
    checksums = {name: _checksum(array) for name, array in arrays.items()}
    header = json.dumps({"format": FORMAT, "version": VERSION, **settings, "crc32": checksums}, ensure_ascii=False)
    writer = _WRITERS[_kind(target)]
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot save {target}: there is no folder {target.parent}.")
    draft = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        with draft.open("xb") as stream:
            writer(stream, header, arrays)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def read(
    path: str | os.PathLike[str], layout: Callable[[dict[str, Any]], tuple[Layout, np.dtype]]
) -> tuple[dict[str, Any], Arrays]:
    """The header and the arrays of a model file.

    `layout` takes the header to the shapes and the dtype that the arrays must have.

    Raises
    ------
    FileFormatError
        A damaged, foreign or inconsistent file; nothing of it is loaded.
    OSError
        A file that cannot be opened.
    """
    source = Path(path)
    reader = _READERS[_kind(source)]
    if not source.is_file():
        raise FileNotFoundError(f"there is no file {source}.")
    try:
        header, arrays = reader(source, layout)
        if header.get("crc32") != {name: _checksum(array) for name, array in arrays.items()}:
            raise FileFormatError("damaged: the checksums of its arrays do not agree.")
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise FileFormatError(f"{name} must be finite; got NaN or inf: its training has diverged.")
        return header, arrays
    except FileFormatError as reason:
        text = str(reason)
        text = text if len(text) <= MESSAGE_LIMIT else f"{text[:MESSAGE_LIMIT]} …"
        raise FileFormatError(f"{source}: {text}") from None


def _kind(path: Path) -> str:
    if path.suffix not in _WRITERS:
        raise ValueError(f"a model file ends in .npz or .safetensors; got {str(path)!r}.")
    return path.suffix


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def _parse(text: bytes | str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise FileFormatError("not a model of idl_ref: its header is not JSON.") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise FileFormatError("not a model of idl_ref: its header does not say so.")
    if header.get("version") != VERSION:
        raise FileFormatError(
            f"format version {header.get('version')!r}; this idl_ref reads version {VERSION}: update idl_ref."
        )
    return header


def _check_names(found: set[str], expected: Layout) -> None:
    if found != set(expected):
        raise FileFormatError(f"must hold the arrays {sorted(expected)}; got {sorted(found)[:9]}.")


def _check_array(name: str, shape: tuple[int, ...], dtype: Any, expected: tuple[int, ...], expected_dtype: Any) -> None:
    if shape != expected or dtype != expected_dtype:
        raise FileFormatError(f"{name} must be {expected} {expected_dtype}; got {shape} {dtype}.")


def _write_npz(stream: BinaryIO, header: str, arrays: Arrays) -> None:
    text = np.frombuffer(header.encode(), np.uint8)
    np.savez(stream, **{HEADER: text, **arrays})  # type: ignore[arg-type]


def _check_directory(path: Path) -> None:
    """Refuse an archive with a long list of members, before anybody reads that list.

    The last 22 bytes of an archive say at byte 12 how long the list is. Of an archive of more than 2 GB, a locator of
    20 bytes stands before them, and before that a record of 56 bytes which says it at byte 40.
    """
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - 98))
        record, locator, end = (part := stream.read().rjust(98, b"\0"))[:56], part[56:76], part[76:]
    if not end.startswith(b"PK\5\6") or end[20:] != b"\0\0":
        raise FileFormatError("damaged or not an .npz file (it does not end as one).")
    size = int.from_bytes(end[12:16], "little")
    if locator.startswith(b"PK\6\7") and record.startswith(b"PK\6\6"):
        size = int.from_bytes(record[40:48], "little")
    if size > DIRECTORY_LIMIT:
        raise FileFormatError(f"its list of members has {size} bytes, more than {DIRECTORY_LIMIT}.")


def _read_npz(path: Path, layout: Callable[[dict[str, Any]], tuple[Layout, np.dtype]]) -> tuple[dict, Arrays]:
    import zipfile

    _check_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            if HEADER not in members:
                raise FileFormatError("not a model of idl_ref: it has no header.")
            header = _parse(_read_header(archive))
            if sum(entry.file_size for entry in members.values()) > path.stat().st_size:
                raise FileFormatError("damaged: it claims to hold more than its size.")  # as a zip bomb does
            shapes, dtype = layout(header)
            _check_names(set(members) - {HEADER}, shapes)
            return header, {name: _read_member(archive, name, shape, dtype) for name, shape in shapes.items()}
    except FileFormatError:
        raise
    except Exception as reason:  # hostile bytes make zipfile and NumPy raise nearly anything
        raise FileFormatError(f"damaged or not an .npz file ({type(reason).__name__}).") from None


def _read_header(archive: zipfile.ZipFile) -> bytes:
    size = archive.getinfo(f"{HEADER}.npy").file_size
    if size <= HEADER_LIMIT:
        shape, dtype = _described(archive, HEADER)
        if len(shape) != 1 or dtype != np.uint8:
            raise FileFormatError("not a model of idl_ref: its header is not JSON.")
        size = max(size, shape[0])
    if size > HEADER_LIMIT:
        raise FileFormatError(f"its header has {size} bytes, more than {HEADER_LIMIT}.")
    with archive.open(f"{HEADER}.npy") as stream:
        return np.lib.format.read_array(stream, allow_pickle=False).tobytes()


def _read_member(
    archive: zipfile.ZipFile, name: str, expected: tuple[int, ...], expected_dtype: np.dtype
) -> np.ndarray:
    """One array; its own description is checked against what is expected before the data is read."""
    shape, dtype = _described(archive, name)
    _check_array(name, shape, dtype, expected, expected_dtype)
    if archive.getinfo(f"{name}.npy").file_size < dtype.itemsize * math.prod(shape):
        raise FileFormatError(f"damaged: {name} is shorter than its shape {shape}.")
    with archive.open(f"{name}.npy") as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _described(archive: zipfile.ZipFile, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of an array as it describes itself."""
    with archive.open(f"{name}.npy") as stream:
        version = np.lib.format.read_magic(stream)
        if version != (1, 0):
            raise FileFormatError(f"{name} has array format {version}; (1, 0) is what idl_ref writes.")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    return shape, dtype


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError:
        raise ImportError(
            '.safetensors files need the package safetensors: pip install "idl-ref[io]", or use .npz.'
        ) from None
    return safetensors


def _write_safetensors(stream: BinaryIO, header: str, arrays: Arrays) -> None:
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    stream.write(_safetensors().numpy.save(contiguous, metadata={HEADER: header}))


def _read_safetensors(path: Path, layout: Callable[[dict[str, Any]], tuple[Layout, np.dtype]]) -> tuple[dict, Arrays]:
    package = _safetensors()
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
        if size > HEADER_LIMIT:
            raise FileFormatError(f"its header has {size} bytes, more than {HEADER_LIMIT}.")
        with package.safe_open(path, framework="numpy") as archive:
            header = _parse((archive.metadata() or {}).get(HEADER, ""))
            shapes, dtype = layout(header)
            _check_names(set(archive.keys()), shapes)
            code = {"float32": "F32", "float64": "F64"}[dtype.name]
            for name, shape in shapes.items():
                part = archive.get_slice(name)
                _check_array(name, tuple(part.get_shape()), part.get_dtype(), shape, code)
            return header, {name: archive.get_tensor(name) for name in shapes}
    except package.SafetensorError as reason:
        raise FileFormatError(f"damaged or not a .safetensors file ({reason}).") from None


_WRITERS = {".npz": _write_npz, ".safetensors": _write_safetensors}
_READERS = {".npz": _read_npz, ".safetensors": _read_safetensors}
