"""Each function of this module draws a picture and returns it as a matplotlib Figure.

No function uses pyplot or its global state. The module needs matplotlib: ``pip install "idl-ref[plot]"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from idl_ref import activations, checks
from idl_ref import factors as fac
from idl_ref.activation_names import AnyActivation
from idl_ref.certificate import contracting
from idl_ref.choices import Loss, Method
from idl_ref.comparison import STEP
from idl_ref.equilibrium import solve_equilibrium
from idl_ref.gradcheck import difference_curve
from idl_ref.model import ImplicitModel
from idl_ref.solution import SolveOptions
from idl_ref.train import History
from idl_ref.wellposed import norm_inf, perron_root

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["residuals", "sparsity", "spectrum", "training_curves", "v_curve"]


def blank(width: float, height: float) -> Figure:
    """Return an empty figure of the given size.

    Parameters
    ----------
    width, height : float
        The size in inches.

    Returns
    -------
    Figure

    Raises
    ------
    ImportError
        matplotlib is not installed.

    Examples
    --------
    >>> blank(7, 4).get_size_inches().tolist()
    [7.0, 4.0]
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('plots need matplotlib: pip install "idl-ref[plot]".') from None
    return Figure(figsize=(width, height), layout="constrained")


def _axes(figure: Figure, title: str, x: str, y: str, rows: int = 1, columns: int = 1, place: int = 1) -> Axes:
    """Add axes with a title and labels to a figure, at a place in a grid of rows × columns."""
    axes = figure.add_subplot(rows, columns, place)
    axes.set_title(title, fontsize="medium")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    if x in ("epoch", "iteration"):
        axes.xaxis.get_major_locator().set_params(integer=True)  # type: ignore[call-arg]
    return axes


def training_curves(history: History) -> Figure:
    """Plot loss, accuracy, iterations, and the norm and Perron root of A against the epochs.

    Parameters
    ----------
    history : History
        The result of `fit`.

    Returns
    -------
    Figure
        Four axes: loss, accuracy in percent, applications of the map per sample, and ‖A‖∞ with the Perron root of |A|.

    Raises
    ------
    ImportError
        matplotlib is not installed.

    Examples
    --------
    >>> from idl_ref import fit, datasets
    >>> x, y = datasets.two_moons(60)
    >>> history = fit(ImplicitModel(2, 2, 8, bias=True, seed=0), x, y, epochs=3, progress=False)
    >>> figure = training_curves(history)  # figure.savefig("training.png")
    >>> [axes.get_title() for axes in figure.axes]
    ['Loss', 'Accuracy', 'Iterations per sample', 'Well-posedness of A']
    """
    figure = blank(9, 6)
    epochs = np.arange(1, len(history.loss) + 1)
    axes = _axes(figure, "Loss", "epoch", "mean loss", 2, 2, 1)
    axes.semilogy(epochs, history.loss, label="training")
    if history.validation_loss:
        axes.semilogy(epochs[: len(history.validation_loss)], history.validation_loss, label="validation")
    axes.legend()
    axes = _axes(figure, "Accuracy", "epoch", "%", 2, 2, 2)
    for name, values in (("training", history.accuracy), ("validation", history.validation_accuracy)):
        if values:
            label = f"{name}: {100 * values[-1]:.2f} % in the last epoch"
            axes.plot(epochs[: len(values)], 100 * np.array(values), label=label)
    if axes.lines:
        axes.legend()
    axes = _axes(figure, "Iterations per sample", "epoch", "applications of the map", 2, 2, 3)
    for name, counts in (("forward", history.forward_iterations), ("adjoint", history.adjoint_iterations)):
        mean, largest = np.array(counts).reshape(-1, 2).T
        (line,) = axes.plot(epochs, mean, label=f"{name}, mean")
        axes.plot(epochs, largest, ":", color=line.get_color(), label=f"{name}, max")
    axes.set_ylim(bottom=0)
    axes.legend()
    axes = _axes(figure, "Well-posedness of A", "epoch", "", 2, 2, 4)
    axes.plot(epochs, history.norm, label="‖A‖∞")
    axes.plot(epochs, history.perron_root, label="Perron root of |A|")
    axes.axhline(1, color="gray", linewidth=0.8)
    axes.set_ylim(0, 1.1 * max([1.0, *history.norm]))
    axes.legend()
    return figure


def residuals(
    A: Any,
    Z: Any,
    *,
    activation: AnyActivation = "relu",
    methods: Sequence[Method] = ("picard", "anderson", "newton", "auto"),
    max_iter: int = 60,
) -> Figure:
    """Plot the largest step ‖g(x) − x‖∞ of all columns against the iterations, for each method, and the line κᵏ.

    Parameters
    ----------
    A, Z, activation
        As for `solve_equilibrium`.
    methods : sequence of str
        The names of the methods; see SolveOptions.
    max_iter : int
        Number of iterations to show. The point at k comes from a separate solve with max_iter = k.

    Returns
    -------
    Figure
        One line per method, and the line (first step) · κᵏ⁻¹ with κ = Lip(φ) ‖A‖∞.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    ValueError, TypeError
        Arguments that `solve_equilibrium` refuses.

    Notes
    -----
    Cost: up to max_iter²/2 applications of the map for each method.

    Examples
    --------
    >>> figure = residuals([[0.5, 0.2], [0.1, 0.4]], [[1.0], [2.0]], methods=("picard", "newton"))
    >>> [line.get_label() for line in figure.axes[0].lines]
    ['picard', 'newton', 'κᵏ, κ = 0.7']
    """
    figure = blank(7, 4.5)
    axes = _axes(figure, "Step ‖g(x) − x‖∞ per iteration", "iteration", "largest step of any column")
    factors, _ = fac.check_equation(A, Z=Z)
    phi = activations.get(activation, factors[0].shape[0])
    kappa = phi.lipschitz * fac.norm_inf(contracting(factors, phi))
    first = None
    for method, style in zip(methods, ("-", "-", "-", "--") * len(methods), strict=False):
        steps: list[float] = []
        for k in range(1, max_iter + 1):
            options = SolveOptions(tol=0, max_iter=k, method=method, on_failure="ignore")
            solution = solve_equilibrium(A, Z, activation=activation, options=options, backend="numpy")
            steps.append(float(solution.step.max(initial=0.0)))
            if solution.iterations.max(initial=0) < k:
                break
        axes.semilogy(range(1, len(steps) + 1), np.maximum(steps, 1e-17), style, marker=".", label=method)
        first = steps[0] if first is None else first
    line = np.arange(1, max_iter + 1)
    axes.semilogy(line, (first or 1.0) * kappa ** (line - 1.0), ":", color="gray", label=f"κᵏ, κ = {kappa:.3g}")
    axes.legend()
    return figure


def spectrum(A: Any) -> Figure:
    """Plot the eigenvalues of A, the unit circle, and circles with the Perron root of |A| and with ‖A‖∞ as radius.

    Parameters
    ----------
    A : (n, n) array, or a pair (L, R) of (n, r) arrays
        For a pair, the eigenvalues of RᵀL are shown, which include all nonzero eigenvalues of L Rᵀ.

    Returns
    -------
    Figure
        One set of axes, the complex plane.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    ValueError, TypeError
        An A that is neither a square matrix of real numbers nor such a pair.

    Notes
    -----
    Cost: about 10 n³ flops for a dense A, and 2 n r² + 10 r³ flops for the eigenvalues of a pair.

    Examples
    --------
    >>> figure = spectrum([[0.0, 0.5], [-0.5, 0.0]])
    >>> figure.axes[0].lines[1].get_label()
    'Perron root of |A| = 0.500'
    """
    factors = fac.check_factors(A)
    low_rank = len(factors) == 2
    values = np.linalg.eigvals(factors[1] @ factors[0] if low_rank else factors[0])
    figure = blank(5.4, 5.8)
    axes = _axes(figure, "Spectrum of A", "real part", "imaginary part")
    turn = np.exp(1j * np.linspace(0, 2 * np.pi, 400))
    axes.fill(turn.real, turn.imag, color="0.95", zorder=0)
    axes.plot(turn.real, turn.imag, color="gray", linewidth=0.8, label="unit circle")
    for radius, name, style in (
        (perron_root(A).upper, "Perron root of |A|", "--"),
        (fac.norm_inf(factors), "‖A‖∞", "-."),
    ):
        prefix = "bound of " if low_rank else ""
        axes.plot(radius * turn.real, radius * turn.imag, style, linewidth=1, label=f"{prefix}{name} = {radius:.3f}")
    axes.plot(values.real, values.imag, ".", color="C3", label=f"{values.size} eigenvalues")
    axes.set_aspect("equal")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def sparsity(A: Any) -> Figure:
    """Show the entries of a matrix as colors, with zeros in white.

    Parameters
    ----------
    A : (n, k) array
        The effective A, or L or R.

    Returns
    -------
    Figure
        One image; its title says how many entries are zero, in percent, and gives ‖A‖∞.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    ValueError, TypeError
        An A that is not a matrix of real numbers.

    Examples
    --------
    >>> sparsity([[0.0, 0.5], [0.0, 0.0]]).axes[0].get_title()
    '75.0 % of the entries are zero; ‖A‖∞ = 0.500'
    """
    A = checks.real_array("A", A, np.float64)
    checks.matrix("A", A, "(n, k)")
    figure = blank(6, 5)
    zero = 100 * float((A == 0).mean()) if A.size else 0.0
    axes = _axes(figure, f"{zero:.1f} % of the entries are zero; ‖A‖∞ = {norm_inf(A):.3f}", "column", "row")
    axes.grid(visible=False)
    limit = float(np.abs(A).max(initial=0.0)) or 1.0
    image = axes.imshow(np.where(A == 0, np.nan, A), cmap="coolwarm", vmin=-limit, vmax=limit, interpolation="nearest")
    axes.set_facecolor("white")
    figure.colorbar(image, label="entry (white: zero)")
    return figure


def v_curve(model: ImplicitModel, U: Any, targets: Any, *, loss: Loss = "cross_entropy", seed: int = 0) -> Figure:
    """Plot the relative error of a central difference against its step h.

    Rounding dominates for small steps, on the left, and truncation and kinks dominate for large steps, on the right.

    Parameters
    ----------
    model, U, targets, loss
        As for `check_gradients`.
    seed : int
        Seed of the random direction.

    Returns
    -------
    Figure
        Double logarithmic axes, with the errors of central differences and the error of the complex step.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    ValueError, TypeError, NotConvergedError
        As `check_gradients`.

    Notes
    -----
    Cost: about 75 forward solves and one adjoint solve in float64, and one solve in complex128.

    Examples
    --------
    >>> figure = v_curve(ImplicitModel(3, 2, 5, seed=0), np.ones((4, 3)), np.array([0, 1, 1, 0]))
    >>> figure.axes[0].get_xlabel()
    'step h'
    """
    steps = np.logspace(-13, -1, 37)
    errors, kinks, complex_error = difference_curve(model, U, targets, steps, loss=loss, seed=seed)
    figure = blank(7, 4.5)
    axes = _axes(figure, "Error of a directional derivative", "step h", "relative error")
    errors = np.maximum(errors, 1e-17)
    axes.loglog(steps, errors, ".-", label="central differences")
    if kinks.any():
        axes.loglog(steps[kinks], errors[kinks], "o", color="C3", fillstyle="none", label="a kink between ±h")
    axes.axhline(max(complex_error, 1e-17), color="C2", linestyle="--", label="complex step, h = 1e-30")
    axes.axvline(STEP, color="gray", linestyle=":", label="h = eps^⅓")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
