"""This module writes the outputs of a prediction to a folder, some rows at a time, so that no kill loses or spoils any.

The folder holds `predict.json`, which says what belongs to it; `model.npz`; and an .npy file for each output. `status`
is −1 for rows that are not done. It is written last for each task, after all else is on the disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from idl_ref import checks, files, npz
from idl_ref.npz import FileFormatError

LABEL, MODEL, STATUS = "predict.json", "model.npz", "status"
FORM = "idl_ref predictions"
FIELDS = {"Y": "", "error_bound": "<f8", "iterations": "<i8", "step": "<f8", STATUS: "|i1"}  # Y has the model's dtype.
UNDONE = -1
SPACE = 1 << 24  # A new file is filled in pieces of so many bytes.
LABEL_LIMIT = 1 << 16  # The largest size of predict.json in bytes.


class Folder:
    """The folder of the outputs of one model for one source."""

    def __init__(self, path: Any) -> None:
        self.path = Path(os.path.abspath(path))
        self.shown = checks.printable(path)

    @property
    def model(self) -> Path:
        """The file of the model."""
        return self.path / MODEL

    def file(self, name: str) -> Path:
        """The file of an output."""
        return self.path / f"{name}.npy"

    # --- what belongs to it -------------------------------------------------------------------------------------------

    def claim(self, mark: Mapping[str, Any]) -> dict[str, Any]:
        """Take the folder for predictions with this fingerprint, and return what its label says.

        A folder of other predictions, or one with files that are not ours, is refused before anything is written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"out must be a folder; {self.shown} is a file: choose another name.")
        label = self.path / LABEL
        if label.exists():
            return self._checked(label, mark)
        if self.path.exists() and (others := [name for name in os.listdir(self.path) if name[0] != "."]):
            raise FileExistsError(
                f"out must be a new folder, an empty one, or one of an earlier call; got {self.shown} with "
                f"{checks.printable(min(others))}: choose another name."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_label(dict(mark))
        return dict(mark)

    def _checked(self, label: Path, mark: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of the label, and refuse one of other predictions."""
        try:
            found = json.loads(npz.whole(label, LABEL_LIMIT))
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get("form") != FORM:
            raise FileFormatError(f"out must have a whole {LABEL}; that of {self.shown} is damaged: delete the folder.")
        for name, value in mark.items():
            if found.get(name) != value:
                raise ValueError(
                    f"out must belong to this call; the {name} of {self.shown} is {checks.shown(found.get(name))}, and "
                    f"that of this call is {checks.shown(value)}: choose another folder, or delete this one."
                )
        return found

    def write_label(self, content: Mapping[str, Any]) -> None:
        """Write the label, as a whole or not at all."""
        with files.replacing(self.path / LABEL, "w") as stream:
            json.dump({"form": FORM, **content}, stream, indent=1)

    # --- arrays -------------------------------------------------------------------------------------------------------

    def create(self, m: int, q: int, dtype: str) -> None:
        """Create the arrays. All their space is taken at once, so that a full disk is seen before the work begins."""
        for name, kind in FIELDS.items():  # status is the last one, and stands for all.
            shape = (m, q) if name == "Y" else (m,)
            try:
                with files.replacing(self.file(name)) as stream:
                    _write_empty(stream, np.dtype(kind or dtype), shape, UNDONE if name == STATUS else 0)
            except OSError as reason:
                raise type(reason)(
                    f"out must have space for {m} rows; {self.file(name).name} in {self.shown} could not be written "
                    f"({reason.strerror or reason}): free some, or choose another folder, and call again."
                ) from reason

    def opened(self, q: int, dtype: str) -> dict[str, np.ndarray] | None:
        """Return the arrays as read-only maps; None if they are not created yet.

        Raises FileFormatError for a file that is missing, truncated, or has another layout.
        """
        if not self.file(STATUS).exists():
            return None
        arrays: dict[str, np.ndarray] = {}
        for name in reversed(FIELDS):
            arrays[name] = array = self._mapped(name)
            m = len(arrays[STATUS])
            due = np.dtype(FIELDS[name] or dtype), ((m, q) if name == "Y" else (m,))
            if (array.dtype, array.shape) != due:
                raise FileFormatError(
                    f"{self.file(name).name} of out must be {due[0]} of shape {due[1]}; got {array.dtype} of shape "
                    f"{array.shape} in {self.shown}: delete the folder, and call again."
                )
        return {name: arrays[name] for name in FIELDS}

    def _mapped(self, name: str) -> np.ndarray:
        """Return the array of a file as a map."""
        path = self.file(name)
        try:
            npz.regular(path)
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if os.path.getsize(path) != array.offset + array.nbytes:
                raise ValueError(f"{os.path.getsize(path)} bytes for {array.nbytes} and a head")
        except (ValueError, OSError, EOFError) as reason:
            raise FileFormatError(
                f"{path.name} of out must be as it was written; it is missing or damaged in {self.shown} "
                f"({checks.printable(reason)}): delete the folder, and call again."
            ) from None
        return array


def _write_empty(stream: IO[Any], dtype: np.dtype, shape: tuple[int, ...], value: int) -> None:
    """Write an array of equal entries, a piece at a time."""
    np.lib.format.write_array_header_1_0(
        stream, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )
    left = dtype.itemsize * int(np.prod(shape, dtype=object))
    while left > 0:
        stream.write(bytes([value % 256]) * min(left, SPACE))
        left -= SPACE


def write(folder: str, start: int, found: Mapping[str, np.ndarray]) -> None:
    """Write outputs from row `start` on: first all but status, which then is on the disk, and status last."""
    for name, kind in FIELDS.items():
        array = found[name]
        with open(os.path.join(folder, f"{name}.npy"), "r+b", buffering=0) as stream:
            version = np.lib.format.read_magic(stream)
            if version != (1, 0):
                raise FileFormatError(f"{name}.npy of out must be as it was written; got the array format {version}.")
            shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
            if start + len(array) > shape[0] or shape[1:] != array.shape[1:] or (kind and dtype != kind):
                raise FileFormatError(f"{name}.npy of out must be as it was written; got {dtype} of shape {shape}.")
            data = np.ascontiguousarray(array, dtype)
            stream.seek(start * (data.nbytes // max(len(data), 1)), os.SEEK_CUR)
            _write_all(stream, data)
            os.fsync(stream.fileno())


def _write_all(stream: IO[Any], data: np.ndarray) -> None:
    """Write all bytes of an array: a full disk may take a part of them without an error."""
    left = memoryview(data.tobytes())
    while left:
        left = left[stream.write(left) :]


def undone(status: np.ndarray, rows: int, per_task: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of rows (start, stop) that are not done: whole blocks of the grid, at most `per_task` in a range.

    Only a part of the array is in the memory at a time.
    """
    m, begin = len(status), None
    for start in range(0, m, rows):
        stop = min(start + rows, m)
        missing = bool((status[start:stop] == UNDONE).any())
        if begin is not None and (not missing or start - begin == rows * per_task):
            yield begin, start
            begin = None
        if missing and begin is None:
            begin = start
    if begin is not None:
        yield begin, m
