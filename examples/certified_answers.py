"""
Certify any answer
==================

`certify` bounds the error of every entry of an approximate equilibrium, whichever program computed it. Let r be the
residual φ(A x + z) − x. Entry by entry, the error e of x satisfies

.. math:: e \\le |r| + s \\circ (|A| e), \\qquad\\text{so that}\\qquad e \\le (I - s \\circ |A|)^{-1} |r| .

Here s bounds the slopes of φ at all points that the bound itself allows. PyTorch, JAX or a device could, for example,
have computed x; a plain loop in float32 takes their place. The exact equilibrium shows how sharp the bounds are.

Function: `certify`. Option: `SolveOptions(certificate="sharp")`. Page: :doc:`/theory`.
"""

import matplotlib.pyplot as plt
import numpy as np

import idl_ref

rng = np.random.default_rng(0)
n, m = 200, 16
A = rng.standard_normal((n, n))
A *= 0.999 / np.abs(A).sum(axis=1, keepdims=True)  # The absolute sum of every row is 0.999.
A, Z = A.astype(np.float32), rng.standard_normal((n, m)).astype(np.float32)

X = np.zeros_like(Z)
for _ in range(60):
    X = np.maximum(A @ X + Z, 0)

exact = np.zeros((n, m))  # Only rows with a positive argument take part, and in these rows the equation is linear.
for j in range(m):
    on = (A @ X + Z)[:, j] > 0
    exact[on, j] = np.linalg.solve(np.eye(on.sum()) - A[np.ix_(on, on)].astype(float), Z[on, j].astype(float))

error = np.abs(X - exact)
bound = idl_ref.certify(A, Z, X)
print(f"largest error {error.max():.1e}, largest bound {bound.max():.1e}")
assert (error <= bound).all()

# %%
# In float32, the error bound that every solver returns by default has to assume the worst rounding in every operation,
# and multiplies it by 1/(1 − κ). It is 10⁵ times the error here. The bounds of `certify` come from the residual of the
# answer in float64. The same bounds are in the solution if they are asked for.

solution = idl_ref.solve_equilibrium(A, Z)
fast, largest = solution.error_bound, np.abs(solution.X - exact).max(axis=0)
sharp = idl_ref.solve_equilibrium(A, Z, options=idl_ref.SolveOptions(certificate="sharp")).error_bound

figure, axes = plt.subplots(figsize=(5.6, 5), layout="constrained")
some = (error > 0) & (bound > 1e-12)
axes.loglog(error[some], bound[some], ".", markersize=3, label="certify, one dot for each entry")
axes.loglog(largest, fast, "s", markersize=4, label="certificate='fast', largest error of a column")
axes.loglog(largest, sharp, "o", markersize=4, label="certificate='sharp', largest error of a column")
ends = np.array([error[some].min(), error.max()])
axes.loglog(ends, ends, color="gray", label="the error itself")
axes.set(xlabel="true error", ylabel="bound", title="Bounds of the error, in float32")
figure.legend(loc="outside lower center")
plt.show()

assert np.median(sharp / largest) < 3
assert np.median(fast / largest) > 1e4

# %%
# The adjoint equation V = S ∘ (Aᵀ V + G) has bounds of the same kind. An answer with a mistake is found at once: a
# transposed matrix gives a large bound.

S, G = (exact > 0).astype(np.float32), rng.standard_normal((n, m)).astype(np.float32)
right = idl_ref.solve_adjoint(A, S, G).X
wrong = idl_ref.solve_adjoint(A.T * 0.9, S, G).X
print(f"adjoint {idl_ref.certify(A, G, right, S=S).max():.1e}, with Aᵀ {idl_ref.certify(A, G, wrong, S=S).max():.1e}")
assert idl_ref.certify(A, G, right, S=S).max() < 1e-4
assert idl_ref.certify(A, G, wrong, S=S).max() > 1e-2
