import json
import signal
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import idl_ref
from idl_ref import (
    SGD,
    Adam,
    ConvergenceWarning,
    History,
    ImplicitFunction,
    ImplicitFunctionInf,
    ImplicitFunctionRows,
    ImplicitFunctionTriu,
    ImplicitModel,
    NotConvergedError,
    blas,
    datasets,
    fit,
    train,
)
from idl_ref.backends import twin
from idl_ref.preprocessing import Standardise
from idl_ref.training import evaluation, loop
from idl_ref.training.loop import Training
from idl_ref.weights import as_factors

Trainer = twin("auto").Trainer

FUNCTIONS = (ImplicitFunctionInf, ImplicitFunctionRows, ImplicitFunctionTriu, ImplicitFunction)


def moons(m=120, seed=0):
    return datasets.two_moons(m, seed=seed)


def make(f=ImplicitFunctionInf, **settings):
    return ImplicitModel(2, 2, 12, f, bias=True, seed=0, **settings)


def slow(**settings):
    """Return a model whose solves cannot converge within its iteration limit, and data for it."""
    model = make(mitr=2, grad_mitr=2, tol=1e-12, grad_tol=1e-12, method="picard", **settings)
    model.parameters["A"][...] = 0.99 / 12
    return model, *moons()


def copied(model):
    return {name: value.copy() for name, value in model.parameters.items()}


def assert_same(one, two):
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("rank", [None, 3])
def test_the_loss_falls(f, rank):
    if rank and not f.low_rank:
        return
    model = make(f, is_low_rank=rank is not None, rank=rank)
    history = fit(model, *moons(), epochs=12, batch_size=16, optimizer=SGD(), progress=False)
    assert history.loss[-1] < 0.6 * history.loss[0]
    assert history.accuracy[-1] > 0.85
    for name in ("loss", "accuracy", "forward_iterations", "adjoint_iterations", "unconverged", "norm", "seconds"):
        assert len(getattr(history, name)) == 12, name
    assert len(history.perron_root) == 12
    assert not history.validation_loss
    assert not history.interrupted


def test_same_seed_same_weights_bit_for_bit():
    models = [make(), make(), make()]
    for model, seed in zip(models, (5, 5, 6), strict=True):
        fit(model, *moons(), epochs=3, seed=seed, progress=False)
    assert_same(models[0].parameters, models[1].parameters)
    assert not np.array_equal(models[0].parameters["A"], models[2].parameters["A"])


def test_an_optimizer_starts_afresh():
    optimizer = SGD(0.1, schedule="cosine")
    models = [make(), make()]
    for model in models:
        fit(model, *moons(), epochs=3, optimizer=optimizer, progress=False)
    assert_same(models[0].parameters, models[1].parameters)


def test_one_step_is_the_gradient_times_the_rate():
    model, (U, y) = make(dtype="float64"), moons(10)
    before = copied(model)
    loss, G = model.loss_and_gradients(U, y)
    history = fit(model, U, y, optimizer=SGD(0.1, momentum=0), epochs=1, batch_size=10, progress=False)
    for name, w in before.items():
        np.testing.assert_allclose(model.parameters[name], w - 0.1 * G[name], rtol=1e-9, atol=1e-12)
    assert history.loss[0] == pytest.approx(loss, rel=1e-9)


def test_every_sample_is_seen_once_per_epoch(monkeypatch):
    seen = []
    step = Trainer.step

    def watched(trainer, U, T, weights, chosen):
        seen.append(U[chosen])
        return step(trainer, U, T, weights, chosen)

    monkeypatch.setattr(Trainer, "step", watched)
    U, y = moons(50)
    fit(make(), U, y, epochs=2, batch_size=16, optimizer=SGD(), progress=False)
    assert [len(batch) for batch in seen] == [16, 16, 16, 2] * 2
    for epoch in (seen[:4], seen[4:]):
        np.testing.assert_array_equal(np.sort(np.vstack(epoch), axis=0), np.sort(U, axis=0))
    assert not np.array_equal(np.vstack(seen[:4]), np.vstack(seen[4:]))


def test_inputs_are_left_alone():
    U, y = moons()
    kept = U.copy(), y.copy()
    U.flags.writeable = y.flags.writeable = False
    fit(make(), U, y, epochs=2, validation=(U, y), progress=False)
    np.testing.assert_array_equal(U, kept[0])
    np.testing.assert_array_equal(y, kept[1])


def test_digits_to_97_percent():
    """The settings are the defaults of the command line."""
    x_train, y_train, x_test, y_test = datasets.digits()
    model = ImplicitModel(64, 10, 64, bias=True, seed=0)
    model.preprocessing = Standardise.fit(x_train, per_feature=False)
    history = fit(
        model, x_train, y_train, optimizer=SGD(0.05, schedule="cosine"), epochs=20, batch_size=32,
        progress=False,
    )  # fmt: skip
    # Few iterations make training fast.
    assert max(most for _, most in history.forward_iterations + history.adjoint_iterations) <= 15
    loss, accuracy = train.evaluate(model, x_test, y_test)
    assert accuracy >= 0.97
    assert loss < 0.15
    assert max(history.norm) <= 0.99
    assert history.unconverged == [0] * 20


def test_evaluate_is_the_mean_over_all_samples():
    model, (U, y) = make(), moons(evaluation.CHUNK + 100)
    loss, accuracy = train.evaluate(model, U, y)
    assert loss == pytest.approx(model.loss_and_gradients(U, y)[0], rel=1e-5)
    assert accuracy == pytest.approx((model(U).argmax(axis=1) == y).mean())
    assert train.evaluate(model, U, np.zeros((len(U), 2)), loss="mse")[1] is None
    assert train.evaluate(model, U[:0], y[:0]) == (0, 0)


def test_validation_is_recorded_after_every_epoch():
    model = make()
    history = fit(model, *moons(), epochs=3, validation=moons(30, 1), progress=False)
    assert len(history.validation_loss) == len(history.validation_accuracy) == 3
    loss, accuracy = train.evaluate(model, *moons(30, 1))
    assert (history.validation_loss[-1], history.validation_accuracy[-1]) == (loss, accuracy)


def test_mse_regression():
    rng = np.random.default_rng(0)
    U = rng.standard_normal((200, 3))
    T = np.maximum(U @ rng.standard_normal((3, 2)), 0)
    model = ImplicitModel(3, 2, 16, bias=True, seed=0)
    history = fit(model, U, T, loss="mse", epochs=30, optimizer=SGD(0.05), validation=(U, T), progress=False)
    assert history.loss[-1] < 0.1 * history.loss[0]
    assert history.accuracy == history.validation_accuracy == []
    assert len(history.validation_loss) == 30


def test_rows_are_feasible_after_each_step(monkeypatch):
    model = make(ImplicitFunctionRows, kappa=0.6)
    step, seen = Trainer.step, []

    def watched(trainer, *batch):
        done = step(trainer, *batch)
        seen.append(np.abs(model.parameters["A"]).sum(axis=1, dtype=np.float64).max())
        return done

    monkeypatch.setattr(Trainer, "step", watched)
    fit(model, *moons(), epochs=5, batch_size=16, optimizer=SGD(0.5), progress=False)
    assert len(seen) == 5 * 8
    assert max(seen) <= 0.6
    assert max(seen) > 0.59  # The constraint is active in some steps.
    np.testing.assert_array_equal(model.parameters["A"], model.effective()["A"])


def test_rows_of_low_rank_factors_are_feasible():
    model = make(ImplicitFunctionRows, is_low_rank=True, rank=3, kappa=0.6)
    fit(model, *moons(), epochs=5, optimizer=SGD(0.5), progress=False)
    for F in as_factors(model.parameters):
        assert np.abs(F).sum(axis=1, dtype=np.float64).max() <= 0.6


def test_history_records_norm_and_perron_root():
    model = make()
    history = fit(model, *moons(), epochs=2, progress=False)
    A = model.effective()["A"].astype(float)
    assert history.norm[-1] == pytest.approx(np.abs(A).sum(axis=1).max(), rel=1e-12)
    assert history.perron_root[-1] == pytest.approx(np.abs(np.linalg.eigvals(np.abs(A))).max(), rel=1e-4)
    assert history.perron_root[-1] <= history.norm[-1] * (1 + 1e-12)
    mean, largest = history.forward_iterations[-1]
    assert 1 <= mean <= largest <= 300


def test_epochs_0_and_m_0_and_large_batches():
    model = make()
    before = copied(model)
    assert fit(model, *moons(), epochs=0, progress=False) == History()
    for show in (True, False):
        with pytest.raises(ValueError, match=r"U must hold at least one sample to train on; got none"):
            fit(model, np.zeros((0, 2)), [], epochs=2, progress=show)
    assert_same(model.parameters, before)
    history = fit(model, *moons(10), epochs=2, batch_size=1000, progress=False)
    assert len(history.loss) == 2
    for show in (True, False):
        fit(model, *moons(10), epochs=1, validation=(np.zeros((0, 2)), []), progress=show)


def test_ctrl_c_after_the_last_step_is_not_lost(monkeypatch):
    """It comes when all epochs are done, and before the handlers of others are back."""
    run = Training.run

    def late(*arguments):
        run(*arguments)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Training, "run", late)
    U, y = datasets.two_moons(40)
    history = fit(ImplicitModel(2, 2, 5, seed=0), U, y, epochs=2, progress=False)
    assert history.interrupted
    assert len(history.loss) == 2


def interrupt_after(monkeypatch, steps):
    step, taken = Trainer.step, []

    def interrupted(*arguments):
        if len(taken) == steps:
            raise KeyboardInterrupt
        taken.append(1)
        return step(*arguments)

    monkeypatch.setattr(Trainer, "step", interrupted)


@pytest.mark.parametrize("steps", [0, 3, 8])
@pytest.mark.parametrize("progress", [False, True])
def test_ctrl_c_returns_the_history(monkeypatch, steps, progress):
    interrupt_after(monkeypatch, steps)
    model = make()
    history = fit(model, *moons(64), batch_size=16, epochs=5, optimizer=SGD(), validation=moons(20), progress=progress)
    assert history.interrupted
    assert len(history.loss) == len(history.validation_loss) == len(history.norm) == steps // 4
    assert all(np.isfinite(value).all() for value in model.parameters.values())


def test_ctrl_c_in_the_validation_keeps_the_lists_together(monkeypatch):
    """If validation is interrupted, the history does not contain a part of that epoch."""
    evaluate, calls = loop.measured, []

    def interrupted(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 3:  # The first call is before training, and this is the second epoch.
            raise KeyboardInterrupt
        return evaluate(*arguments, **keywords)

    monkeypatch.setattr(loop, "measured", interrupted)
    history = fit(make(), *moons(64), epochs=5, optimizer=SGD(), validation=moons(20), progress=False)
    assert history.interrupted
    assert len(history.loss) == len(history.validation_loss) == len(history.seconds) == 1


def test_a_loss_that_is_not_finite(recwarn):
    model, (U, y) = make(on_failure="ignore"), moons(64)
    U[:] = 1e38  # B U overflows.
    before = copied(model)
    with pytest.raises(FloatingPointError, match=r"^epoch 1, batch 1: the loss is nan\. Lower the learning rate"):
        fit(model, 3 * U, y, batch_size=64, progress=False)
    assert_same(model.parameters, before)


def test_inputs_that_are_not_finite_are_refused_before_training():
    model, (U, y) = make(on_failure="ignore"), moons(64)
    U[40, 0], U[50] = np.nan, np.inf
    with pytest.raises(ValueError, match=r"^U must be finite; got NaN or inf in 2 of 64 samples, .* sample 40"):
        fit(model, U, y, progress=False)
    usable = np.isfinite(U).all(axis=1)
    fit(model, U[usable], y[usable], epochs=1, progress=False)


def test_divergence_names_epoch_and_batch_and_keeps_finite_weights():
    model, (U, y) = make(ImplicitFunctionTriu, on_failure="ignore"), moons(64)
    with pytest.raises(FloatingPointError, match=r"^epoch \d+, batch \d+: the (loss|gradient of \w) is"):
        fit(model, 1e4 * U, y, optimizer=SGD(1e30), batch_size=16, progress=False)
    assert all(np.isfinite(value).all() for value in model.parameters.values())


def poison(monkeypatch, *numbers):
    """Let the loss of some steps be NaN, which are counted from 1."""
    step, taken = Trainer.step, []

    def poisoned(trainer, U, *rest):
        taken.append(1)
        return step(trainer, np.full_like(U, np.nan) if len(taken) in numbers else U, *rest)

    monkeypatch.setattr(Trainer, "step", poisoned)


def test_a_bad_step_leads_back_to_the_start_of_the_epoch_with_half_the_rate(monkeypatch):
    """From there, training goes on as one that resumes after the first epoch with half of the rate."""
    model, reference, (U, y) = make(), make(), moons(64)
    settings = {"batch_size": 16, "progress": False}
    with monkeypatch.context() as patch:
        poison(patch, 6)  # the second step of the second epoch
        history = fit(model, U, y, epochs=2, optimizer=SGD(0.1), **settings)
    assert len(history.loss) == 2
    assert history.learning_rate == [0.1, 0.05]
    assert history.events == [
        "epoch 2, batch 2: the loss is nan; training went back to the start of the epoch with the rate 0.05"
    ]
    optimizer = SGD(0.1)

    def halve(history, model):
        if len(history.loss) == 1:
            optimizer.halve()

    fit(reference, U, y, epochs=2, optimizer=optimizer, on_epoch=halve, **settings)
    assert_same(model.parameters, reference.parameters)


def test_a_bad_first_step_of_an_epoch_is_an_error(monkeypatch):
    """A smaller learning rate would not help, because the weights are those of the start of the epoch."""
    model, reference, (U, y) = make(), make(), moons(64)
    with monkeypatch.context() as patch:
        poison(patch, 5)
        with pytest.raises(FloatingPointError, match=r"^epoch 2, batch 1: the loss is nan\. Lower the learning rate"):
            fit(model, U, y, batch_size=16, optimizer=SGD(0.1), progress=False)
    fit(reference, U, y, epochs=1, batch_size=16, optimizer=SGD(0.1), progress=False)
    assert_same(model.parameters, reference.parameters)


def test_it_gives_up_after_ten_halvings(monkeypatch):
    model, (U, y) = make(), moons(64)
    poison(monkeypatch, *range(2, 100, 2))
    with pytest.raises(FloatingPointError, match=r"^epoch 1, batch 2: .* The learning rate was halved 10 times\."):
        fit(model, U, y, batch_size=16, optimizer=SGD(0.1), progress=False)


@pytest.mark.parametrize("optimizer", [SGD(3.0), SGD(30.0), Adam(30.0)])
def test_a_rate_that_is_too_large_is_halved_until_the_loss_falls(optimizer):
    model, (U, y) = make(), moons()
    before = evaluation.measure(model, U, y).loss
    history = fit(model, 3 * U, y, epochs=15, batch_size=16, optimizer=optimizer, progress=False)
    assert any("the loss rose to" in event or "is" in event for event in history.events)
    assert history.loss[-1] < before


def test_warn_once_per_epoch():
    model, U, y = slow()
    with pytest.warns(ConvergenceWarning, match=r"^epoch \d: 120 of 120 samples not converged") as caught:
        history = fit(model, U, y, epochs=3, batch_size=16, progress=False)
    assert [str(warning.message)[:8] for warning in caught] == ["epoch 1:", "epoch 2:", "epoch 3:"]
    assert history.unconverged == [120] * 3


def test_raise_names_epoch_and_batch():
    model, U, y = slow(on_failure="raise")
    with pytest.raises(NotConvergedError, match=r"^epoch 1, batch 1: 16 samples not converged") as caught:
        fit(model, U, y, batch_size=16, progress=False)
    assert not caught.value.solution.converged


def test_ignore_counts():
    model, U, y = slow(on_failure="ignore")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit(model, U, y, epochs=2, progress=False).unconverged == [120, 120]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"epochs": -1}, "epochs must be a whole number, at least 0"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number, at least 1"),
        ({"seed": -1}, "seed must be a whole number, at least 0"),
        ({"seed": None}, "seed must be a whole number"),
        ({"loss": "hinge"}, "loss must be one of"),
        ({"progress": 1}, "progress must be True or False"),
        ({"U": np.zeros((120, 3))}, r"U must have shape \(m, p\) with p = 2"),
        ({"U": np.zeros(2)}, "one sample is U.reshape"),
        ({"targets": np.zeros(119, int)}, r"targets must have shape \(120,\)"),
        ({"targets": np.full(120, 2)}, r"targets must be labels in 0 … 1"),
        ({"targets": np.zeros((120, 2)), "loss": "cross_entropy"}, "whole-number class labels"),
        ({"targets": np.zeros(120), "loss": "mse"}, r"with q = 2"),
        ({"validation": (np.zeros((5, 3)), np.zeros(5, int))}, r"must have shape \(m, p\) with p = 2"),
        ({"validation": (np.zeros((5, 2)), np.zeros(4, int))}, "one label per sample"),
        ({"validation": (np.zeros((5, 2)), np.full(5, 7))}, "labels in 0 … 1"),
        ({"validation": (np.zeros((5, 2)), np.zeros(5))}, "whole-number class labels"),
        ({"validation": (np.zeros((5, 2)),)}, "validation"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(arguments, words):
    model, (U, y) = make(), moons()
    before = copied(model)
    arguments = {"U": U, "targets": y, "progress": False, **arguments}
    with pytest.raises((ValueError, TypeError), match=words):
        fit(model, **arguments)
    assert_same(model.parameters, before)


def test_validation_takes_lists():
    U, y = moons(10)
    history = fit(make(), U.tolist(), y.tolist(), epochs=1, validation=(U.tolist(), y.tolist()), progress=False)
    assert len(history.validation_loss) == 1


def test_progress_is_a_bar_on_standard_error(capsys):
    pytest.importorskip("tqdm")
    fit(make(), *moons(64), batch_size=16, epochs=2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "epoch 2/2" in err
    assert "8/8" in err


def test_progress_without_tqdm_is_a_line_per_epoch(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    fit(make(), *moons(64), epochs=2, validation=moons(20))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("epoch 2/2: loss 0.")
    assert "accuracy" in lines[1]
    assert "validation" in lines[1]


def test_progress_false_is_silent(capsys):
    fit(make(), *moons(64), epochs=2, progress=False)
    assert capsys.readouterr() == ("", "")


def test_history_is_saved_as_json(tmp_path):
    history = fit(make(), *moons(), epochs=2, validation=moons(20), progress=False)
    path = tmp_path / "history.json"
    history.save(path)
    read = json.loads(path.read_text(encoding="utf-8"))
    assert read["loss"] == history.loss
    assert read["forward_iterations"] == [list(pair) for pair in history.forward_iterations]
    assert read["interrupted"] is False
    assert History(**read).norm == history.norm
    History().save(str(path))
    assert json.loads(path.read_text(encoding="utf-8"))["loss"] == []


def test_failed_samples_are_never_right():
    """A sample that does not converge, or whose outputs are not finite, counts as wrong in every accuracy."""
    U, y = moons(40)
    model = make(on_failure="ignore", mitr=1, tol=0.0, grad_mitr=1)
    model.parameters["D"][...] *= 100  # The outputs hardly depend on the hidden states, and many would be right.
    measured = evaluation.measure(model, U, (model(U).argmax(axis=1)))
    assert measured.failed == 40
    assert measured.accuracy == 0
    history = fit(model, U, y, epochs=1, optimizer=SGD(0.0), validation=(U, y), progress=False)
    assert history.accuracy == history.validation_accuracy == [0.0]
    model, U = make(on_failure="ignore"), U.copy()
    U[::2] = np.nan
    measured = evaluation.measure(model, U, np.zeros(40, int))
    assert measured.failed == 20
    assert measured.accuracy <= 0.5
    assert np.isnan(measured.loss)
    assert train.evaluate(model, U, np.zeros(40, int))[1] == measured.accuracy


def test_samples_whose_outputs_overflow_have_failed_although_they_converged():
    U, y = moons(40)
    model = make()
    model.parameters["D"][...] = 3e38
    assert model.forward_pass(10 + np.abs(U)).solution.converged
    assert evaluation.measure(model, 10 + np.abs(U), y).failed == 40


# --- threads of BLAS --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "limit", "expected"), [("numpy", 1e8, {1}), ("numpy", 0, {2}), ("numba", 1e8, {2})]
)
def test_blas_has_one_thread_while_the_numpy_twin_takes_small_steps(monkeypatch, backend, limit, expected):
    threadpoolctl = pytest.importorskip("threadpoolctl")
    if idl_ref.available_backends()[backend] != "available":
        pytest.skip(f"{backend} is not available")
    model = ImplicitModel(4, 3, 8, seed=0, backend=backend)
    trainer = twin(backend).Trainer
    right, seen = trainer.step, []

    def threads():
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}

    monkeypatch.setattr(trainer, "step", lambda *arguments: seen.append(threads()) or right(*arguments))
    monkeypatch.setattr(train, "SMALL_PRODUCT", limit)
    with threadpoolctl.threadpool_limits(limits=2, user_api="blas"):
        if threads() != {2}:
            pytest.skip("BLAS has one thread only")
        fit(model, np.ones((8, 4)), np.zeros(8, int), epochs=1, batch_size=4, optimizer=SGD(), progress=False)
        assert seen == [expected, expected]
        assert threads() == {2}


def test_trainings_that_overlap_give_the_threads_of_blas_back():
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def threads():
        return [pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]

    with threadpoolctl.threadpool_limits(limits=2, user_api="blas"):
        before = threads()
        first, second = blas.OneThread(True), blas.OneThread(True)
        first.__enter__()
        second.__enter__()
        first.__exit__()
        assert set(threads()) == {1}
        second.__exit__()
        assert threads() == before


def test_any_thread_may_limit_blas_and_give_its_threads_back():
    """threadpoolctl itself lets only the thread set limits that was the first one, as long as it is alive."""
    threadpoolctl = pytest.importorskip("threadpoolctl")

    def threads():
        return {pool["num_threads"] for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"}

    before = threads()
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as two:
        for first, second in ((one, two), (two, one)):
            for _ in range(2):
                limits = blas.OneThread(True), blas.OneThread(True)
                first.submit(limits[0].__enter__).result()
                assert first.submit(threads).result() == {1}
                second.submit(limits[1].__enter__).result()
                first.submit(limits[0].__exit__).result()
                assert second.submit(threads).result() == {1}
                second.submit(limits[1].__exit__).result()
                assert threads() == before


def test_training_works_without_threadpoolctl(monkeypatch):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    model = ImplicitModel(4, 3, 8, seed=0, backend="numpy")
    assert len(fit(model, np.ones((8, 4)), np.zeros(8, int), epochs=2, progress=False).loss) == 2
