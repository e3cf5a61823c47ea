"""What the page on drawn digits needs: python docs/interactive/digit_models.py FOLDER

The site calls this while it is built. Three models are trained on the embedded digits, exported to JavaScript, and
written with fifty test digits to FOLDER/digit-models.js, beside the models themselves and a picture of the page.
"""

import json
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

import idl_ref
from idl_ref.export import export
from idl_ref.preprocessing import Standardise

KAPPAS = (0.5, 0.9, 0.99)
TEST_DIGITS = 50


def train(kappa):
    """A model of 32 hidden units whose ‖A‖∞ is at most κ; it has no D, so that outputs come from the hidden state."""
    x, y, _, _ = idl_ref.datasets.digits()
    model = idl_ref.ImplicitModel(
        64, 10, 32, no_D=True, bias=True, kappa=kappa, tol=1e-8, mitr=3000, dtype="float64", seed=0, backend="numpy"
    )
    model.preprocessing = Standardise(float(x.mean()), float(x.std()))
    model.classes = list(range(10))
    idl_ref.fit(model, x, y, optimizer=idl_ref.SGD(0.05), epochs=12, batch_size=32, seed=0, progress=False)
    return model


def module(model):
    """The text of the exported module; its declared range is that of the pixels, 0 … 1."""
    with tempfile.TemporaryDirectory() as folder:
        return export(model, "js", folder, (0.0, 1.0)).files[0].read_text(encoding="utf-8")


def classic(text):
    """A module as an expression of a classic script, because browsers refuse to import modules from a disk."""
    names = re.findall(r"^export (?:const|function) \[?([\w, ]+)", text, re.M)
    inside = re.sub(r"^export ", "", text, flags=re.M)
    return f"(() => {{\n{inside}\nreturn {{ {', '.join(names)} }};\n}})()"


def script(models):
    """The text of digit-models.js: the models by κ, and the test digits, a letter a … q for each pixel 0 … 16."""
    _, _, x, y = idl_ref.datasets.digits()
    letters = ["".join(chr(ord("a") + round(16 * float(pixel))) for pixel in image) for image in x[:TEST_DIGITS]]
    accuracy = {kappa: float((model(x).argmax(axis=1) == y).mean()) for kappa, model in models.items()}
    parts = ",\n".join(f'"{kappa}": {classic(module(model))}' for kappa, model in models.items())
    return (
        f"const digitModels = {{\n{parts}\n}};\n"
        f"const digitAccuracy = {json.dumps({str(kappa): share for kappa, share in accuracy.items()})};\n"
        f"const testDigits = {json.dumps(letters)};\nconst testLabels = {json.dumps(y[:TEST_DIGITS].tolist())};\n"
    )


def steps(model, u):
    """The hidden states (K, n) of Picard's iteration for one sample, until a step of 1e-8."""
    W, pre = model.effective(), model.preprocessing
    z = W["B"] @ np.append((u.astype(float) - pre.mean) / pre.scale, 1)
    X = [np.zeros(len(z))]
    while len(X) < 2 or np.abs(X[-1] - X[-2]).max() > model.settings.tol:
        X.append(np.maximum(W["A"] @ X[-1] + z, 0))
    return np.array(X[1:])


def picture(models, path):
    """What a reader without JavaScript sees: a test digit, its hidden state step by step, and how it settles."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    u, model = idl_ref.datasets.digits()[2][23], models[0.9]  # the digit with which the page begins
    figure, axes = plt.subplots(2, 2, figsize=(7.2, 5.4), layout="constrained", height_ratios=(1, 1))
    axes[0, 0].imshow(u.reshape(8, 8), cmap="Greys")
    axes[0, 0].set(title="a test digit", xticks=[], yticks=[])
    X = steps(model, u)
    axes[0, 1].imshow(X.T, aspect="auto", cmap="Blues", extent=(0.5, len(X) + 0.5, 32, 0))
    axes[0, 1].set(
        title="the hidden state after each step", xlabel="step", ylabel="unit", xticks=range(1, len(X) + 1, 3)
    )
    for kappa, other in models.items():
        X = steps(other, u)
        axes[1, 0].semilogy(range(1, len(X)), np.abs(X[:-1] - X[-1]).max(axis=1), label=f"κ = {kappa}")
    axes[1, 0].set(title="distance from the last state", xlabel="step")
    axes[1, 0].legend()
    y = model(u[None])[0]
    axes[1, 1].barh(range(10), np.exp(y - y.max()) / np.exp(y - y.max()).sum())
    axes[1, 1].set(title="probability of each class", yticks=range(10), xlim=(0, 1))
    axes[1, 1].invert_yaxis()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write(folder):
    """Write digit-models.js, digit-κ.npz for each κ, and digit.png to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    models = {kappa: train(kappa) for kappa in KAPPAS}
    for kappa, model in models.items():
        model.save(folder / f"digit-{kappa}.npz")
    (folder / "digit-models.js").write_text(script(models), encoding="utf-8")
    picture(models, folder / "digit.png")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
