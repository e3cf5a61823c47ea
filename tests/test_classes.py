"""Labels of any kind become classes 0 … K − 1, which a model keeps; what is no class is refused with a way out."""

import copy
import csv
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest

import idl_ref
from idl_ref import ImplicitModel, classes
from idl_ref.__main__ import main

KINDS = {
    "years": np.array([1991, 1990]),
    "negative": np.array([-1, 1], np.int8),
    "large": np.array([2**64 - 1, 2**63], np.uint64),
    "on both sides of 2⁶³": np.array([2**63 + 5, 7], np.uint64),
    "whole floats": np.array([1.0, 2.0], np.float32),
    "truth": np.array([True, False]),
    "words": np.array(["sí", "no, thanks"]),
    "objects": np.array(["yes", "no"], object),
    "bytes": np.array([b"cat", b"dog"]),
}
SUFFIXES = ["npz", "safetensors"]


def samples(m=60, seed=0):
    """Return samples of two classes that are easy to tell apart, and the numbers of their classes."""
    rng = np.random.default_rng(seed)
    t = rng.integers(0, 2, m)
    t[:2] = 0, 1
    return rng.standard_normal((m, 4)) + 6 * t[:, None], t


def model_with(names, **settings):
    model = ImplicitModel(4, len(names), 6, bias=True, seed=0, **settings)
    model.classes = names
    return model


@pytest.fixture(autouse=True)
def _no_picture(monkeypatch):
    monkeypatch.setattr("idl_ref.commands.train.plot", lambda history, path: [])


# --- the map ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_labels_of_any_kind(kind):
    labels = KINDS[kind][[0, 1, 1, 0, 1]]
    found = classes.find("y", labels)
    assert found.dtype.kind in "iubU"
    assert not found.flags.writeable
    np.testing.assert_array_equal(found, np.unique(found))
    expected = labels.astype(str) if kind in ("objects", "bytes") else labels
    np.testing.assert_array_equal(found[classes.index("y", labels, found)], expected)
    assert classes.index("y", [], found).shape == (0,)
    listed = json.loads(json.dumps(classes.plain(found)))
    np.testing.assert_array_equal(classes.restored(listed, 2), found)


def test_classes_keep_the_order_in_which_they_are_given():
    model = model_with(["dog", "cat"])
    np.testing.assert_array_equal(classes.index("y", ["cat", "dog", "cat"], model.classes), [1, 0, 1])


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.linspace(0, 1, 50), "which look like measured numbers: turn them into classes"),
        ([0.0, 1.0, np.nan], "float64 numbers such as nan"),
        ([0.0, 1.0, 1e300], "numbers such as 1e\\+300"),
        (np.arange(100_000, 755_001, 997), "got 657 different ones, from 100000 to 754032, for 657 samples"),
        (np.arange(3000).repeat(5), "got 3000 different ones, from 0 to 2999, for 15000 samples"),
        ([f"house {i}" for i in range(30)], "names of samples: group them into fewer classes"),
        ([7, 7, 7], "must hold at least two classes; got only 7: add samples"),
        ([], "must hold at least two classes; got none"),
        (np.eye(3, dtype=int), r"one label per sample; got \(3, 3\): numpy.argmax"),
        (np.zeros((3, 1), int), r"got \(3, 1\)"),
        ([[1], [1, 2]], "one label per sample"),
        ([1j, 2j], "must be whole numbers, truth values or words; got dtype complex128"),
        (np.array([None, "a"]), "got dtype object"),
        (np.array(["2024-01-01", "2024-01-02"], "M8[D]"), "got dtype datetime64"),
        ([b"\xff", b"a"], "must be words in UTF-8"),
        (["a", "b\x1b[31m"], "must have names of printable characters"),
        (["a", "\ud800"], "must have names of printable characters"),
        (["a", ""], "because an empty label stands for a sample that failed"),
    ],
)
def test_what_is_no_class(labels, words):
    with pytest.raises((ValueError, TypeError), match=words) as caught:
        classes.find("y_train", labels)
    assert "y_train" in str(caught.value) or "decode" in words
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("labels", [np.arange(10), np.arange(300).repeat(2), np.arange(1500).repeat(10), [1, 2]])
def test_many_classes_with_enough_samples(labels):
    assert len(classes.find("y", labels)) == len(set(labels))


# --- a model with classes ---------------------------------------------------------------------------------------------


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_trains_on_labels_and_keeps_them(kind, tmp_path):
    U, t = samples()
    names = classes.find("y", KINDS[kind])
    model, plain = model_with(names), ImplicitModel(4, 2, 6, bias=True, seed=0)
    arguments = {"epochs": 2, "progress": False}
    history = idl_ref.fit(model, U, names[t], validation=(U, names[t]), **arguments)
    assert history.accuracy == idl_ref.fit(plain, U, t, validation=(U, t), **arguments).accuracy
    for name, W in model.parameters.items():
        np.testing.assert_array_equal(W, plain.parameters[name])
    assert idl_ref.train.evaluate(model, U, names[t]) == idl_ref.train.evaluate(plain, U, t)
    assert model.loss_and_gradients(U, names[t])[0] == plain.loss_and_gradients(U, t)[0]
    assert idl_ref.check_gradients(model, U[:3], names[t][:3], entries=4).passed
    for suffix in SUFFIXES:
        if suffix == "safetensors":
            pytest.importorskip("safetensors")
        model.save(tmp_path / f"model.{suffix}")
        loaded = idl_ref.load(tmp_path / f"model.{suffix}")
        frozen = loaded.freeze()
        copies = [loaded, frozen, copy.deepcopy(model), *(pickle.loads(pickle.dumps(each)) for each in (model, frozen))]
        for each in copies:
            np.testing.assert_array_equal(each.classes, names)
            assert each.classes.dtype.kind == names.dtype.kind


def test_targets_that_are_not_among_the_classes():
    U, t = samples(4)
    model = model_with([1990, 1991])
    for call in (
        lambda y: model.loss_and_gradients(U, y),
        lambda y: idl_ref.fit(model, U, y, progress=False),
        lambda y: idl_ref.train.evaluate(model, U, y),
        lambda y: idl_ref.check_gradients(model, U, y),
    ):
        with pytest.raises(ValueError, match="targets must hold only the classes 1990, 1991; got also 0, 1 in 4 of 4"):
            call(t)
        with pytest.raises(TypeError, match=r"of the kind of the classes 1990, 1991; got <U1, such as 'a'.*astype"):
            call(["a"] * 4)
    model.loss_and_gradients(U, np.ones((4, 2)), loss="mse")  # Only targets of cross_entropy are labels.


@pytest.mark.parametrize("value", [["a"], ["a", "a"], ["a", "b", "c"], "ab", [1.5, 2], [None, "a"], ["a", ""]])
def test_classes_that_do_not_fit(value):
    model = model_with(["a", "b"])
    with pytest.raises((ValueError, TypeError), match="classes must"):
        model.classes = value
    np.testing.assert_array_equal(model.classes, ["a", "b"])
    with pytest.raises(ValueError, match="read-only"):
        model.classes[0] = "c"
    model.classes = None
    assert model.classes is None


def test_a_cascade_has_the_classes_of_its_second_model():
    first, second = ImplicitModel(3, 4, 5, seed=0), model_with(["a", "b"])
    np.testing.assert_array_equal(idl_ref.analysis.cascade(second, first).classes, ["a", "b"])


def test_classes_too_long_for_a_file_are_refused(tmp_path):
    model = model_with(["a" * 300_000, "b" * 300_000])
    with pytest.raises(ValueError, match="classes must have at most 524288 characters in a file"):
        model.save(tmp_path / "model.npz")


@pytest.mark.parametrize(
    "value",
    [3, "ab", {}, [], ["a"], ["a", "a"], ["a", 1], [1.5, 2], [None, None], [10**400, 1], ["a", "\x1b[31m"], ["a", ""],
     [True, 0], ["a", "\ud800"], [["a"], ["b"]]],
)  # fmt: skip
def test_tampered_classes(tmp_path, value):
    path = tmp_path / "model.npz"
    model_with(["a", "b"]).save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(arrays.pop("header").tobytes()) | {"classes": value}
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    with pytest.raises(idl_ref.FileFormatError, match="the classes do not fit the model") as caught:
        idl_ref.load(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


# --- the command line -------------------------------------------------------------------------------------------------


def data(path, labels, test_labels=None, **changes):
    """Write a data file whose labels are `labels` by the number of the class."""
    (x, t), (x_test, t_test) = samples(60), samples(20, 1)
    y_test = labels[t_test] if test_labels is None else test_labels
    np.savez(path, **{"x_train": x, "y_train": labels[t], "x_test": x_test, "y_test": y_test, **changes})
    return path


def run(capsys, *arguments):
    """Run a command, and return its exit status, its standard output and its standard error."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    return status, *capsys.readouterr()


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", ["years", "whole floats", "truth", "words", "bytes"])
def test_train_and_predict(tmp_path, capsys, kind):
    names = KINDS[kind]
    path = data(tmp_path / "data.npz", names)
    status, out, _ = run(capsys, "train", "--data", path, "--hidden", 4, "--epochs", 8, "--lr", 0.1, "--out", tmp_path)
    assert status == 0
    assert "60 training samples of 2 classes, 20 test samples" in out
    assert "test accuracy: 100.00 %" in out
    model = idl_ref.load(tmp_path / "model.npz")
    assert model.output_dim == 2
    np.testing.assert_array_equal(model.classes, classes.find("y", names))
    status, out, _ = run(capsys, "predict", tmp_path / "model.npz", "--data", path, "--out", tmp_path / "y.csv")
    assert (status, out.splitlines()[0]) == (0, "accuracy: 100.00 %")
    with (tmp_path / "y.csv").open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream))
    names = names.astype({"whole floats": int, "bytes": str}.get(kind, names.dtype))
    assert [row["label"] for row in table] == [str(names[t]) for t in samples(20, 1)[1]]
    assert run(capsys, "check", tmp_path / "model.npz", "--data", path)[0] == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y_train": np.linspace(0, 9, 60)}, "y_train must be class labels; got float64 numbers such as"),
        ({"y_train": np.arange(100_000, 100_060)}, "y_train must be class labels; got 60 different ones"),
        ({"y_train": np.full(60, 3)}, "y_train must hold at least two classes; got only 3"),
        (
            {"y_test": np.full(20, 1992)},
            "y_test must hold only the classes 1990, 1991; got also 1992 in 20 of 20",
        ),
        ({"y_test": np.full(20, "a")}, "y_test must hold labels of the kind of the classes 1990, 1991"),
        ({"y_test": np.full(20, 1990.5)}, "y_test must be class labels; got float64 numbers such as 1990.5"),
    ],
)
def test_train_refuses_what_is_no_class(tmp_path, capsys, changes, words):
    path = data(tmp_path / "data.npz", KINDS["years"], **changes)
    status, out, err = run(capsys, "train", "--data", path, "--task", "classify", "--out", tmp_path / "out")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert words in err
    assert not (tmp_path / "out").exists()


def test_predict_refuses_labels_of_other_classes(tmp_path, capsys):
    model_with([1990, 1991]).save(tmp_path / "model.npz")
    path = data(tmp_path / "data.npz", np.array([0, 1]))
    status, _, err = run(capsys, "predict", tmp_path / "model.npz", "--data", path)
    assert status == 2
    assert "y_test must hold only the classes 1990, 1991; got also 0, 1" in err


def test_a_model_without_classes_predicts_numbers(tmp_path, capsys):
    model = model_with([0, 1])
    model.classes = None
    model.settings = replace(model.settings, on_failure="ignore")
    model.save(tmp_path / "model.npz")
    path = data(tmp_path / "data.npz", np.array([0, 1]))
    status, out, _ = run(capsys, "predict", tmp_path / "model.npz", "--data", path)
    assert status == 0
    assert set(out.splitlines()[1].split()) <= {"0", "1"}


def test_whole_numbers_of_two_dtypes_are_compared_exactly():
    """NumPy compares int64 and uint64 in float64, where neighbours above 2⁵³ are the same."""
    known, neighbours = np.array([2**53, 2**53 + 1]), np.array([2**53 + 1, 2**53], np.uint64)
    assert classes.index("y", neighbours, known).tolist() == [1, 0]
    assert classes.index("y", known, np.sort(neighbours)).tolist() == [0, 1]
    with pytest.raises(
        ValueError, match=r"y must hold only the classes 9007199254740992, .*; got also 9007199254740994"
    ):
        classes.index("y", neighbours + np.uint64(1), known)
    with pytest.raises(ValueError, match="got also 18446744073709551615 in 1 of 1 samples"):
        classes.index("y", np.array([2**64 - 1], np.uint64), np.array([-1, 3]))
    with pytest.raises(ValueError, match="got also -1 in 1 of 1 samples"):
        classes.index("y", np.array([-1]), np.array([2**64 - 1, 3], np.uint64))


def test_bytes_that_are_no_text_are_refused_with_a_way_out():
    with pytest.raises(ValueError, match=r"y must be words in UTF-8.*decode them before"):
        classes.find("y", np.array([b"caf\xe9", b"tea"]))
