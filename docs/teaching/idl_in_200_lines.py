"""Implicit deep learning in 200 lines: forward, adjoint, gradients, SGD on handwritten digits. NumPy only.

    X = φ(A X + B U)      equilibrium equation: X is found, not computed layer by layer
    Y = C X + D U         prediction equation

A sample is a column: U (p, m) inputs, X (n, m) hidden states, Y (q, m) outputs.
A (n, n), B (n, p), C (q, n), D (q, p). To be read aloud, top to bottom; frozen: nothing will be added.
Run it from the root of the project: python docs/teaching/idl_in_200_lines.py
"""

import numpy as np

# --- 1. The activation ----------------------------------------------------------------------------------------
# φ acts entry by entry, and never drives two numbers apart: |φ(a) − φ(b)| ≤ |a − b|.


def relu(P):
    return np.maximum(P, 0)


def relu_slope(P):
    return (P > 0).astype(P.dtype)  # at the kink, 0


# --- 2. Well-posedness ----------------------------------------------------------------------------------------
# Let ‖A‖∞ be the largest absolute row sum. If ‖A‖∞ ≤ κ < 1, then x ← φ(A x + z) shrinks all distances by κ, in
# the largest entry. So there is one equilibrium, and the iteration finds it from every start. We train a raw A
# without any constraint, and the equation uses it scaled into that ball.


def norm_inf(A):
    return np.abs(A).sum(axis=1).max()


def effective(A, kappa):
    """κ A / max(κ, ‖A‖∞).   (n, n) -> (n, n)"""
    return A * (kappa / max(kappa, norm_inf(A)))


def effective_pullback(A, kappa, G):
    """From the gradient by the effective A to that by the raw A.   G (n, n) -> (n, n)"""
    nu = norm_inf(A)
    if nu <= kappa:  # nothing was scaled
        return G
    s = np.zeros_like(A)  # the scale κ/ν moves with A, by dν = ⟨s, dA⟩: the signs of the row that attains ν
    row = np.abs(A).sum(axis=1).argmax()
    s[row] = np.sign(A[row])
    return (kappa / nu) * (G - (np.sum(G * A) / nu) * s)


# --- 3. One solver for both equations -------------------------------------------------------------------------
# Forward, the map is X ↦ φ(A X + Z). Backward, it will be V ↦ S ∘ (Aᵀ V + G). Iterate until no entry moves by
# more than tol. A small step is not yet a small error: the error of X may be as large as κ · step/(1 − κ).


def fixed_point(step, X, tol=1e-10, max_iter=10_000):
    """Picard's iteration, X ← step(X); it returns the newest X, and how many steps it took."""
    for k in range(1, max_iter + 1):
        X_new = step(X)
        if np.abs(X_new - X).max(initial=0) <= tol:  # a NaN fails this too, and we never claim convergence
            return X_new, k
        X = X_new
    raise RuntimeError(f"not converged after {max_iter} iterations")


# --- 4. Forward -----------------------------------------------------------------------------------------------


def forward(A, B, C, D, U):
    """Z = B U,   X = φ(A X + Z),   Y = C X + D U.   A effective -> Y (q, m), X (n, m), Z (n, m)"""
    Z = B @ U
    X, _ = fixed_point(lambda X: relu(A @ X + Z), np.zeros_like(Z))
    return C @ X + D @ U, X, Z


# --- 5. Backward ----------------------------------------------------------------------------------------------
# Let the loss be ℓ, and G_Y = ∂ℓ/∂Y. Through Y = C X + D U, a tangent X̃ moves ℓ by ⟨G, X̃⟩ with G = Cᵀ G_Y.
#
# Differentiate the equilibrium equation: if Z moves by Z̃, then X̃ = S ∘ (A X̃ + Z̃), with S = φ′(A X + Z).
# Column by column, x̃ = (I − diag(s) A)⁻¹ diag(s) z̃. Put that into ⟨g, x̃⟩ and move everything to the other
# side: ℓ moves by ⟨v, z̃⟩ with v = diag(s) (I − Aᵀ diag(s))⁻¹ g. Without the inverse, that is
#
#     V = S ∘ (Aᵀ V + G)      adjoint equation
#
# and V = ∂ℓ/∂Z. The way in which X was found plays no part, and nothing of it is stored.


def adjoint(A, S, G):
    """V = S ∘ (Aᵀ V + G).   (n, n), (n, m), (n, m) -> (n, m)"""
    V, _ = fixed_point(lambda V: S * (A.T @ V + G), np.zeros_like(G))
    return V


def backward(A, B, C, D, U, X, Z, G_Y):
    """The gradients of A, B, C, D and U.   G_Y (q, m) -> each like what it belongs to"""
    S = relu_slope(A @ X + Z)
    V = adjoint(A, S, G=C.T @ G_Y)
    # Z moves by Ã X + B̃ U + B Ũ at fixed X, and ℓ by the inner product of that with V.
    return V @ X.T, V @ U.T, G_Y @ X.T, G_Y @ U.T, B.T @ V + D.T @ G_Y


# --- 6. Loss --------------------------------------------------------------------------------------------------


def cross_entropy(Y, labels):
    """ℓ = mean of log Σᵢ exp Y_ij − Y_tⱼj, and G_Y = (softmax(Y) − onehot(t)) / m.   Y (q, m), labels t (m,)"""
    m = labels.size
    Y = Y - Y.max(axis=0)  # exp cannot overflow
    total = np.exp(Y).sum(axis=0)
    loss = (np.log(total) - Y[labels, np.arange(m)]).mean()
    G_Y = np.exp(Y) / total
    G_Y[labels, np.arange(m)] -= 1
    return loss, G_Y / m


# --- 7. The model, and its gradients --------------------------------------------------------------------------


class Model:  # raw weights by name, and κ
    def __init__(self, p, q, n, kappa=0.99, seed=0):
        rng = np.random.default_rng(seed)
        self.kappa = kappa
        self.weights = {
            "A": rng.standard_normal((n, n)),
            "B": rng.standard_normal((n, p)) / p**0.5,
            "C": rng.standard_normal((q, n)) / n**0.5,
            "D": rng.standard_normal((q, p)) / p**0.5,
        }
        self.weights["A"] *= 0.75 * kappa / norm_inf(self.weights["A"])  # a start inside the ball

    def effective(self):
        """A after scaling, B, C, D: what the equations use."""
        W = self.weights
        return effective(W["A"], self.kappa), W["B"], W["C"], W["D"]

    def __call__(self, U):
        return forward(*self.effective(), U)[0]

    def loss_and_gradients(self, U, labels):
        """ℓ, and its gradients by the raw weights and by U."""
        A, B, C, D = self.effective()
        Y, X, Z = forward(A, B, C, D, U)
        loss, G_Y = cross_entropy(Y, labels)
        dA, dB, dC, dD, dU = backward(A, B, C, D, U, X, Z, G_Y)
        dA = effective_pullback(self.weights["A"], self.kappa, dA)
        return loss, {"A": dA, "B": dB, "C": dC, "D": dD, "U": dU}


# --- 8. Is the gradient right? --------------------------------------------------------------------------------


def check(model, U, labels, h=1e-6):
    """Each gradient against a central difference, in a random direction: the largest relative error."""
    rng, errors = np.random.default_rng(0), []
    _, gradients = model.loss_and_gradients(U, labels)
    for name, W in model.weights.items():
        E, losses = rng.standard_normal(W.shape), []
        for sign in (1, -1):
            model.weights[name] = W + sign * h * E
            losses.append(cross_entropy(model(U), labels)[0])
        model.weights[name] = W
        truth = (losses[0] - losses[1]) / (2 * h)
        errors.append(abs(np.sum(gradients[name] * E) / truth - 1))
    return max(errors)


# --- 9. Training ----------------------------------------------------------------------------------------------


def train(model, U, labels, epochs=10, batch=32, rate=0.1, momentum=0.9, seed=0):
    """Stochastic gradient descent with momentum: v ← μ v + ∂ℓ, w ← w − η v."""
    velocity = {name: np.zeros_like(W) for name, W in model.weights.items()}
    for epoch in range(1, epochs + 1):
        order, losses = np.random.default_rng([seed, epoch]).permutation(U.shape[1]), []
        for j in range(0, order.size, batch):
            chosen = order[j : j + batch]
            loss, gradients = model.loss_and_gradients(U[:, chosen], labels[chosen])
            losses.append(loss)
            for name, W in model.weights.items():
                velocity[name] = momentum * velocity[name] + gradients[name]
                W -= rate * velocity[name]
        print(f"epoch {epoch:2}   loss {np.mean(losses):.4f}   ‖A‖∞ {norm_inf(model.effective()[0]):.3f}")


def digits(path="idl_ref/data/digits.npz"):
    """1,797 images of 8 × 8 pixels: U (65, m) with a constant feature 1 for the bias, labels (m,)."""
    with np.load(path) as file:  # 1,437 for training, then 360 for testing
        pixels = np.concatenate([file["x_train"], file["x_test"]]).T / 16
        labels = np.concatenate([file["y_train"], file["y_test"]]).astype(int)
    return np.vstack([pixels, np.ones(labels.size)]), labels


if __name__ == "__main__":
    U, labels = digits()
    model = Model(p=65, q=10, n=64)
    print(f"gradients are right to {check(model, U[:, :16], labels[:16]):.1e}")
    train(model, U[:, :1437], labels[:1437])
    print(f"test accuracy: {100 * np.mean(model(U[:, 1437:]).argmax(axis=0) == labels[1437:]):.1f} %")
