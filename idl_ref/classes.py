"""This module maps labels of any kind, such as names or years, to the classes 0 … K − 1 that a loss takes, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from idl_ref import checks

FEW = 10  # So many different labels are never suspected to be numbers.
MANY = 1000  # With more different labels than this, each must have MANY_SAMPLES samples on average.
SAMPLES, MANY_SAMPLES = 2, 10


def find(name: str, labels: Any) -> np.ndarray:
    """Return the sorted classes (K,) of the labels (m,) of a training set.

    ValueError or TypeError is raised for labels that look like measured numbers, and if there is only one class.
    """
    array = _array(name, labels)
    classes, m = np.unique(array), len(array)
    K = len(classes)
    if K > FEW and (m < SAMPLES * K or (K > MANY and m < MANY_SAMPLES * K)):
        raise ValueError(
            f"{name} must be class labels; got {K} different ones, from {_shown(classes[:1])} to "
            f"{_shown(classes[-1:])}, for {m} samples, which look like measured numbers or names of samples: group "
            'them into fewer classes; to predict numbers, use loss="mse", or --task regress.'
        )
    if K < 2:
        got = f"only {_shown(classes)}" if K else "none"
        raise ValueError(f"{name} must hold at least two classes; got {got}: add samples of another class.")
    return checked(name, classes, K)


def checked(name: str, classes: Any, q: int) -> np.ndarray:
    """Return classes as a read-only array (q,), and refuse those that are not q different whole numbers or names."""
    array = np.array(_array(name, classes))
    if len(array) != q or len(np.unique(array)) != q:
        raise ValueError(
            f"{name} must be {q} different classes, one per output of the model; got {len(np.unique(array))} different "
            f"ones, {_shown(array)}: use numpy.unique(labels), and output_dim=len(classes)."
        )
    if array.dtype.kind == "U" and not all(word and word.isprintable() for word in array.tolist()):
        raise ValueError(
            f"{name} must have names of printable characters, at least one each, because an empty label stands for a "
            f"sample that failed; got {_shown(array)}: rename the others."
        )
    array.flags.writeable = False
    return array


def like(name: str, labels: Any, classes: np.ndarray) -> np.ndarray:
    """Return labels (m,) as an array, and refuse words for classes that are numbers, and numbers for words."""
    array = _array(name, labels, classes.dtype)
    if (array.dtype.kind == "U") != (classes.dtype.kind == "U"):
        kind = "int" if array.dtype.kind == "U" else "str"
        raise TypeError(
            f"{name} must hold labels of the kind of the classes {_shown(classes)}; got {array.dtype}, such as "
            f"{_shown(array[:1])}: convert them, for example with astype({kind})."
        )
    return array


def index(name: str, labels: Any, classes: np.ndarray) -> np.ndarray:
    """Return the number of the class of each label (m,), and refuse a label that is not among the classes."""
    array = like(name, labels, classes)
    given, lost = array, np.zeros(array.shape, bool)
    if np.result_type(array, classes).kind == "f":  # int64 and uint64, which would meet in float64
        array = given.astype(classes.dtype)
        lost = (array < 0) != (given < 0)
    order = np.argsort(classes, kind="stable")
    found = order[np.searchsorted(classes, array, sorter=order).clip(max=len(classes) - 1)]
    wrong = (classes[found] != array) | lost
    if wrong.any():
        unknown = np.unique(given[wrong])
        raise ValueError(
            f"{name} must hold only the classes {_shown(classes)}; got also {_shown(unknown)} in {int(wrong.sum())} of "
            f"{len(array)} samples: train with samples of these classes, or leave the samples out."
        )
    return found


def encoded(loss: Any, targets: Any, classes: np.ndarray | None, name: str = "targets") -> Any:
    """Return targets as a loss takes them: the labels of a model that has classes become numbers 0 … K − 1."""
    return targets if classes is None or loss != "cross_entropy" else index(name, targets, classes)


def plain(classes: np.ndarray | None) -> list | None:
    """Return classes as a list that JSON can hold."""
    return None if classes is None else classes.tolist()


def restored(values: Any, q: int) -> np.ndarray | None:
    """Return the classes that `plain` wrote, and raise ValueError or TypeError for any other value."""
    if values is None:
        return None
    kinds = {type(value) for value in values} if isinstance(values, list) else set()
    if len(kinds) != 1 or not kinds <= {int, str, bool}:
        raise ValueError(f"classes must be a list of {q} whole numbers, or of names.")
    return checked("classes", values, q)


def _array(name: str, labels: Any, empty: Any = None) -> np.ndarray:
    """Return labels (m,) as an array of whole numbers, truth values or words, and refuse every other kind.

    No labels, of which an empty list has no kind, get the dtype `empty` if it is given.
    """
    checks.unmasked(name, labels)
    try:
        array = np.asarray(labels)
        if array.dtype.kind == "f" and isinstance(labels, list) and all(type(label) is int for label in labels):
            array = np.array(labels, np.uint64)  # NumPy makes float64 of numbers on both sides of 2⁶³.
    except (ValueError, OverflowError) as reason:
        raise ValueError(f"{name} must be one label per sample, of at most 64 bits; got {reason}.") from None
    if empty is not None and array.shape == (0,):
        return array.astype(empty)
    if array.ndim != 1:
        way_out = "numpy.argmax(…, axis=1) makes labels of rows that are one-hot" if array.ndim == 2 else "use ravel()"
        raise ValueError(f"{name} must have shape (m,), one label per sample; got {array.shape}: {way_out}.")
    if array.dtype.kind == "O" and all(isinstance(label, str) for label in array):
        return array.astype(str)
    if array.dtype.kind == "S":
        try:
            return np.char.decode(array, "utf-8")
        except UnicodeDecodeError as reason:
            raise ValueError(
                f"{name} must be words in UTF-8, where they are bytes; got {reason.object[:40]!r}: decode them before, "
                'for example with numpy.char.decode(…, "latin-1").'
            ) from None
    if array.dtype.kind == "f":
        odd = array[(array != np.floor(array)) | ~(np.abs(array) < 2**53)]
        if odd.size:
            raise ValueError(
                f"{name} must be class labels; got {array.dtype} numbers such as {odd[0]:g}, which look like measured "
                "numbers: turn them into classes, for example with numpy.digitize; to predict numbers, use "
                'loss="mse", or --task regress.'
            )
        return array.astype(np.int64)
    if array.dtype.kind not in "iubU":
        raise TypeError(
            f"{name} must be whole numbers, truth values or words; got dtype {array.dtype}: convert the labels, for "
            "example with astype(str)."
        )
    return array


def _shown(classes: np.ndarray) -> str:
    """Return some classes in words, of which each is quoted in part if it is long."""
    words = [repr(label) if len(repr(label)) <= 24 else f"{repr(label)[:20]}…" for label in classes[:6].tolist()]
    return ", ".join(words) + (f", … ({len(classes)} in all)" if len(classes) > 6 else "")
