"""What `fit` offers beyond steps: optimizers, weights, early stopping, losses of one's own, checkpoints, signals."""

import json
import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import idl_ref
from idl_ref import SGD, Adam, History, ImplicitModel, Optimizer, datasets, fit, losses, train
from idl_ref.npz import FileFormatError
from idl_ref.training import checkpoint, interrupts, rates
from idl_ref.training.loop import Epoch, Training
from idl_ref.training.samples import class_weights

BACKENDS = [name for name in ("numpy", "numba") if idl_ref.available_backends()[name] == "available"]


def make(seed=0, **settings):
    return ImplicitModel(2, 2, 12, bias=True, **{"seed": seed, "backend": "numpy", **settings})


def moons(m=120, seed=0):
    return datasets.two_moons(m, seed=seed)


def copied(model):
    return {name: w.copy() for name, w in model.parameters.items()}


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name, w in one.items():
        np.testing.assert_array_equal(w, two[name], err_msg=name)


def assert_close(one, two, rtol=1e-9, atol=1e-11):
    for name, w in one.items():
        np.testing.assert_allclose(w, two[name], rtol, atol, err_msg=name)


# --- optimizers -------------------------------------------------------------------------------------------------------


def adam_by_hand(gradients, rate, beta1, beta2, eps, decay):
    """The update of one number, written as in the paper of AdamW."""
    w, m, s = 1.0, 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        m, s = beta1 * m + (1 - beta1) * g, beta2 * s + (1 - beta2) * g**2
        w -= rate * ((m / (1 - beta1**t)) / (math.sqrt(s / (1 - beta2**t)) + eps) + decay * w)
        yield w


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_by_hand(decay):
    gradients, w = [0.5, -2.0, 0.0, 1e-3], {"B": np.ones(1)}
    optimizer = Adam(0.1, 0.8, 0.95, 1e-3, decay)
    for g, expected in zip(gradients, adam_by_hand(gradients, 0.1, 0.8, 0.95, 1e-3, decay), strict=True):
        optimizer.step(w, {"B": np.array([g])})
        assert w["B"][0] == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("make_optimizer", [lambda: SGD(0.1, nesterov=True, clip=1.5), lambda: Adam(0.1, clip=1.5)])
def test_clipping_bounds_the_norm_of_all_gradients_together(make_optimizer):
    g = {"B": np.array([3.0, 0.0]), "C": np.array([-4.0])}
    w, expected = ({"B": np.zeros(2), "C": np.zeros(1)} for _ in range(2))
    clipped, plain = make_optimizer(), make_optimizer()
    plain.clip = None
    clipped.step(w, g)
    plain.step(expected, {name: 1.5 / 5 * G for name, G in g.items()})
    assert_close(w, expected)
    clipped.step(w, {name: 0.1 * G for name, G in g.items()})  # Its norm is 0.5, which is not changed.
    plain.step(expected, {name: 0.1 * G for name, G in g.items()})
    assert_close(w, expected)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", [{}, {"clip": 0.05}, {"weight_decay": 0.1, "schedule": "cosine"}])
@pytest.mark.parametrize("low_rank", [False, True])
def test_adam_of_every_twin_is_that_of_the_definition(backend, rule, low_rank):
    more = {"is_low_rank": True, "rank": 3} if low_rank else {}
    exact = {"dtype": "float64", "tol": 1e-14, "grad_tol": 1e-14, "kappa": 0.9}
    one, two = make(backend=backend, **exact, **more), make(**exact, **more)
    settings = {"epochs": 10, "batch_size": 16, "class_weight": {1: 3.0}, "progress": False}
    for model in (one, two):
        fit(model, *moons(), optimizer=Adam(0.02, **rule), **settings)
    assert_close(one.parameters, two.parameters, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_clipped_sgd_of_every_twin_is_that_of_the_definition(backend):
    exact = {"dtype": "float64", "tol": 1e-14, "grad_tol": 1e-14, "kappa": 0.9}
    one, two = make(backend=backend, **exact), make(**exact)
    for model in (one, two):
        fit(model, *moons(), optimizer=SGD(0.05, clip=0.05), epochs=5, batch_size=16, progress=False)
    assert_close(one.parameters, two.parameters, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_optimizer_of_ones_own_is_a_class_with_update(backend):
    class Signs(Optimizer):
        MOMENTS = ("sum",)

        def update(self, w, g, moments, rate):
            moments[0][...] += np.sign(g)
            w -= rate * np.sign(moments[0])

    model = make(backend=backend)
    before = copied(model)
    fit(model, *moons(16), optimizer=Signs(0.01), epochs=1, batch_size=16, progress=False)
    for name, w in model.parameters.items():
        moved = np.abs(w - before[name])
        assert ((moved < 1e-6) | (np.abs(moved - 0.01) < 1e-6)).all()
        assert moved.max() > 0.009


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"beta1": 1.0}, "beta1 must be a number ≥ 0 and < 1"),
        ({"beta2": -0.1}, "beta2 must be a number ≥ 0 and < 1"),
        ({"eps": 0.0}, "eps must be a number > 0"),
        ({"learning_rate": "fast"}, "learning_rate must be a number ≥ 0; got 'fast'.*Or pass \"auto\""),
        ({"clip": -1.0}, "clip must be a number ≥ 0"),
        ({"schedule": "linear"}, "schedule must be one of"),
        ({"lr": 0.1}, "Adam has no argument lr; got lr=0.1: use learning_rate"),
    ],
)
def test_adam_refuses(arguments, words):
    with pytest.raises((ValueError, TypeError), match=words):
        Adam(**arguments)


def test_a_rate_that_nobody_has_found():
    with pytest.raises(ValueError, match='learning_rate must be a number to take a step; got "auto": use fit'):
        SGD("auto").step({"B": np.zeros(1)}, {"B": np.zeros(1)})
    assert repr(SGD("auto", clip=1.0)).startswith('SGD(learning_rate="auto"')
    assert eval(repr(Adam("auto", weight_decay=0.5, clip=2.0)), {"Adam": Adam}).clip == 2.0


@pytest.mark.sampled(4)
@pytest.mark.parametrize("kind", [SGD, Adam])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_found_rate_trains_at_once(kind, backend):
    """It is found by trials that leave the model as it was, and it is better than cautious ones."""
    (U, y), model = moons(300), make(backend=backend)
    history = fit(model, U, y, optimizer=kind("auto"), epochs=15, batch_size=32, progress=False)
    rate = float(history.events[0].split()[3])
    assert history.learning_rate == [pytest.approx(rate, rel=1e-2)] * 15
    assert any(rate == pytest.approx(rates.SHARE * tried, rel=1e-2) for tried in rates.RATES)
    final = []
    for tried in (1e-4, 1e-3, 1e-2):
        other = make(backend=backend)
        final.append(fit(other, U, y, optimizer=kind(tried), epochs=15, batch_size=32, progress=False).loss[-1])
    assert history.loss[-1] < min(final)


@pytest.mark.parametrize("backend", BACKENDS)
def test_trials_leave_no_trace(backend):
    history, by_hand = ((make(backend=backend), []) for _ in range(2))
    found = fit(history[0], *moons(), epochs=2, progress=False)
    rate = found.learning_rate[0]
    fit(by_hand[0], *moons(), optimizer=SGD(rate), epochs=2, progress=False)
    assert_same(history[0].parameters, by_hand[0].parameters)


@pytest.mark.parametrize("seed", range(5))
def test_targets_far_from_0_do_not_diverge(seed):
    """Measured numbers in raw units, such as those of the diabetes data: mean 150, deviation 77."""
    rng = np.random.default_rng(seed)
    U = rng.standard_normal((200, 6)).astype(np.float32)
    T = (150 + 77 * np.tanh(U @ rng.standard_normal((6, 1)))).astype(np.float32)
    model = ImplicitModel(6, 1, 20, bias=True, seed=seed)
    history = fit(model, U, T, loss="mse", epochs=30, progress=False)
    assert history.loss[-1] < 0.5 * T.var()


# --- weights of samples and classes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_a_weight_of_two_is_a_sample_that_occurs_twice(backend, loss):
    rng = np.random.default_rng(0)
    U, y = moons(30)
    T = y if loss == "cross_entropy" else rng.standard_normal((30, 2))
    weights = rng.integers(0, 4, 30)
    models = [make(backend=backend, dtype="float64", tol=1e-13, grad_tol=1e-13) for _ in range(2)]
    settings = {"loss": loss, "optimizer": SGD(0.1), "epochs": 5, "batch_size": 200, "progress": False}
    fit(models[0], U[weights > 0], T[weights > 0], sample_weight=weights[weights > 0], **settings)
    fit(models[1], U.repeat(weights, axis=0), T.repeat(weights, axis=0), **settings)
    assert_close(models[0].parameters, models[1].parameters)


def test_weighted_losses_are_means_and_their_gradients_are_derivatives():
    rng = np.random.default_rng(0)
    Y, T, w = rng.standard_normal((3, 5)), rng.standard_normal((3, 5)), rng.random(5)
    labels, h = rng.integers(0, 3, 5), 1e-7
    for loss, targets in ((losses.mse, T), (losses.cross_entropy, labels)):
        value, G_Y = loss(Y, targets, w)
        parts = [loss(Y[:, [j]], targets[..., [j]])[0] for j in range(5)]
        assert value == pytest.approx(np.dot(w, parts) / 5, rel=1e-13)
        E = rng.standard_normal(Y.shape)
        difference = (loss(Y + h * E, targets, w)[0] - loss(Y - h * E, targets, w)[0]) / (2 * h)
        assert (G_Y * E).sum() == pytest.approx(difference, rel=1e-6)


def test_balanced_classes_have_equal_weight():
    labels, weights = np.array([0, 0, 0, 2]), np.array([1.0, 2.0, 1.0, 8.0])
    np.testing.assert_allclose(class_weights("balanced", np.bincount(labels, minlength=3), None), [4 / 6, 0, 4 / 2])
    of_class = class_weights("balanced", np.bincount(labels, weights, 3), None)
    np.testing.assert_allclose([(weights * of_class[labels])[labels == c].sum() for c in (0, 2)], [6, 6])


def test_class_weights_are_named_as_the_classes():
    U, y = moons()
    names = np.array(["cold", "warm"])[y]
    one, two = make(), make()
    one.classes = np.array(["cold", "warm"])
    fit(one, U, names, class_weight={"warm": 3}, epochs=2, optimizer=SGD(), progress=False)
    fit(two, U, y, sample_weight=np.where(y == 1, 3, 1), epochs=2, optimizer=SGD(), progress=False)
    assert_same(one.parameters, two.parameters)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sample_weight": np.ones(3)}, r"sample_weight must have shape \(120,\), one number per sample; got \(3,\)"),
        ({"sample_weight": -np.ones(120)}, "sample_weight must be finite numbers ≥ 0; got -1 at place 0"),
        ({"sample_weight": np.full(120, np.nan)}, "sample_weight must be finite numbers ≥ 0; got nan"),
        ({"sample_weight": np.zeros(120)}, "sample_weight must be positive for at least one sample"),
        ({"class_weight": {5: 1}}, "class_weight must name classes of the model; got 5: use .0, 1."),
        ({"class_weight": {0: -1}}, "class_weight must be a number ≥ 0"),
        ({"class_weight": {0: 0, 1: 0}}, "class_weight must be positive for at least one class"),
        ({"class_weight": "even"}, 'class_weight must be "balanced" or a dict'),
        ({"early_stopping": 0}, "early_stopping must be a whole number, at least 1"),
        (
            {"early_stopping": 2, "validation": (np.zeros((0, 2)), [])},
            "validation must hold at least one sample for early_stopping",
        ),
        ({"on_epoch": 3}, "on_epoch must be a function of"),
        ({"checkpoint": "run.ckpt"}, "checkpoint must end in .npz"),
        ({"checkpoint": "no/folder/run.npz"}, "there is no folder no/folder"),
        ({"loss": lambda Y, T: (0.0, Y), "sample_weight": np.ones(120)}, "weight samples in it"),
        ({"loss": lambda Y, T: 0.0}, "loss must return a number and an array of shape"),
        ({"loss": lambda Y, T: (0.0, Y.T)}, "must have the shape"),
        ({"loss": "mae"}, "loss must be one of"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, words):
    model = make()
    before = copied(model)
    with pytest.raises((ValueError, TypeError, OSError), match=words):
        fit(model, *moons(), progress=False, **arguments)
    assert_same(model.parameters, before)


def test_class_weight_is_for_classes():
    with pytest.raises(ValueError, match='class_weight is for loss="cross_entropy"'):
        fit(make(), moons()[0], np.zeros((120, 2)), loss="mse", class_weight="balanced", progress=False)


# --- losses of one's own ----------------------------------------------------------------------------------------------


def huber(Y, T):
    """The mean over samples of the Huber loss, with targets (q, m)."""
    E, m = Y - T, Y.shape[1]
    return np.where(np.abs(E) < 1, E * E / 2, np.abs(E) - 0.5).sum() / m, np.clip(E, -1, 1) / m


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loss_of_ones_own(backend):
    U, y = moons()
    T = np.stack([y, 1 - y], axis=1).astype(float)
    model = make(backend=backend, dtype="float64")
    value, gradients = model.loss_and_gradients(U, T, loss=huber)
    assert value == pytest.approx(huber(model(U).T, T.T)[0])
    h, E = 1e-6, np.random.default_rng(0).standard_normal((2, 12))
    model.parameters["C"] += h * E
    assert (gradients["C"] * E).sum() == pytest.approx((huber(model(U).T, T.T)[0] - value) / h, rel=1e-3)
    model.parameters["C"] -= h * E
    history = fit(model, U, T, loss=huber, epochs=20, batch_size=16, validation=(U, T), progress=False)
    assert history.validation_loss[-1] < 0.5 * value
    assert not history.accuracy
    assert train.evaluate(model, U, T, loss=huber) == (pytest.approx(history.validation_loss[-1]), None)


def test_check_gradients_takes_a_loss_of_ones_own():
    U, y = moons(8)
    T = np.stack([y, 1 - y], axis=1).astype(float)
    square = lambda Y, T: (((Y - T) ** 2).sum(), 2 * (Y - T))  # noqa: E731
    assert idl_ref.check_gradients(make(), U, T, loss=square).verdict == "ok"
    wrong = lambda Y, T: (((Y - T) ** 2).sum(), Y - T)  # noqa: E731
    assert idl_ref.check_gradients(make(), U, T, loss=wrong).verdict != "ok"


# --- early stopping and callbacks -------------------------------------------------------------------------------------


def test_early_stopping_keeps_the_best_weights():
    U, y = moons(60)
    noisy = np.where(np.random.default_rng(0).random(60) < 0.3, 1 - y, y)
    seen, model = [], make()
    history = fit(
        model, U, noisy, epochs=200, batch_size=8, optimizer=Adam(0.03), validation=moons(200, 1), early_stopping=5,
        on_epoch=lambda history, model: seen.append(copied(model)), progress=False,
    )  # fmt: skip
    best = int(np.argmin(history.validation_loss))
    assert len(history.loss) == best + 1 + 5
    assert_same(model.parameters, seen[best])
    assert train.evaluate(model, *moons(200, 1))[0] == pytest.approx(min(history.validation_loss))
    assert f"the weights are those of epoch {best + 1}" in history.events[-1]


def test_early_stopping_without_validation_follows_the_training_loss():
    history = fit(make(), *moons(), epochs=50, optimizer=SGD(0.0), early_stopping=3, progress=False)
    assert len(history.loss) < 15  # The loss of an epoch varies a little with the order of its sums.


def test_early_stopping_where_no_loss_is_a_number():
    U = np.full((5, 2), 3e38)  # B U overflows.
    with np.errstate(all="ignore"):
        history = fit(
            make(on_failure="ignore"), *moons(), epochs=9, optimizer=SGD(), validation=(U, np.zeros(5, int)),
            early_stopping=2, progress=False,
        )  # fmt: skip
    assert all(math.isnan(value) for value in history.validation_loss)
    assert history.events == [
        "epoch 2: stopped, because the loss has not fallen for 2 epochs; the weights are the last ones"
    ]


def test_a_truth_value_of_numpy_ends_a_training():
    history = fit(make(), *moons(), epochs=5, optimizer=SGD(), on_epoch=lambda *_: np.True_, progress=False)
    assert history.events == ["epoch 1: stopped by on_epoch"]


def test_more_epochs_go_on_after_on_epoch_has_stopped(tmp_path):
    file, model = tmp_path / "c.npz", make()
    more = {"optimizer": SGD(0.05), "progress": False, "checkpoint": file}
    fit(model, *moons(), epochs=3, on_epoch=lambda history, _: len(history.loss) == 2, **more)
    for epochs, done in ((3, 2), (5, 5)):  # The same call once more changes nothing.
        model = make()
        assert len(fit(model, *moons(), epochs=epochs, **more).loss) == done


def test_a_best_loss_of_zero_is_remembered(tmp_path):
    """A checkpoint that took 0 for «no loss yet» never stopped."""

    U, T = moons()
    settings = {"loss": lambda Y, T: (0.0, np.zeros_like(Y)), "optimizer": SGD(0.1), "progress": False}
    settings |= {"early_stopping": 3, "validation": (U, T)}
    whole = fit(make(), U, T, epochs=9, **settings)
    parts = [fit(make(), U, T, epochs=epochs, checkpoint=tmp_path / "c.npz", **settings) for epochs in range(1, 10)]
    assert len(whole.loss) == len(parts[-1].loss) == 4


@pytest.mark.parametrize("other", ["class", "digits"])
def test_a_checkpoint_knows_its_optimizer(tmp_path, other):
    class Mine(SGD):
        def update(self, w, g, moments, rate):
            w -= 2 * rate * g

    again = Mine(0.1) if other == "class" else SGD(0.1000001)
    fit(make(), *moons(), epochs=1, optimizer=SGD(0.1), checkpoint=tmp_path / "c.npz", progress=False)
    with pytest.raises(ValueError, match="checkpoint must belong to the training that resumes; the optimizer of"):
        fit(make(), *moons(), epochs=2, optimizer=again, checkpoint=tmp_path / "c.npz", progress=False)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_checkpoint_with_other_arrays_is_refused(tmp_path, backend):
    """Compiled code would read and write beyond the arrays."""
    file = tmp_path / "c.npz"
    more = {"optimizer": SGD(0.05), "progress": False, "checkpoint": file}
    fit(make(backend=backend), *moons(), epochs=1, **more)
    good = checkpoint.Checkpoint.read(file)
    for part in ("now", "first"):
        for change in ("shape", "lost", "weights"):
            snapshot = good.snapshots[part]
            weights, moments = dict(snapshot.weights), dict(snapshot.moments)
            if change == "weights":
                weights["B"] = np.zeros((1, 1), np.float32)
            elif change == "shape":
                moments["velocity.B"] = np.zeros((1, 1), np.float32)
            elif part == "now":
                moments = {}
            else:
                continue
            snapshots = {**good.snapshots, part: snapshot._replace(weights=weights, moments=moments)}
            good._replace(snapshots=snapshots).write(file)
            with pytest.raises(ValueError, match=r"checkpoint must hold (parameters|the moments)"):
                fit(make(backend=backend), *moons(), epochs=2, **more)


@pytest.mark.parametrize("change", [{"limit": "x"}, {"epoch": {}}, {"stopped": 1}, {"here": None}, {"more": 0}, {}])
def test_a_checkpoint_of_another_version_is_refused(tmp_path, change):
    file = tmp_path / "c.npz"
    more = {"optimizer": SGD(0.05), "progress": False, "checkpoint": file}
    fit(make(), *moons(), epochs=1, **more)
    good = checkpoint.Checkpoint.read(file)
    state = good.state | change
    if not change:
        del state["best_epoch"]
    good._replace(state=state).write(file)
    with pytest.raises(FileFormatError, match="no checkpoint of this version"):
        fit(make(), *moons(), epochs=2, **more)
    snapshots = {"first": good.snapshots["first"]}
    good._replace(snapshots=snapshots).write(file)
    with pytest.raises(FileFormatError, match="no checkpoint of this version"):
        fit(make(), *moons(), epochs=2, **more)


@pytest.mark.parametrize("weight", [1e308, 1e-310])
def test_weights_that_overflow_are_refused(weight):
    with pytest.raises(ValueError, match="sample_weight and class_weight must have a mean from 1e-100 to 1e"):
        fit(make(), *moons(), epochs=1, sample_weight=np.full(120, weight), progress=False)
    with pytest.raises(ValueError, match="sample_weight and class_weight must have a mean from 1e-100 to 1e"):
        fit(make(), *moons(), epochs=1, class_weight={0: weight, 1: weight}, progress=False)


def test_on_epoch_sees_every_epoch_and_may_stop():
    calls = []

    def stop_after_3(history, model):
        calls.append((len(history.loss), model.parameters["B"].copy()))
        return len(history.loss) == 3

    model = make()
    history = fit(model, *moons(), epochs=10, optimizer=SGD(), on_epoch=stop_after_3, progress=False)
    assert [epoch for epoch, _ in calls] == [1, 2, 3]
    assert len(history.loss) == 3
    assert history.events == ["epoch 3: stopped by on_epoch"]
    np.testing.assert_array_equal(model.parameters["B"], calls[-1][1])


# --- checkpoints ------------------------------------------------------------------------------------------------------

OPTIMIZERS = [lambda: None, lambda: SGD(0.1, nesterov=True), lambda: Adam(0.02, clip=0.5), lambda: Adam("auto")]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_three_epochs_and_three_are_six_bit_for_bit(tmp_path, backend, optimizer):
    settings = {"batch_size": 16, "validation": moons(30, 1), "early_stopping": 4, "progress": False}
    whole, parts, path = make(backend=backend), make(backend=backend), tmp_path / "run.npz"
    expected = fit(whole, *moons(), epochs=6, optimizer=optimizer(), **settings)
    fit(parts, *moons(), epochs=3, optimizer=optimizer(), checkpoint=path, **settings)
    fresh = make(seed=9, backend=backend)  # Its own weights do not count.
    history = fit(fresh, *moons(), epochs=6, optimizer=optimizer(), checkpoint=path, **settings)
    assert_same(fresh.parameters, whole.parameters)
    assert history.loss == expected.loss
    assert history.validation_loss == expected.validation_loss
    assert history.events == expected.events
    assert (
        fit(make(backend=backend), *moons(), epochs=6, optimizer=optimizer(), checkpoint=path, **settings).loss
        == history.loss
    )


@pytest.mark.sampled(5)
@pytest.mark.parametrize("steps", [0, 1, 8, 11, 23])
@pytest.mark.parametrize("optimizer", [lambda: SGD("auto"), lambda: Adam(0.05, schedule="cosine")])
def test_interrupted_anywhere_and_resumed_is_the_same_bit_for_bit(tmp_path, monkeypatch, steps, optimizer):
    settings = {"epochs": 4, "batch_size": 16, "early_stopping": 9, "progress": False}
    whole, path = make(), tmp_path / "run.npz"
    expected = fit(whole, *moons(), optimizer=optimizer(), **settings)

    add, taken = Epoch.add, []

    def interrupted(epoch, *arguments):
        add(epoch, *arguments)
        taken.append(1)
        if len(taken) == steps:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Epoch, "add", interrupted)
        if steps == 0:
            start = Training.start
            patch.setattr(Training, "start", lambda self: (signal.raise_signal(signal.SIGINT), start(self))[1])
        history = fit(make(), *moons(), optimizer=optimizer(), checkpoint=path, **settings)
    assert history.interrupted
    assert len(history.loss) == steps // 8
    model = make(seed=5)
    history = fit(model, *moons(), optimizer=optimizer(), checkpoint=path, **settings)
    assert not history.interrupted
    assert_same(model.parameters, whole.parameters)
    assert history.loss == expected.loss


class Own(Optimizer):
    def update(self, w, g, moments, rate):
        w -= rate * g


@pytest.mark.slow
@pytest.mark.parametrize("process", ["one", "two"])
def test_what_users_write_does_not_hinder_a_resumption(tmp_path, process):
    """The names of their classes and functions count, and not where they are in memory."""
    program = f"""
        import sys, functools
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_training import *
        phi = idl_ref.Activation("mine", lambda P: P / 2, lambda P: 0 * P + 0.5, 0.5)
        model = make(activation=phi)
        loss = functools.partial(huber)
        T = np.stack([moons()[1]] * 2, axis=1)
        for epochs in {[1, 2] if process == "one" else [2]}:
            history = fit(model, moons()[0], T, loss=loss, optimizer=Own(0.01), epochs=epochs,
                          checkpoint={str(tmp_path / "run.npz")!r}, progress=False)
        print(len(history.loss))
    """
    for _ in range(1 if process == "one" else 2):
        ran = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout == "2\n"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"batch_size": 8}, "the batch_size of .* is 16, and that of this call is 8"),
        ({"seed": 1}, "the seed of"),
        ({"optimizer": SGD(0.2)}, "the optimizer of"),
        ({"loss": huber, "targets": np.zeros((120, 2))}, "the data of|the loss of"),
        ({"early_stopping": 3}, "the early_stopping of"),
        ({"sample_weight": np.arange(120)}, "the data of"),
        ({"validation": moons(5)}, "the validation data of"),
        ({"model": make(kappa=0.5)}, "the model of"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path, change, words):
    path, (U, y) = tmp_path / "run.npz", moons()
    arguments = {"batch_size": 16, "optimizer": SGD(0.1), "checkpoint": path, "epochs": 1, "progress": False}
    fit(make(), U, y, **arguments)
    model, targets = change.get("model", make()), change.get("targets", y)
    change = {name: value for name, value in change.items() if name not in ("model", "targets")}
    before = copied(model)
    with pytest.raises(ValueError, match=words):
        fit(model, U, targets, **(arguments | change))
    assert_same(model.parameters, before)


def test_a_file_that_is_no_checkpoint_is_refused_and_kept(tmp_path):
    path = tmp_path / "run.npz"
    make().save(path)
    before = path.read_bytes()
    with pytest.raises(FileFormatError, match="the file is not an idl_ref checkpoint"):
        fit(make(), *moons(), epochs=1, checkpoint=path, progress=False)
    assert path.read_bytes() == before
    fit(make(), *moons(), epochs=1, checkpoint=tmp_path / "other.npz", progress=False)
    with pytest.raises(FileFormatError, match="not an idl_ref model"):
        idl_ref.load(tmp_path / "other.npz")


def test_damaged_checkpoints_are_refused(tmp_path):
    path, damaged = tmp_path / "run.npz", tmp_path / "damaged.npz"
    fit(make(), *moons(), epochs=1, checkpoint=path, progress=False)
    content, rng, refused = bytearray(path.read_bytes()), np.random.default_rng(0), 0
    for _ in range(200):
        broken = bytearray(content)
        broken[rng.integers(len(broken))] ^= 1 << rng.integers(8)
        damaged.write_bytes(broken[: len(broken) if rng.random() < 0.8 else rng.integers(len(broken))])
        try:
            checkpoint.Checkpoint.read(damaged)
        except FileFormatError:
            refused += 1
    assert refused > 150  # The rest hit bytes that nothing reads, such as dates.


PROGRAM = """
    import sys, time, numpy as np, idl_ref
    from idl_ref import ImplicitModel, datasets, fit, Adam
    def slowly(history, model):
        print(len(history.loss), flush=True)
        time.sleep(0.02)
    model = ImplicitModel(2, 2, 12, bias=True, seed=0, backend="numpy")
    history = fit(model, *datasets.two_moons(120, seed=0), epochs=12, batch_size=8, optimizer=Adam(0.02),
                  on_epoch=slowly, checkpoint=sys.argv[1], progress=False)
    print("interrupted" if history.interrupted else "done", flush=True)
    model.save(sys.argv[2])
"""


def run_program(folder, name, signal_number=None, after=0.0):
    """Run the training in a process, which a signal hits some time after its first epoch."""
    arguments = [sys.executable, "-c", textwrap.dedent(PROGRAM), folder / "run.npz", folder / f"{name}.npz"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    if signal_number is not None:
        process.stdout.readline()
        time.sleep(after)
        process.send_signal(signal_number)
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_bit_for_bit(tmp_path):
    whole = tmp_path / "whole"
    whole.mkdir()
    assert run_program(whole, "model")[0] == 0
    rng = np.random.default_rng(0)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        folder = tmp_path / number.name
        folder.mkdir()
        for _ in range(3):
            status, out, err = run_program(folder, "model", number, rng.random() * 0.1)
            assert "Traceback" not in err
            if number == signal.SIGKILL:
                assert status == -signal.SIGKILL
            elif number == signal.SIGTERM:
                assert status == 143
                assert not (folder / "model.npz").exists()
            else:
                assert status == 0
                assert out.splitlines()[-1] == "interrupted"
        assert run_program(folder, "model")[0] == 0
        one, two = (idl_ref.load(parent / "model.npz").parameters for parent in (folder, whole))
        assert_same(one, two)
        assert [name for name in os.listdir(folder) if name.startswith(".")] == []


def test_a_second_ctrl_c_does_not_wait():
    model, before = make(), make()

    def twice(history, model):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.01)

    history = fit(model, *moons(), epochs=5, optimizer=SGD(), on_epoch=twice, progress=False)
    assert history.interrupted
    assert len(history.loss) == 1
    fit(before, *moons(), epochs=1, optimizer=SGD(), progress=False)
    assert_same(model.parameters, before.parameters)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_of_others_stay():
    seen, own = [], lambda *_: seen.append(1)
    before = signal.signal(signal.SIGINT, own)
    try:
        fit(make(), *moons(), epochs=2, on_epoch=lambda *_: signal.raise_signal(signal.SIGINT), progress=False)
        assert signal.getsignal(signal.SIGINT) is own
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [1, 1]


def test_training_in_another_thread_has_no_signals():
    result = []
    thread = threading.Thread(target=lambda: result.append(fit(make(), *moons(), epochs=2, progress=False)))
    thread.start()
    thread.join()
    assert len(result[0].loss) == 2


def test_sigterm_without_a_checkpoint_is_not_touched(tmp_path):
    handlers = []
    fit(
        make(),
        *moons(),
        epochs=1,
        on_epoch=lambda *_: handlers.append(signal.getsignal(signal.SIGTERM)),
        progress=False,
    )
    fit(
        make(), *moons(), epochs=1, on_epoch=lambda *_: handlers.append(signal.getsignal(signal.SIGTERM)),
        checkpoint=tmp_path / "run.npz", progress=False,
    )  # fmt: skip
    assert handlers[0] is signal.SIG_DFL
    assert callable(handlers[1])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_the_handler_of_the_command_line_raises():
    with pytest.raises(interrupts.Terminated) as caught:
        interrupts.terminate(signal.SIGTERM, None)
    assert caught.value.code == 143


# --- history ----------------------------------------------------------------------------------------------------------


def test_a_history_comes_back_from_its_file(tmp_path):
    history = fit(make(), *moons(), epochs=3, validation=moons(20, 1), progress=False)
    history.validation_loss[1] = math.inf
    history.save(tmp_path / "history.json")
    json.loads((tmp_path / "history.json").read_text(), parse_constant=pytest.fail)  # NaN and Infinity are no JSON.
    found = History.load(tmp_path / "history.json")
    assert math.isnan(found.validation_loss[1])
    history.validation_loss[1] = found.validation_loss[1] = 0.0
    assert found == history


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("loss"),
        lambda d: d.update(loss=3),
        lambda d: d.update(loss=["x"]),
        lambda d: d.update(events=[1]),
        lambda d: d.update(forward_iterations=[1.0]),
        lambda d: d.update(interrupted="no"),
        lambda d: d.update(other=[]),
    ],
)
def test_what_is_no_history_is_refused(tmp_path, change):
    history = json.loads(History(loss=[0.5]).to_json())
    change(history)
    (tmp_path / "history.json").write_text(json.dumps(history))
    with pytest.raises(FileFormatError):
        History.load(tmp_path / "history.json")


def test_the_line_of_an_epoch_says_what_is_left(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    fit(make(), *moons(), epochs=3, progress=True)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert len(lines) == 3
    assert all("s left" in line for line in lines)
