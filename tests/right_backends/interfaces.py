"""Other manners of answering: lists, layouts, threads, answers kept, exceptions, warnings, fewer arrays."""

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from idl_ref.conformance.adapters import Plain
from idl_ref.conformance.truth.backend import EVERYTHING
from idl_ref.conformance.truth.files import digest
from right_backends.base import UNCOUNTED, right


@right
class Lists(Plain):
    """Answers in nested lists of Python numbers."""

    def forward(self, p):
        return {name: np.asarray(M).tolist() for name, M in super().forward(p).items()}

    def vjp(self, p, G_Y):
        return {name: M.tolist() for name, M in super().vjp(p, G_Y).items()}


@right
class Views(Plain):
    """Answers in read-only views of larger arrays, with negative strides."""

    def view(self, M):
        wide = np.full([2 * length + 1 for length in M.shape], np.nan, M.dtype)
        view = wide[tuple(slice(None, None, -2) for _ in M.shape)][tuple(map(slice, M.shape))]
        view[...] = M
        view.flags.writeable = False
        return view

    def forward(self, p):
        out = super().forward(p)
        return {**out, "X": self.view(out["X"]), "Y": self.view(out["Y"])}

    def vjp(self, p, G_Y):
        return {name: self.view(M) for name, M in super().vjp(p, G_Y).items()}


class Blocks(Plain):
    """Solves blocks of columns, and adds the gradients of the weights of all blocks."""

    width = 3

    def map(self, call, parts):
        return list(map(call, parts))

    def blocks(self, p, *others):
        for i in range(0, max(p.U.shape[1], 1), self.width):
            columns = np.s_[:, i : i + self.width]
            part = {name: M[columns] for name, M in p.arrays.items() if name in ("U", "X0")}
            yield p.with_arrays(part), *(M[columns] for M in others)

    def forward(self, p):
        parts = self.map(lambda part: Plain.forward(self, *part), self.blocks(p))
        return {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}

    def vjp(self, p, G_Y):
        parts = self.map(lambda part: Plain.vjp(self, *part), self.blocks(p, G_Y))
        joined = {name: sum(part[name] for part in parts) for name in parts[0] if name != "U"}
        return joined | {"U": np.concatenate([part["U"] for part in parts], axis=1)}


@right
class Threads(Blocks):
    """Solves blocks of columns in threads of a pool."""

    def map(self, call, parts):
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(call, parts))


@right
class ColumnByColumn(Blocks):
    """Solves one column after the other."""

    width = 1


@right
class Remembering(Plain):
    """Keeps answers by the bytes of their problem, and copies them out again."""

    def __init__(self):
        self.known = {}

    def recalled(self, key, compute):
        if key not in self.known:
            self.known[key] = compute()
        return {name: np.array(M) for name, M in self.known[key].items()}

    def forward(self, p):
        return self.recalled(digest(p), partial(super().forward, p))

    def vjp(self, p, G_Y):
        return self.recalled((digest(p), G_Y.tobytes()), partial(super().vjp, p, G_Y))


@right
class Raises(Plain):
    """Raises an exception if a column does not converge, and reports no statuses."""

    capabilities = UNCOUNTED

    def forward(self, p):
        out = super().forward(p)
        if not out["converged"].all():
            raise ArithmeticError("some columns did not converge")
        return {"X": out["X"], "Y": out["Y"]}


@right
class Warns(Plain):
    """Warns if a column does not converge, and reports no statuses."""

    capabilities = UNCOUNTED

    def forward(self, p):
        out = super().forward(p)
        if not out["converged"].all():
            warnings.warn("some columns did not converge", stacklevel=2)
        return {"X": out["X"], "Y": out["Y"]}


@right
class NotANumber(Plain):
    """Answers NaN in the columns that did not converge, as is usual in JAX, and reports no statuses."""

    capabilities = UNCOUNTED

    def forward(self, p):
        out = super().forward(p)
        return {name: np.where(out["converged"], out[name], np.nan).astype(p.dtype) for name in "XY"}


@right
class OutputsOnly(Plain):
    """Answers Y and gradients, and no hidden states."""

    capabilities = EVERYTHING | {"X": False}

    def forward(self, p):
        out = super().forward(p)
        return {"Y": out["Y"], "converged": out["converged"]}


@right
class Words(Plain):
    """Declares what it can do by words."""

    capabilities = frozenset({"float64", "relu", "dense", "forward"})
