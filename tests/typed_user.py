"""This script uses the public names like a user; `mypy --strict` and pyright in strict mode accept every line."""

# pyright: strict
from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

import idl_ref
from idl_ref.conformance import Problem

Array = NDArray[np.floating[Any]]


class Mine:
    """A minimal backend for the conformance kit."""

    name = "mine"
    capabilities: Mapping[str, Any] = {"activations": ("relu",), "low_rank": False}

    def forward(self, problem: Problem) -> dict[str, Array]:
        A, Z = problem.A, problem.B @ problem.U
        assert A is not None, "low_rank is declared off"
        solution = idl_ref.solve_equilibrium(A, Z, options=idl_ref.SolveOptions(tol=problem.tol, on_failure="ignore"))
        Y = problem.C @ solution.X
        return {"X": solution.X, "Y": Y if problem.D is None else Y + problem.D @ problem.U}

    def vjp(self, problem: Problem, G_Y: Array) -> dict[str, Array]:
        raise NotImplementedError


def trained() -> idl_ref.ImplicitModel:
    x, y = idl_ref.datasets.two_moons(200)
    model = idl_ref.ImplicitModel(2, 2, 12, bias=True, seed=0, kappa=0.9)
    optimizer = idl_ref.SGD(0.1, schedule="cosine")
    history = idl_ref.fit(model, x, y, epochs=2, optimizer=optimizer, validation=(x, y), progress=False)
    last: float = history.loss[-1]
    mean, most = history.forward_iterations[-1]
    print(f"loss {last:.3f}, {mean:.1f} iterations, at most {most}, norm {history.norm[-1]:.2f}")
    loss, accuracy = idl_ref.train.evaluate(model, x, y)
    assert loss > 0
    assert accuracy is not None
    return model


def slope(P: Array) -> Array:
    return 1 / (1 + P * P)


def choices() -> None:
    """Every word is typed, and so are NumPy's ways to name a dtype."""
    for dtype in (np.float32, np.float64, float, np.dtype("float32"), np.dtype(np.float64), np.ones(2).dtype):
        model = idl_ref.ImplicitModel(2, 2, 4, dtype=dtype, activation="tanh", method="newton", on_failure="raise")
        print(model.dtype, model.activation, model.method)
    arctan = idl_ref.Activation("arctan", np.arctan, slope, lipschitz=1.0)
    model = idl_ref.ImplicitModel(2, 2, 4, activation=arctan, dtype="float64", backend="numpy")
    print(idl_ref.solve_equilibrium([[0.5]], [[1.0]], activation=arctan).X, model, arctan.kinks)
    options = idl_ref.SolveOptions(method="anderson", on_failure="ignore")
    print(idl_ref.solve_adjoint([[0.5]], [[1.0]], [[1.0]], options=options, backend="numpy").converged)


def main() -> None:
    choices()
    model, x = trained(), np.ones((3, 2), np.float32)
    kappa: float = model.kappa
    rank: int | None = model.rank
    f: type[idl_ref.ImplicitFunction] = model.f
    print(kappa, rank, f.__name__, model.dtype.name, model.settings.tol, sorted(model.parameters))
    solution = model.equilibrium(x)
    converged: bool = solution.require(error=1e-2).converged
    worst: float = float(solution.error_bound.max())
    status = idl_ref.Status(int(solution.status[0]))
    print(solution.X.shape, converged, worst, status.sentence, status.success, int(solution.iterations.max()))
    Y, pullback = model.vjp(x)
    print(pullback(np.ones_like(Y))["A"].shape)
    report = idl_ref.check_gradients(model, x, np.array([0, 1, 0]), entries=4)
    print(report.passed, [row.complex_error for row in report.rows])
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.npz")
        written = idl_ref.export.export(idl_ref.load(f"{folder}/model.npz"), "numpy", folder)
        print([path.name for path in written.files], written.plan.iterations)
    predictor: idl_ref.Predictor = model.freeze()
    prediction: idl_ref.Prediction = predictor.certified(x)
    print(predictor(x).argmax(axis=1), prediction.error_bound.max() < 1e-2)
    print(idl_ref.wellposed.perron_root(model.effective()["A"]).upper, idl_ref.losses.mse(Y.T, Y.T)[0])
    square = idl_ref.ImplicitModel(2, 2, 6, seed=1)
    print(idl_ref.analysis.cascade(square, model)(x).shape, idl_ref.available_backends()["numpy"])
    checked = idl_ref.conformance.check_backend(Mine(), groups=["kinks"])
    print(len(checked.passed), [result.message for result in checked.failed][:1], checked.ok)


if __name__ == "__main__":
    main()
