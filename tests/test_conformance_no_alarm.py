"""No right backend is accused: methods and stopping rules of many kinds, with their declaration and without it."""

import numpy as np
import pytest
from scipy import optimize
from scipy.sparse.linalg import LinearOperator, gmres

from idl_ref import activations
from idl_ref import factors as fac
from idl_ref.conformance import check_backend
from idl_ref.conformance.adapters import Plain
from idl_ref.conformance.bugs import memory
from idl_ref.conformance.truth.backend import EVERYTHING
from idl_ref.weights import by_name


class Right:
    """Newton's method for every column, then a direct solution of the adjoint equation; subclasses differ from it."""

    name, capabilities, declared = "right", EVERYTHING, {"stops": "residual"}
    dtype = None  # of the computation; None: that of the problem

    def arrays(self, p):
        return p.with_arrays({name: np.ascontiguousarray(M, self.dtype or p.dtype) for name, M in p.arrays.items()})

    def forward(self, p):
        q = self.arrays(p)
        with np.errstate(all="ignore"):
            X, done = self.equilibrium(q)
            Y = self.product(q.C, X) + (0 if q.D is None else self.product(q.D, q.U))
        return {"Y": Y.astype(p.dtype), "X": X.astype(p.dtype), "converged": done}

    def vjp(self, p, G_Y):
        q, G_Y = self.arrays(p), G_Y.astype(self.dtype or p.dtype)
        with np.errstate(all="ignore"):
            F, (X, _) = q.function.effective(q.factors), self.equilibrium(q)
            S = self.slope(q.activation, fac.apply(F, X) + q.B @ q.U)
            V = self.adjoint(q, F, S, q.C.T @ G_Y)
            out = {"B": self.product(V, q.U.T), "C": self.product(G_Y, X.T), "U": self.product(q.B.T, V)}
            if q.D is not None:
                out |= {"D": self.product(G_Y, q.U.T), "U": out["U"] + self.product(q.D.T, G_Y)}
            out |= by_name(q.function.pullback(q.factors, fac.gradients(F, X, V)))
        return {name: M.astype(p.dtype) for name, M in out.items()}

    def product(self, M, N):
        return M @ N

    def slope(self, phi, P):
        return activations.get(phi).slope(P)

    def equilibrium(self, q):
        """X and which columns have a residual that tol or rounding explains; the start is X0 or 0."""
        F, Z, phi = q.function.effective(q.factors), self.product(q.B, q.U), activations.get(q.activation)
        X = np.zeros_like(Z) if q.X0 is None else q.X0.copy()
        if q.max_iter < 100 or Z.size == 0:  # a method of its own has no use for a cap of Picard iterations
            return X * np.nan, np.full(Z.shape[1], Z.size == 0)
        A = F[0] if len(F) == 1 else F[0] @ F[1]
        for j in range(Z.shape[1]):
            if np.isfinite(Z[:, j]).all():
                X[:, j] = self.column(q, A, Z[:, j], X[:, j], phi)
            else:
                X[:, j] = np.nan
        eps = np.finfo(q.dtype).eps
        noise = 8 * len(A) * (eps * (np.abs(A) @ np.abs(X) + np.abs(Z) + np.abs(X)) + np.finfo(q.dtype).tiny * eps)
        residual = np.abs(phi.phi(A @ X + Z) - X)
        return X, np.all(residual <= np.maximum(q.tol * np.minimum(1, np.abs(Z).max(axis=0)), noise), axis=0)

    def column(self, q, A, z, x, phi):
        best, least = x, np.inf
        for _ in range(60):
            P = A @ x + z
            residual = phi.phi(P) - x
            size = np.abs(residual).max()
            if not size < least and _ > 5:
                break
            if size < least:
                best, least = x, size
            try:
                x = x + np.linalg.solve(np.eye(len(A), dtype=A.dtype) - phi.slope(P)[:, None] * A, residual)
            except np.linalg.LinAlgError:
                break
        return best

    def adjoint(self, q, F, S, G):
        At = F[0].T if len(F) == 1 else (F[0] @ F[1]).T
        V = np.full_like(G, np.nan)
        for j in range(G.shape[1]):
            if np.isfinite(S[:, j]).all():
                V[:, j] = np.linalg.solve(np.eye(len(At), dtype=At.dtype) - S[:, j : j + 1] * At, S[:, j] * G[:, j])
        return V


# --- other methods ----------------------------------------------------------------------------------------------------


class GaussSeidel(Right):
    """Sweeps that use each new entry at once, until no entry moves."""

    declared = {"stops": "step"}  # noqa: RUF012

    def column(self, q, A, z, x, phi):
        x, floor = x.copy(), 4 * np.finfo(q.dtype).eps
        for _ in range(q.max_iter):
            last = x.copy()
            for i in range(len(x)):
                x[i] = phi.phi(A[i] @ x + z[i])
            noise = floor * (np.abs(A) @ np.abs(x) + np.abs(z) + np.abs(x))
            small = np.maximum(q.tol * min(1, np.abs(z).max()), noise)
            if (np.maximum(np.abs(x - last), np.abs(phi.phi(A @ x + z) - x)) <= small).all():
                break
        return x


class Root(Right):
    """SciPy's root, which stops by the residual."""

    def column(self, q, A, z, x, phi):
        f = lambda x: phi.phi(A @ x + z) - x  # noqa: E731
        scale = float(np.abs(z).max()) or 1.0  # SciPy's tolerances are for numbers of size 1
        found = optimize.root(lambda y: f(scale * y) / scale, x / scale, tol=max(0.1 * q.tol, 1e-15))
        polished = super().column(q, A, z, scale * found.x, phi)  # its last digits are those of a difference quotient
        return polished if q.tol < 1e-4 else scale * found.x


class Krylov(Right):
    """SciPy's newton_krylov on each column, to a residual of a tenth of tol."""

    def column(self, q, A, z, x, phi):
        scale = float(np.abs(z).max()) or 1.0
        f = lambda y: phi.phi(A @ (scale * y) + z) / scale - y  # noqa: E731
        if q.tol < 1e-4 or q.dtype == np.float32:
            return super().column(q, A, z, x, phi)
        return scale * optimize.newton_krylov(f, x / scale, f_tol=0.1 * q.tol * min(1, scale) / scale)


class Broyden(Right):
    """Broyden's method with the whole inverse, then Newton's where that fails."""

    def column(self, q, A, z, x, phi):
        f = lambda x: x - phi.phi(A @ x + z)  # noqa: E731
        H, r = np.eye(len(x)), f(x)
        for _ in range(200):
            step = -H @ r
            last, r = r, f(x + step)
            x = x + step
            y = r - last
            size = step @ H @ y
            if not np.isfinite(r).all() or np.abs(r).max() <= 0.2 * q.tol * min(1, np.abs(z).max()) or not size:
                break
            H = H + np.outer(step - H @ y, step @ H) / size
        residual = np.abs(r).max(initial=0.0)
        good = np.isfinite(residual) and residual <= q.tol * min(1, np.abs(z).max())
        return x if good else super().column(q, A, z, np.zeros_like(x), phi)


class Residual(Right):
    """Plain iteration that returns the iterate whose residual it judged, without the application that judged it."""

    def column(self, q, A, z, x, phi):
        for _ in range(q.max_iter):
            G = phi.phi(A @ x + z)
            noise = 4 * np.finfo(q.dtype).eps * (np.abs(A) @ np.abs(x) + np.abs(z) + np.abs(x))
            if (np.abs(G - x) <= np.maximum(q.tol * min(1, np.abs(z).max()), noise)).all():
                break
            x = G
        return x


class Damped(Right):
    """Half a step at a time, and one whole application at the end."""

    declared = {"stops": "step"}  # noqa: RUF012

    def column(self, q, A, z, x, phi):
        for _ in range(2 * q.max_iter):
            G = phi.phi(A @ x + z)
            noise = 2 * np.finfo(q.dtype).eps * (np.abs(A) @ np.abs(x) + np.abs(z) + np.abs(x))
            if (np.abs(G - x) <= np.maximum(q.tol * min(1, np.abs(z).max()), noise)).all():
                break
            x = (x + G) / 2
        return phi.phi(A @ x + z) if np.abs(A).sum(axis=1).max() < 1 else x


class Exhaustive(Right):
    """Plain iteration that knows no tolerance: it goes on until the residual does not fall any more."""

    declared = {"stops": "step"}  # noqa: RUF012

    def column(self, q, A, z, x, phi):
        best, least = x, np.inf
        for k in range(q.max_iter):
            G = phi.phi(A @ x + z)
            size = np.abs(G - x).max()
            if size < least:
                best, least, since = x, size, k
            elif k > since + 200:
                break
            x = G
        return best


class Wide(Right):
    """All in long double, whatever the dtype of the problem, but for the solution of linear equations."""

    dtype = np.float64

    def column(self, q, A, z, x, phi):
        return super().column(q, A, z, x, phi).astype(np.longdouble).astype(np.float64)


class Shuffled(Right):
    """Sums in another order in every call, as with atomic additions."""

    declared = {"stops": "residual", "deterministic": False}  # noqa: RUF012

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def product(self, M, N):
        order = self.rng.permutation(M.shape[1])
        return M[:, order] @ N[order]


class Loops(Right):
    """Sums term by term, rows as samples."""

    def product(self, M, N):
        out = np.zeros((M.shape[0], N.shape[1]), np.result_type(M, N))
        for k in range(M.shape[1]):
            out += M[:, k : k + 1] * N[k]
        return out


class Gmres(Right):
    """The adjoint by GMRES, to a tolerance relative to its right side."""

    def adjoint(self, q, F, S, G):
        At, V = F[0].T if len(F) == 1 else (F[0] @ F[1]).T, np.full_like(G, np.nan)
        for j in range(G.shape[1]):
            if np.isfinite(S[:, j]).all():
                size = float(np.abs(G[:, j]).max()) or 1.0
                M = LinearOperator(At.shape, lambda v, j=j: v - S[:, j] * (At @ v), dtype=np.float64)
                V[:, j] = size * gmres(M, (S[:, j] * G[:, j] / size).astype(np.float64), rtol=1e-14, restart=50)[0]
        return V


class Flushing(Right):
    """Subnormal numbers count as zero, in the inputs and in the answers."""

    declared = {"stops": "residual", "flushes": True}  # noqa: RUF012

    def arrays(self, p):
        tiny = np.finfo(p.dtype).tiny
        return p.with_arrays({n: np.where(np.abs(M) < tiny, 0, M).astype(p.dtype) for n, M in p.arrays.items()})

    def product(self, M, N):
        out = M @ N
        return np.where(np.abs(out) < np.finfo(out.dtype).tiny, 0, out).astype(out.dtype)


class Kinks(Right):
    """The slope at a kink is that on its right, whichever is larger, or any number between the two."""

    def __init__(self, weight):
        self.weight, self.name = weight, f"kinks {weight}"
        self.declared = {"stops": "residual"} | ({} if weight == "right" else {"phi0": weight})

    def slope(self, phi, P):
        function = activations.get(phi)
        left, right = (function.slope(np.nextafter(P, P.dtype.type(side))) for side in (-np.inf, np.inf))
        between = right if self.weight == "right" else np.minimum(left, right) + self.weight * np.abs(right - left)
        return np.where(np.isin(P, function.kinks), between, function.slope(P)).astype(P.dtype)


class Raising(Right):
    """An exception for every failure, and no statuses."""

    def forward(self, p):
        out = super().forward(p)
        if not out.pop("converged").all():
            raise ArithmeticError("not converged")
        return out


KINKS = [Kinks(weight) for weight in (0.0, 0.3, 0.5, 1.0, "right")]
SLOW = (GaussSeidel, Residual, Damped, Exhaustive)  # they iterate in Python, entry by entry or column by column
BACKENDS = [Right(), GaussSeidel(), Root(), Krylov(), Broyden(), Residual(), Damped(), Exhaustive(), Wide(),
            Shuffled(), Loops(), Gmres(), Flushing(), *KINKS, Raising()]  # fmt: skip
FEW = ["contraction-*-0.5-*", "stopping-last-*", "stopping-slopes-*", "ranks", "kinks", "ball", "ill-posed-*-column",
       "activation-*-dense-float32", "shape-n-*", "shape-m-0-*", "not-finite-nan-*", "f-rows-far-*"]  # fmt: skip
MANY = [*FEW, "contraction-*-0.9-*", "contraction-*-0.99-float64", "stopping", "rows", "activations", "precision",
        "shapes", "cycles", "functions", "relations"]  # fmt: skip
RECOGNISED = [b for b in BACKENDS if not isinstance(b, Residual | Shuffled | Flushing)]


@pytest.mark.sampled(9)
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: type(b).__name__ + str(getattr(b, "weight", "")))
def test_declared_styles_raise_no_alarm(backend):
    backend.capabilities = {**EVERYTHING, "phi0": None, **backend.declared}
    report = check_backend(backend, groups=FEW if isinstance(backend, SLOW) else MANY)
    assert report.failed == [], str(report)
    assert len(report.passed) > (120 if isinstance(backend, SLOW) else 400)


@pytest.mark.parametrize("backend", RECOGNISED, ids=lambda b: type(b).__name__ + str(getattr(b, "weight", "")))
def test_styles_are_recognised_without_a_declaration(backend):
    backend.capabilities = {**EVERYTHING, "phi0": None}
    report = check_backend(backend, groups=["stopping-last-*", "stopping-slopes-*", "kinks"])
    assert report.failed == [], str(report)


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", ["InputsModified", "CotangentModified", "ScaledInPlace", "ReadoutInPlace"])
def test_a_backend_that_writes_to_its_inputs_spoils_no_later_run(name):
    assert check_backend(memory.BUGS[name](), groups=["protocols"]).failed
    assert check_backend(Plain(), groups=["protocols"]).failed == []
