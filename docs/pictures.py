"""Draw the pictures that stand in the place of the pages that move, where there is no JavaScript, and those of doors.

Usage: python docs/pictures.py, which writes docs/_static/interactive/*.svg, docs/_static/door_*.svg, and
docs/_static/social.png, which other sites show beside a link
"""

import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt
import numpy as np

import idl_ref
from idl_ref.conformance.bugs import KINDS
from idl_ref.export import export
from idl_ref.wellposed import project_rows, scale_to_norm

STATIC = Path(__file__).parent / "_static"


def cobweb(axes):
    """Draw the iteration x ← relu(−0.8 x + 1) from 2.5."""
    grid, path = np.linspace(-1, 3, 400), [2.5]
    for _ in range(8):
        path.append(max(-0.8 * path[-1] + 1, 0))
    axes.plot(grid, grid, color="gray")
    axes.plot(grid, np.maximum(-0.8 * grid + 1, 0), linewidth=3)
    corners = np.repeat(path, 2)
    axes.plot(corners[:-1], corners[1:], color="C3")
    axes.set(xlabel="x", ylabel="g(x)", xlim=(-1, 3), ylim=(-1, 3))


def two_neurons(axes):
    """Draw where the map of two neurons leads, its regions, and one trajectory."""
    A, z, x = np.array([[0.5, -0.6], [0.7, 0.3]]), np.ones(2), np.array([3.0, 3.0])
    fine = np.stack(np.meshgrid(*[np.linspace(-1, 4, 400)] * 2))
    active = np.einsum("ij,jkl->ikl", A, fine) + z[:, None, None] > 0
    axes.pcolormesh(*fine, active[0] + 2 * active[1], cmap="Pastel1", shading="auto", rasterized=True)
    coarse = np.stack(np.meshgrid(*[np.arange(-1, 4.1, 0.5)] * 2))
    ahead = np.maximum(np.einsum("ij,jkl->ikl", A, coarse) + z[:, None, None], 0) - coarse
    axes.quiver(*coarse, *(ahead / np.maximum(np.hypot(*ahead), 1e-9)), color="gray", scale=22, width=0.004)
    way = [x]
    for _ in range(40):
        way.append(np.maximum(A @ way[-1] + z, 0))
    axes.plot(*np.array(way).T, color="C3")
    axes.plot(*np.linalg.solve(np.eye(2) - A, z), "o", color="black")
    axes.set(xlabel="x₁", ylabel="x₂", xlim=(-1, 4), ylim=(-1, 4))


def projection(axes):
    """Draw a row outside the ball, its projection and its rescaling."""
    a, kappa = np.array([[1.6, 0.3]]), 0.9
    axes.fill([kappa, 0, -kappa, 0], [0, kappa, 0, -kappa], color="gray", alpha=0.3)
    for name, b, color in (
        ("rescaled", scale_to_norm(a, kappa), "C3"),
        ("projected", project_rows(a, kappa), "C0"),
    ):
        axes.plot([a[0, 0], b[0, 0]], [a[0, 1], b[0, 1]], color=color)
        axes.plot(*b[0], "o", color=color, label=name)
    axes.plot(*a[0], "o", color="black", label="a")
    axes.set(xlabel="a₁", ylabel="a₂", xlim=(-2, 2), ylim=(-2, 2))
    axes.legend(frameon=False)


def verify(axes):
    """Draw how many planted bugs of each kind the conformance kit finds."""
    counts = {kind: len(module.BUGS) for kind, module in KINDS.items()}
    axes.barh(list(counts), list(counts.values()), color="C0")
    axes.invert_yaxis()
    axes.set(xlabel="planted bugs that are found")


def deploy(axes):
    """Draw the size of the files in which a model of the digits leaves the library."""
    model, sizes = idl_ref.ImplicitModel(64, 10, 64, bias=True, seed=0), {}
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model.npz")
        sizes["model.npz"] = Path(folder, "model.npz").stat().st_size
        for kind, name in (("c", "C99"), ("js", "JavaScript"), ("numpy", "NumPy")):
            files = export(model, kind, Path(folder, kind), (0.0, 1.0)).files
            sizes[name] = sum(file.stat().st_size for file in files)
    axes.barh(list(sizes), [size / 1000 for size in sizes.values()], color="C0")
    axes.invert_yaxis()
    axes.set(xlabel="kilobytes, 64 hidden units")


def main():
    """Write all pictures."""
    plt.rcParams.update({"svg.hashsalt": "idl_ref", "font.size": 12})
    for function in (cobweb, two_neurons, projection):
        figure, axes = plt.subplots(figsize=(4.4, 4.4), layout="constrained")
        axes.set_aspect("equal")
        function(axes)
        save(figure, STATIC / "interactive" / f"{function.__name__}.svg")
    figure, (words, picture) = plt.subplots(1, 2, figsize=(12, 6.3), layout="constrained")
    words.axis("off")
    words.text(0.06, 0.72, "idl_ref", fontsize=52)
    words.text(
        0, 0.5, "Implicit Deep Learning:\nanswers that say how far\nfrom the truth they are", fontsize=26, va="center"
    )
    words.text(0.06, 0.2, "X = φ(A X + B U)\nŶ = C X + D U", fontsize=28)
    picture.set_aspect("equal")
    cobweb(picture)
    save(figure, STATIC / "social.png")
    for function in (verify, deploy):
        figure, axes = plt.subplots(figsize=(4.4, 3.4), layout="constrained")
        function(axes)
        save(figure, STATIC / f"door_{function.__name__}.svg")


def save(figure, path):
    """Write a figure, with the same bytes each time."""
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=100)


if __name__ == "__main__":
    main()
