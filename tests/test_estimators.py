"""The estimators keep scikit-learn's conventions, and all ways to serve their model give the same answers."""

import csv
import importlib
import os
import pickle
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_export import CC, allowed, build, imported, run

import idl_ref
from idl_ref import ConvergenceWarning, ImplicitClassifier, ImplicitRegressor, NotConvergedError
from idl_ref.__main__ import main
from idl_ref.estimators import base
from idl_ref.export import export

pytest.importorskip("sklearn", reason='scikit-learn is not installed: pip install "idl-ref[sklearn]"')
from sklearn import datasets, metrics
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

FLOWERS, NAMES = datasets.load_iris(return_X_y=True)[0], np.repeat(["setosa", "versicolor", "virginica"], 50)
U, PRICE = datasets.load_diabetes(return_X_y=True)
U, PRICE = U[:120], PRICE[:120]
BOTH = pytest.mark.parametrize("Estimator", [ImplicitClassifier, ImplicitRegressor])


def quick(Estimator=ImplicitClassifier, **parameters):
    return Estimator(**{"hidden_dim": 12, "max_iter": 40, "random_state": 0, **parameters})


def trained(Estimator, **parameters):
    data = (FLOWERS, NAMES) if Estimator is ImplicitClassifier else (U, PRICE)
    return quick(Estimator, **parameters).fit(*data), data[0]


# --- scikit-learn's own checks ----------------------------------------------------------------------------------------


def of_scikit_learn():
    for Estimator in (ImplicitClassifier, ImplicitRegressor):
        if hasattr(estimator_checks, "estimator_checks_generator"):
            yield from estimator_checks.estimator_checks_generator(Estimator())
        else:  # before scikit-learn 1.6
            yield from estimator_checks.check_estimator(Estimator(), generate_only=True)


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("estimator", "check"),
    [pytest.param(*pair, id=f"{type(pair[0]).__name__}-{pair[1].func.__name__}") for pair in of_scikit_learn()],
)
@pytest.mark.filterwarnings("ignore")  # Many of these checks provoke warnings.
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.slow
@BOTH
def test_no_check_is_left_out(Estimator, tmp_path):
    """With SCIPY_ARRAY_API=1, the checks run too that are skipped otherwise."""
    code = (
        "from sklearn.utils.estimator_checks import check_estimator\n"
        f"from idl_ref import {Estimator.__name__} as Estimator\n"
        "results = check_estimator(Estimator(), **SILENT) or []\n"
        "print([result['check_name'] for result in results if result['status'] != 'passed'])\n"
    )
    new = hasattr(estimator_checks, "estimator_checks_generator")
    code = code.replace("SILENT", "{'on_skip': None}" if new else "{}")
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_what_they_are():
    assert is_classifier(ImplicitClassifier())
    assert is_regressor(ImplicitRegressor())


# --- how they are used ------------------------------------------------------------------------------------------------


def test_labels_may_be_of_any_kind():
    number = np.repeat([0, 1, 2], 50)
    for names in (number, np.array([-1.0, 5.0, 2.0])[number], NAMES, NAMES.astype(object)):
        classifier = quick().fit(FLOWERS, names)
        assert classifier.classes_.tolist() == sorted(set(names.tolist()))
        assert classifier.score(FLOWERS, names) > 0.85
        assert classifier.model_.classes.tolist() == classifier.classes_.tolist()
    yes = quick().fit(FLOWERS, number == 1)
    assert yes.classes_.tolist() == [False, True]
    assert yes.decision_function(FLOWERS).shape == (150,)
    assert ((yes.decision_function(FLOWERS) > 0) == yes.predict(FLOWERS)).all()


def test_probabilities_belong_to_the_classes():
    classifier, x = trained(ImplicitClassifier)
    P = classifier.predict_proba(x)
    np.testing.assert_allclose(P.sum(axis=1), 1, rtol=1e-12)
    assert (classifier.classes_[P.argmax(axis=1)] == classifier.predict(x)).all()
    assert metrics.log_loss(NAMES, P) < 0.5


def test_one_class_is_always_predicted():
    classifier = quick().fit(FLOWERS, ["only"] * 150)
    assert set(classifier.predict(FLOWERS)) == {"only"}
    assert (classifier.predict_proba(FLOWERS) == 1).all()


@BOTH
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_model_has_the_dtype_of_the_samples(Estimator, dtype):
    data = (FLOWERS, NAMES) if Estimator is ImplicitClassifier else (U, PRICE)
    estimator = quick(Estimator).fit(data[0].astype(dtype), data[1])
    assert estimator.model_.dtype == dtype
    assert estimator.model_(data[0][:2]).dtype == dtype
    assert quick(Estimator).fit(np.round(100 * data[0]).astype(int), data[1]).model_.dtype == "float64"


def test_targets_far_from_zero_need_float64():
    x = U.astype(np.float32)
    far = quick(ImplicitRegressor).fit(x, PRICE / np.std(PRICE) + 1.7e9)
    near = quick(ImplicitRegressor).fit(x, PRICE / np.std(PRICE))
    assert (far.model_.dtype, near.model_.dtype) == ("float64", "float32")
    assert far.score(x, PRICE / np.std(PRICE) + 1.7e9) > 0.4


def test_several_outputs():
    Y = np.stack([PRICE, 1e-6 * U[:, 2], np.full(len(U), 7.0)], axis=1)
    regressor = quick(ImplicitRegressor, max_iter=60).fit(U, Y)
    assert regressor.predict(U).shape == Y.shape
    assert metrics.r2_score(Y, regressor.predict(U), multioutput="raw_values")[:2].min() > 0.5
    np.testing.assert_allclose(regressor.predict(U)[:, 2], 7, atol=0.7)
    assert quick(ImplicitRegressor).fit(U, PRICE).predict(U).shape == (120,)
    assert quick(ImplicitRegressor).fit(U, PRICE[:, None]).predict(U).shape == (120, 1)


@pytest.mark.parametrize(("factor", "offset"), [(1e-8, 0.0), (1e8, 0.0), (1.0, 1e7), (1.0, 1e12), (1e100, 0.0)])
def test_the_units_of_the_targets_do_not_matter(factor, offset):
    plain = quick(ImplicitRegressor).fit(U, PRICE)
    other = quick(ImplicitRegressor).fit(U, factor * PRICE + offset)
    assert abs(plain.score(U, PRICE) - other.score(U, factor * PRICE + offset)) < 0.1
    assert other.score(U, factor * PRICE + offset) > 0.4


@BOTH
def test_the_same_seed_gives_the_same_model(Estimator):
    (one, x), (two, _) = trained(Estimator), trained(Estimator)
    assert (one.model_(x) == two.model_(x)).all()
    assert not (one.model_(x) == trained(Estimator, random_state=1)[0].model_(x)).all()
    for generator in (np.random.default_rng, np.random.RandomState):
        first, again = (trained(Estimator, random_state=generator(3))[0] for _ in range(2))
        assert (first.model_(x) == again.model_(x)).all()
    assert trained(Estimator, random_state=None, max_iter=1)[0].n_iter_ == 1


@BOTH
def test_the_larger_tolerance_is_that_of_the_training_alone(Estimator, monkeypatch):
    tolerances, fit = [], base.fit

    def noted(model, *data, **how):
        tolerances.append(model.tol)
        return fit(model, *data, **how)

    monkeypatch.setattr(base, "fit", noted)
    estimator, _ = trained(Estimator)
    assert tolerances == [base.TOLERANCE]
    assert (estimator.model_.tol, estimator.model_.grad_tol) == (3e-6, 3e-6)


@BOTH
def test_a_copy_gives_the_same_answers(Estimator):
    estimator, x = trained(Estimator)
    again = pickle.loads(pickle.dumps(estimator))
    assert (again.predict(x) == estimator.predict(x)).all()
    assert clone(estimator).get_params() == estimator.get_params()
    assert not hasattr(clone(estimator), "model_")


@BOTH
def test_a_table_of_pandas(Estimator):
    pandas = pytest.importorskip("pandas")
    _, x = trained(Estimator)
    table = pandas.DataFrame(x, columns=[f"column {i}" for i in range(x.shape[1])])
    y = NAMES if Estimator is ImplicitClassifier else PRICE
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), quick(Estimator))
    pipeline.fit(table, pandas.Series(y))
    assert pipeline[-1].feature_names_in_.tolist() == list(table.columns)
    assert len(pipeline.predict(table)) == len(x)
    with pytest.raises(ValueError, match="feature names"):
        pipeline[-1].predict(table[table.columns[::-1]])


@pytest.mark.slow
def test_a_grid_search_in_processes():
    grid = {"hidden_dim": [4, 12], "activation": ["relu", "tanh"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search = GridSearchCV(quick(), grid, cv=2, n_jobs=2).fit(FLOWERS, NAMES)
        scores = cross_val_score(quick(ImplicitRegressor), U, PRICE, cv=3, n_jobs=2, error_score="raise")
    assert search.best_score_ > 0.9
    assert len(search.cv_results_["params"]) == 4
    assert scores.mean() > 0.2


@BOTH
def test_whole_weights_count_samples(Estimator):
    data = (FLOWERS, NAMES) if Estimator is ImplicitClassifier else (U, PRICE)
    weights = np.random.default_rng(0).integers(0, 4, len(data[0]))
    weighted = quick(Estimator, alpha=0.5).fit(*data, sample_weight=weights)
    repeated = quick(Estimator, alpha=0.5).fit(*(np.repeat(array, weights, axis=0) for array in data))
    scaled = quick(Estimator, alpha=0.5).fit(*data, sample_weight=weights / weights.sum())
    np.testing.assert_allclose(weighted.model_(data[0]), repeated.model_(data[0]), rtol=1e-6)
    np.testing.assert_allclose(weighted.model_(data[0]), scaled.model_(data[0]), rtol=1e-6)
    assert not np.allclose(weighted.model_(data[0]), quick(Estimator).fit(*data).model_(data[0]), rtol=1e-3)


@BOTH
@pytest.mark.parametrize(
    ("weights", "message"),
    [(-1.0, "finite numbers ≥ 0"), (np.nan, "finite numbers ≥ 0"), ([1.0, 2.0], "one number per"), (0.0, "zero")],
)
def test_wrong_weights_are_refused(Estimator, weights, message):
    with pytest.raises(ValueError, match=message):
        quick(Estimator).fit(FLOWERS, np.repeat([0, 1, 2], 50), sample_weight=weights)


def test_balanced_classes():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((400, 2)), np.arange(400) < 20
    x[y] += 1.0
    plain, balanced = (quick(class_weight=weight).fit(x, y) for weight in (None, "balanced"))
    assert metrics.recall_score(y, balanced.predict(x)) > metrics.recall_score(y, plain.predict(x)) + 0.2
    by_hand = quick(class_weight={True: 10.0, False: 400 / 760}).fit(x, y)
    np.testing.assert_allclose(by_hand.model_(x), balanced.model_(x), rtol=1e-9)
    with pytest.raises(ValueError, match="class_weight must name classes"):
        quick(class_weight={"yes": 2.0}).fit(x, y)
    with pytest.raises(ValueError, match="class_weight must be positive"):
        quick(class_weight={True: 0.0, False: 0.0}).fit(x, y)


@BOTH
def test_early_stopping_sets_samples_aside(Estimator):
    estimator, _ = trained(
        Estimator,
        early_stopping=True,
        max_iter=200,
        n_iter_no_change=3,
        learning_rate_init=0.1,
        validation_fraction=0.3,
    )
    losses = estimator.history_.validation_loss
    assert len(losses) == estimator.n_iter_ < 200
    assert int(np.argmin(losses)) == estimator.n_iter_ - 1 - 3
    assert not trained(Estimator)[0].history_.validation_loss


def test_every_class_is_among_the_validation_samples():
    data = base.Data(np.arange(50.0)[:, None], np.repeat([0, 1, 2], [40, 8, 2]), np.arange(50.0))
    training, validation = quick(validation_fraction=0.25)._split(data, 0)
    assert np.bincount(validation.y).tolist() == [10, 2, 1]
    assert sorted([*training.U[:, 0], *validation.U[:, 0]]) == list(range(50))
    assert (training.weights == training.U[:, 0]).all()
    with pytest.raises(ValueError, match="early_stopping needs samples for validation"):
        quick(early_stopping=True).fit(FLOWERS[[0, 60]], NAMES[[0, 60]])


@BOTH
def test_training_stops_when_the_loss_stays(Estimator):
    assert trained(Estimator, max_iter=300, tol=0.1, n_iter_no_change=2)[0].n_iter_ < 50
    assert trained(Estimator, max_iter=30, tol=0.0, n_iter_no_change=30)[0].n_iter_ == 30


@BOTH
def test_warm_start_goes_on(Estimator):
    estimator, x = trained(Estimator, warm_start=True, max_iter=3)
    first, y = estimator.history_.loss[-1], NAMES if Estimator is ImplicitClassifier else PRICE
    model = estimator.model_
    estimator.fit(x, y)
    assert estimator.model_ is model
    assert estimator.history_.loss[-1] < first
    estimator.set_params(hidden_dim=13)
    with pytest.raises(ValueError, match="must keep its sizes"):
        estimator.fit(x, y)
    estimator.set_params(hidden_dim=12, kappa=0.3).fit(x, y)
    assert model.kappa == 0.3
    estimator.set_params(warm_start=False).fit(x, y)
    assert estimator.model_ is not model


def test_warm_start_needs_the_same_classes():
    classifier = quick(warm_start=True).fit(FLOWERS, NAMES)
    with pytest.raises(ValueError, match="warm_start needs the classes of the last fit"):
        classifier.fit(FLOWERS[:100], NAMES[:100])


@BOTH
def test_partial_fit_goes_on_epoch_by_epoch(Estimator):
    x, y = (FLOWERS, NAMES) if Estimator is ImplicitClassifier else (U, PRICE)
    first = {"classes": np.unique(NAMES)} if Estimator is ImplicitClassifier else {}
    estimator = quick(Estimator).partial_fit(x, y, **first)
    moments = estimator._optimizer
    for _ in range(40):
        estimator.partial_fit(x, y)
    assert estimator._optimizer is moments
    assert moments.state()[0]["taken"] == estimator.n_iter_ == 41
    assert estimator.score(x, y) > (0.9 if first else 0.4)


def test_partial_fit_needs_all_classes_at_once():
    with pytest.raises(ValueError, match="classes must be all labels"):
        quick().partial_fit(FLOWERS, NAMES)
    classifier = quick().partial_fit(FLOWERS[:50], NAMES[:50], np.unique(NAMES))
    assert classifier.predict_proba(FLOWERS).shape == (150, 3)
    with pytest.raises(ValueError, match="classes must stay"):
        classifier.partial_fit(FLOWERS, NAMES, ["a", "b"])
    with pytest.raises(ValueError, match="y must hold only the classes"):
        classifier.partial_fit(FLOWERS[:2], ["setosa", "rose"])


def test_verbose_shows_progress(capsys):
    quick(max_iter=2, verbose=True).fit(FLOWERS, NAMES)
    assert "training" in (shown := capsys.readouterr().err) or "epoch 2/2" in shown
    quick(max_iter=2).fit(FLOWERS, NAMES)
    assert capsys.readouterr().err == ""


def test_batches_and_epochs_follow_from_the_number_of_samples():
    estimator = ImplicitClassifier()
    assert [(estimator._batch(m), estimator._epochs(m)) for m in (1, 512, 513, 6400, 10**6)] == [
        (1, 40),
        (512, 40),
        (64, 34),
        (64, 14),
        (64, 14),
    ]
    estimator.set_params(batch_size=100, max_iter=7)
    assert (estimator._batch(50), estimator._batch(513), estimator._epochs(513)) == (50, 100, 7)


@pytest.mark.parametrize("max_iter", [1, 3, 100])
def test_weight_decay_shrinks_weights_alike_for_any_number_of_steps(max_iter):
    optimizer = quick(max_iter=max_iter, alpha=0.2)._adam(base.Adam, "cosine", 100)
    optimizer.start(max_iter)
    shares = [optimizer.advance() * optimizer.weight_decay for _ in range(max_iter)]
    assert max(shares) <= 0.5
    assert max_iter < 2 or sum(shares) == pytest.approx(0.2, rel=0.5)
    assert quick(learning_rate_init=0)._adam(base.Adam, "cosine", 9).weight_decay == 0


@BOTH
@pytest.mark.parametrize(
    "wrong",
    [
        {"hidden_dim": 0}, {"alpha": -1}, {"batch_size": "all"}, {"batch_size": 0}, {"max_iter": 0}, {"tol": -1.0},
        {"n_iter_no_change": 0}, {"validation_fraction": 1.0, "early_stopping": True}, {"early_stopping": 1},
        {"warm_start": 1}, {"random_state": "x"}, {"verbose": 2}, {"kappa": 1.0}, {"rank": 0}, {"activation": "step"},
        {"learning_rate_init": np.nan}, {"backend": "gpu"}, {"f": "inf"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)  # fmt: skip
def test_wrong_parameters_are_refused_by_their_names(Estimator, wrong):
    with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
        trained(Estimator, **wrong)


def test_a_failed_fit_leaves_no_model():
    classifier = quick().fit(FLOWERS, NAMES)
    with pytest.raises(TypeError, match="max_iter"):
        classifier.set_params(max_iter=0.5).fit(FLOWERS, NAMES == "setosa")
    with pytest.raises(NotFittedError):
        classifier.predict(FLOWERS)


# --- samples without an answer ----------------------------------------------------------------------------------------


@BOTH
def test_samples_without_an_answer_are_named(Estimator):
    estimator, x = trained(Estimator)
    x = x[:100].copy()
    good = estimator.predict(x)
    x[[7, 20, 99]] = 1e300  # finite, but not after U is multiplied by B
    methods = [estimator.predict]
    if Estimator is ImplicitClassifier:
        methods += [estimator.predict_proba, estimator.decision_function]
    for method in methods:
        with pytest.raises(NotConvergedError, match=r"got 3 of 100 that have no answer, rows 7, 20, 99") as caught:
            method(x * 1e8)
        assert (~caught.value.solution.succeeded).sum() <= 3
    rest = np.delete(np.arange(100), [7, 20, 99])
    assert (estimator.predict(x[rest]) == good[rest]).all()


def test_an_iteration_that_does_not_end_has_no_class():
    classifier = quick().fit(FLOWERS, NAMES)
    classifier.model_.settings = replace(classifier.model_.settings, mitr=1, method="picard", tol=1e-15)
    with pytest.raises(NotConvergedError, match="raise mitr"):
        classifier.predict(FLOWERS)
    classifier.model_.settings = replace(classifier.model_.settings, mitr=1000)
    assert classifier.score(FLOWERS, NAMES) > 0.9


# --- the same answers everywhere --------------------------------------------------------------------------------------


def agree(Y, expected, bound):
    assert np.shape(Y) == expected.shape
    assert (np.abs(Y - expected).max(axis=1) <= bound).all()


@BOTH
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_way_gives_the_same_answer_to_the_same_raw_rows(Estimator, dtype, tmp_path):
    """Estimator, file, frozen model, command line, NumPy, C and ONNX agree within the certificate."""
    x, y = (FLOWERS, NAMES) if Estimator is ImplicitClassifier else (100 * U + 37, 1e3 * PRICE)
    x = np.ascontiguousarray(x, dtype)
    estimator = quick(Estimator).fit(x, y)
    rows, model = x[::9], estimator.model_
    certified, expected = model.freeze().certified(rows), estimator._outputs(rows)
    agree(certified.Y, expected, certified.error_bound)
    model.save(tmp_path / "model.npz")
    agree(idl_ref.load(tmp_path / "model.npz")(rows), expected, certified.error_bound)
    served = {"numpy": lambda: imported(tmp_path).predict(rows)}
    if CC:
        served["c"] = lambda: run(build(tmp_path), rows)[0]
    for target, serve in served.items():
        export(model, target, tmp_path)
        agree(serve(), *allowed(model, rows))
    np.savez(tmp_path / "rows.npz", x_test=rows)
    out = tmp_path / "out.csv"
    command = ["predict", tmp_path / "model.npz", "--data", tmp_path / "rows.npz", "--out", out]
    assert main([str(word) for word in command]) == 0
    with out.open(encoding="utf-8") as stream:
        answers = list(csv.DictReader(stream))
    if Estimator is ImplicitClassifier:
        assert [answer["label"] for answer in answers] == estimator.predict(rows).tolist()
        P = [[float(answer[f"p_{name}"]) for name in estimator.classes_] for answer in answers]
        np.testing.assert_allclose(P, estimator.predict_proba(rows), atol=1e-5)
    else:
        Y = np.array([[float(answer["y0"])] for answer in answers])
        agree(Y, expected, certified.error_bound + 1e-8 * np.abs(Y).max())


@BOTH
def test_onnx_gives_the_same_answer(Estimator, tmp_path):
    pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    estimator, x = trained(Estimator)
    (path,) = export(estimator.model_, "onnx", tmp_path).files
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    agree(session.run(None, {"U": x})[0], *allowed(estimator.model_, x))


# --- without scikit-learn ---------------------------------------------------------------------------------------------

PLAIN = """
import sys
for name in ("sklearn", "scipy", "numba", "pandas"):
    sys.modules[name] = None
import pickle
import numpy as np
from idl_ref import ImplicitClassifier, ImplicitRegressor
x, y, price = (np.load(f"{sys.argv[1]}/{name}.npy") for name in ("x", "y", "price"))
for kind, target in (("Classifier", y), ("Regressor", price)):
    with open(f"{sys.argv[1]}/Implicit{kind}", "rb") as stream:
        estimator, expected = pickle.load(stream)
    answer = estimator.predict(x)
    same = (answer == expected).all() if kind == "Classifier" else np.allclose(answer, expected, rtol=1e-4)
    new = type(estimator)(random_state=0).fit(x.astype(np.float32), target, sample_weight=np.arange(len(x)))
    print(kind, same, new.score(x, target) > 0.8, round(estimator.score(x, target), 6))
    broken = np.where(np.arange(4) == 1, np.nan, x)
    refused = [lambda w=w: new.predict(w) for w in (x[:, :2], broken, x[0])]
    refused += [lambda w=w: new.fit(w, target) for w in (broken, x[:9], x[0], x[:0])]
    for call in refused:
        try:
            call()
        except ValueError:
            continue
        raise AssertionError("a ValueError was expected")
try:
    ImplicitClassifier().predict(x)
except AttributeError as reason:
    print(reason)
print([name for name in sys.modules if name.partition(".")[0] in ("sklearn", "scipy") and sys.modules[name]])
"""


def test_scikit_learn_is_not_needed_to_predict_and_to_train(tmp_path):
    price = FLOWERS @ [1.0, 2.0, 3.0, 4.0]
    np.save(tmp_path / "x.npy", FLOWERS), np.save(tmp_path / "y.npy", NAMES), np.save(tmp_path / "price.npy", price)
    scores = {}
    for Estimator, y in ((ImplicitClassifier, NAMES), (ImplicitRegressor, price)):
        estimator = quick(Estimator).fit(FLOWERS, y)
        scores[Estimator] = round(estimator.score(FLOWERS, y), 6)
        (tmp_path / Estimator.__name__).write_bytes(pickle.dumps((estimator, estimator.predict(FLOWERS))))
    root = Path(idl_ref.__file__).parents[1]
    command = [sys.executable, "-W", "error", "-c", PLAIN, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"Classifier True True {scores[ImplicitClassifier]}"
    assert lines[1].startswith("Regressor True True ")
    assert float(lines[1].split()[-1]) == pytest.approx(scores[ImplicitRegressor], abs=1e-4)
    assert lines[2:] == [
        "ImplicitClassifier must be fitted before it predicts; got one without model_: call fit first.",
        "[]",
    ]


def test_the_package_does_not_import_scikit_learn():
    code = "import sys, idl_ref; idl_ref.fit, idl_ref.load; print('sklearn' in sys.modules)"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(Path(idl_ref.__file__).parents[1])}
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip() == "False"


def test_scores_without_scikit_learn_are_those_of_scikit_learn():
    from idl_ref.estimators.plain import ClassifierMixin, RegressorMixin

    rng = np.random.default_rng(0)
    T, Y, weights = rng.standard_normal((20, 3)), rng.standard_normal((20, 3)), rng.random(20)
    T[:, 1] = 4.0
    for t, y, w in ((T, Y, None), (T, Y, weights), (T[:, 0], Y[:, 0], weights), (T[:, 1], T[:, 1], None)):
        mixin = RegressorMixin()
        mixin.predict = lambda X, y=y: y
        assert mixin.score(None, t, w) == pytest.approx(metrics.r2_score(t, y, sample_weight=w))
    mixin = ClassifierMixin()
    mixin.predict = lambda X: Y[:, 0] > 0
    ours = mixin.score(None, T[:, 0] > 0, weights)
    assert ours == pytest.approx(metrics.accuracy_score(T[:, 0] > 0, Y[:, 0] > 0, sample_weight=weights))


FEW = FLOWERS[::5], np.repeat([0, 1, 2], 10)


@pytest.fixture(params=["with scikit-learn", "without"])
def fitted(request, monkeypatch):
    """Return a classifier and a regressor, in an environment with or without scikit-learn."""
    if request.param == "without":
        for name in [name for name in sys.modules if name.startswith("idl_ref.estimators")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(vars(idl_ref), "estimators", None)  # so that the module of before comes back
        monkeypatch.setitem(sys.modules, "sklearn", None)
        monkeypatch.setitem(sys.modules, "sklearn.base", None)
    estimators = importlib.import_module("idl_ref.estimators")
    x, y = FEW
    how = {"hidden_dim": 4, "max_iter": 2, "random_state": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield estimators.ImplicitClassifier(**how).fit(x, y), estimators.ImplicitRegressor(**how).fit(x, 1.0 * y)


def nan_first(values):
    return np.r_[np.nan, values[1:]]


def masked(values):
    return np.ma.masked_array(values, mask=np.arange(len(values)) == 1)


@pytest.mark.parametrize("change", [masked, nan_first, lambda y: y[:4], lambda y: y[:1], lambda y: None])
def test_a_score_is_refused_for_targets_that_are_none(fitted, change):
    """NumPy alone gave R² = 1 for a NaN, and compared each sample with each where the shape was another one."""
    x, y = FEW
    for estimator in fitted:
        with pytest.raises((ValueError, TypeError)):
            estimator.score(x, change(y))
    with pytest.raises((ValueError, TypeError)):
        fitted[1].score(x, np.stack([y, y], axis=1))
    with pytest.raises(TypeError, match="y must hold labels of the kind of the classes"):
        fitted[0].score(x, NAMES[::5])


@pytest.mark.parametrize("change", [masked, nan_first, np.negative, np.zeros_like, lambda w: w[:4]])
def test_a_score_is_refused_for_weights_that_are_none(fitted, change):
    x, y = FEW
    for estimator in fitted:
        with pytest.raises(ValueError, match="sample_weight must"):
            estimator.score(x, y, change(np.ones(len(y))))


def test_a_column_of_targets_has_the_score_of_the_vector(fitted):
    x, y = FEW
    assert fitted[1].score(x, y[:, None]) == fitted[1].score(x, y) < 1


# --- trainings that end otherwise -------------------------------------------------------------------------------------


def test_an_interrupted_training_warns_and_keeps_the_model(monkeypatch):
    def interrupted(model, *arguments, **how):
        return idl_ref.History(loss=[1.0], interrupted=True)

    monkeypatch.setattr(base, "fit", interrupted)
    with pytest.warns(UserWarning, match="interrupted after 1 epochs"):
        classifier = quick().fit(FLOWERS, NAMES)
    assert classifier.predict(FLOWERS).shape == (150,)


def test_extreme_samples_train_without_an_exception():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 3)) * [1e-200, 1.0, 1e150] + [0.0, 1e12, 0.0]
    y = x[:, 1] > 1e12
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        assert quick().fit(x, y).score(x, y) > 0.9
        assert quick(ImplicitRegressor).fit(x, 1e-100 * x[:, 2]).score(x, 1e-100 * x[:, 2]) > 0.5


@pytest.mark.parametrize("named", [False, True])
def test_the_command_line_knows_that_a_regressor_predicts_numbers(tmp_path, capsys, named):
    """Two outputs without classes could also be logits."""
    from idl_ref.__main__ import main

    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 3))
    y = np.stack([100 + x[:, 0], x @ [1.0, -2.0, 0.5]], axis=1)
    X = pytest.importorskip("pandas").DataFrame(x, columns=["a", "b", "y"]) if named else x
    regressor = ImplicitRegressor(max_iter=5, random_state=0).fit(X, y)
    regressor.model_.save(tmp_path / "model.npz")
    np.savez(tmp_path / "x.npz", X=x[:4])
    out = tmp_path / "y.csv"
    assert main(["predict", str(tmp_path / "model.npz"), "--data", str(tmp_path / "x.npz"), "--out", str(out)]) == 0
    table = np.genfromtxt(out, delimiter=",", names=True, encoding="utf-8", dtype=None)
    found = np.stack([table[table.dtype.names[1]], table[table.dtype.names[2]]], axis=1)
    np.testing.assert_allclose(found, regressor.predict(X[:4]), rtol=1e-4)
