"""What is refused says what to write instead, and what it says works: each test runs the way out of the message."""

import re

import numpy as np
import pytest

import idl_ref
from idl_ref import SGD, Activation, ImplicitFunction, ImplicitFunctionInf, ImplicitModel, SolveOptions, fit
from idl_ref.__main__ import main

RNG = np.random.default_rng(0)
U = RNG.standard_normal((6, 4))
LABELS = np.array([0, 1, 2, 0, 1, 2])
CONTINUOUS = RNG.standard_normal((6, 3))


def make(**settings):
    return ImplicitModel(4, settings.pop("q", 3), 9, seed=0, **settings)


def refused(call, *parts):
    """Call what must be refused, and return the message, which must have the parts in this order."""
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    message = str(caught.value)
    assert re.search(".*".join(map(re.escape, parts)), message), message
    assert len(message) < 500
    return message


def way_out(message):
    """The expression that a message says to use or to pass, as text."""
    return re.search(r"(?:use|by|pass) ((?:numpy|targets|U|state_dict|\{name).*?)(?:,? if .* are 0)?\.?$", message)[1]


# --- targets ----------------------------------------------------------------------------------------------------------

WORDS = np.array(["cat", "dog", "owl"])[LABELS]
LABEL_CASES = {
    "strings": (WORDS, "whole-number class labels; got dtype <U3, such as", "'cat'"),
    "objects": (WORDS.astype(object), "got dtype object, such as 'cat'"),
    "one-hot": (np.eye(3)[LABELS], "got dtype float64 of shape (6, 3): the rows are one-hot"),
    "one-hot, whole numbers": (np.eye(3, dtype=int)[LABELS], "one label per sample; got (6, 3): the rows are one-hot"),
    "a column": (LABELS[:, None], "shape (6,), one label per sample; got (6, 1): use numpy.ravel(targets)"),
    "floats": (LABELS.astype(float), "got dtype float64: use numpy.asarray(targets).astype(int)"),
    "a list of floats": (LABELS.astype(float).tolist(), "got dtype float64: use numpy.asarray(targets).astype(int)"),
    "truth values": (LABELS > 0, "got dtype bool: use"),
    "mixed objects": (np.array(["cat", 1, 2.5] * 2, object), "labels that have no order: use labels of one kind"),
    "years": (LABELS + 1990, "because the model has 3 outputs; got 1990 … 1992: raise output_dim to 1993, or"),
    "from 1": (LABELS + 1, "got 1 … 3: raise output_dim to 4, or renumber"),
    "negative": (LABELS - 1, "got -1 … 1: renumber the labels by numpy.unique(targets, return_inverse=True)[1]"),
}  # fmt: skip


@pytest.mark.parametrize("case", LABEL_CASES)
def test_labels(case):
    targets, *parts = LABEL_CASES[case]
    model = make()
    for call in (
        lambda: fit(model, U, targets, epochs=1, progress=False),
        lambda: model.loss_and_gradients(U, targets),
        lambda: idl_ref.check_gradients(model, U, targets),
        lambda: fit(model, U, LABELS, validation=(U, targets), epochs=1, progress=False),
    ):
        message = refused(call, "targets must", *parts)
    if case == "mixed objects":
        targets = eval(way_out(message), {"targets": targets, "numpy": np})
        message = refused(lambda: fit(model, U, targets, progress=False), "such as")
    if "classes, targets = " in message:
        scope = {"targets": targets, "numpy": np}
        exec(re.search(r"use (classes, targets = .*)\.$", message)[1], scope)
        targets = scope["targets"]
    else:
        targets = eval(way_out(message), {"targets": targets, "numpy": np})
    fit(model, U, targets, epochs=1, progress=False)


def test_more_classes_than_outputs():
    targets = np.arange(6) * 10
    message = refused(lambda: fit(make(), U, targets), "got 0 … 50: renumber", "raise output_dim to 6, because")
    fit(make(q=6), U, np.unique(targets, return_inverse=True)[1], epochs=1, progress=False)
    assert "6 classes" in message


def test_continuous_targets_are_no_classes():
    prices = 100 * RNG.random(6)
    refused(lambda: fit(make(), U, prices), "whole-number class labels; got dtype float64 with", 'use loss="mse"')
    refused(lambda: fit(make(), U, CONTINUOUS), "float64 of shape (6, 3)", 'for continuous targets use loss="mse"')
    fit(make(), U, CONTINUOUS, loss="mse", epochs=1, progress=False)
    message = refused(lambda: fit(make(q=1), U, prices, loss="mse"), "(m, q) with q = 1; got (6,): use numpy.reshape")
    fit(make(q=1), U, eval(way_out(message), {"targets": prices, "numpy": np}), loss="mse", epochs=1, progress=False)
    refused(lambda: fit(make(), U, prices, loss="mse"), "q = 3; got (6,)", "output_dim=1, and the shape (m, 1)")
    refused(lambda: fit(make(), U, LABELS, loss="mse"), "q = 3; got (6,)", 'class labels use loss="cross_entropy"')
    refused(lambda: fit(make(), U, CONTINUOUS.T, loss="mse"), "got (3, 6)", "numpy.transpose(targets)")
    refused(
        lambda: fit(make(), U, CONTINUOUS[:5], loss="mse"), "must have shape (6, 3), one row per sample; got (5, 3)"
    )


def test_labels_that_are_missing():
    for targets in (np.array([0, 1, np.nan, 0, 1, 2]), np.array(["a", None, "b", "a", "b", "a"], object)):
        refused(
            lambda targets=targets: fit(make(), U, targets), "class labels; got dtype", "leave out the samples without"
        )
    broken = CONTINUOUS.copy()
    broken[3, 1] = np.nan
    refused(lambda: fit(make(), U, broken, loss="mse"), "targets must be finite; got NaN or inf in 1 of 6", "sample 3")


# --- inputs -----------------------------------------------------------------------------------------------------------


class Sparse:
    """What matters of a sparse array of SciPy: numpy.asarray makes an array of one object of it."""

    def __init__(self, array):
        self.array = array

    def toarray(self):
        return self.array


class Tensor:
    """What matters of a tensor of PyTorch, which requires a gradient or has a dtype that NumPy lacks."""

    is_sparse = False

    def __init__(self, array, dtype="torch.float32"):
        self.array, self.dtype = array, dtype

    def __array__(self, *arguments, **keywords):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")

    def detach(self):
        return self

    cpu = detach

    def float(self):
        return Tensor(self.array)

    def numpy(self):
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array


DAYS = (np.datetime64("2020-01-01") + np.arange(24)).reshape(6, 4)
INPUT_CASES = {
    "complex": (U + 0j, "got dtype complex128: convert it first, for example by"),
    "text": (U.astype(str), "convert it first, for example by numpy.asarray(U, dtype=float)"),
    "objects": (U.astype(object), "got dtype object: convert it first, for example by numpy.asarray(U, dtype=float)"),
    "dates": (DAYS, "got dtype datetime64[D]: convert it first"),
    "durations": (DAYS - DAYS.min(), "got dtype timedelta64[D]: convert it first"),
    "long": (U.astype(np.longdouble), "convert it first, for example by U.astype(numpy.float32)"),
    "records": (
        np.ascontiguousarray(U).view([(c, float) for c in "abcd"])[:, 0],
        "convert it first, for example by numpy.lib.recfunctions.structured_to_unstructured(U)",
    ),
    "sparse": (Sparse(U), "U must be a dense array; got Sparse: use U.toarray()."),
    "tensor": (Tensor(U), "NumPy can read; got Tensor (Can't call numpy()", "use U.detach().cpu().float().numpy()."),
}


@pytest.mark.parametrize("case", INPUT_CASES)
def test_inputs(case):
    value, *parts = INPUT_CASES[case]
    if case == "long" and value.dtype == np.float64:
        pytest.skip("longdouble is float64 here")
    model = make()
    for call in (lambda: model(value), lambda: fit(model, value, LABELS), lambda: model.freeze()(value)):
        message = refused(call, *parts)
    days = re.search(r"days by (.*)\.$", message)
    expression = days[1] if days else way_out(message)
    import numpy.lib.recfunctions  # noqa: F401 (The way out of one of the cases needs it.)

    assert model(eval(expression, {"U": value, "numpy": np})).shape == (6, 3)


def test_inputs_of_scipy():
    sparse = pytest.importorskip("scipy.sparse")
    for value in (sparse.csr_matrix(U), sparse.coo_array(U)):
        refused(lambda value=value: make()(value), "U must be a dense array; got", "use U.toarray()")
        np.testing.assert_array_equal(make()(value.toarray()), make()(U))
    refused(
        lambda: idl_ref.solve_equilibrium(np.eye(2) / 2, sparse.eye_array(2)), "Z must be a dense array", "Z.toarray()"
    )


def with_classes():
    model = make()
    model.classes = np.arange(3)
    return model


def test_masked_arrays():
    masked = np.ma.masked_greater(U, 0.5)
    for call in (
        lambda: make()(masked),
        lambda: fit(make(), masked, LABELS),
        lambda: idl_ref.solve_equilibrium(np.eye(4) / 2, masked.T),
        lambda: fit(make(), U, np.ma.masked_equal(LABELS, 2)),
        lambda: fit(with_classes(), U, np.ma.masked_equal(LABELS, 2)),
        lambda: with_classes().loss_and_gradients(U, np.ma.masked_equal(LABELS, 2)),
        lambda: idl_ref.check_gradients(with_classes(), U, np.ma.masked_equal(LABELS, 2)),
        lambda: idl_ref.ImplicitClassifier(max_iter=1).fit(U, np.ma.masked_equal(LABELS, 2)),
        lambda: idl_ref.ImplicitClassifier(max_iter=1).fit(masked, LABELS),
        lambda: idl_ref.ImplicitRegressor(max_iter=1).fit(U, np.ma.masked_greater(CONTINUOUS, 0)),
        lambda: idl_ref.preprocessing.Standardise(np.ma.masked_equal([1.0, -999.0], -999), 1.0),
        lambda: idl_ref.preprocessing.Standardise.fit(masked),
        lambda: fit(make(), U, np.ma.masked_greater(CONTINUOUS, 0), loss="mse"),
    ):
        refused(call, "must have a value in every entry; got a masked array with", ".filled(value)")
    assert make()(masked.filled(0.0)).shape == (6, 3)
    np.testing.assert_array_equal(make()(np.ma.array(U)), make()(U))  # Nothing is masked, so that nothing is lost.


def test_objects_that_are_no_arrays():
    for value in ({"a": 1}, {1, 2}, iter([1]), object()):
        refused(lambda value=value: make()(value), f"because {type(value).__name__} is not an array: pass an array")
    refused(lambda: make()([["red", 1, 2, 3]]), "because 'red' is not a number: encode categories as numbers")
    refused(lambda: make()([[1, 2, 3, {}]]), "because {} is not a number")
    refused(lambda: make()([["\x1b[31m" * 20, 1, 2, 3]]), r"'\x1b[31m\x1b")


def test_no_samples_and_broken_samples():
    refused(lambda: fit(make(), U[:0], LABELS[:0]), "U must hold at least one sample to train on; got none")
    broken = U.copy()
    broken[1, 2], broken[4, 0] = np.nan, np.inf
    message = refused(lambda: fit(make(), broken, LABELS), "U must be finite; got NaN or inf in 2 of 6", "sample 1")
    kept = eval(re.search(r"leave them out by (.*?), here", message)[1], {"U": broken, "numpy": np})
    fit(make(), kept, LABELS[[0, 2, 3, 5]], epochs=1, progress=False)


# --- settings, optimizers, options ------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adam", SGD, 0.1, object()])
def test_optimizers(optimizer):
    refused(
        lambda: fit(make(), U, LABELS, optimizer=optimizer),
        "optimizer must be SGD, Adam, or another",
        "use optimizer=SGD(0.05",
    )
    fit(make(), U, LABELS, optimizer=SGD(0.05, momentum=0.9), epochs=1, progress=False)


def test_the_limit_of_iterations_has_two_names():
    refused(lambda: make(max_iter=5), "ImplicitModel has no argument max_iter; got max_iter=5: use mitr, and grad_mitr")
    refused(lambda: SolveOptions(mitr=5), "SolveOptions has no argument mitr; got mitr=5: use max_iter.")
    refused(lambda: SGD(lr=0.1), "SGD has no argument lr; got lr=0.1: use learning_rate.")
    assert (make(mitr=5).mitr, SolveOptions(max_iter=5).max_iter, SGD(learning_rate=0.1).learning_rate) == (5, 5, 0.1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        make(nonsense=1)
    slow = {"A": 0.99 * np.ones((2, 2)) / 2, "Z": np.ones((2, 1))}
    with pytest.warns(idl_ref.ConvergenceWarning, match="Raise max_iter"):
        idl_ref.solve_equilibrium(slow["A"], slow["Z"], options=SolveOptions(max_iter=2, method="picard"))
    model = make(mitr=1, method="picard")
    for call in (model, model.freeze()):
        with pytest.warns(idl_ref.ConvergenceWarning, match="Raise mitr"):
            call(U)


def test_options():
    for value in ({"tol": 1e-9}, 1e-9, SolveOptions):
        refused(
            lambda value=value: idl_ref.solve_equilibrium([[0.5]], [[1.0]], options=value), "options must be SolveOpt"
        )
    message = refused(lambda: idl_ref.solve_adjoint([[0.5]], [[1.0]], [[1.0]], options={"tol": 1e-9}), "options must")
    assert "SolveOptions(**options)" in message


def test_numbers_without_a_lower_limit():
    refused(lambda: Activation("own", np.tanh, np.tanh, 1.0, (np.nan,)), "a kink must be a finite number; got nan")


# --- f and weights of torchidl ----------------------------------------------------------------------------------------


class WithPhi(ImplicitFunctionInf):
    """Torchidl's way of choosing an activation."""

    @staticmethod
    def phi(X):
        return np.tanh(X)

    @staticmethod
    def dphi(X):
        return 1 - np.tanh(X) ** 2


class Mixin:
    def phi(self, X):
        return np.tanh(X)

    def dphi(self, X):
        return 1 - np.tanh(X) ** 2


class FromWithPhi(WithPhi):
    pass


class WithForward(ImplicitFunction):
    @classmethod
    def forward(cls, ctx, A, B, X0, U):
        return X0


class WithKappa(ImplicitFunctionInf):
    kappa = 0.5


class FromMixin(Mixin, ImplicitFunctionInf):
    """The class from which phi comes is no ImplicitFunction."""


class WithOwn(ImplicitFunctionInf):
    def __init__(self, *settings):
        super().__init__(*settings)
        self.phi = np.tanh


class WithMap(ImplicitFunctionInf):
    """A class of a user's that maps A in its own way is taken."""

    def effective(self, factors):
        return tuple(F / 100 for F in factors)

    def pullback(self, factors, gradients):
        return tuple(G / 100 for G in gradients)


@pytest.mark.parametrize(
    ("f", "parts"),
    [
        (WithPhi, ("got f=WithPhi with phi and dphi, which would be ignored: pass activation=idl_ref.Activation(",)),
        (FromWithPhi, ("got f=FromWithPhi with phi and dphi",)),
        (FromMixin, ("got f=FromMixin with phi and dphi",)),
        (WithOwn, ("got f=WithOwn with phi",)),
        (WithForward, ("got f=WithForward with forward", "override effective and pullback")),
        (WithKappa, ("got f=WithKappa with kappa", "pass kappa, mitr, tol, … to ImplicitModel")),
    ],
)
def test_a_class_f_with_what_would_be_ignored(f, parts):
    for call in (lambda: make(f=f), lambda: ImplicitModel.from_torchidl(state(), f=f)):
        refused(call, "f must be a class that maps the raw A", *parts)
    tanh = Activation("my_tanh", np.tanh, idl_ref.activations.get("tanh").slope, 1.0)
    np.testing.assert_array_equal(make(activation=tanh)(U), make(activation="tanh", backend="numpy")(U))
    np.testing.assert_array_equal(make(f=WithMap).effective()["A"], make(f=WithMap).parameters["A"] / 100)


def theirs(name, base, defined, module):
    return type(name, (base,), {**defined, "__module__": module})


def test_a_subclass_of_a_class_of_torchidl():
    """Stand-ins of torchidl's classes, with phi on the base class, as in torchidl 0.0.4."""
    base = theirs("ImplicitFunction", object, {"phi": abs, "dphi": abs, "forward": abs}, "torchidl.implicit_function")
    inf = theirs("ImplicitFunctionInf", base, {"forward": abs}, "torchidl.implicit_function")
    assert ImplicitModel.from_torchidl(state(), f=inf).f is ImplicitFunctionInf
    used = theirs("Used", inf, {"kappa": 0.9, "mitr": 300}, "mine")  # torchidl stores the settings on the class.
    assert ImplicitModel.from_torchidl(state(), f=used).f is ImplicitFunctionInf
    for name in ("Mine", "ImplicitFunctionInf", "ImplicitFunction"):
        mine = theirs(name, inf, {"phi": np.tanh}, "mine")
        refused(
            lambda mine=mine: ImplicitModel.from_torchidl(state(), f=mine),
            "with phi, which would be ignored",
            "Activat",
        )


def state():
    return {"A": np.eye(3) / 2, "B": np.ones((3, 4)), "C": np.ones((2, 3)), "D": np.zeros((2, 4))}


class Module:
    """A model of PyTorch, as far as `from_torchidl` can mistake it for its state_dict."""

    def state_dict(self):
        return state()


@pytest.mark.parametrize("prefix", ["module.", "net.implicit.", "_orig_mod."])
def test_prefixed_names(prefix):
    for others in ({}, {"encoder.weight": np.ones((2, 2)), "scale": np.ones(1)}):
        state_dict = {prefix + name: W for name, W in state().items()} | others
        message = refused(lambda s=state_dict: ImplicitModel.from_torchidl(s), "state_dict must hold A (or L and R)")
        ImplicitModel.from_torchidl(eval(way_out(message), {"state_dict": state_dict}))


def test_nested_weights():
    state_dict = {"epoch": 3, "model": state(), "optimizer": {"lr": 0.1}}
    for order in (list(state_dict), list(state_dict)[::-1]):
        nested = {name: state_dict[name] for name in order}
        message = refused(
            lambda s=nested: ImplicitModel.from_torchidl(s), "got ['epoch', 'model', 'optimizer']: pass the"
        )
        ImplicitModel.from_torchidl(eval(re.search(r"in it, (.*)\.$", message)[1], {"state_dict": nested}))


def test_a_model_in_the_place_of_its_weights():
    refused(
        lambda: ImplicitModel.from_torchidl(Module()), "mapping from names to arrays; got Module: pass its state_dict"
    )
    ImplicitModel.from_torchidl(Module().state_dict())
    refused(lambda: ImplicitModel.from_torchidl(make()), "got ImplicitModel: it is a model of idl_ref already")
    refused(lambda: ImplicitModel.from_torchidl("model.pt"), "got str: pass what torch.load(path, weights_only=True)")
    refused(lambda: ImplicitModel.from_torchidl(None), "got NoneType: pass the state_dict of a torchidl model")


def test_tensors_that_numpy_lacks():
    state_dict = {name: Tensor(W, "torch.bfloat16") for name, W in state().items()}
    message = refused(lambda: ImplicitModel.from_torchidl(state_dict), "A must be a dense tensor", "got torch.bfloat16")
    model = ImplicitModel.from_torchidl(eval(way_out(message), {"state_dict": state_dict}))
    np.testing.assert_array_equal(model.parameters["A"], state()["A"])


def test_a_dtype_that_a_package_adds_to_numpy():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    value = U.astype(ml_dtypes.bfloat16)
    message = refused(
        lambda: make()(value), "got dtype bfloat16: convert it first, for example by U.astype(numpy.float32)"
    )
    assert make()(eval(way_out(message), {"U": value, "numpy": np})).shape == (6, 3)


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["train", "predict", "check", "conformance run", "export", "bench"])
def test_help_shows_no_default_where_there_is_none(capsys, command):
    with pytest.raises(SystemExit):
        main([*command.split(), "--help"])
    text = capsys.readouterr().out
    assert "(default: None)" not in text
    assert "SUPPRESS" not in text
    assert ("(default: sgd)" in text) == (command == "train")


def test_objects_in_a_data_file(tmp_path, capsys):
    x, y = RNG.standard_normal((20, 4)), np.arange(20) % 2
    arrays = {"x_train": x.astype(object), "y_train": y, "x_test": x, "y_test": y}
    np.savez(tmp_path / "data.npz", **arrays)
    assert main(["train", "--data", str(tmp_path / "data.npz"), "--out", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "got an array of Python objects as x_train: before numpy.savez, convert it with numpy.asarray" in message
    np.savez(tmp_path / "data.npz", **(arrays | {"x_train": np.asarray(arrays["x_train"], dtype=float)}))
    assert main(["train", "--data", str(tmp_path / "data.npz"), "--out", str(tmp_path), "--epochs", "1"]) == 0
