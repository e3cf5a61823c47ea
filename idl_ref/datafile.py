"""Data files: .npz with named arrays, in the layout of Keras' mnist.npz."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from idl_ref import checks


def labelled(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The four arrays of a data file, checked against each other."""
    names = ("x_train", "y_train", "x_test", "y_test")
    found = arrays(path)
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{path} must hold {', '.join(names)}; got {', '.join(found) or 'no arrays'}.")
    x_train, y_train, x_test, y_test = (checks.real_array(name, found[name]) for name in names)
    for x, y, part in ((x_train, y_train, "train"), (x_test, y_test, "test")):
        if x.ndim < 2 or y.ndim != 1 or len(x) != len(y):
            raise ValueError(
                f"x_{part} must be (m, …) samples and y_{part} (m,) labels; got {x.shape} and {y.shape} in {path}."
            )
    if x_train.shape[1:] != x_test.shape[1:]:
        raise ValueError(f"x_train and x_test must have samples of one shape; got {x_train.shape} and {x_test.shape}.")
    if not len(x_train):
        raise ValueError(f"x_train must hold at least one sample; got {x_train.shape} in {path}.")
    if y_train.dtype.kind not in "iu" or y_train.min() < 0:
        raise ValueError(f"y_train must be whole-number labels 0, 1, 2, …; got {y_train.dtype} from {y_train.min()}.")
    return x_train, y_train, x_test, y_test


def arrays(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}.")
    try:
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            return {name: archive[name] for name in archive.files}
    except (MemoryError, PermissionError):
        raise
    except Exception:  # hostile bytes make zipfile and NumPy raise nearly anything
        raise ValueError(f"{path} must be a .npz file of plain arrays, as numpy.savez writes it.") from None
