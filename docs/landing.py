"""Draw the figure of the landing page: an equilibrium that is found, with its certificate.

Usage: python docs/landing.py, which writes docs/_static/landing.svg, and landing_phone.svg with one part below the
other

A model of 16 hidden units is trained on the digits. Picard's iteration then looks for the state of one test digit. The
figure shows the state and the certificate after k iterations, k = 0, 1, …; its motion is CSS in the SVG, so that it
needs no script, and readers who asked for less motion see the last state.
"""

from pathlib import Path

import numpy as np

import idl_ref

STATIC = Path(__file__).parent / "_static"
STEPS = 14
SECONDS = 9.0
WIDTH, HEIGHT = 720, 264
PART = 340  # where the second part begins
STYLE = """
  text { font: 14px sans-serif; fill: #222; } .small { font-size: 12px; fill: #555; }
  .bar { fill: #0a5fb4; transform-box: fill-box; transform-origin: bottom; }
  .dot { fill: #b3261e; }
  .axis { stroke: #888; stroke-width: 1; fill: none; }
  .truth { stroke: #16703b; stroke-dasharray: 4 3; fill: none; }
"""


def states():
    """Return the iterates of a test digit (STEPS + 1, n), the certificate of each, and the largest error of each."""
    x, y, x_test, _ = idl_ref.datasets.digits()
    model = idl_ref.ImplicitModel(64, 10, 16, kappa=0.9, bias=True, dtype="float64", seed=0, backend="numpy")
    idl_ref.fit(model, x, y, optimizer=idl_ref.SGD(0.1), epochs=5, progress=False)
    weights = model.effective_weights()
    most = (model.equilibrium(x_test).X > 0).sum(axis=0).argmax()  # the digit with the most active units
    Z = weights.B @ np.append(x_test[most], 1.0)[:, None]
    exact = idl_ref.solve_equilibrium(weights.A, Z, options=idl_ref.SolveOptions(tol=1e-14)).X[:, 0]
    found, bounds = [np.zeros(16)], [np.inf]
    for k in range(1, STEPS + 1):
        options = idl_ref.SolveOptions(tol=0, max_iter=k, method="picard", on_failure="ignore")
        solution = idl_ref.solve_equilibrium(weights.A, Z, options=options, backend="numpy")
        found.append(solution.X[:, 0])
        bounds.append(float(solution.error_bound[0]))
    return np.array(found), bounds, np.abs(np.array(found) - exact).max(axis=1)


def keyframes(name, values):
    """Return the CSS of an animation that shows one value after the other, and rests at the last one."""
    share = 75 / len(values)
    lines = [f"{k * share:.1f}% {{ {value} }}" for k, value in enumerate(values)]
    return f"@keyframes {name} {{ {' '.join(lines)} 100% {{ {values[-1]} }} }}"


def svg(found, bounds, errors, phone=False):
    """Return the figure as text; for a phone, its second part stands below the first one."""
    largest = found.max()
    css, parts, second = [STYLE], [], []
    for i, state in enumerate(found.T):
        last = max(state[-1], 1e-3)
        height = 150 * last / largest
        css.append(keyframes(f"b{i}", [f"transform: scaleY({value / last:.3f})" for value in state]))
        parts.append(
            f'<rect class="bar" x="{30 + 19 * i}" y="{200 - height:.1f}" width="14" height="{height:.1f}" '
            f'style="animation: b{i} {SECONDS}s infinite"/>'
        )
        parts.append(f'<path class="truth" d="M{28 + 19 * i} {200 - height:.1f}h18"/>')

    def down(value):
        return 60 + (1.5 - np.log10(value)) * 140 / 8

    for k in range(1, len(found)):
        css.append(keyframes(f"k{k}", ["opacity: 0"] * k + ["opacity: 1"] * (len(found) - k)))
        dot = f'<circle class="dot" cx="{400 + 20 * k}" cy="{down(bounds[k]):.1f}" r="4"'
        second.append(f'{dot} style="animation: k{k} {SECONDS}s infinite step-end"/>')
        second.append(f'<path class="truth" d="M{394 + 20 * k} {down(errors[k]):.1f}h12"/>')
        hidden = "" if k == len(found) - 1 else ' opacity="0"'
        only = ["opacity: 0"] * k + ["opacity: 1"] + ["opacity: 0"] * (len(found) - k - 1)
        css.append(keyframes(f"t{k}", only))
        second.append(
            f'<text x="420" y="252"{hidden} style="animation: t{k} {SECONDS}s infinite step-end">'
            f"after {k} {'step' if k == 1 else 'steps'}: at most {bounds[k]:.1e} away</text>"
        )
    css.append("@media (prefers-reduced-motion: reduce) { * { animation: none !important; } }")
    for power in (0, -2, -4, -6):
        second.append(f'<text class="small" x="376" y="{down(10.0**power) + 4:.1f}" text-anchor="end">1e{power}</text>')
    title = "The 16 hidden numbers of a digit grow to the equilibrium, while the bound of their error shrinks"
    size, place = (f"{PART + 30} {HEIGHT + 244}", f"-{PART} 244") if phone else (f"{WIDTH} {HEIGHT}", "0 0")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" role="img" aria-label="{title}">'
        f"<title>{title}</title><style>{' '.join(css)}</style>"
        '<rect width="100%" height="100%" fill="#fff"/>'
        '<text x="28" y="28">the hidden state X, and the equilibrium (green)</text>'
        '<path class="axis" d="M24 200h312"/><text class="small" x="28" y="222">16 hidden units</text>'
        f'{"".join(parts)}<g transform="translate({place})">'
        '<text x="384" y="28">certificate (red), true error (green)</text>'
        '<path class="axis" d="M384 44v166h320"/><text class="small" x="700" y="226" text-anchor="end">'
        f"steps of the iteration</text>{''.join(second)}</g></svg>\n"
    )


if __name__ == "__main__":
    iteration = states()
    (STATIC / "landing.svg").write_text(svg(*iteration), encoding="utf-8")
    (STATIC / "landing_phone.svg").write_text(svg(*iteration, phone=True), encoding="utf-8")
