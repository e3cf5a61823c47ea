import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import idl_ref
from idl_ref import ConvergenceWarning, ImplicitFunction, ImplicitModel
from idl_ref.__main__ import main
from idl_ref.activations import TABLE
from idl_ref.backends import twin
from idl_ref.commands import first_step
from idl_ref.functions import FUNCTIONS

Trainer = twin("auto").Trainer

ROOT = Path(idl_ref.__file__).parents[1]


def images(seed=0, m=60, shape=(4, 4)):
    """Return uint8 images of two classes with different mean brightness, and their labels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, m).astype(np.uint8)
    return (rng.integers(0, 120, (m, *shape)) + 130 * y.reshape(-1, *[1] * len(shape))).astype(np.uint8), y


@pytest.fixture
def data(tmp_path):
    """Write a data file with the array names of Keras' mnist.npz."""
    path = tmp_path / "data.npz"
    save(path)
    return path


def save(path, **changes):
    (x_train, y_train), (x_test, y_test) = images(0), images(1, 20)
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test, **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def run(capsys, *arguments):
    """Run a command, and return its exit status, its standard output and its standard error."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def refused(capsys, *arguments):
    """Assert that a command is refused with exit status 2 and one line on standard error, and return this line."""
    try:
        status, out, err = run(capsys, *arguments)
    except SystemExit as left:  # argparse refuses invalid options by SystemExit.
        status, (out, err) = left.code, capsys.readouterr()
        err = err.splitlines()[-1] + "\n"
    assert status == 2
    assert err.count("\n") == 1
    assert "error: " in err
    assert "Traceback" not in out + err
    return err


def shell(*arguments, cwd, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-m", "idl_ref", *map(str, arguments)], cwd=cwd, env=environment, capture_output=True,
        text=True, encoding="utf-8", timeout=600, check=False, **options,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _few_pictures(request, monkeypatch):
    """Omit the drawing, which takes longer than everything else, except in the two tests that check the picture."""
    if request.node.name not in ("test_train_on_images", "test_train_without_matplotlib"):
        monkeypatch.setattr("idl_ref.commands.train.plot", lambda history, path: [])


@pytest.fixture
def trained(tmp_path, data, capsys):
    assert run(capsys, "train", "--data", data, "--hidden", 6, "--epochs", 3, "--out", tmp_path)[0] == 0
    return tmp_path / "model.npz"


# --- train ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_train_with_no_arguments(tmp_path):
    done = shell("train", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-2:]
    accuracy = re.fullmatch(r"test accuracy: (\d\d\.\d\d) %", last[0])
    assert float(accuracy[1]) >= 97
    assert last[1] == "wrote model.npz, history.json, report.html, training.png"
    assert sorted(os.listdir(tmp_path)) == ["history.json", "model.npz", "report.html", "training.png"]
    assert "epoch 20/20" in done.stderr
    assert "Warning" not in done.stderr
    history = json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))
    assert len(history["loss"]) == len(history["validation_accuracy"]) == 20
    assert f"{100 * history['validation_accuracy'][-1]:.2f}" == accuracy[1]
    model = idl_ref.load(tmp_path / "model.npz")
    x_train, _, x_test, y_test = idl_ref.datasets.digits()
    assert model.preprocessing.mean == pytest.approx(x_train.mean(), rel=1e-5)
    share = (model(x_test).argmax(axis=1) == y_test).mean()
    assert f"{100 * share:.2f}" == accuracy[1]
    done = shell("predict", "model.npz", cwd=tmp_path)
    assert f"accuracy: {accuracy[1]} %" in done.stdout
    done = shell("check", "model.npz", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "well-posedness: ok; gradients: ok" in done.stdout


def test_train_on_images(tmp_path, data, capsys):
    status, out, err = run(capsys, "train", "--data", data, "--hidden", 6, "--epochs", 5, "--out", tmp_path / "a" / "b")
    assert status == 0
    assert re.search(r"^test accuracy: \d+\.\d\d %$", out, re.M)
    assert float(re.search(r"test accuracy: (\S+)", out)[1]) > 90
    assert "error" not in err
    model = idl_ref.load(tmp_path / "a" / "b" / "model.npz")
    assert (model.input_dim, model.output_dim, model.hidden_dim, model.bias) == (16, 2, 6, True)
    assert model.preprocessing.scale == pytest.approx(images()[0].std())
    assert (tmp_path / "a" / "b" / "training.png").is_file()


def test_train_is_reproducible(tmp_path, data, capsys):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run(capsys, "train", "--data", data, "--epochs", 1, "--seed", seed, "--out", tmp_path / folder)[0] == 0
    one, same, other = (idl_ref.load(tmp_path / folder / "model.npz").parameters["A"] for folder in "abc")
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("arguments", [["--f", f] for f in FUNCTIONS] + [["--activation", name] for name in TABLE]
                         + [["--rank", "2"], ["--rank", "1", "--f", "rows"], ["--batch-size", "1000"], ["--lr", "0"],
                            ["--backend", "numpy"], ["--optimizer", "adam"], ["--class-weight", "balanced"],
                            ["--early-stopping"], ["--lr", "auto"], ["--hidden", "auto"]])  # fmt: skip
def test_every_choice(tmp_path, data, capsys, arguments):
    base = ["train", "--data", data, "--hidden", 4, "--epochs", 1, "--out", tmp_path]
    assert run(capsys, *base, *arguments)[0] == 0
    model = idl_ref.load(tmp_path / "model.npz")
    if arguments[0] in ("--f", "--activation"):
        assert arguments[1] in (model.f.name, model.activation)
    if arguments[0] == "--rank":
        assert model.rank == int(arguments[1])
    status, out, _ = run(capsys, "check", tmp_path / "model.npz", "--samples", 3, "--entries", 4, "--data", data)
    assert status == 0, out


def test_no_epoch_replaces_no_model(trained, data, tmp_path, capsys):
    before = trained.read_bytes()
    status, out, _ = run(capsys, "train", "--data", data, "--epochs", 0, "--out", tmp_path)
    assert status == 0
    assert out.splitlines()[-1] == "nothing was learnt, so that no model was written: there was no epoch"
    assert trained.read_bytes() == before


def test_train_without_test_samples(tmp_path, capsys):
    empty = np.zeros((0, 4, 4), np.uint8), np.zeros(0, np.uint8)
    data = save(tmp_path / "data.npz", x_test=empty[0], y_test=empty[1])
    status, out, _ = run(capsys, "train", "--data", data, "--hidden", 4, "--epochs", 1, "--out", tmp_path)
    assert status == 0
    assert "test accuracy" not in out
    assert "on test data" not in out


def test_train_without_matplotlib(tmp_path, data, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, out, _ = run(capsys, "train", "--data", data, "--hidden", 4, "--epochs", 1, "--out", tmp_path)
    assert status == 0
    assert 'training.png was not written: plots need matplotlib (pip install "idl-ref[plot]")' in out
    assert sorted(os.listdir(tmp_path)) == ["data.npz", "history.json", "model.npz", "report.html"]


def test_ctrl_c_keeps_the_model(tmp_path, data, capsys, monkeypatch):
    step, taken = Trainer.step, []

    def interrupted(*arguments):
        taken.append(1)
        if len(taken) == 4:  # The first step, with a copy of the model, compiles the kernels.
            raise KeyboardInterrupt
        return step(*arguments)

    monkeypatch.setattr(Trainer, "step", interrupted)
    status, out, err = run(capsys, "train", "--data", data, "--lr", 0.01, "--epochs", 9, "--out", tmp_path)
    assert status == 130
    assert "interrupted after 1 epoch; the model is saved with its weights" in out
    assert "Traceback" not in err
    idl_ref.load(tmp_path / "model.npz")
    assert json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))["interrupted"] is True


def test_ctrl_c_elsewhere_leaves_quietly(trained, capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("idl_ref.commands.predict.load", interrupted)
    assert run(capsys, "predict", trained) == (130, "", "idl-ref: interrupted\n")


# --- predict ----------------------------------------------------------------------------------------------------------


def test_predict(trained, data, capsys):
    model = idl_ref.load(trained)
    x, y = images(1, 20)
    predicted = model(x).argmax(axis=1)
    status, out, err = run(capsys, "predict", trained, "--data", data)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        " ".join(map(str, predicted)), f"accuracy: {100 * (predicted == y).mean():.2f} %"
    ]  # fmt: skip


def test_predict_writes_a_table(trained, data, tmp_path, capsys):
    path = tmp_path / "predicted.csv"
    status, out, _ = run(capsys, "predict", trained, "--data", data, "--out", path)
    assert status == 0
    assert f"wrote {path}" in out
    head, *lines = path.read_text(encoding="utf-8").splitlines()
    assert head == "sample,label,p_0,p_1,error_bound,status"
    rows = [line.split(",") for line in lines]
    prediction = idl_ref.load(trained).freeze().certified(images(1, 20)[0])
    powers = np.exp(prediction.Y.astype(float))
    assert [row[0] for row in rows] == [str(j) for j in range(20)]
    assert [row[1] for row in rows] == [str(label) for label in prediction.Y.argmax(axis=1)]
    p = np.array([row[2:4] for row in rows], float)
    np.testing.assert_allclose(p, powers / powers.sum(axis=1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose([float(row[4]) for row in rows], prediction.error_bound, rtol=1e-2)
    assert {row[5] for row in rows} <= {"converged", "precision_limit"}


def test_predict_without_labels(trained, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", x_test=images(1, 50)[0])
    status, out, _ = run(capsys, "predict", trained, "--data", tmp_path / "x.npz")
    assert status == 0
    assert "test accuracy" not in out
    assert "on test data" not in out
    assert out.rstrip().endswith("… (50 in all)")


def test_predict_of_nothing(trained, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", x_test=np.zeros((0, 4, 4), np.uint8), y_test=np.zeros(0, int))
    assert run(capsys, "predict", trained, "--data", tmp_path / "x.npz", "--out", tmp_path / "y.csv")[0] == 0
    assert len((tmp_path / "y.csv").read_text(encoding="utf-8").splitlines()) == 1


# --- check, info ------------------------------------------------------------------------------------------------------


def test_check(trained, data, capsys):
    status, out, err = run(capsys, "check", trained)
    assert (status, err) == (0, "")
    assert "‖A‖∞ = " in out
    assert "8 of 8 samples converged" in out
    assert "the error of X is at most" in out
    assert out.rstrip().endswith("well-posedness: ok; gradients: ok")
    status, out, _ = run(capsys, "check", trained, "--data", data, "--samples", 3, "--entries", 2)
    assert status == 0
    assert "3 of 3 samples" in out
    assert " 2/36 " in out


def test_check_of_a_low_rank_model(tmp_path, data, capsys):
    run(capsys, "train", "--data", data, "--hidden", 6, "--rank", 2, "--epochs", 1, "--out", tmp_path)
    status, out, _ = run(capsys, "check", tmp_path / "model.npz")
    assert status == 0
    assert "‖A‖∞ ≤ " in out


@pytest.mark.parametrize("size", [1.5, 100.0])
def test_check_of_an_ill_posed_model(tmp_path, capsys, size):
    """With a positive A of Perron root `size`, the iteration for X = relu(A X + B U) diverges to infinity."""
    model = ImplicitModel(3, 2, 4, ImplicitFunction, seed=0)
    model.parameters["A"][...] = size / 4
    model.parameters["B"][...] = 1
    model.save(tmp_path / "model.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        status, out, err = run(capsys, "check", tmp_path / "model.npz")
    assert status == 1, out + err
    assert "NOT SHOWN" in out
    assert "Traceback" not in err


def test_check_of_wrong_gradients(trained, capsys, monkeypatch):
    layer = type(idl_ref.load(trained).layer())
    right = layer.backward

    def wrong(*arguments, **keywords):
        backward = right(*arguments, **keywords)
        return backward._replace(C=-backward.C)

    monkeypatch.setattr(layer, "backward", wrong)
    status, out, _ = run(capsys, "check", trained)
    assert status == 1
    assert out.rstrip().endswith("well-posedness: ok; gradients: WRONG")


def test_check_that_cannot_tell(tmp_path, capsys):
    """For n = 1 and ‖A‖∞ > κ, the effective A is ±κ, so that only rounding remains of the gradient of the raw A."""
    model = ImplicitModel(3, 2, 1, bias=True, activation="tanh", seed=0)
    model.parameters["A"][...] = 8
    model.save(tmp_path / "model.npz")
    status, out, _ = run(capsys, "check", tmp_path / "model.npz")
    assert status == 1
    assert "cannot tell for A: rounding may change this gradient by more than 1e-6 of its largest entry: check" in out
    assert out.rstrip().endswith("well-posedness: ok; gradients: cannot tell")


def test_check_of_a_straight_through_model(tmp_path, capsys):
    model = ImplicitModel(3, 2, 4, straight_through=True, seed=0)
    model.parameters["A"] *= 8
    model.save(tmp_path / "model.npz")
    assert run(capsys, "check", tmp_path / "model.npz")[0] == 1


def test_info(capsys):
    status, out, err = run(capsys, "info")
    assert (status, err) == (0, "")
    assert f"idl-ref {idl_ref.__version__}, Python" in out
    assert re.search(rf"^numpy +{re.escape(np.__version__)}$", out, re.M)
    assert re.search(r"^backend numpy +available$", out, re.M)
    assert re.search(r"^backend auto is (numpy|numba)$", out, re.M)


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], ["train", "--help"], ["predict", "-h"], ["check", "-h"]]
)
def test_version_and_help(capsys, arguments):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"idl-ref {idl_ref.__version__}" if arguments == ["--version"] else "usage: idl-ref")


def test_as_a_module(tmp_path):
    assert shell("--version", cwd=tmp_path).stdout == f"idl-ref {idl_ref.__version__}\n"
    done = shell("predict", "nowhere.npz", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "idl-ref: error: there is no file nowhere.npz.\n")
    done = shell(cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_output_in_an_encoding_without_greek(tmp_path):
    """Output to a terminal or a pipe whose encoding lacks Greek letters does not cause a traceback."""
    ImplicitModel(3, 2, 4, seed=0).save(tmp_path / "model.npz")
    done = shell("check", "model.npz", cwd=tmp_path, env={"PYTHONIOENCODING": "ascii"})
    assert "Traceback" not in done.stderr
    assert done.returncode == 0


def test_a_reader_that_leaves_is_no_error(tmp_path):
    command = f"{sys.executable} -m idl_ref train --help | head -1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lr", "-0.1"], "learning_rate must be a number ≥ 0; got -0.1"),
        (["--lr", "nan"], "learning_rate must be a number ≥ 0"),
        (["--lr", "fast"], "argument --lr: invalid float value: 'fast'"),
        (["--hidden", "0"], "hidden_dim must be a whole number, at least 1; got 0"),
        (["--hidden", "2.5"], "argument --hidden: invalid int value"),
        (["--rank", "5"], "rank must be a whole number, at least 1 and at most 4; got 5"),
        (["--rank", "0"], "rank must be a whole number, at least 1"),
        (["--rank", "2", "--f", "triu"], "ImplicitFunctionTriu needs a dense A"),
        (["--epochs", "-1"], "epochs must be a whole number, at least 0; got -1"),
        (["--batch-size", "0"], "batch_size must be a whole number, at least 1; got 0"),
        (["--seed", "-1"], "seed must be a whole number, at least 0; got -1"),
        (["--backend", "cuda"], "backend 'cuda' is not available: "),
        (["--backend", "jax"], "argument --backend: invalid choice"),
        (["--f", "evil"], "argument --f: invalid choice"),
        (["--activation", "gelu"], "argument --activation: invalid choice"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
)
def test_train_refuses_settings(tmp_path, data, capsys, arguments, words):
    out = tmp_path / "out"
    assert words in refused(capsys, "train", "--data", data, "--hidden", "4", "--out", out, *arguments)
    assert not out.exists() or os.listdir(out) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_test": None}, "must hold x_train, y_train, x_test, y_test; got x_train, y_train, y_test"),
        ({"x_train": None, "y_train": None}, "must hold x_train, y_train, x_test, y_test; got x_test, y_test"),
        ({"y_train": np.zeros(60)}, "y_train must hold at least two classes; got only 0"),
        ({"y_test": np.full(20, -1)}, "y_test must hold only the classes 0, 1; got also -1"),
        ({"y_test": np.full(20, 9)}, "y_test must hold only the classes 0, 1; got also 9"),
        ({"y_train": np.arange(59) % 2}, "x_train must be samples of shape (m, …) and y_train labels of shape (m,)"),
        ({"y_train": np.zeros((60, 1), int)}, "y_train labels of shape (m,); got (60, 4, 4) and (60, 1)"),
        ({"x_train": np.zeros(60)}, "x_train must be samples of shape (m, …)"),
        ({"x_test": np.zeros((20, 3, 3))}, "x_train and x_test must have samples of one shape"),
        ({"x_train": np.zeros((0, 4, 4)), "y_train": np.zeros(0)}, "x_train must hold at least one sample"),
        ({"x_train": np.zeros((0, 4, 4)), "y_train": np.zeros(0, int)}, "must hold at least two classes; got none"),
        ({"x_train": np.zeros((60, 4, 4), complex)}, "x_train must hold real numbers"),
        ({"x_train": np.full((60, 4, 4), "a")}, "x_train must hold real numbers"),
        ({"x_train": np.array([None] * 60)}, "must be a .npz file of numeric arrays"),
        ({"x_train": np.full((60, 4, 4), np.nan)}, "must"),
        ({"x_train": np.zeros((60, 0))}, "must"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_train_refuses_data(tmp_path, capsys, changes, words):
    path = save(tmp_path / "bad.npz", **changes)
    out = tmp_path / "out"
    assert words in refused(capsys, "train", "--data", path, "--hidden", 4, "--epochs", 1, "--out", out)
    assert not out.exists() or os.listdir(out) == []


@pytest.mark.parametrize("content", [b"", b"PK", b"hello world", b"\x93NUMPY\x01\x00", b"PK\x05\x06" + bytes(18), None])
def test_files_that_are_no_data(tmp_path, trained, capsys, content):
    path = tmp_path / "bad.npz"
    if content is not None:
        path.write_bytes(content)
    for arguments in (["train", "--out", tmp_path / "out"], ["predict", trained], ["check", trained]):
        assert str(path) in refused(capsys, *arguments, "--data", path)
    for command in ("predict", "check"):
        assert str(path) in refused(capsys, command, path)
    assert str(tmp_path) in refused(capsys, "train", "--data", tmp_path)


def test_a_truncated_data_file(tmp_path, data, capsys):
    whole = data.read_bytes()
    for size in range(0, len(whole), 211):
        data.write_bytes(whole[:size])
        assert str(data) in refused(capsys, "train", "--data", data, "--epochs", 0, "--out", tmp_path / "out")


def test_a_damaged_data_file(tmp_path, data, capsys):
    """A flipped bit in a data file gives a message of one line, or has no effect."""
    whole = data.read_bytes()
    for position in range(0, len(whole), 41):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        data.write_bytes(damaged)
        command = ["train", "--data", data, "--epochs", 0, "--hidden", 2, "--out", tmp_path / "out"]
        status, _, err = run(capsys, *command)
        assert status in (0, 2)
        assert "Traceback" not in err


def test_an_array_file_that_holds_no_samples(tmp_path, trained, capsys):
    np.save(tmp_path / "x.npy", np.zeros(3))
    assert "--target must name the .npy file with the targets" in refused(capsys, "train", "--data", tmp_path / "x.npy")
    assert "X must be samples of shape (m, …)" in refused(capsys, "predict", trained, "--data", tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": np.zeros((3, 4))}, "must hold x_test; got x"),
        ({"x_test": np.zeros(16)}, "x_test must be samples of shape (m, …)"),
        ({"x_test": np.zeros((3, 5))}, "x_test must have shape (m, p) with p = 16; got (3, 5)"),
        ({"x_test": np.zeros((3, 16)), "y_test": np.zeros(2, int)}, "y_test, if there is one, labels of shape (m,)"),
        ({"x_test": np.full((3, 16), "a")}, "must hold real numbers"),
        ({"x_test": np.zeros((3, 16), complex)}, "must hold real numbers"),
    ],
)
def test_predict_and_check_refuse_data(tmp_path, trained, capsys, arrays, words):
    np.savez(tmp_path / "bad.npz", **arrays)
    for command in ("predict", "check"):
        assert words in refused(capsys, command, trained, "--data", tmp_path / "bad.npz")


def test_predict_needs_data_where_the_digits_do_not_fit(trained, capsys):
    err = refused(capsys, "predict", trained)
    assert "16" in err
    assert "64" in err


def test_out_that_cannot_be_written(tmp_path, data, trained, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("x", encoding="utf-8")
    for out in (blocked, blocked / "folder"):
        assert "file" in refused(capsys, "train", "--data", data, "--hidden", 4, "--epochs", 1, "--out", out)
    for out in (blocked / "y.csv", tmp_path / "nowhere" / "y.csv", tmp_path):
        refused(capsys, "predict", trained, "--data", data, "--out", out)


@pytest.mark.parametrize("arguments", [["--samples", "0"], ["--samples", "-3"], ["--entries", "0"], ["--entries", "x"]])
def test_check_refuses_settings(trained, capsys, arguments):
    assert (
        "must be a whole number, at least 1" in (text := refused(capsys, "check", trained, *arguments))
        or "invalid int value" in text
    )


def test_divergence_is_one_line(tmp_path, data, capsys):
    arguments = ["train", "--data", data, "--hidden", 4, "--f", "triu", "--lr", "1e30", "--out", tmp_path / "out"]
    status, out, err = run(capsys, *arguments)
    assert status == 1
    last = err.splitlines()[-1]
    assert re.match(r"idl-ref: error: epoch \d+, batch \d+: the (loss|gradient of \w) is", last)
    assert last.endswith("The training diverged, and no model was written.")
    assert "accuracy" not in out
    assert not os.listdir(tmp_path / "out")


@pytest.mark.parametrize("rate", ["1e6", "1e30"])
def test_a_training_that_diverges_in_its_last_step(tmp_path, data, capsys, rate):
    """The only batch has a finite loss, so that only the final weights show that the training diverged."""
    out = tmp_path / "out"
    arguments = ["train", "--data", data, "--hidden", 64, "--batch-size", 1000, "--epochs", 1, "--lr", rate]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        status, text, err = run(capsys, *arguments, "--out", out)
    assert status == 1
    assert "Traceback" not in err
    last = text.splitlines()[-1]
    assert re.match(r"the training diverged: the loss .* was \d\.\d+ before it and is \S+ now", last), text
    assert "model.npz was not written" in last
    assert sorted(os.listdir(out)) == ["history.json", "report.html"]


def test_a_training_with_unconverged_samples(tmp_path, data, capsys, monkeypatch):
    step = Trainer.step

    def unconverged(*arguments):
        taken = step(*arguments)
        return taken._replace(counts=taken.counts._replace(failed=2))

    monkeypatch.setattr(Trainer, "step", unconverged)
    with pytest.warns(ConvergenceWarning):
        status, out, _ = run(capsys, "train", "--data", data, "--batch-size", 60, "--epochs", 2, "--out", tmp_path)
    assert status == 1
    assert out.splitlines()[-1].startswith("2 samples did not converge in the last epoch, forward or adjoint")
    assert (tmp_path / "model.npz").is_file()


def test_failed_samples_have_no_label(trained, tmp_path, capsys):
    """A NaN in a sample, and an overflow of the outputs alone, leave the label empty and count as wrong."""
    (x, y), path = images(1, 50), tmp_path / "x.npz"
    x = x.astype(float)
    x[3, 0, 0], x[45] = np.nan, 1e308
    np.savez(path, x_test=x, y_test=np.where(np.arange(50) == 3, 0, y))
    status, out, err = run(capsys, "predict", trained, "--data", path, "--out", tmp_path / "y.csv")
    assert (status, err) == (1, "")
    assert re.search(r"^accuracy: \d+\.\d\d %; 2 of 50 samples failed and count as wrong$", out, re.M)
    assert out.splitlines()[-1] == (
        "2 of 50 samples failed and have no label; the first is sample 3: an input is not finite, or the iteration "
        "overflowed; the column is NaN."
    )
    lines = (tmp_path / "y.csv").read_text(encoding="utf-8").splitlines()[1:]
    rows = [line.split(",") for line in lines]
    assert [j for j, row in enumerate(rows) if row[1] == ""] == [3, 45]
    share = np.mean([row[1] == str(label) for row, label in zip(rows, y, strict=True)])
    assert f"accuracy: {100 * share:.2f} %" in out
    status, out, _ = run(capsys, "predict", trained, "--data", path)
    assert status == 1
    assert out.splitlines()[0].split()[3] == "(failed)"
    np.savez(path, x_test=np.full((2, 4, 4), np.nan))
    assert run(capsys, "predict", trained, "--data", path)[0] == 1


def test_failed_test_samples_count_in_the_training(tmp_path, capsys):
    x = images(1, 20)[0].astype(float)
    x[:5] = np.nan
    data = save(tmp_path / "data.npz", x_test=x)
    with pytest.warns(ConvergenceWarning):
        status, out, _ = run(capsys, "train", "--data", data, "--epochs", 1, "--out", tmp_path)
    assert status == 1
    accuracy = re.search(r"^test accuracy: (\S+) %; 5 of 20 samples failed and count as wrong$", out, re.M)
    assert float(accuracy[1]) <= 75


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_long_wait_for_a_compiler_is_explained(tmp_path, data, capsys, monkeypatch, backend):
    monkeypatch.setattr(first_step, "PATIENCE", 0.0)
    base = ["train", "--data", data, "--hidden", 4, "--epochs", 1, "--out", tmp_path]
    status, _, err = run(capsys, *base, "--backend", backend)
    assert status == 0
    assert ("compiling functions of the numba twin" in err) == (backend == "numba")
