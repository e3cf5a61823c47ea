"""Terms by name: one sample's used for all, matrices read without their transposition, sums whose rest is misplaced."""

# mypy: disable-error-code="misc"
# mypy infers no type of a lambda that binds the variable of a loop by a default.

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from idl_ref import factors as fac
from idl_ref.conformance.judge.steps import Steps, product
from idl_ref.conformance.judge.transformations import Change, Transformation, bias, dense, has_D, low_rank, solved
from idl_ref.conformance.truth.problem import Case

Matrix = Callable[[np.ndarray], np.ndarray]
UNROLLED = (2, 4, 8, 16)  # the terms that a loop over a sum takes at once
WRAPPED = (16, 15, 8)  # bits of an index
CHUNKS = (8, 16, 32, 64, 128, 256, 512, 1024)  # of samples


def terms() -> Iterator[Transformation]:
    """Terms in the wrong place, or of the wrong sample."""
    yield Transformation("the bias added to φ(A X + B U), not inside of φ",
                         {"phi": lambda s: _outside(s, s.B[:, -1:])}, bias)  # fmt: skip
    yield Transformation("B U added to φ(A X), not inside of φ", {"phi": lambda s: _outside(s, s.Z)})
    skipped: Change = lambda s: np.where(s.Z.any(axis=0), s.X, 0)  # noqa: E731
    yield Transformation("columns in which B U is 0 left at X = 0", dict.fromkeys(("Xf", "Xb"), skipped))
    yield Transformation("columns in which B U is 0 left at X = 0, but not in the gradients", {"Xf": skipped})
    for which, j in (("first", 0), ("last", -1)):
        for term, changes in _of_sample(j).items():
            fits = _several_with_D if term == "D U" else _several
            yield Transformation(f"{term} of the {which} sample used for all samples", changes, fits)


def tails() -> Iterator[Transformation]:
    """The last entries of φ, those that fill no vector, computed by another function."""
    functions: dict[str, Matrix] = {
        "relu": lambda P: np.maximum(P, 0), "the identity": lambda P: P, "zero": np.zeros_like}  # fmt: skip
    sizes: dict[str, Callable[[Case], int]] = {
        **{str(k): (lambda case, k=k: k) for k in (2, 4, 8, 16)},
        **{f"{k} bytes": (lambda case, k=k: k // case.problem.dtype.itemsize) for k in (16, 32, 64)},
    }
    for text, function in functions.items():
        for words, size in sizes.items():
            for order, how in (("C", "row by row"), ("F", "column by column")):
                yield Transformation(
                    f"{text} in place of φ in the last entries, counted {how}, that fill no vector of {words}",
                    {"phi": lambda s, f=function, k=size, o=order: _with_tail(s, f, k(s.case), o)})  # fmt: skip


def _with_tail(s: Steps, function: Matrix, size: int, order: Any) -> tuple[Matrix, Matrix]:
    def phi(P: np.ndarray) -> np.ndarray:
        flat, rest = s.activation.phi(P).ravel(order=order), P.size % size
        flat[P.size - rest :] = function(P.ravel(order=order)[P.size - rest :])
        return flat.reshape(P.shape, order=order)

    return phi, s.activation.slope


def _outside(s: Steps, part: np.ndarray) -> tuple[Matrix, Matrix]:
    """φ and φ′ where a part of A X + B U is added outside of them."""
    phi = s.activation
    return lambda P: phi.phi(P - part) + part, lambda P: phi.slope(P - part)


def _several(case: Case) -> bool:
    return case.problem.sizes[3] > 1


def _several_with_D(case: Case) -> bool:
    return _several(case) and has_D(case)


def _of_sample(j: int) -> dict[str, dict[str, Change]]:
    def one(M: np.ndarray) -> np.ndarray:
        return M[:, [j]] + 0 * M

    return {
        "B U": {"Z": lambda s: one(s.right("Z"))},
        "D U": {"Y": lambda s: s.C @ s.Xf + one(s.D @ s.U)},
        "U": {"U": lambda s: one(s.right("U"))},
        "φ′": {"S": lambda s: one(s.right("S"))},
        "Cᵀ G_Y": {"G": lambda s: one(s.right("G"))},
        "G_Y": {"G_Y": lambda s: one(s.right("G_Y"))},
    }


# --- transpositions ---------------------------------------------------------------------------------------------------


def _reread(M: np.ndarray) -> np.ndarray:
    """The numbers of M in their order in memory, in the shape of Mᵀ; M itself if it is square."""
    return np.ascontiguousarray(M).reshape(M.shape[::-1])


def _pulled(s: Steps, B: Matrix, D: Matrix) -> np.ndarray:
    """∂U = Bᵀ V + Dᵀ G_Y by these transpositions."""
    G = B(s.B) @ s.V
    return G if s.D is None else G + D(s.D) @ s.G_Y


def _swapped(M: np.ndarray) -> np.ndarray:
    return M.T


TRANSPOSED: dict[str, tuple[dict[str, Change], Callable[[Case], bool]]] = {
    "R": ({"F": lambda s: (s.right("F")[0], _reread(s.right("F")[1].T))}, low_rank),
    "L": ({"Ft": lambda s: (s.F[1].T, _reread(s.F[0]))}, low_rank),
    "C": ({"G": lambda s: _reread(s.C) @ s.G_Y}, lambda case: True),
    "B": ({"dU": lambda s: _pulled(s, _reread, _swapped)}, lambda case: True),
    "D": ({"dU": lambda s: _pulled(s, _swapped, _reread)}, has_D),
    "X": ({"dC": lambda s: s.G_Y @ _reread(s.Xb), "dF": lambda s: (s.V @ _reread(s.Xb),)}, dense),
    "U": ({"dB": lambda s: s.V @ _reread(s.U), "dD": lambda s: s.G_Y @ _reread(s.U)}, lambda case: True),
}


def transpositions() -> Iterator[Transformation]:
    """Transposed matrices that are read as they lie in memory, and an A that is taken for a symmetric one."""
    for name, (changes, fits) in TRANSPOSED.items():
        sentence = f"the memory of {name} read as {name}ᵀ, without a transposition"
        yield Transformation(sentence, changes, fits)
        yield Transformation(f"{name} in place of {name}ᵀ where it is square", changes,
                             lambda case, name=name, fits=fits: fits(case) and _square(case, name))  # fmt: skip
    for kept, mirrored in (("upper", np.triu), ("lower", np.tril)):
        yield Transformation(
            f"A taken for a symmetric matrix: only its {kept} triangle is read",
            {"F": lambda s, half=mirrored: (_symmetric(s.right("F")[0], half),)}, dense)  # fmt: skip
    yield Transformation("φ′ on the wrong side of Aᵀ: V = Aᵀ (φ′ ∘ V) + φ′ ∘ G", {"V": _slopes_behind})
    yield Transformation("φ′ left out of the reduced system of A = L Rᵀ in the adjoint", {"V": _reduced}, low_rank)
    yield Transformation("the reduced system of A = L Rᵀ not transposed in the adjoint", {"V": _reduced_as_it_is},
                         low_rank)  # fmt: skip
    for which, j in (("first", 0), ("last", -1)):
        yield Transformation(f"the linear system of the adjoint of the {which} sample solved for all samples",
                             {"V": lambda s, j=j: _solved_by_one(s, j)}, _several)  # fmt: skip


def _square(case: Case, name: str) -> bool:
    M = {"X": case.problem.B @ case.problem.U}.get(name, getattr(case.problem, name, None))
    return M is not None and M.shape[0] == M.shape[1]


def _symmetric(A: np.ndarray, half: Callable[..., np.ndarray]) -> np.ndarray:
    M: np.ndarray = half(A)
    return M + M.T - np.diag(np.diag(A))


def _slopes_behind(s: Steps) -> np.ndarray:
    return solved(product(s.Ft) * s.S.T[:, None, :], s.S * s.G)


def _reduced(s: Steps) -> np.ndarray:
    """V = φ′ ∘ (G + R t) with (I − Lᵀ R) t = Lᵀ (φ′ ∘ G)."""
    L, R = s.F[0], s.F[1].T
    t = solved(np.broadcast_to(L.T @ R, (s.G.shape[1], R.shape[1], R.shape[1])), L.T @ (s.S * s.G))
    V: np.ndarray = s.S * (s.G + R @ t)
    return V


def _reduced_as_it_is(s: Steps) -> np.ndarray:
    """V = φ′ ∘ (G + R t) with (I − Rᵀ (φ′ ∘ L)) t = Lᵀ (φ′ ∘ G)."""
    L, R = s.F[0], s.F[1].T
    t = solved(R.T @ (s.S.T[:, :, None] * L), L.T @ (s.S * s.G))
    V: np.ndarray = s.S * (s.G + R @ t)
    return V


def _solved_by_one(s: Steps, j: int) -> np.ndarray:
    """V = φ′ ∘ W with W = Aᵀ (φ′ⱼ ∘ W) + G, where φ′ⱼ is that of one sample."""
    same = s.S[:, [j]] + 0 * s.S
    V: np.ndarray = s.S * solved(product(s.Ft) * same.T[:, None, :], s.G)
    return V


# --- sums and indices -------------------------------------------------------------------------------------------------


def remainders() -> Iterator[Transformation]:
    """What is left of a sum or of a batch after whole steps, taken from the beginning; indices that wrap round."""
    for c in UNROLLED:
        sentence = f"the terms of A X and Aᵀ V that are left after whole steps of {c} taken with the first entries"
        yield Transformation(sentence,
                             {"F": lambda s, c=c: _folded(s.right("F"), c),
                              "Ft": lambda s, c=c: _folded(fac.transpose(s.right("F")), c)})  # fmt: skip
    for c in reversed(CHUNKS):
        many = lambda case, c=c: case.problem.sizes[3] > c and case.problem.sizes[3] % c > 0  # noqa: E731
        for term, names in {"B U": ("Z",), "X": ("Xf", "Xb")}.items():
            tail: Change = lambda s, c=c, name=names[0]: _first_again(s.right(name), c)  # noqa: E731
            yield Transformation(f"{term} of the first samples again in the last chunk of {c}, which they do not fill",
                                 dict.fromkeys(names, tail), many)  # fmt: skip
    for c in CHUNKS:
        rest = lambda case, c=c: case.problem.sizes[3] % c > 0  # noqa: E731
        V: Change = lambda s, c=c: _last_repeated(s.V, c)  # noqa: E731
        G_Y: Change = lambda s, c=c: _last_repeated(s.G_Y, c)  # noqa: E731
        yield Transformation(
            f"the gradients of the weights from batches that are filled up to a multiple of {c} by the last sample", {
                "dF": lambda s, V=V: fac.gradients(s.F, s.Xb, V(s)), "dB": lambda s, V=V: V(s) @ s.U.T,
                "dC": lambda s, G_Y=G_Y: G_Y(s) @ s.Xb.T, "dD": lambda s, G_Y=G_Y: G_Y(s) @ s.U.T}, rest)  # fmt: skip
    for bits in WRAPPED:
        wraps = lambda case, k=2**bits: dense(case) and case.problem.A.size > k  # noqa: E731
        yield Transformation(f"the indices of the entries of A wrap round at {2**bits:,}, as with {bits} bits",
                             {"F": lambda s, k=2**bits: (_wrapped(s.right("F")[0], k),)}, wraps)  # fmt: skip
        for order, words in (("C", "row by row"), ("F", "column by column")):
            for term, changes in _by_wrapped_indices(2**bits, order).items():
                yield Transformation(
                    f"the indices of the entries of {term}, counted {words}, wrap round at {2**bits:,}, as with "
                    f"{bits} bits", changes, lambda case, k=2**bits: max(_entries(case)) > k)  # fmt: skip


def _by_wrapped_indices(k: int, order: Any) -> dict[str, dict[str, Change]]:
    def wrapped(M: np.ndarray) -> np.ndarray:
        return M.ravel(order=order)[np.arange(M.size) % k].reshape(M.shape, order=order)

    return {
        "X in the readout": {"Y": lambda s: s.right("Y") + s.C @ (wrapped(s.Xf) - s.Xf)},
        "X for the gradients": {"Xb": lambda s: wrapped(s.Xf), "P": lambda s: fac.apply(s.F, s.Xf) + s.Z},
        "U in B U": {"Z": lambda s: s.B @ wrapped(s.U)},
        "B in B U": {"Z": lambda s: wrapped(s.B) @ s.U},
        "G_Y": {"G_Y": lambda s: wrapped(s.right("G_Y"))},
    }


def _entries(case: Case) -> tuple[int, ...]:
    """The numbers of entries of X, U, B and G_Y."""
    n, p, q, m = case.problem.sizes
    return n * m, p * m, n * p, q * m


def _folded(F: fac.Factors, c: int) -> fac.Factors:
    """Factors whose last columns, those after whole steps of c, are added to the first ones."""
    folded = []
    for M in F:
        t = M.shape[1] % c if M.shape[1] > c else 0
        kept = M.copy()
        kept[:, M.shape[1] - t :] = 0
        kept[:, :t] += M[:, M.shape[1] - t :]
        folded.append(kept)
    return tuple(folded)


def _first_again(M: np.ndarray, c: int) -> np.ndarray:
    t = M.shape[1] % c
    return np.hstack([M[:, : M.shape[1] - t], M[:, :t]])


def _last_repeated(M: np.ndarray, c: int) -> np.ndarray:
    """M whose last column counts as often as a batch that is filled up to a multiple of c has it."""
    times = np.ones(M.shape[1])
    times[-1:] += -M.shape[1] % c
    return M * times


def _wrapped(A: np.ndarray, k: int) -> np.ndarray:
    return A.ravel()[np.arange(A.size) % k].reshape(A.shape)
