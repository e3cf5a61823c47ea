"""Model files: a JSON header and named arrays, in .npz (NumPy alone) or .safetensors; no pickle, nothing executed.

A file is read with suspicion: its lists of contents are limited in size, and every array must have the name, the dtype
and the shape that the header calls for before a byte of it is loaded. What was loaded must agree with its checksum and
be finite.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from idl_ref import npz
from idl_ref.npz import FileFormatError

__all__ = ["FileFormatError"]

FORMAT, VERSION = "idl_ref model", 1
HEADER_LIMIT = 1 << 20  # bytes
MESSAGE_LIMIT = 600  # characters: a message may quote what the file says
HEADER = "header"

Arrays = dict[str, np.ndarray]
Layout = dict[str, tuple[int, ...]]  # name -> shape
Describe = Callable[[dict[str, Any]], tuple[Layout, np.dtype]]  # of a header


def write(path: str | os.PathLike[str], settings: dict[str, Any], arrays: Arrays) -> None:
    """Write a model file, all or nothing: a temporary file beside it is renamed at the end."""
    from pathlib import Path  # like uuid, not for a model that is loaded to predict
    from uuid import uuid4

    target = Path(path)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite to be saved; got NaN or inf: the training has diverged.")
    checksums = {name: _checksum(array) for name, array in arrays.items()}
    header = json.dumps({"format": FORMAT, "version": VERSION, **settings, "crc32": checksums}, ensure_ascii=False)
    writer = _WRITERS[_kind(str(target))]
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


def read(path: str | os.PathLike[str], layout: Describe) -> tuple[dict[str, Any], Arrays]:
    """The header and the arrays of a model file.

    `layout` takes the header to the shapes and the dtype that the arrays must have.

    Raises
    ------
    FileFormatError
        A damaged, foreign or inconsistent file; nothing of it is loaded.
    OSError
        A file that cannot be opened.
    """
    source = os.fspath(path)
    reader = _READERS[_kind(source)]
    if not os.path.isfile(source):
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


def _kind(path: str) -> str:
    suffix = os.path.splitext(path)[1]
    if suffix not in _WRITERS:
        raise ValueError(f"a model file ends in .npz or .safetensors; got {path!r}.")
    return suffix


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


def _read_npz(path: str, layout: Describe) -> tuple[dict, Arrays]:
    try:
        with open(path, "rb") as stream:
            members = npz.members(stream)
            if HEADER not in members:
                raise FileFormatError("not a model of idl_ref: it has no header.")
            header = _parse(_read_header(stream, members[HEADER]))
            shapes, dtype = layout(header)
            _check_names(set(members) - {HEADER}, shapes)
            for name, shape in shapes.items():
                found = npz.describe(stream, members[name])
                _check_array(name, found[0], found[2], shape, dtype)
            return header, {name: npz.read(stream, members[name]) for name in shapes}
    except FileFormatError:
        raise
    except Exception as reason:  # hostile bytes make NumPy raise nearly anything
        raise FileFormatError(f"damaged or not an .npz file ({type(reason).__name__}).") from None


def _read_header(stream: BinaryIO, member: npz.Member) -> bytes:
    size = member.size
    if size <= HEADER_LIMIT:
        shape, _, dtype, _ = npz.describe(stream, member)
        if len(shape) != 1 or dtype != np.uint8:
            raise FileFormatError("not a model of idl_ref: its header is not JSON.")
        size = max(size, shape[0])
    if size > HEADER_LIMIT:
        raise FileFormatError(f"its header has {size} bytes, more than {HEADER_LIMIT}.")
    return npz.read(stream, member).tobytes()


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


def _read_safetensors(path: str, layout: Describe) -> tuple[dict, Arrays]:
    package = _safetensors()
    try:
        with open(path, "rb") as stream:
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
