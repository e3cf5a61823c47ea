"""The commands train, predict and check on tables and on arrays that are not divided yet."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from test_cli import ROOT, refused, run

import idl_ref
from idl_ref import certificate, tables
from idl_ref.commands import data, summary
from idl_ref.commands.predict import _Answers
from idl_ref.commands.rows import Rows
from idl_ref.commands.stopping import Stopping
from idl_ref.predictor import Prediction
from idl_ref.training.interrupts import Terminated


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr("idl_ref.commands.train.plot", lambda history, path: [])


def people(path, m=200, seed=0, target="buys", **changes):
    """Write a table with two numbers, a word, and a target that depends on all three."""
    rng = np.random.default_rng(seed)
    age, income = rng.normal(40, 9, m).round(1), rng.normal(3000, 800, m).round(2)
    colour = rng.choice(["red", "green", "blue"], m)
    score = (age - 40) / 9 + (income - 3000) / 800 + 2 * (colour == "red")
    columns = {"age": age, "income": income, "colour": colour}
    columns[target] = {
        "buys": np.where(score > 1, "yes", "no"),
        "price": (1e5 * (10 + score + 0.1 * rng.standard_normal(m))).round(2),
        "stars": np.clip(np.round(score), -2, 2).astype(int),
    }[target]
    columns |= {name: values for name, values in changes.items() if values is not None}
    rows = list(zip(*columns.values(), strict=True))
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([list(columns), *rows])
    return path


def read(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def train(capsys, path, *more, status=0):
    """Train on a table, and return what was printed."""
    arguments = ["train", "--data", path, "--hidden", 8, "--epochs", 15, "--out", path.parent, *more]
    got, out, err = run(capsys, *arguments)
    assert got == status, out + err
    assert "Traceback" not in out + err
    return out


# --- classes ----------------------------------------------------------------------------------------------------------


def test_classes_from_a_table(tmp_path, capsys):
    path = people(tmp_path / "people.csv")
    out = train(capsys, path, "--target", "buys")
    assert "the column buys holds words: --task classify" in out
    assert "160 training samples of 2 classes, 40 test samples" in out
    assert float(re.search(r"^test accuracy: (\S+) %$", out, re.M)[1]) > 85
    model = idl_ref.load(tmp_path / "model.npz")
    assert model.classes.tolist() == ["no", "yes"]
    assert model.columns.features == ["age", "income", "colour=blue", "colour=green", "colour=red"]
    assert model.columns.targets == ("buys",)

    status, out, err = run(capsys, "predict", tmp_path / "model.npz", "--data", path, "--out", tmp_path / "p.csv")
    assert (status, err) == (0, "")
    rows = read(tmp_path / "p.csv")
    assert list(rows[0]) == ["sample", "label", "p_no", "p_yes", "error_bound", "status"]
    U, bad = model.columns.matrix(tables.read(path), np.float64)
    assert not bad.any()
    prediction = model.freeze().certified(U)
    powers = np.exp(prediction.Y.astype(float))
    assert [row["label"] for row in rows] == model.classes[prediction.Y.argmax(axis=1)].tolist()
    np.testing.assert_allclose([float(r["p_yes"]) for r in rows], powers[:, 1] / powers.sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose([float(r["error_bound"]) for r in rows], prediction.error_bound, rtol=1e-2)
    right = np.mean([row["label"] == truth["buys"] for row, truth in zip(rows, read(path), strict=True)])
    assert f"accuracy: {100 * right:.2f} %" in out


def test_three_broken_rows_among_a_hundred(tmp_path, capsys):
    train(capsys, people(tmp_path / "people.csv"), "--target", "buys")
    path = people(tmp_path / "more.csv", 100, seed=5)
    assert run(capsys, "predict", tmp_path / "model.npz", "--data", path, "--out", tmp_path / "whole.csv")[0] == 0
    lines = path.read_text(encoding="utf-8").splitlines()
    fields = [line.split(",") for line in lines]
    fields[8][0], fields[51][2], fields[90][1] = "", "mauve", "much"
    path.write_text("\n".join(map(",".join, fields)), encoding="utf-8")
    status, out, err = run(capsys, "predict", tmp_path / "model.npz", "--data", path, "--out", tmp_path / "p.csv")
    assert (status, err) == (1, "")
    assert out.splitlines()[-1] == (
        "3 of 100 samples failed and have no label; the first is sample 7 (line 9): age is missing."
    )
    whole, rows = read(tmp_path / "whole.csv"), read(tmp_path / "p.csv")
    assert [j for j, row in enumerate(rows) if row["label"] == ""] == [7, 50, 89]
    assert [rows[j]["status"] for j in (7, 50, 89)] == [
        "age is missing",
        "colour has a word that the training data had not",
        "income is not a finite number",
    ]
    assert all(rows[j][name] == "" for j in (7, 50, 89) for name in ("p_no", "p_yes", "error_bound"))
    assert [row for j, row in enumerate(rows) if j not in (7, 50, 89)] == [
        row for j, row in enumerate(whole) if j not in (7, 50, 89)
    ]


def test_whole_numbers_are_classes_or_numbers(tmp_path, capsys):
    path = people(tmp_path / "people.csv", target="stars")
    assert "stars holds 5 different whole numbers: --task classify" in train(capsys, path, "--target", "stars")
    assert idl_ref.load(tmp_path / "model.npz").classes.tolist() == [-2, -1, 0, 1, 2]
    assert run(capsys, "predict", tmp_path / "model.npz", "--data", path)[0] == 0
    out = train(capsys, path, "--target", "stars", "--task", "regress")
    assert "test R²: 0." in out
    assert "--task" not in out


def test_missing_values(tmp_path, capsys):
    path = people(tmp_path / "people.csv")
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[3] = "," + lines[3].partition(",")[2]
    path.write_text("\n".join(lines), encoding="utf-8")
    err = refused(capsys, "train", "--data", path, "--target", "buys")
    assert "the column age must have a value in every row; got 1 missing ones, the first in line 4" in err
    assert "--missing mean" in err
    train(capsys, path, "--target", "buys", "--missing", "mean")
    assert run(capsys, "predict", tmp_path / "model.npz", "--data", path)[0] == 0
    filled = idl_ref.load(tmp_path / "model.npz").columns.fills
    assert filled[0] == pytest.approx(np.nanmean(tables.read(path).columns["age"]))


def test_a_table_of_test_samples(tmp_path, capsys):
    path, test = people(tmp_path / "people.csv"), people(tmp_path / "test.csv", 50, seed=1)
    out = train(capsys, path, "--target", "buys", "--test", test)
    assert "200 training samples of 2 classes, 50 test samples" in out
    found = re.search(r"^test accuracy: (\S+) %$", out, re.M)[1]
    assert f"accuracy: {found} %" in run(capsys, "predict", tmp_path / "model.npz", "--data", test)[1]
    unknown = people(tmp_path / "unknown.csv", 20, buys=np.full(20, "perhaps"))
    arguments = ["train", "--data", path, "--target", "buys", "--test"]
    assert "must hold only the classes 'no', 'yes'; got also 'perhaps'" in refused(capsys, *arguments, unknown)
    assert "--test must have the target buys" in refused(capsys, *arguments, people(tmp_path / "x.csv", target="price"))


def test_codes_stay_words_in_a_table_of_test_samples(tmp_path, capsys):
    """A column of words of which the test samples hold only some that look like numbers is a column of words there."""
    code = np.array(["01", "02", "x"])
    path = people(tmp_path / "people.csv", zip=code[np.arange(200) % 3])
    test = people(tmp_path / "test.csv", 40, seed=1, zip=code[np.arange(40) % 2])
    train(capsys, path, "--target", "buys", "--test", test)
    assert run(capsys, "predict", tmp_path / "model.npz", "--data", test)[0] == 0


def test_predictions_of_a_table_without_targets_in_another_order(tmp_path, capsys):
    path = people(tmp_path / "people.csv")
    train(capsys, path, "--target", "buys")
    rows = read(path)
    with (tmp_path / "bare.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, ["id", "colour", "income", "age"], extrasaction="ignore")
        table.writeheader()
        table.writerows({"id": f"no {j}", **row} for j, row in enumerate(rows))
    for name in ("bare", "people"):
        out = tmp_path / f"{name}.out.csv"
        assert run(capsys, "predict", tmp_path / "model.npz", "--data", tmp_path / f"{name}.csv", "--out", out)[0] == 0
    assert (tmp_path / "bare.out.csv").read_bytes() == (tmp_path / "people.out.csv").read_bytes()


def test_some_rows_have_a_target(tmp_path, capsys):
    train(capsys, people(tmp_path / "people.csv"), "--target", "buys")
    some = np.where(np.arange(60) < 20, "yes", "")
    path = people(tmp_path / "some.csv", 60, seed=3, buys=some)
    status, out, _ = run(capsys, "predict", tmp_path / "model.npz", "--data", path, "--out", tmp_path / "p.csv")
    assert status == 0
    right = np.mean([row["label"] == "yes" for row in read(tmp_path / "p.csv")[:20]])
    assert f"accuracy: {100 * right:.2f} %" in out


def test_check_needs_a_sample(tmp_path, capsys):
    """It said «ok» when nothing had been checked."""
    path = people(tmp_path / "people.csv")
    train(capsys, path, "--target", "buys")
    (tmp_path / "none.csv").write_text("age,income,colour\n", encoding="utf-8")
    (tmp_path / "bad.csv").write_text("age,income,colour\nx,1,red\n", encoding="utf-8")
    for name in ("none.csv", "bad.csv"):
        message = refused(capsys, "check", tmp_path / "model.npz", "--data", tmp_path / name)
        assert "--data must have a sample that the model can take; got none" in message


def test_check_with_a_table(tmp_path, capsys):
    for target in ("buys", "price"):
        path = people(tmp_path / "people.csv", target=target)
        train(capsys, path, "--target", target)
        status, out, _ = run(capsys, "check", tmp_path / "model.npz", "--data", path, "--samples", 3)
        assert status == 0, out
        assert "3 of 3 samples converged" in out
        assert run(capsys, "check", tmp_path / "model.npz")[0] == 0


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_numbers_from_a_table(tmp_path, capsys):
    path = people(tmp_path / "people.csv", 400, target="price")
    out = train(capsys, path, "--target", "price", "--epochs", 60)
    assert "the column price holds measured numbers: --task regress" in out
    found = re.search(r"^test R²: (\S+); root mean square error: (\S+)$", out, re.M)
    assert float(found[1]) > 0.95
    assert float(found[2]) < 4e4  # in units of the price, whose standard deviation is 1.7e5
    model = idl_ref.load(tmp_path / "model.npz")
    assert model.classes is None
    status, out, _ = run(capsys, "predict", tmp_path / "model.npz", "--data", path, "--out", tmp_path / "p.csv")
    assert status == 0
    rows = read(tmp_path / "p.csv")
    assert list(rows[0]) == ["sample", "price", "error_bound", "status"]
    Y = model(model.columns.matrix(tables.read(path), np.float64)[0])
    np.testing.assert_allclose([float(row["price"]) for row in rows], Y[:, 0], rtol=1e-6)
    truth = np.array([float(row["price"]) for row in read(path)])
    R2 = 1 - np.square(truth - Y[:, 0]).mean() / truth.var()
    assert float(re.search(r"R²: (\S+);", out)[1]) == pytest.approx(R2, abs=1e-4)


@pytest.mark.slow
def test_the_written_numbers_are_within_the_written_bounds(tmp_path, capsys):
    """A model in float64, with targets that differ in their last digits: nine digits would make all of them equal."""
    x = np.random.default_rng(0).standard_normal((60, 2))
    path = tmp_path / "seconds.csv"
    path.write_text("a,b,t\n" + "".join(f"{a!r},{b!r},{1.7e9 + 1e-3 * a!r}\n" for a, b in x.tolist()))
    train(capsys, path, "--target", "t", "--epochs", 3)
    assert run(capsys, "predict", tmp_path / "model.npz", "--data", path, "--out", tmp_path / "p.csv")[0] == 0
    model = idl_ref.load(tmp_path / "model.npz")
    assert model.dtype == np.float64
    exact = model.freeze().certified(model.columns.matrix(tables.read(path), np.float64)[0])
    for row, y, bound in zip(read(tmp_path / "p.csv"), exact.Y[:, 0], exact.error_bound, strict=True):
        assert float(row["error_bound"]) >= bound + abs(float(row["t"]) - y)
        assert float(row["error_bound"]) <= 1.02 * bound


@pytest.mark.parametrize(
    ("bound", "text"), [(0.0, "0.00e+00"), (1.2301e-7, "1.24e-07"), (np.inf, "inf"), (9.999, "1.00e+01")]
)
def test_bounds_are_rounded_up(bound, text):
    assert certificate.upward(bound, 3) == text


def test_what_writing_rounds_is_covered_where_the_bound_is_0():
    model = idl_ref.ImplicitModel(1, 2, 3, seed=0)
    Y = np.array([[1 / 3, -2e5 / 7], [0.1, 0.7]], np.float32)
    found = Prediction(Y, np.zeros(2), np.zeros(2, np.int8), np.ones(2, int), np.zeros(2))
    for row, y in zip(_Answers(model, "t", False).of(Rows(Y, None, 0, {}, []), found), Y.tolist(), strict=True):
        assert max(abs(float(text) - number) for text, number in zip(row[1:3], y, strict=True)) <= float(row[3]) < 1
    for row, y in zip(_Answers(model, "t", True).of(Rows(Y, None, 0, {}, []), found), Y.astype(float), strict=True):
        powers = np.exp(y - y.max())
        assert (
            0 < 2 * np.abs(np.array(row[2:4], float) - powers / powers.sum()).max() <= float(row[4]) or row[2] in "01"
        )


def test_numbers_with_leading_zeros_are_words(tmp_path, capsys):
    """01067 is a postcode, and 01 and 1 are two codes."""
    rng = np.random.default_rng(0)
    path = tmp_path / "codes.csv"
    lines = [f"{a},{b},{'01' if a > 0.5 else '1' if a > 0 else '2'}" for a, b in rng.standard_normal((90, 2)).tolist()]
    path.write_text("\n".join(["a,b,code", *lines]))
    out = train(capsys, path, "--target", "code", "--epochs", 2)
    assert "the column code has numbers with leading zeros, which are kept as words: --task classify" in out
    assert idl_ref.load(tmp_path / "model.npz").classes.tolist() == ["01", "1", "2"]
    status, out, err = run(capsys, "predict", tmp_path / "model.npz", "--data", path, "--out", tmp_path / "p.csv")
    assert (status, err) == (0, "")
    assert list(read(tmp_path / "p.csv")[0])[2:5] == ["p_01", "p_1", "p_2"]


def test_words_where_the_classes_are_whole_numbers(tmp_path, capsys):
    rng = np.random.default_rng(0)
    path = tmp_path / "codes.csv"
    rows = [(a, b, int(a > 0)) for a, b in rng.standard_normal((90, 2)).tolist()]
    path.write_text("a,b,code\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows))
    train(capsys, path, "--target", "code", "--epochs", 2)
    path.write_text("a,b,code\n" + "".join(f"{a},{b},{'yes' if c else 'no'}\n" for a, b, c in rows))
    status, _, err = run(capsys, "predict", tmp_path / "model.npz", "--data", path)
    assert status == 2
    assert "must hold whole numbers, as the classes of the model are; got 90 words or infinite numbers" in err


def test_several_targets(tmp_path, capsys):
    double = np.random.default_rng(0).standard_normal(200).round(3)
    path = people(tmp_path / "people.csv", target="price", double=double)
    out = train(capsys, path, "--target", "price", "double", "--optimizer", "adam", "--early-stopping", 5)
    assert re.search(r"test R²: \S+; root mean square error: \S+, \S+$", out, re.M)
    assert run(capsys, "predict", tmp_path / "model.npz", "--data", path, "--out", tmp_path / "p.csv")[0] == 0
    assert list(read(tmp_path / "p.csv")[0]) == ["sample", "price", "double", "error_bound", "status"]


def test_one_hot_rows_are_no_measured_numbers(tmp_path, capsys):
    X, labels = np.random.default_rng(0).standard_normal((40, 3)), np.arange(40) % 3
    np.savez(tmp_path / "d.npz", X=X, y=np.eye(3)[labels])
    command = "train", "--data", tmp_path / "d.npz", "--out", tmp_path, "--epochs", 1
    status, _, err = run(capsys, *command)
    assert status == 2
    assert "got (40, 3), one-hot rows: make labels of them by numpy.argmax(…, axis=1), or add --task regress." in err
    assert run(capsys, *command, "--task", "regress")[0] == 0
    np.savez(tmp_path / "d.npz", X=X, y=2.5 * np.eye(3)[labels])  # one entry of each row is not 0, but it is not 1
    assert run(capsys, *command)[0] == 0


def test_measured_numbers_in_a_npz_file(tmp_path, capsys):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 3))
    y = X @ [1.0, -2.0, 3.0]
    np.savez(tmp_path / "a.npz", X=X, y=y)
    np.savez(tmp_path / "b.npz", x_train=X[:200], y_train=y[:200], x_test=X[200:], y_test=y[200:])
    np.save(tmp_path / "X.npy", X)
    np.save(tmp_path / "y.npy", y)
    for name, more in (("a.npz", []), ("b.npz", []), ("X.npy", ["--target", tmp_path / "y.npy"])):
        out = train(capsys, tmp_path / name, *more)
        assert re.search(r"y(_train)? holds measured numbers: --task regress", out)
        assert float(re.search(r"^test R²: (\S+);", out, re.M)[1]) > 0.9
    status, out, _ = run(capsys, "predict", tmp_path / "model.npz", "--data", tmp_path / "a.npz")
    assert status == 0
    assert re.search(r"^R²: 0\.9", out, re.M)
    assert run(capsys, "predict", tmp_path / "model.npz", "--data", tmp_path / "X.npy")[0] == 0


def test_several_measured_numbers_in_arrays_are_predicted_as_numbers(tmp_path, capsys):
    """Outputs without classes would look like those of a classifier; the file has to tell."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 3))
    np.savez(tmp_path / "a.npz", X=X, y=np.column_stack([100 * X[:, 0], X[:, 1] - 50]))
    train(capsys, tmp_path / "a.npz")
    model, table = tmp_path / "model.npz", tmp_path / "p.csv"
    status, out, _ = run(capsys, "predict", model, "--data", tmp_path / "a.npz", "--out", table)
    assert status == 0
    assert re.search(r"^R²: 0\.9", out, re.M)
    rows = read(table)
    assert list(rows[0]) == ["sample", "y0", "y1", "error_bound", "status"]
    Y = np.array([[float(row[name]) for name in ("y0", "y1")] for row in rows])
    np.testing.assert_allclose(Y, idl_ref.load(model)(X), rtol=1e-6)
    lines = ["a,b,c", *(",".join(map(repr, row)) for row in X.tolist())]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    assert run(capsys, "predict", model, "--data", tmp_path / "t.csv", "--out", table)[0] == 0
    assert [row["y0"] for row in read(table)] == [row["y0"] for row in rows]
    np.savez(tmp_path / "w.npz", X=X, y=np.where(X[:, 0] > 0, "up", "down"))
    assert "y must hold real numbers" in refused(capsys, "predict", model, "--data", tmp_path / "w.npz")


def test_outputs_that_may_be_classes_or_numbers(tmp_path, capsys):
    model, X = idl_ref.ImplicitModel(3, 2, 4, seed=0), np.random.default_rng(0).standard_normal((4, 3))
    model.save(tmp_path / "model.npz")
    np.save(tmp_path / "X.npy", X)
    task = ["predict", tmp_path / "model.npz", "--data", tmp_path / "X.npy", "--task"]
    out = run(capsys, *task, "auto")[1]
    assert "taken for those of the classes 0 … 1: --task regress gives the numbers" in out
    labels, numbers = (run(capsys, *task, name)[1].split() for name in ("classify", "regress"))
    assert out.split()[-4:] == labels == [str(k) for k in model(X).argmax(axis=1)]
    np.testing.assert_allclose([float(y) for y in numbers], model(X)[:, 0], rtol=1e-6)
    with_workers = [*task, "regress", "--workers", 1, "--out", tmp_path / "Y"]
    assert "--task is for tables of answers" in refused(capsys, *with_workers)
    idl_ref.ImplicitModel(3, 1, 4, seed=0).save(tmp_path / "model.npz")
    assert "--task classify needs a model with two outputs" in refused(capsys, *task, "classify")
    model.classes = np.array(["a", "b"])
    model.save(tmp_path / "model.npz")
    assert "--task regress needs a model of numbers" in refused(capsys, *task, "regress")


def test_targets_of_another_form(tmp_path, capsys):
    X = np.random.default_rng(0).standard_normal((6, 3))
    model = idl_ref.ImplicitModel(3, 2, 4, seed=0)
    model.classes = np.array([0, 1])
    model.save(tmp_path / "model.npz")
    predict = ["predict", tmp_path / "model.npz", "--data", tmp_path / "d.npz"]
    np.savez(tmp_path / "d.npz", x_test=X, y_test=np.eye(2, dtype=int)[[0, 1] * 3])
    assert "y_test must be one label for each sample; got shape (6, 2)" in refused(capsys, *predict)
    np.savez(tmp_path / "d.npz", x_test=X, y_test=np.array(["0", "1"] * 3))
    assert "for example with astype(int)" in refused(capsys, *predict)
    model.classes = None
    model.save(tmp_path / "model.npz")
    np.savez(tmp_path / "d.npz", x_test=X, y_test=np.ones((6, 3)))
    message = refused(capsys, *predict, "--task", "regress")
    assert "y_test must have 2 numbers for each sample, as the model has outputs; got 3" in message


def test_failed_samples_without_a_target_are_not_judged(tmp_path, capsys):
    path = people(tmp_path / "people.csv")
    train(capsys, path, "--target", "buys")
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [*lines[1:7], *(f"nan,{k},red," for k in range(25))]
    (tmp_path / "some.csv").write_text("\n".join([lines[0], *rows]), encoding="utf-8")
    status, out, _ = run(capsys, "predict", tmp_path / "model.npz", "--data", tmp_path / "some.csv")
    assert status == 1
    assert re.search(r"^accuracy: [\d.]+ %$", out, re.M)
    assert "25 of 31 samples failed" in out


def test_a_target_with_the_name_of_another_column(tmp_path, capsys):
    path = people(tmp_path / "people.csv", target="price")
    path.write_text(path.read_text(encoding="utf-8").replace("price", "status", 1), encoding="utf-8")
    train(capsys, path, "--target", "status")
    assert run(capsys, "predict", tmp_path / "model.npz", "--data", path, "--out", tmp_path / "p.csv")[0] == 0
    assert list(read(tmp_path / "p.csv")[0]) == ["sample", "predicted status", "error_bound", "status"]
    assert {row["status"] for row in read(tmp_path / "p.csv")} == {"converged"}


def test_a_table_for_a_model_that_was_not_trained_on_one(tmp_path, capsys):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((50, 2)).round(3)
    np.savez(tmp_path / "a.npz", X=X, y=X[:, 0] > 0)
    train(capsys, tmp_path / "a.npz")
    for head, status in (("a,b", 0), ("a,b,c", 2)):
        lines = [head, *(",".join(map(str, [*row, 1][: head.count(",") + 1])) for row in X.tolist())]
        (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
        got, _, err = run(
            capsys, "predict", tmp_path / "model.npz", "--data", tmp_path / "t.csv", "--out", tmp_path / "p.csv"
        )
        assert got == status
        assert ("--data must be a table of 2 columns of numbers" in err) == bool(status)
    labels = [row["label"] for row in read(tmp_path / "p.csv")]
    assert labels == [str(bool(v)) for v in idl_ref.load(tmp_path / "model.npz")(X).argmax(axis=1)]


# --- training and test samples ----------------------------------------------------------------------------------------


def test_the_choice_of_test_samples():
    labels = np.repeat(["a", "b", "c", "d"], [50, 30, 19, 1])
    test, train = data.divided(labels, 100, 0.2, 0)
    assert sorted([*test, *train]) == list(range(100))
    assert [int((labels[test] == name).sum()) for name in "abcd"] == [10, 6, 4, 0]
    np.testing.assert_array_equal(data.divided(labels, 100, 0.2, 0)[0], test)
    assert not np.array_equal(data.divided(labels, 100, 0.2, 1)[0], test)
    assert len(data.divided(None, 10, 0.25, 0)[0]) == 2
    assert len(data.divided(None, 10, 0.0, 0)[0]) == 0
    assert len(data.divided(None, 1, 0.9, 0)[1]) == 1


def test_a_reordered_table_keeps_its_rows_together():
    X = np.asfortranarray(np.arange(12.0).reshape(4, 3))
    order = np.array([2, 0, 3, 1])
    np.testing.assert_array_equal(data._reordered(X.copy(order="F"), order), X[order])


def test_the_size_of_the_hidden_state():
    sizes = [
        data.hidden_units("auto", p, q, m) for p, q, m in ((4, 3, 120), (64, 10, 1437), (784, 10, 60_000), (4, 2, 20))
    ]
    assert sizes == [32, 64, 128, 8]
    assert data.hidden_units(7, 4, 3, 10) == 7


def test_numbers_far_from_zero_keep_their_digits(tmp_path, capsys):
    """The unit roundoff of float32 is 64 at 1.7e9, which is more than these times differ."""
    when = 1.7e9 + np.random.default_rng(0).integers(0, 60, 200)
    path = people(tmp_path / "people.csv", when=when.astype(int), buys=np.where(when > 1.7e9 + 30, "late", "early"))
    out = train(capsys, path, "--target", "buys", "--ignore", "age", "income", "colour", "--epochs", 40)
    assert float(re.search(r"^test accuracy: (\S+) %$", out, re.M)[1]) > 90
    out = run(capsys, "predict", tmp_path / "model.npz", "--data", path)[1]
    assert float(re.search(r"^accuracy: (\S+) %$", out, re.M)[1]) > 90


@pytest.mark.parametrize("units", [1e-300, 1e-40, 1e40, 1e300])
def test_the_units_of_a_table_may_be_any(units, tmp_path, capsys):
    rng = np.random.default_rng(0)
    A = rng.standard_normal((100, 2))
    for name, target in (("word", np.where(A.sum(axis=1) > 0, "up", "down")), ("number", units * A.sum(axis=1))):
        path = tmp_path / "t.csv"
        rows = [[*row, y] for row, y in zip((units * A).tolist(), target.tolist(), strict=True)]
        with path.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream).writerows([["a", "b", name], *rows])
        out = train(capsys, path, "--target", name, "--epochs", 60)
        figure = re.search(r"^test (?:accuracy|R²): ([\d.]+)", out, re.M)[1]
        assert float(figure) > (0.9 if name == "number" else 85)
        assert "inf" not in out.partition("root mean square error")[2]


def test_targets_far_from_zero_keep_their_digits(tmp_path, capsys):
    """At 1.7e9, neighbours of float32 are 128 apart; training went on with the loss 0, and learnt nothing."""
    rng = np.random.default_rng(0)
    A = rng.standard_normal((200, 2))
    lines = ["a,b,t", *(f"{a!r},{b!r},{1.7e9 + a + b!r}" for a, b in A.tolist())]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    out = train(capsys, tmp_path / "t.csv", "--target", "t", "--epochs", 60)
    assert float(re.search(r"^test R²: (\S+);", out, re.M)[1]) > 0.95
    assert idl_ref.load(tmp_path / "model.npz").dtype == "float64"


def test_quality_of_numbers():
    T = np.array([[1.0], [2.0], [3.0], [9.0]])
    found = summary.of_numbers(T, np.array([[1.0], [2.0], [4.0], [np.nan]]), np.array([True, True, True, False]))
    assert (found.m, found.failed, found.R2, found.rmse) == (4, 1, pytest.approx(0.5), (pytest.approx(3**-0.5),))
    assert found.words() == "R²: 0.5000; root mean square error: 0.5774; 1 of 4 samples failed and are left out"
    assert summary.of_numbers(T, T, np.zeros(4, bool)).failed == 4
    assert summary.of_numbers(np.ones((2, 1)), np.ones((2, 1)), np.ones(2, bool)).R2 == 1
    huge = summary.of_numbers(1e200 * T[:3], 1e200 * np.array([[1.0], [2.0], [4.0]]), np.ones(3, bool))
    assert (huge.R2, huge.rmse) == (pytest.approx(0.5), (pytest.approx(1e200 * 3**-0.5),))


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--target must name the column to predict; got none: choose one of age, income, colour, buys"),
        (["--target", "sold"], "--target must name columns of the table; got 'sold': choose of age"),
        (["--target", "buys", "buys"], "--target must name columns of the table; got 'buys'"),
        (["--target", "buys", "age"], "--target must name one column of words, or columns of numbers"),
        (["--target", "buys", "--task", "regress"], "must hold numbers for --task regress; got words"),
        (["--target", "age", "--task", "classify"], "y_train must be class labels; got"),
        (["--target", "buys", "--ignore", "size"], "--ignore must name columns of"),
        (["--target", "buys", "--ignore", "buys"], "--target must name columns of the table; got 'buys'"),
        (["--target", "buys", "--ignore", "age", "income", "colour"], "--target must leave columns to predict from"),
        (["--target", "buys", "--test-size", "1"], "--test-size must be a number ≥ 0 and < 1; got 1"),
        (["--target", "age", "--class-weight", "balanced"], "--class-weight is for classes"),
        (["--target", "buys", "--early-stopping", "0"], "early_stopping must be a whole number, at least 1; got 0"),
        (["--target", "buys", "--missing", "zero"], "argument --missing: invalid choice"),
        (["--target", "buys", "--hidden", "many"], "argument --hidden: invalid int value: 'many'"),
        (["--target", "buys", "--checkpoint", "no/c.npz"], "cannot write no/c.npz: there is no folder no"),
        (["--target", "buys", "--checkpoint", "c.txt"], "checkpoint must end in .npz"),
    ],
)
def test_train_refuses(tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    path = people(tmp_path / "people.csv")
    assert words in refused(capsys, "train", "--data", path, *arguments)
    assert sorted(os.listdir(tmp_path)) == ["people.csv"]


def test_options_that_do_not_belong_to_the_data(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", X=np.zeros((4, 2)), y=np.arange(4))
    assert "--target is for tables; got it with the embedded digits" in refused(capsys, "train", "--target", "y")
    assert "--ignore is for tables; got it with arrays" in refused(
        capsys, "train", "--data", tmp_path / "a.npz", "--ignore", "x"
    )
    assert "--test is for tables" in refused(
        capsys, "train", "--data", tmp_path / "a.npz", "--test", tmp_path / "a.npz"
    )


def test_a_table_without_rows(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("a,b\n", encoding="utf-8")
    assert "must hold at least one row" in refused(capsys, "train", "--data", tmp_path / "t.csv", "--target", "b")
    train(capsys, people(tmp_path / "people.csv"), "--target", "buys")
    (tmp_path / "t.csv").write_text("age,income,colour\n", encoding="utf-8")
    arguments = ["predict", tmp_path / "model.npz", "--data", tmp_path / "t.csv", "--out", tmp_path / "p.csv"]
    assert run(capsys, *arguments)[0] == 0
    assert read(tmp_path / "p.csv") == []


def test_a_column_that_is_not_there(tmp_path, capsys):
    train(capsys, people(tmp_path / "people.csv"), "--target", "buys")
    (tmp_path / "t.csv").write_text("age,income\n1,2\n", encoding="utf-8")
    out = tmp_path / "p.csv"
    out.write_text("before", encoding="utf-8")
    err = refused(capsys, "predict", tmp_path / "model.npz", "--data", tmp_path / "t.csv", "--out", out)
    assert "it lacks colour, and has age, income" in err
    assert out.read_text(encoding="utf-8") == "before"


def test_a_table_that_is_broken_late_replaces_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("idl_ref.delimited.BLOCK", 200)
    path, out = people(tmp_path / "people.csv"), tmp_path / "p.csv"
    train(capsys, path, "--target", "buys")
    with path.open("a", encoding="utf-8") as stream:
        stream.write("1,2,3\n")
    out.write_text("before", encoding="utf-8")
    err = refused(capsys, "predict", tmp_path / "model.npz", "--data", path, "--out", out)
    assert "line 202 must have 4 fields, as line 1; got 3" in err
    assert out.read_text(encoding="utf-8") == "before"
    assert sorted(os.listdir(tmp_path)) == ["history.json", "model.npz", "p.csv", "people.csv", "report.html"]


def test_labels_are_checked_before_samples_are_read(tmp_path, capsys, monkeypatch):
    """Reading the samples would fail, because they do not fit into the limit."""
    arrays = {"x_train": np.zeros((40, 99)), "y_train": np.arange(40) % 2, "x_test": np.zeros((4, 99))}
    np.savez_compressed(tmp_path / "a.npz", **arrays, y_test=np.full(4, 7))
    monkeypatch.setattr("idl_ref.npz.FREE", 1000)
    monkeypatch.setattr("idl_ref.npz.RATIO", 0)
    assert "y_test must hold only the classes 0, 1; got also 7" in refused(
        capsys, "train", "--data", tmp_path / "a.npz"
    )
    np.savez_compressed(tmp_path / "a.npz", **arrays, y_test=np.zeros(4, int))
    assert "must have at most 1,000 bytes in a file of this size" in refused(
        capsys, "train", "--data", tmp_path / "a.npz"
    )


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_read_only(tmp_path, capsys):
    path = people(tmp_path / "people.csv")
    (tmp_path / "out").mkdir(mode=0o500)
    assert "cannot write" in refused(capsys, "train", "--data", path, "--target", "buys", "--out", tmp_path / "out")


@pytest.mark.parametrize("name", ["model.npz", "history.json", "report.html", "training.png", "checkpoint.npz"])
def test_a_folder_in_the_place_of_a_file(tmp_path, capsys, monkeypatch, name):
    monkeypatch.setattr("idl_ref.commands.train.fit", None)  # The training must not even begin.
    path = people(tmp_path / "people.csv")
    (tmp_path / name).mkdir()
    arguments = ["train", "--data", path, "--target", "buys", "--out", tmp_path, "--checkpoint"]
    assert f"cannot write {tmp_path / name}: it is a folder." in refused(capsys, *arguments)


# --- checkpoints and signals ------------------------------------------------------------------------------------------


def test_resume_gives_the_same_weights(tmp_path, capsys):
    path = people(tmp_path / "people.csv", target="price")
    for folder, epochs in (("whole", [6]), ("parts", [3, 6])):
        for count in epochs:
            more = ["--target", "price", "--resume", "--lr", 0.02, "--epochs", count]
            train(capsys, path, *more, "--out", tmp_path / folder)
    whole, parts = (idl_ref.load(tmp_path / folder / "model.npz").parameters for folder in ("whole", "parts"))
    differ = [name for name in whole if not np.array_equal(whole[name], parts[name])]
    # The cosine depends on the number of epochs, so that 3 + 3 are not 6; the second call went on from the first.
    assert differ == list(whole)
    assert len(json.loads((tmp_path / "parts" / "history.json").read_text(encoding="utf-8"))["loss"]) == 6


def test_a_checkpoint_of_another_model_says_what_differs(tmp_path, capsys):
    path = people(tmp_path / "people.csv")
    train(capsys, path, "--target", "buys", "--checkpoint")
    again = ["train", "--data", path, "--target", "buys", "--hidden", 8, "--epochs", 15, "--out", tmp_path, "--resume"]
    message = refused(capsys, *again, "--f", "perron")
    assert "ImplicitFunctionInf" in message
    assert "ImplicitFunctionPerron" in message
    message = refused(capsys, *again, "--activation", "tanh")
    assert "… activation='relu'" in message
    assert "… activation='tanh'" in message


def test_a_checkpoint_is_not_replaced_without_resume(tmp_path, capsys):
    path = people(tmp_path / "people.csv")
    train(capsys, path, "--target", "buys", "--checkpoint")
    again = ["train", "--data", path, "--target", "buys", "--out", tmp_path, "--checkpoint"]
    assert "--checkpoint must name a new file" in refused(capsys, *again)


@pytest.fixture
def default_handlers():
    """Give SIGINT the handler of Python again after a test that sets another one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_signals_that_are_ignored_remain_ignored(default_handlers):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Stopping() as stopping:
        signal.raise_signal(signal.SIGINT)
        stopping.leave_to_fit()
        signal.raise_signal(signal.SIGINT)
        stopping.hold()
        signal.raise_signal(signal.SIGINT)
        assert stopping.status is None
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_signals_are_noted_even_if_their_exception_is_lost(default_handlers):
    with Stopping() as stopping:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert (stopping.status, stopping.word) == (130, "interrupted")
        with pytest.raises(KeyboardInterrupt):
            stopping.leave_to_fit()
    with Stopping() as stopping:
        with pytest.raises(Terminated):
            signal.raise_signal(signal.SIGTERM)
        assert (stopping.status, stopping.word) == (143, "terminated")
    with Stopping() as stopping:
        stopping.hold()
        signal.raise_signal(signal.SIGTERM)
        assert stopping.status == 143
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def start(folder, *more):
    """Begin a training in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-m", "idl_ref", "train", "--data", "people.csv", "--target", "buys", "--hidden", "8"]
    return subprocess.Popen(
        [*command, *more],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def finish(running):
    """Wait for a process that must succeed."""
    out, err = running.communicate(timeout=600)
    assert running.returncode == 0, out + err


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_signals_at_random_moments(tmp_path):
    """The model is the old one or a new one, the history is JSON, and the exit status tells of the signal."""
    people(tmp_path / "people.csv", 2000)
    began = time.monotonic()
    finish(start(tmp_path, "--epochs", "40"))
    whole, rng = time.monotonic() - began, random.Random(0)
    for turn in range(12):
        number = rng.choice([signal.SIGINT, signal.SIGTERM])
        before = (tmp_path / "model.npz").read_bytes()
        running = start(tmp_path, "--epochs", "400")
        time.sleep(rng.uniform(0.2, whole))  # Before, Python itself is starting.
        running.send_signal(number)
        out, err = running.communicate(timeout=600)
        assert running.returncode in (128 + number, -number), (turn, out, err)
        assert "Traceback" not in err
        assert "Exception ignored" not in err
        idl_ref.load(tmp_path / "model.npz")
        json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))
        if "the model is saved" not in out:
            assert (tmp_path / "model.npz").read_bytes() == before
    left = {name for name in os.listdir(tmp_path) if not name.startswith(".idl_ref-")}
    assert left <= {"people.csv", "model.npz", "history.json", "report.html", "training.png"}


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_killed_training_that_resumes_gives_the_same_bits(tmp_path):
    people(tmp_path / "people.csv", 2000)
    finish(start(tmp_path, "--epochs", "30", "--out", "whole"))
    rng = random.Random(1)
    for _ in range(4):
        running = start(tmp_path, "--epochs", "30", "--out", "parts", "--resume")
        time.sleep(rng.uniform(1, 4))
        running.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        running.communicate()
    finish(start(tmp_path, "--epochs", "30", "--out", "parts", "--resume"))
    whole, parts = (idl_ref.load(tmp_path / folder / "model.npz").parameters for folder in ("whole", "parts"))
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name])


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="the commands of the page are for a shell")
def test_the_commands_of_the_page_print_what_the_page_says(tmp_path):
    """But for numbers, which depend on the machine, each command of docs/tables.md prints the text below it."""
    page = (ROOT / "docs" / "tables.md").read_text(encoding="utf-8")
    first, *_ = re.findall(r"```python\n(.*?)```", page, re.S)
    subprocess.run([sys.executable, "-c", first], cwd=tmp_path, check=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "error"}
    function = f'idl-ref() {{ "{sys.executable}" -m idl_ref "$@"; }}\n'
    pairs = re.findall(r"```sh\n(.*?)```\s*(?:```text\n(.*?)```)?", page, re.S)
    assert len(pairs) == 6
    for commands, text in pairs:
        done = subprocess.run(
            ["bash", "-c", function + commands], cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8",
            timeout=600, check=False,
        )  # fmt: skip
        wrong = [line for line in done.stderr.splitlines() if line.startswith("idl-ref: error")]
        printed = wrong + done.stdout.splitlines()
        if text:
            assert [without_numbers(line) for line in printed] == [without_numbers(line) for line in text.splitlines()]
    answers = (tmp_path / "answers.csv").read_text(encoding="utf-8")
    assert answers.startswith("sample,label,p_quickly,p_slowly,error_bound,status\n0,slowly,")


def without_numbers(line):
    return re.sub(r"\d[\d.e+-]*", "#", line)
