"""These tests compare converted nets with the estimators and layers that they come from; torch is not needed."""

import numpy as np
import pytest
from test_compose import relative_error
from test_export import CC, build, imported
from test_export import run as run_c
from test_rescaling import left_alone

import idl_ref
from idl_ref import ImplicitFunctionInf, ImplicitFunctionMonotone, ImplicitFunctionPerron, ImplicitFunctionRows
from idl_ref.analysis import from_sklearn, from_torch, network, rescale, sim
from idl_ref.export import export
from idl_ref.wellposed import norm_inf

BAR = 1e-14
RNG = np.random.default_rng(0)
U = RNG.standard_normal((60, 4))
ACTIVATIONS = {"relu": "relu", "tanh": "tanh", "logistic": "sigmoid", "identity": "identity"}
TARGETS = {
    "three names": np.array(["cat", "dog", "owl"])[RNG.integers(0, 3, 60)],
    "two numbers": 2 * RNG.integers(0, 2, 60) + 1990,
    "two objects": np.array(["no", "yes"], object)[RNG.integers(0, 2, 60)],
    "truth values": U[:, 0] > 0,
}


def fitted(kind, y, activation="relu", inputs=U, **settings):
    """Return a small estimator after a few steps, because nothing here depends on how good it is."""
    networks = pytest.importorskip("sklearn.neural_network")
    sizes = settings.pop("sizes", (7, 6))
    estimator = getattr(networks, kind)(
        hidden_layer_sizes=sizes,
        activation=activation,
        random_state=0,
        max_iter=3,
        tol=1e9,
        n_iter_no_change=1,
        **settings,
    )
    return estimator.fit(inputs, y)


def softmax(Y):
    """Return the probabilities of logits.   Y (m, q)"""
    E = np.exp(Y - Y.max(axis=1, keepdims=True))
    return E / E.sum(axis=1, keepdims=True)


# --- scikit-learn -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("labels", list(TARGETS))
def test_a_classifier(activation, labels):
    estimator = fitted("MLPClassifier", TARGETS[labels], activation)
    model = from_sklearn(estimator)
    Y = model(U)
    assert (model.activation, model.dtype) == (ACTIVATIONS[activation], "float64")
    assert relative_error(softmax(Y), estimator.predict_proba(U)) <= BAR
    np.testing.assert_array_equal(model.classes[Y.argmax(axis=1)], estimator.predict(U))
    np.testing.assert_array_equal(model.classes, estimator.classes_)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("sizes", [(7,), (7, 6, 5)])
def test_a_regressor(activation, outputs, sizes):
    y = np.column_stack([U[:, 0] ** 2, U[:, 1] - 1])[:, :outputs]
    estimator = fitted("MLPRegressor", y[:, 0] if outputs == 1 else y, activation, sizes=sizes)
    model = from_sklearn(estimator)
    assert model.classes is None
    assert relative_error(model(U), estimator.predict(U).reshape(60, outputs)) <= BAR


def test_labels_that_do_not_exclude_each_other():
    estimator = fitted("MLPClassifier", (U[:, :3] > 0).astype(int))
    model = from_sklearn(estimator)
    Y = model(U)
    assert model.classes is None
    np.testing.assert_array_equal(Y > 0, estimator.predict(U))
    assert relative_error(1 / (1 + np.exp(-Y)), estimator.predict_proba(U)) <= BAR


def test_float32_stays():
    estimator = fitted("MLPRegressor", U[:, 0].astype("f"), inputs=U.astype("f"))
    assert from_sklearn(estimator).dtype == "float32"
    assert relative_error(from_sklearn(estimator)(U)[:, 0], estimator.predict(U.astype("f"))) <= 1e-5
    assert from_sklearn(estimator, dtype="float64", kappa=0.5).settings.kappa == 0.5


@pytest.mark.parametrize("scaler", [{}, {"with_mean": False}, {"with_std": False}])
def test_a_pipeline_with_a_scaler(scaler):
    pytest.importorskip("sklearn")
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    raw = 100 + 7 * U
    scale = StandardScaler(**scaler).fit(raw)
    pipeline = make_pipeline(scale, fitted("MLPRegressor", U[:, 0], inputs=scale.transform(raw)))
    model = from_sklearn(pipeline)
    assert model.preprocessing is not None
    assert relative_error(model(raw)[:, 0], pipeline.predict(raw)) <= BAR
    other = make_pipeline(MinMaxScaler().fit(raw), pipeline[-1])
    with pytest.raises(TypeError, match=r"one fitted StandardScaler.*got MinMaxScaler: convert pipeline\[-1\]"):
        from_sklearn(other)
    assert from_sklearn(other[-1]).preprocessing is None


def test_estimators_without_a_net_are_refused():
    estimator = fitted("MLPRegressor", np.abs(U[:, 0]), loss="poisson")
    with pytest.raises(ValueError, match=r"got relu and exp: use network\(\[\(W.T, b\) for W, b in zip\("):
        from_sklearn(estimator)
    model = network([(W.T, b) for W, b in zip(estimator.coefs_, estimator.intercepts_, strict=True)], "relu")
    assert relative_error(np.exp(model(U))[:, 0], estimator.predict(U)) <= BAR  # what the message says
    for wrong in (type(estimator)(), object()):
        with pytest.raises(
            TypeError, match=r"estimator must be a fitted MLPClassifier or MLPRegressor; got .* without coefs_"
        ):
            from_sklearn(wrong)


@pytest.fixture(scope="module")
def digits():
    """Return a net with three hidden layers for the digits, its model, and test inputs."""
    x_train, y_train, x_test, _ = idl_ref.datasets.digits()
    estimator = fitted("MLPClassifier", y_train, inputs=x_train.astype(float), sizes=(96, 48, 24))
    return from_sklearn(estimator), x_train, y_train, x_test.astype(float)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_rescaled_net_gives_the_same_bits_and_is_left_alone(digits, backend, dtype):
    net, *_, inputs = digits
    layers = [(W.astype(dtype), b.astype(dtype)) for W, b in sliced(net)]
    model = network(layers, backend=backend)
    scaled = rescale(model)
    assert norm_inf(model.effective()["A"]) > 1.5 > 0.99 >= norm_inf(scaled.parameters["A"])
    assert left_alone(scaled)
    for U in (inputs, inputs[:1]):
        np.testing.assert_array_equal(scaled(U), model(U))


def sliced(net):
    """Return the layers of the model of a net with 96, 48 and 24 hidden units, from the first to the last."""
    A, B, C, D = (net.parameters[name] for name in "ABCD")
    one, two, three = slice(72, 168), slice(24, 72), slice(0, 24)
    return [
        (B[one, :-1], B[one, -1]),
        (A[two, one], B[two, -1]),
        (A[three, two], B[three, -1]),
        (C[:, three], D[:, -1]),
    ]


def test_a_rescaled_net_trains_on(digits):
    net, x_train, y_train, _ = digits
    model = rescale(net)
    before = model.loss_and_gradients(x_train, y_train)[0]
    idl_ref.fit(model, x_train, y_train, epochs=2, progress=False, optimizer=idl_ref.SGD(0.02))
    assert model.loss_and_gradients(x_train, y_train)[0] < before
    assert norm_inf(model.effective()["A"]) <= model.kappa


def run_onnx(path, U):
    """Return the outputs of an ONNX file."""
    session = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"U": U})[0]


def test_a_rescaled_net_is_frozen_and_exported(digits, tmp_path):
    net, *_, inputs = digits
    model, U = rescale(net), inputs[:20]
    truth = model(U)
    np.testing.assert_array_equal(model.freeze()(U), truth)
    export(model, "numpy", tmp_path)
    assert relative_error(imported(tmp_path).predict(U), truth) <= BAR
    if CC:
        export(model, "c", tmp_path)
        assert relative_error(run_c(build(tmp_path, "-O1"), U)[0], truth) <= BAR


def test_a_rescaled_net_is_exported_to_onnx(digits, tmp_path):
    pytest.importorskip("onnx", reason='onnx is not installed: pip install "idl-ref[onnx]"')
    net, *_, inputs = digits
    model, U = rescale(net), inputs[:20]
    export(model, "onnx", tmp_path)
    assert relative_error(run_onnx(next(tmp_path.glob("*.onnx")), U), model(U)) <= BAR


# --- PyTorch: objects with the names and attributes of its layers -----------------------------------------------------


def kind(name, **attributes):
    """Return a layer of the class of the given name."""
    return type(name, (), {"training": False, **attributes})()


def linear(outputs, inputs, bias=True, dtype=float):
    W, b = RNG.standard_normal((outputs, inputs)).astype(dtype), RNG.standard_normal(outputs).astype(dtype)
    return kind("Linear", weight=W, bias=b if bias else None)


class Sequential(list):
    """A Sequential is iterable, as that of PyTorch."""


def called(layers, U):
    """Compute the outputs layer by layer."""
    for layer in layers:
        name = type(layer).__name__
        if name == "Sequential":
            U = called(layer, U)
        elif name == "Linear":
            U = U @ layer.weight.T + (0 if layer.bias is None else layer.bias)
        elif name in PHI:
            U = PHI[name](U)
    return U


PHI = {
    "ReLU": lambda P: np.maximum(P, 0),
    "LeakyReLU": lambda P: np.maximum(P, 0.01 * P),
    "Tanh": np.tanh,
    "Sigmoid": lambda P: 1 / (1 + np.exp(-P)),
    "ELU": lambda P: np.where(P > 0, P, np.expm1(np.minimum(P, 0))),
    "Hardtanh": lambda P: np.clip(P, -1, 1),
    "Softsign": lambda P: P / (1 + np.abs(P)),
}


@pytest.mark.parametrize("name", list(PHI))
@pytest.mark.parametrize("bias", [True, False])
def test_layers(name, bias):
    phi = kind(name)
    for layers in (
        [linear(6, 4, bias), phi, linear(5, 6, bias), phi, linear(2, 5, bias)],
        Sequential([linear(6, 4), Sequential([phi, linear(5, 6, bias)]), phi]),  # The outputs are values of φ.
        [kind("Flatten"), linear(6, 4, bias), linear(5, 6, bias), kind("Dropout"), phi, kind("Identity"), linear(2, 5)],
        [linear(6, 4), phi, phi, linear(2, 6)],
    ):
        assert relative_error(from_torch(layers)(U), called(layers, U)) <= BAR
    assert from_torch([linear(3, 4, dtype="f"), phi, linear(2, 3, dtype="f")]).dtype == "float32"


def test_linear_layers_alone():
    layers = [linear(3, 4), linear(2, 3)]
    assert relative_error(from_torch(layers)(U), called(layers, U)) <= BAR
    assert from_torch(layers, dtype="float32", kappa=0.5).settings.kappa == 0.5


def test_layers_with_different_activations():
    layers = [linear(3, 4), kind("ReLU"), linear(5, 3), kind("Hardtanh"), linear(2, 5), kind("Tanh")]
    model = from_torch(layers)
    assert relative_error(model(U), called(layers, U)) <= BAR
    assert model.activation.names == ("tanh",) * 2 + ("hardtanh",) * 5 + ("relu",) * 3


def test_layers_that_no_model_has_are_refused():
    first = linear(3, 4)
    for layers, message in (
        ([kind("ReLU"), first], "the first layer must be Linear.*got ReLU"),
        ([], "layers must have a Linear layer; got none"),
        ([first, linear(2, 5)], "must take the 3 outputs of the layer before it; got 5 inputs"),
        ([first, kind("ReLU"), linear(2, 5)], "W of layer 2 must have 3 columns"),
    ):
        with pytest.raises(ValueError, match=message):
            from_torch(layers)
    for layers, message in (
        ([first, kind("BatchNorm1d")], "layers must be Linear, ReLU, .*got BatchNorm1d: convert the layers before it"),
        ([first, kind("Softmax")], "got Softmax: leave it out, so that the outputs are logits"),
        ([first, kind("Dropout", training=True)], r"Dropout must not be active.*net.eval\(\)"),
        ([first, kind("LeakyReLU", negative_slope=0.2)], "LeakyReLU must have negative_slope=0.01.*got 0.2"),
        ([first, kind("Hardtanh", min_val=0.0, max_val=6.0)], "Hardtanh must have min_val=-1"),
        ([first, kind("Flatten")], "got Flatten"),
        (first, r"layers must be a list of layers or a Sequential; got Linear: pass list\(net.children\(\)\)"),
    ):
        with pytest.raises(TypeError, match=message):
            from_torch(layers)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_layers_of_pytorch(dtype):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    nn = torch.nn
    for phi in (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.LeakyReLU, nn.ELU, nn.Hardtanh, nn.Softsign):
        net = nn.Sequential(
            nn.Flatten(), nn.Linear(4, 9), phi(), nn.Dropout(0.5), nn.Linear(9, 7, bias=False), phi(), nn.Linear(7, 2)
        )
        net = net.to(getattr(torch, dtype)).eval()
        model = from_torch(net)
        assert model.dtype == ("float64" if dtype == "float64" else "float32")
        net = net.to(torch.float64 if dtype == "float64" else torch.float32)
        truth = net(torch.from_numpy(U.astype(model.dtype))).detach().numpy()
        assert relative_error(model(U), truth) <= (BAR if dtype == "float64" else 2e-6)


@pytest.mark.parametrize("f", [ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunctionMonotone])
def test_an_f_that_would_change_the_net_is_refused(f):
    """It would be another function, in silence."""
    estimator = fitted("MLPClassifier", (U[:, 0] > 0).astype(int), sizes=(8, 8))
    with pytest.raises(ValueError, match=rf"f must leave the weights of the net as they are; got {f.__name__}"):
        from_sklearn(estimator, f=f)
    net = from_sklearn(estimator, f=ImplicitFunctionPerron)  # The Perron root of a net is 0.
    np.testing.assert_array_equal(net(U), from_sklearn(estimator)(U))


def test_several_numbers_are_known_as_numbers():
    """A file of outputs without classes would be taken for that of a classifier."""
    model = from_sklearn(fitted("MLPRegressor", U[:, :2], sizes=(8, 8)))
    assert model.columns.targets == ("y0", "y1")
    data = sim.states(model, U)
    assert sim.fit(data, 0.9).columns is model.columns
