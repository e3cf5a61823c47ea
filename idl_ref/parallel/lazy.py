"""This module has certified predictions of a dask.array, which are computed block by block when they are asked for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from idl_ref import checks
from idl_ref.blas import one_thread
from idl_ref.predictor import Prediction, Predictor

if TYPE_CHECKING:
    from types import ModuleType

ROWS = 1024


def certified(predictor: Predictor, U: Any, *, rows: int = ROWS) -> Prediction:
    """Return what `predictor.certified` returns, for a dask.array of inputs: five lazy arrays instead of five arrays.

    Nothing is computed before `compute`, `dask.compute`, `store` or `to_zarr` asks for it.

    Parameters
    ----------
    predictor : Predictor
        A frozen model, `model.freeze()`. It stands once in the graph, not once per block.
    U : (m, p) dask.array
        Inputs, one sample per row. For a model with preprocessing, they are raw samples, and may have shape (m, …).
    rows : int
        The samples of one call of `predictor.certified`. The calls take the rows 0 … rows − 1, rows … 2 rows − 1, …
        however U is divided into chunks; U is divided anew where its chunks do not end there.

    Returns
    -------
    Prediction
        Y (m, q), error_bound (m,), status (m,), iterations (m,) and step (m,), as dask arrays whose chunks are whole
        multiples of `rows`. The bits are those of `predictor.certified` for the same rows, for all chunks of U.

    Raises
    ------
    ImportError
        dask is not installed.
    ValueError, TypeError
        Something else than a Predictor or a dask.array, a wrong shape or dtype, or chunks of unknown sizes.

    Notes
    -----
    Ask for all that you need in one call, `dask.compute(p.Y, p.status)` or `dask.array.store([…], […])`: five calls
    solve all equations five times. Memory is that of the chunks in work, each with its U and its Y, and of the graph,
    which has about 2 kB per chunk and array; `compute` also brings the whole answer into this process. For data that
    are larger than the memory, `predict_file` writes files, resumes, and needs memory that does not grow.
    Cost: that of `predictor.certified`.

    Examples
    --------
    >>> import dask.array
    >>> from idl_ref import ImplicitModel
    >>> predictor = ImplicitModel(4, 3, 20, seed=0).freeze()
    >>> p = certified(predictor, dask.array.ones((5000, 4), chunks=(700, 2)))
    >>> p.Y
    dask.array<take_field, shape=(5000, 3), dtype=float32, chunksize=(1024, 3), chunktype=numpy.ndarray>
    >>> bool((p.error_bound < 1e-3).all().compute())
    True
    """
    da = _dask_array()
    if not isinstance(predictor, Predictor):
        raise TypeError(
            f"predictor must be a Predictor; got {checks.shown(predictor)}: pass model.freeze(), "
            "or idl_ref.load(path).freeze()."
        )
    rows = checks.integer("rows", rows, 1)
    U = _on_the_grid(_inputs(da, predictor, U), rows)
    record = _record(predictor)
    records = da.map_blocks(
        certify_rows,
        U,
        predictor=_once(predictor),
        rows=rows,
        record=record,
        drop_axis=list(range(1, U.ndim)),
        meta=np.empty(0, record),
    )
    return Prediction(**{name: _field(da, records, name, record[name]) for name in record.names or ()})


def certify_rows(U: np.ndarray, predictor: Predictor, rows: int, record: np.dtype) -> np.ndarray:
    """Return one record (m,) per sample of a chunk U (m, …), by a call of `certified` for every `rows` samples."""
    answers = np.empty(len(U), record)
    with one_thread(predictor.backend):
        for first in range(0, len(U), rows):
            prediction = predictor.certified(np.ascontiguousarray(U[first : first + rows]))
            for name in record.names or ():
                answers[name][first : first + rows] = getattr(prediction, name)
    return answers


def take_field(records: np.ndarray, field: str) -> np.ndarray:
    """Return one field of the records of a chunk, as an array of its own, so that the records can be freed."""
    return np.ascontiguousarray(records[field])


def _field(da: ModuleType, records: Any, name: str, kind: np.dtype) -> Any:
    """Return a field of all records, a dask array of shape (m,), or (m, q) where the field is a row."""
    meta = np.empty((0, *kind.shape), kind.base)
    row = {"new_axis": 1, "chunks": (records.chunks[0], kind.shape)} if kind.shape else {}
    return da.map_blocks(take_field, records, field=name, meta=meta, **row)


def _record(predictor: Predictor) -> np.dtype:
    """Return the dtype of all that is said about one sample."""
    s = predictor.settings
    fields = [("Y", s.dtype, (s.output_dim,)), ("error_bound", "f8"), ("status", "i1"), ("iterations", np.intp)]
    return np.dtype([*fields, ("step", "f8")])


def _once(predictor: Predictor) -> Any:
    """Return the predictor as a task of its own; given as it is, it would stand in the graph once per block."""
    import dask

    return dask.delayed(predictor, pure=True, traverse=False)


def _inputs(da: ModuleType, predictor: Predictor, U: Any) -> Any:
    """Return U after checking that it is a dask array of inputs for the predictor, with chunks of known sizes."""
    if not isinstance(U, da.Array):
        raise TypeError(
            f"U must be a dask.array; got {type(U).__name__}: use dask.array.from_array(U, chunks=({ROWS}, -1)), "
            "or predictor.certified for an array in memory."
        )
    p, raw = predictor.settings.input_dim, predictor.preprocessing is not None
    if math.isnan(math.prod(U.shape)):
        raise ValueError(f"U must have chunks of known sizes; got the shape {U.shape}: call U.compute_chunk_sizes().")
    if U.ndim < 2 or math.prod(U.shape[1:]) != p or (U.ndim > 2 and not raw):
        flat = U.ndim > 2 and math.prod(U.shape[1:]) == p
        way_out = f"flatten each sample, U.reshape(len(U), {p})." if flat else "samples are rows."
        raise ValueError(f"U must have shape (m, p) with p = {p}; got {U.shape}: {way_out}")
    if U.dtype.kind not in "biuf" or U.dtype.itemsize > 8:
        raise TypeError(
            f"U must hold real numbers of at most 64 bits; got dtype {U.dtype}: convert it first, U.astype(float)."
        )
    return U


def _on_the_grid(U: Any, rows: int) -> Any:
    """Return U in chunks of whole samples that end at multiples of `rows`, about as long as its longest chunk."""
    longest = max(U.chunks[0], default=0)
    return U.rechunk({0: max(rows, longest // rows * rows), **dict.fromkeys(range(1, U.ndim), -1)})


def _dask_array() -> ModuleType:
    """Return the module dask.array, or say what it is for."""
    try:
        import dask.array
    except ImportError:
        raise ImportError(
            'parallel.certified needs dask: pip install "idl-ref[dask]", or use parallel.predict_file.'
        ) from None
    return dask.array
