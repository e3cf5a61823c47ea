"""
Lesson 5: the adjoint
=====================

The gradient of an equilibrium needs one linear equation, and nothing of the iterations. NumPy and idl_ref are enough.
"""

import numpy as np

import idl_ref

# %%
# The example: z = B u with u = 1, y = C x. At the equilibrium both neurons are active, so S = 1.

A, B, C = np.array([[0.0, 0.5], [-0.5, 0.0]]), np.array([[1.0], [2.0]]), np.array([[1.0, 1.0]])
X = np.array([[1.6], [1.2]])
V, S, G = np.zeros((2, 1)), np.ones((2, 1)), C.T
for k in range(1, 7):
    V = S * (A.T @ V + G)
    print(f"step {k}: V = ({V[0, 0]:.5f}, {V[1, 0]:.5f})")
print("exact: ", np.linalg.solve(np.eye(2) - A.T, G)[:, 0])

# %%
# From V come all gradients, without another equation.

V = np.linalg.solve(np.eye(2) - A.T, G)
print("∂A =", (V @ X.T).round(4).tolist())
print("∂B =", (V @ [[1.0]]).round(4).tolist(), "  ∂u =", (B.T @ V).round(4).tolist())

# %%
# The library computes the same, and differences of y agree.

model = idl_ref.ImplicitModel(1, 1, 2, no_D=True, dtype="float64", tol=1e-12, grad_tol=1e-12, backend="numpy")
for name, W in (("A", A), ("B", B), ("C", C)):
    model.parameters[name][...] = W
U = np.array([[1.0]])
Y, pullback = model.vjp(U)
gradients = pullback(np.ones((1, 1)))
print(f"the library: y = {Y[0, 0]:.4f}, ∂A =", gradients["A"].round(4).tolist())
for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
    values = []
    for h in (1e-6, -1e-6):
        model.parameters["A"][i, j] += h
        values.append(model(U)[0, 0])
        model.parameters["A"][i, j] -= h
    print(f"by differences: ∂A[{i}, {j}] = {(values[0] - values[1]) / 2e-6:.4f}")
