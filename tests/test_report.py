"""The report of a training is one valid page of HTML that holds the right numbers, whatever it is given."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import idl_ref
from idl_ref import History, ImplicitModel, datasets, fit, report
from idl_ref.report import charts, markup, scores

VOID = {"meta", "line", "circle", "polyline", "path", "br"}
NAMES = ["<script>alert(1)</script>", "a" * 200, "“x” & 'y' \"z\"", "</td></table>", "\x1b[31m\u202ered", "naïve café"]


class Page(HTMLParser):
    """The tags, attributes and texts of a page; an AssertionError where tags are not balanced."""

    def __init__(self, source):
        super().__init__()
        self.open, self.tags, self.texts, self.attributes = [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        assert len({name for name, _ in attrs}) == len(attrs), "an attribute stands twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        assert tag in VOID

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def written(tmp_path, *args, **kwargs):
    path = tmp_path / "report.html"
    report.write(path, *args, **kwargs)
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    assert not {"script", "link", "img", "iframe", "object", "form", "base"} & set(page.tags)
    names = {name for _, name, _ in page.attributes}
    assert not {"src", "href", "srcset", "action"} & names
    assert not any(name.startswith("on") for name in names)
    assert "http://" not in source.replace("http-equiv", "")
    assert "https://" not in source
    assert not re.search(r'\b(nan|inf)\b[^<]*"', "".join(re.findall(r'(?:points|d|[xy][12]?|c[xy])="[^"]*"', source)))
    return page


def cells(page):
    """All texts of a page, without what stands between the elements."""
    return [text.strip() for text in page.texts if text.strip()]


@pytest.fixture(scope="module")
def classifier():
    x, y = datasets.two_moons(80)
    model = ImplicitModel(2, 2, 8, bias=True, seed=0)
    return model, fit(model, x, y, epochs=4, validation=(x, y), progress=False), y, model(x).argmax(axis=1)


@pytest.fixture(scope="module")
def regressor():
    rng = np.random.default_rng(0)
    U = rng.standard_normal((60, 3))
    T = U @ rng.standard_normal((3, 2))
    model = ImplicitModel(3, 2, 8, is_low_rank=True, rank=2, activation="sigmoid", seed=0)
    return model, fit(model, U, T, loss="mse", epochs=4, progress=False), T, np.asarray(model(U), float)


def filled(epochs=3, **records):
    """A history of made-up numbers."""
    pairs, numbers = [(4.0, 7)] * epochs, [0.5] * epochs
    made = History(
        loss=numbers, forward_iterations=pairs, adjoint_iterations=pairs, unconverged=[0] * epochs, norm=numbers,
        perron_root=numbers, learning_rate=numbers, seconds=numbers,
    )  # fmt: skip
    for name, values in records.items():
        setattr(made, name, values)
    return made


# --- what stands in it ------------------------------------------------------------------------------------------------


def test_a_classifier(tmp_path, classifier):
    model, history, y, predicted = classifier
    given = predicted.astype(float)
    given[5] = np.nan
    page = written(tmp_path, model, history, truth=y, predicted=given)
    found = cells(page)
    accuracy = (given == y).mean()
    assert found[found.index("Test accuracy") + 1] == f"{100 * accuracy:.2f} %"
    assert found[found.index("Failed samples") + 1] == "1"
    assert found[found.index("Training loss") + 1] == f"{history.loss[-1]:.4g}"
    assert any("1 of them failed, and have no prediction. A sample that failed counts as wrong." in t for t in found)
    titles = ["Loss (mean over samples)", "Accuracy (%)", "Learning rate", "Iterations (per sample)"]
    assert {*titles, "Well-posedness of A"} <= set(found)
    for word in ("ImplicitFunctionInf, κ = 0.99", "relu, with the Lipschitz constant 1", "2, 8, 2"):
        assert word in found
    size = sum(W.size for W in model.parameters.values())
    assert any(t.startswith(f"{size}: A 8 × 8, B 8 × 3") for t in found)
    assert f"at most {idl_ref.wellposed.perron_root(model.effective()['A']).upper:.4g}" in found


def test_numbers_of_each_class():
    truth = ["a"] * 4 + ["b"] * 3 + ["c"]
    counted = scores.confusion(truth, ["a", "a", "b", None, "b", "a", float("nan"), "a"], ["a", "b", "c"])
    assert counted.classes == ["a", "b", "c"]
    assert counted.counts.tolist() == [[2, 1, 0], [1, 1, 0], [1, 0, 0]]
    assert counted.failed.tolist() == [1, 1, 0]
    assert counted.accuracy == 3 / 8
    assert counted.precision[:2] == [2 / 4, 1 / 2]
    assert np.isnan(counted.precision[2])
    assert counted.recall == [2 / 4, 1 / 3, 0]
    assert counted.mistakes() == [(1, 0, 1), (1, 1, 0), (1, 2, 0)]


def test_labels_that_only_the_data_have_are_counted():
    counted = scores.confusion(np.array([0, 1, 7]), np.array([0, 9, 7]), [0, 1])
    assert counted.classes == [0, 1, 7, 9]
    assert counted.counts.sum() == 3
    assert counted.accuracy == 2 / 3


def test_scores_against_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    truth, given = rng.integers(0, 4, (2, 200))
    counted = scores.confusion(truth, given)
    np.testing.assert_array_equal(counted.counts, metrics.confusion_matrix(truth, given))
    np.testing.assert_allclose(counted.precision, metrics.precision_score(truth, given, average=None))
    np.testing.assert_allclose(counted.recall, metrics.recall_score(truth, given, average=None))
    y, y_hat = rng.standard_normal((2, 50))
    assert scores.errors(y, y_hat).r2 == pytest.approx(metrics.r2_score(y, y_hat))


def test_a_regressor(tmp_path, regressor):
    model, history, T, Y = regressor
    given = Y.copy()
    given[3] = np.nan
    page = written(tmp_path, model, history, truth=T, predicted=given)
    found = cells(page)
    assert found[found.index("Failed samples") + 1] == "1"
    rest = np.arange(len(T)) != 3
    rmse = float(np.sqrt(((T - Y)[rest, 1] ** 2).mean()))
    row = found[found.index("Mean absolute error") + 5 :]
    assert row[0] == "2"
    assert row[2] == markup.number(rmse)
    assert "Residuals, truth − prediction, of output 2" in found
    assert "well posed if a curve is below 4" in found
    assert any(t.endswith(", a bound") for t in found)


def test_one_output_of_a_regressor_may_be_a_column(tmp_path, regressor):
    model, history, T, Y = regressor
    one = cells(written(tmp_path, model, history, truth=T[:, :1], predicted=Y[:, 0]))
    assert one == cells(written(tmp_path, model, history, truth=T[:, 0], predicted=[*Y[:, 0]]))
    assert "Test R²" in one
    assert "Test RMSE" in one
    missing = cells(written(tmp_path, model, history, truth=T[:3, 0], predicted=[1.0, None, 2.0]))
    assert missing[missing.index("Failed samples") + 1] == "1"


def test_notes_and_the_table_of_epochs(tmp_path, classifier):
    model = classifier[0]
    events = ["the learning rate 0.1 was found by <b>trials</b>", "epoch 2: halved"]
    history = filled(450, events=events, interrupted=True, unconverged=[0] * 449 + [3])
    found = cells(written(tmp_path, model, history))
    assert "The learning rate 0.1 was found by <b>trials</b>." in found
    assert "Epoch 2: halved." in found
    assert "The training was interrupted." in found
    assert "Training samples that did not converge, over all epochs: 3." in found
    assert "One of 3 epochs, and the last one" in found
    assert {"1", "4", "448", "450"} <= set(found)


def test_the_same_figures_without_test_samples(tmp_path, classifier):
    found = cells(written(tmp_path, *classifier[:2]))
    assert "Test samples" not in found
    assert found[found.index("Epochs") + 1] == "4"


# --- whatever it is given ---------------------------------------------------------------------------------------------


def test_names_are_escaped(tmp_path):
    model = ImplicitModel(2, len(NAMES[:4]) + 1, 5, seed=0)
    model.classes = np.array([*NAMES[:4], NAMES[5]])
    rng = np.random.default_rng(0)
    truth, given = rng.choice(NAMES, (2, 200))
    page = written(tmp_path, model, filled(events=[f"epoch 1: {NAMES[0]} {NAMES[4]}"]), truth=truth, predicted=given)
    found = cells(page)
    assert NAMES[0] in found
    assert NAMES[2] in found
    assert NAMES[3] in found
    assert "a" * 27 + "…" in found
    assert ("span", "title", "a" * 200) in page.attributes
    assert r"\x1b[31m\u202ered" in found
    assert not any("\x1b" in text or "\u202e" in text for text in page.texts)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=5, unique=True))
def test_any_text_is_text(names):
    names = [f"{name}|{k}" for k, name in enumerate(names)]
    rows = [[markup.name(name), markup.text(name)] for name in names]
    source = markup.page(names[0], markup.table("c", [markup.name(name) for name in names], rows))
    assert set(Page(source).tags) <= {
        "html", "head", "meta", "title", "style", "body", "main", "h1", "div", "table", "caption", "thead", "tr", "th",
        "tbody", "td", "span",
    }  # fmt: skip


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_short_histories(tmp_path, epochs):
    found = cells(written(tmp_path, ImplicitModel(2, 2, 3, seed=0), filled(epochs)))
    assert ("No epoch was completed." in found) == (epochs == 0)


HARD = [np.nan, np.inf, -np.inf, 0.0, -1.0, 1e308, -1e308, 5e-324, 1e-300, 1.0, 1.0 + 1e-15]


@given(st.lists(st.one_of(st.sampled_from(HARD), st.floats()), max_size=6), st.booleans(), st.booleans())
def test_any_numbers_are_drawn_inside_the_frame(values, log, zero):
    with np.errstate(all="raise", under="ignore"):
        drawn = charts.lines("L", "u", [charts.Series("s", np.array(values, float), 0)], log=log, zero=zero)
    assert bool(drawn) == bool(np.isfinite(np.array(values, float)).any())
    Page(drawn)
    for points in re.findall(r'points="([^"]*)"', drawn):
        for x, y in (map(float, point.split(",")) for point in points.split()):
            assert charts.LEFT <= x <= charts.WIDTH
            assert 0 <= y <= charts.HEIGHT
    ticks = re.findall(r'<text x="[\d.]+" y="([\d.]+)"', drawn)
    assert all(0 <= float(y) <= charts.HEIGHT for y in ticks)
    assert len(ticks) <= 30


@given(st.lists(st.tuples(st.one_of(st.sampled_from(HARD), st.floats()), st.floats()), min_size=1, max_size=6))
def test_any_numbers_have_a_report(pairs):
    truth, predicted = np.array(pairs, float).T
    found = scores.errors(truth, predicted)
    if len(found.residual):
        Page(charts.scatter("t", "x", found.predicted, found.residual, "alt"))
    for value in found[2:]:
        assert markup.number(value)


def test_curves_break_where_a_number_is_missing():
    values = np.array([1.0, 2.0, np.nan, 3.0, np.nan, 2.0, 1.0])
    drawn = charts.lines("Loss", "", [charts.Series("training", values, 0)])
    assert drawn.count("<polyline") == 2
    assert drawn.count("<circle") == 1
    assert 'aria-label="Loss by epoch: training from 1 to 1."' in drawn


def test_points_are_where_they_belong():
    drawn = charts.lines("Loss", "", [charts.Series("training", np.array([0.0, 1.0, 2.0]), 0)])
    (points,) = re.findall(r'points="([^"]*)"', drawn)
    (x1, y1), (x2, y2), (x3, y3) = (map(float, point.split(",")) for point in points.split())
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.11)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.11)
    assert y3 < y1
    ones = [float(y) for y, word in re.findall(r'y="([\d.]+)" class="end">([^<]*)<', drawn) if word == "1"]
    assert ones == [pytest.approx(y2 + 4, abs=0.11)]


def test_the_logarithmic_axis():
    drawn = charts.lines("Loss", "mean", [charts.Series("training", 10.0 ** -np.arange(5), 0)], log=True)
    assert "Loss (mean, logarithmic)" in drawn
    (points,) = re.findall(r'points="([^"]*)"', drawn)
    heights = [float(point.split(",")[1]) for point in points.split()]
    assert np.ptp(np.diff(heights)) < 0.25


def test_many_classes_and_many_samples(tmp_path):
    rng = np.random.default_rng(0)
    truth = np.arange(1000) % 40
    found = cells(written(tmp_path, ImplicitModel(2, 40, 3, seed=0), filled(accuracy=[0.1]), truth=truth,
                          predicted=rng.permutation(truth)))  # fmt: skip
    assert "The confusion matrix of 40 classes is not drawn." in found
    y = rng.standard_normal(10_001)
    drawn = charts.scatter("Residuals", "prediction", y, y, "alt")
    assert "Residuals (one of 6 samples)" in drawn
    assert drawn.count("h0") == 1667


def test_every_figure_and_table_says_what_it_is(tmp_path, classifier):
    model, history, y, predicted = classifier
    page = written(tmp_path, model, history, truth=y, predicted=predicted)
    labels = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    hidden = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-hidden"]
    assert len(labels) + len(hidden) == page.tags.count("svg")
    assert f"training from {history.loss[0]:.4g} to {history.loss[-1]:.4g}" in labels[0]
    assert page.tags.count("caption") == page.tags.count("table") >= 5
    assert page.tags.count("th") == sum(name == "scope" for _, name, _ in page.attributes)
    assert ("html", "lang", "en") in page.attributes


HALF = idl_ref.Activation("half", lambda P: P / 2, lambda P: 0 * P + 0.5, 0.5)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"f": idl_ref.ImplicitFunctionTriu, "no_D": True}, "X = φ(A X + B U), Ŷ = C X"),
        ({"is_low_rank": True, "rank": 1, "activation": "sigmoid", "kappa": 1.5}, "ImplicitFunctionInf, κ = 1.5"),
        ({"f": idl_ref.ImplicitFunction, "activation": HALF}, "half, with the Lipschitz constant 0.5"),
    ],
)
def test_every_kind_of_model(tmp_path, settings, word):
    assert word in cells(written(tmp_path, ImplicitModel(2, 2, 4, seed=0, **settings), filled()))


# --- the file ---------------------------------------------------------------------------------------------------------


def test_what_is_refused_leaves_the_old_report(tmp_path, classifier):
    model, history, y, predicted = classifier
    path = tmp_path / "report.html"
    path.write_text("old")
    with pytest.raises(ValueError, match="must both be given, or neither; got no predicted: pass it too"):
        report.write(path, model, history, truth=y)
    with pytest.raises(ValueError, match=r"same shape, \(m,\) or \(m, q\); got \(80,\) and \(79,\)"):
        report.write(path, model, history, truth=y, predicted=predicted[1:])
    with pytest.raises(ValueError, match=r"labels must have shape \(m,\); got \(80, 2\): pass one label per sample"):
        report.write(path, model, history, truth=np.eye(2)[y], predicted=np.eye(2)[y])
    with pytest.raises(ValueError, match="a label for every sample; got None for sample 1: leave it out"):
        report.write(path, model, history, truth=["a", None], predicted=["a", "a"])
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        report.write(tmp_path / "no" / "report.html", model, history)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_training_gives_the_same_page(tmp_path, classifier):
    model, history, y, predicted = classifier
    report.write(tmp_path / "a.html", model, history, truth=y, predicted=predicted)
    report.write(tmp_path / "b.html", model, History.from_json(history.to_json()), truth=y, predicted=predicted)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_only_numpy_is_imported(tmp_path):
    code = (
        "import sys, json, numpy\n"
        "before = {name.partition('.')[0] for name in sys.modules}\n"
        "from idl_ref import ImplicitModel, History, report\n"
        "model = ImplicitModel(2, 2, 3, backend='numpy')\n"
        f"report.write({str(tmp_path / 'report.html')!r}, model, History(loss=[1.0, 0.5]))\n"
        "after = {name.partition('.')[0] for name in sys.modules}\n"
        "print(json.dumps(sorted(after - before - set(sys.stdlib_module_names))))\n"
    )
    root = str(Path(idl_ref.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)
    assert [name for name in json.loads(done.stdout) if "cython" not in name] == ["idl_ref"]  # NumPy's own
