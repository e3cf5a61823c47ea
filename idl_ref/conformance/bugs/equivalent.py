"""The mutants that no check tells from the plain backend, although each check was made, and why that is so.

No answer of theirs to any case, relation or protocol differs from the truth by more than its bound.
"""

BY_REASON = {
    "the allowance for rounding is larger, smaller or gone: answers stay within their bounds": (
        "plain.noise: slopes * (fac.apply(tuple(map(np.abs, f… → slopes * (fac.apply(tuple(map(np.abs, f…",
        "plain.noise: slopes * (fac.apply(tuple(map(np.abs, f… → slopes * (fac.apply(tuple(map(np.abs, f… (2)",
        "plain.noise: slopes * (fac.apply(tuple(map(np.abs, f… → np.abs(X)",
        "plain.noise: slopes * (fac.apply(tuple(map(np.abs, f… → fac.apply(tuple(map(np.abs, factors)), …",
        "plain.noise: np.abs(X) → X",
        "plain.noise: fac.apply(tuple(map(np.abs, factors)), … → fac.apply(tuple(map(np.abs, factors)), … (2)",
        "plain.noise: fac.apply(tuple(map(np.abs, factors)), … → np.abs(Z)",
        "plain.noise: np.abs(Z) → Z",
        "plain.noise: np.abs(X) → X (2)",
        "plain.noise: np.where(np.isfinite(explained), 4 * np… → np.where(np.isfinite(explained), 4 * np…",
        "plain.noise: np.where(np.isfinite(explained), 4 * np… → 4 * np.finfo(X.dtype).eps * explained",
        "plain.noise: np.where(np.isfinite(explained), 4 * np… → np.where(np.isfinite(explained), 0, 4 *…",
        "plain.noise: np.isfinite(explained) → explained",
        "plain.noise: 0 → 1",
        "plain.noise: 4 * np.finfo(X.dtype).eps → np.finfo(X.dtype).eps",
        "plain.noise: 4 → 5",
        "plain.noise: 4 → 3",
        "plain.stop: np.maximum(p.tol * np.minimum(1, z), no… → p.tol * np.minimum(1, z)",
        "plain.adjoint: self.noise(At, S, G, V) → self.noise(At, G, S, V)",
        "plain.adjoint: self.noise(At, S, G, V) → self.noise(At, S, V, G)",
    ),
    "the same numbers: the order of two operands does not matter": (
        "plain.stop: np.maximum(p.tol * np.minimum(1, z), no… → np.maximum(noise, p.tol * np.minimum(1,…",
        "plain.stop: np.minimum(1, z) → np.minimum(z, 1)",
        "plain.iterate: G - X → X - G",
        "plain.iterate: G - earlier → earlier - G",
    ),
    "a cycle in the last digits is noticed some steps earlier or later, at an iterate that is as near": (
        "plain.back: np.all(change <= noise, axis=0) → np.all(change <= noise)",
        "plain.back: change <= noise → change < noise",
        "plain.iterate: contracts and k > 64 → contracts",
        "plain.iterate: k > 64 → k >= 64",
        "plain.iterate: 64 → 65",
        "plain.iterate: 64 → 63",
        "plain.iterate: k - 1 → k + 1",
        "plain.iterate: 1 → 2 (4)",
    ),
    "whether the map contracts in the ∞-norm is told otherwise only where no case lies": (
        "plain.contracts: reduce(np.matmul, map(np.abs, self.fact… → reduce(np.matmul, map(np.abs, self.fact… (2)",
        "plain.contracts: reduce(np.matmul, map(np.abs, self.fact… → reduce(np.matmul, map(np.abs, self.fact… (3)",
        "plain.contracts: 1 → 0",
        "plain.contracts: norm < 1 → norm <= 1",
        "plain.contracts: 1 → 2 (2)",
    ),
    "only the time changes: a loop over columns of which none can converge ends earlier or later": (
        "plain.iterate: if k % 64 == 0 and (done | ~np.isfinite… → if False: break",
        "plain.iterate: k % 64 == 0 and (done | ~np.isfinite(X)… → (done | ~np.isfinite(X).all(axis=0)).al…",
        "plain.iterate: break → pass (2)",
        "plain.iterate: k % 64 == 0 → k % 64 != 0",
        "plain.iterate: k % 64 → k // 64",
        "plain.iterate: k % 64 → k",
        "plain.iterate: k % 64 → 64",
        "plain.iterate: 0 → 1 (5)",
        "plain.iterate: 64 → 65 (2)",
        "plain.iterate: 64 → 63 (2)",
        "plain.iterate: done | ~np.isfinite(X).all(axis=0) → done & ~np.isfinite(X).all(axis=0)",
        "plain.iterate: done | ~np.isfinite(X).all(axis=0) → done",
        "plain.iterate: done | ~np.isfinite(X).all(axis=0) → ~np.isfinite(X).all(axis=0)",
        "plain.iterate: np.isfinite(X).all(axis=0) → np.isfinite(X).any(axis=0)",
        "plain.iterate: np.isfinite(X).all(axis=0) → np.isfinite(X).all()",
    ),
    "only an empty batch takes this line, and its answers and status are empty as well": (
        "plain.iterate: if X.size == 0: return (X, np.ones(X.sh… → if False: return (X, np.ones(X.shape[1]…",
        "plain.iterate: np.ones(X.shape[1], bool) → np.zeros(X.shape[1], bool)",
        "plain.iterate: 0 → 1 (2)",
    ),
    "a column that is not finite has a step of NaN, and is not done anyway": (
        "plain.verdict: done & np.isfinite(G).all(axis=0) → done",
        "plain.verdict: np.isfinite(G).all(axis=0) → np.isfinite(G).any(axis=0)",
    ),
    "NumPy's warnings come through, on which no answer depends": (
        "plain.forward: np.errstate(all='ignore') → np.errstate()",
        "plain.vjp: np.errstate(all='ignore') → np.errstate()",
    ),
    "the adjoint starts elsewhere or stops by its rounding alone: answers stay within their bounds": (
        "plain.adjoint: self.iterate(lambda V: S * (self.apply(… → self.iterate(lambda V: S * (self.apply(… (2)",
        "plain.adjoint: np.zeros_like(G) → np.ones_like(G)",
    ),
    "only a sparse A takes this line, and a problem holds A as an array with all its zeros": (
        "factors.gradients: if is_sparse(factors): return (factors[… → if False: return (factors[0].gradient(V…",
        "factors.gradients: factors[0].gradient(V, X) → factors[0].gradient(X, V)",
        "factors.gradients: 0 → 1",
    ),
    "an array that is not due is returned, and ignored": (
        "plain.gradients: if p.D is not None: out['D'] = G_Y @ p.… → if True: out['D'] = G_Y @ p.U.T",
    ),
}  # fmt: skip
EQUIVALENT = {name: reason for reason, names in BY_REASON.items() for name in names}
