import sys

import numpy as np
import pytest

from idl_ref import (
    History,
    ImplicitFunctionRows,
    ImplicitFunctionTriu,
    ImplicitModel,
    SolveOptions,
    datasets,
    fit,
    plots,
    solve_equilibrium,
)

A = np.random.default_rng(0).standard_normal((8, 8)) / 16
HARD = np.full((8, 8), 0.99 / 8)
LOW_RANK = tuple(np.random.default_rng(1).standard_normal((2, 8, 2)) / 8)
Z = np.random.default_rng(2).standard_normal((8, 5))


def png(figure, tmp_path):
    """Assert that saving the figure gives no warning, and that the picture is not empty."""
    from matplotlib.figure import Figure

    assert isinstance(figure, Figure)
    path = tmp_path / "figure.png"
    figure.savefig(path, dpi=60)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 2000
    return figure


@pytest.fixture(autouse=True)
def _matplotlib(request):
    if "missing" not in request.node.name:
        pytest.importorskip("matplotlib")


def trained(loss="cross_entropy", validation=True, epochs=2, **settings):
    U, y = datasets.two_moons(40)
    targets = y if loss == "cross_entropy" else np.eye(2)[y]
    model = ImplicitModel(2, 2, 8, seed=0, **settings)
    data = (U, targets) if validation else None
    return fit(model, U, targets, loss=loss, epochs=epochs, validation=data, progress=False)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("settings", [{}, {"is_low_rank": True, "rank": 2}, {"f": ImplicitFunctionTriu}])
def test_training_curves(tmp_path, loss, validation, settings):
    figure = png(plots.training_curves(trained(loss, validation, **settings)), tmp_path)
    assert [axes.get_title() for axes in figure.axes] == [
        "Loss",
        "Accuracy",
        "Iterations per sample",
        "Well-posedness of A",
    ]
    assert len(figure.axes[0].lines) == 1 + validation


@pytest.mark.parametrize("epochs", [0, 1])
def test_training_curves_of_a_short_history(tmp_path, epochs):
    png(plots.training_curves(trained(epochs=epochs)), tmp_path)
    png(plots.training_curves(History()), tmp_path)


def test_training_curves_of_an_interrupted_history(tmp_path):
    history = trained(epochs=3)
    history.validation_loss.pop()
    history.validation_accuracy.pop()
    png(plots.training_curves(history), tmp_path)


@pytest.mark.parametrize("A", [A, HARD, LOW_RANK, np.triu(A, 1), np.zeros((8, 8))])
def test_residuals(tmp_path, A):
    figure = png(plots.residuals(A, Z, max_iter=12), tmp_path)
    (axes,) = figure.axes
    assert {line.get_label() for line in axes.lines} >= {"picard", "anderson", "newton", "auto"}


def test_residuals_are_the_steps_of_picard():
    figure = plots.residuals(HARD, np.abs(Z), methods=["picard"], max_iter=10)
    steps = figure.axes[0].lines[0].get_ydata()
    for k, step in enumerate(steps, 1):
        options = SolveOptions(tol=0, max_iter=k, method="picard", on_failure="ignore")
        assert step == pytest.approx(solve_equilibrium(HARD, np.abs(Z), options=options).step.max())


@pytest.mark.parametrize("A", [A, HARD, LOW_RANK, np.zeros((3, 3)), np.eye(1), -2 * np.eye(3)])
def test_spectrum(tmp_path, A):
    figure = png(plots.spectrum(A), tmp_path)
    values = np.linalg.eigvals(A[1].T @ A[0] if isinstance(A, tuple) else A)
    points = figure.axes[0].lines[-1].get_xydata()
    np.testing.assert_allclose(np.sort(points[:, 0]), np.sort(values.real), atol=1e-12)


@pytest.mark.parametrize("A", [A, HARD, np.triu(A, 1), LOW_RANK[0], np.zeros((3, 3)), A.astype(np.float32), A[:, :1]])
def test_sparsity(tmp_path, A):
    figure = png(plots.sparsity(A), tmp_path)
    assert f"{100 * (A == 0).mean():.1f} % of the entries are zero" in figure.axes[0].get_title()


@pytest.mark.parametrize(
    "settings", [{}, {"is_low_rank": True, "rank": 2}, {"activation": "tanh", "f": ImplicitFunctionRows}]
)
def test_v_curve(tmp_path, settings):
    model = ImplicitModel(2, 2, 6, seed=0, **settings)
    U, y = datasets.two_moons(6)
    png(plots.v_curve(model, U, y), tmp_path)


def test_pyplot_is_not_touched():
    pyplot = "matplotlib.pyplot" in sys.modules
    plots.training_curves(History())
    plots.sparsity(A)
    assert ("matplotlib.pyplot" in sys.modules) == pyplot


@pytest.mark.parametrize(
    "call",
    [
        lambda: plots.training_curves(History()),
        lambda: plots.residuals(A, Z),
        lambda: plots.spectrum(A),
        lambda: plots.sparsity(A),
        lambda: plots.v_curve(ImplicitModel(2, 2, 3), np.ones((1, 2)), [0]),
    ],
)
def test_matplotlib_is_missing(monkeypatch, call):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'plots need matplotlib: pip install "idl-ref\[plot\]"'):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: plots.spectrum(np.zeros((2, 3))), "A must have shape"),
        (lambda: plots.sparsity(np.zeros(3)), "A must be a matrix"),
        (lambda: plots.residuals(A, Z[:3]), "Z must have shape"),
        (lambda: plots.residuals(A, Z, methods=["broyden"]), "method must be one of"),
    ],
)
def test_validation(call, words):
    with pytest.raises(ValueError, match=words):
        call()
