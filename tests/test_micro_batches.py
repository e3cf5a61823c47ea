"""Batches in leaves, and leaves shared between ranks: one digest on any number of them, and no rank that waits alone.

The ranks of these tests are threads; tests/test_mpi.py runs processes.
"""

import copy
import functools
import hashlib
import itertools
import signal
import threading

import numpy as np
import pytest
from threads_as_ranks import Aborted, together

import idl_ref
from idl_ref import SGD, Adam, ImplicitFunctionRows, ImplicitModel, datasets
from idl_ref.analysis import ImplicitRNN, prune
from idl_ref.backends.numpy import Trainer
from idl_ref.preprocessing import Standardise
from idl_ref.training import leaves, loop, ranks, rows, samples, tree
from idl_ref.training.interrupts import Interrupts
from idl_ref.training.loop import Plan, Training
from idl_ref.training.progress import Progress
from idl_ref.training.samples import training_samples

X, Y, X_TEST, Y_TEST = datasets.digits()
ONE_HOT = np.eye(10)[Y]


def digest(model, history):
    parts = [model.parameters[name].tobytes() for name in sorted(model.parameters)]
    record = (history.loss, history.accuracy, history.validation_loss, history.forward_iterations, history.norm)
    return hashlib.sha256(b"".join(parts) + repr(record).encode()).hexdigest()[:12]


def trained(comm=None, m=70, seed=0, **options):
    """Train a small model of the digits, and return the digest of its weights and of its history."""
    settings = options.pop("settings", {})
    model = ImplicitModel(64, 10, 12, seed=seed, **{"backend": "numpy", **settings})
    if options.pop("sparse", False):
        model = prune(model, 0.3, sparse=True)
    options = {name: copy.deepcopy(value) for name, value in options.items()}  # Threads must not share an optimizer.
    options = {"batch_size": 30, "micro_batch": 7, "optimizer": SGD(0.1), "epochs": 2, "progress": False, **options}
    targets = options.pop("targets", Y)[:m]
    history = idl_ref.fit(model, X[:m], targets, comm=comm, **options)
    return digest(model, history)


# --- the order of the sums --------------------------------------------------------------------------------------------


def test_sums_have_one_order_on_any_number_of_ranks():
    for count in range(1, 24):
        whole = {(k, k + 1): str(k) for k in range(count)}
        expected = tree.total((0, count), whole, plus)
        for size in range(1, 9):
            known, owned = {}, []
            for rank in range(size):
                first, last = tree.share(count, rank, size)
                owned += range(first, last)
                nodes = tree.whole_nodes(count, (first, last))
                assert sum(end - start for start, end in nodes) == last - first
                own = {node: leaf for node, leaf in whole.items() if first <= node[0] < last}
                known |= {node: tree.total(node, own, plus) for node in nodes}
            assert owned == list(range(count))
            assert tree.total((0, count), known, plus) == expected


CASES = {
    "float32": {},
    "float64": {"settings": {"dtype": "float64"}},
    "low rank": {"settings": {"is_low_rank": True, "rank": 3, "bias": True}},
    "rows": {"settings": {"f": ImplicitFunctionRows, "no_D": True, "kappa": 0.1}},
    "sparse": {"sparse": True},
    "mse": {"loss": "mse", "targets": ONE_HOT},
    "weights": {"sample_weight": np.linspace(0, 2, 70), "class_weight": "balanced"},
    "adam": {"optimizer": Adam(0.01, clip=0.1)},
    "a rate that is found": {"optimizer": SGD("auto", schedule="cosine"), "m": 16, "batch_size": 8, "epochs": 1},
    "validation": {"validation": (np.repeat(X_TEST, 6, axis=0), np.repeat(Y_TEST, 6)), "early_stopping": 1},
    "newton": {"settings": {"method": "newton"}},
}


@pytest.mark.sampled(7)
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if "found" in name else []) for name in CASES]
)
def test_one_digest_on_any_number_of_ranks(name, backend):
    options = dict(CASES[name])
    options["settings"] = {**options.get("settings", {}), "backend": backend}
    expected = trained(**options)
    for size in (3,) if name == "a rate that is found" else (1, 2, 3, 7):
        assert together(size, lambda comm: trained(comm, **options)) == [expected] * size


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_batch_of_one_leaf_is_a_usual_step(backend, dtype):
    settings = {"backend": backend, "dtype": dtype, "f": ImplicitFunctionRows, "kappa": 0.1}
    plain = trained(micro_batch=None, settings=settings)
    assert trained(micro_batch=30, settings=settings) == plain
    assert together(3, lambda comm: trained(comm, micro_batch=64, settings=settings)) == [plain] * 3


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_gradients_are_those_of_the_whole_batch(loss):
    """In float64, and with small tolerances, weights differ from those of usual steps by rounding only."""
    tight = {"dtype": "float64", "tol": 1e-13, "grad_tol": 1e-13, "backend": "numpy"}
    found = []
    for micro_batch in (None, 1, 4, 7):
        model = ImplicitModel(64, 10, 12, seed=0, **tight)
        targets = Y if loss == "cross_entropy" else ONE_HOT
        own = {"sample_weight": np.linspace(0.5, 2, 70), "micro_batch": micro_batch, "loss": loss, "batch_size": 32}
        history = idl_ref.fit(model, X[:70], targets[:70], optimizer=SGD(0.1), epochs=2, progress=False, **own)
        found.append((model.parameters, history))
    for parameters, history in found[1:]:
        for name, W in parameters.items():
            np.testing.assert_allclose(W, found[0][0][name], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(history.loss, found[0][1].loss, rtol=1e-10)
        assert history.accuracy == found[0][1].accuracy


def test_sums_rank_by_rank_have_other_bits(monkeypatch):
    """The negative control: what Allreduce does, a sum per rank and then the sum of these, depends on their number."""
    expected = trained(settings={"backend": "numba"})

    def naive(self, count, mine, add):
        parts = [part for found in self.comm.allgather(mine) for _, part in sorted(found.items())]
        return functools.reduce(add, parts)

    def one_sum(count, own):
        return [own] if own[0] < own[1] else []

    def in_turn(node, known, add):
        return functools.reduce(add, [known[leaf, leaf + 1] for leaf in range(*node)])

    monkeypatch.setattr(ranks.Ranks, "total", naive)
    monkeypatch.setattr(tree, "whole_nodes", one_sum)
    monkeypatch.setattr(tree, "total", in_turn)
    found = {together(size, lambda comm: trained(comm, settings={"backend": "numba"}))[0] for size in (1, 2, 3)}
    assert len(found | {expected}) > 2


def test_the_sum_on_all_ranks_is_that_of_the_tree():
    for count, size in itertools.product((1, 2, 3, 5, 8, 13), (1, 2, 3, 5, 8)):
        expected = tree.total((0, count), {(k, k + 1): str(k) for k in range(count)}, plus)

        def one(comm, count=count):
            all_of_them = ranks.Ranks(comm)
            own = tree.share(count, all_of_them.rank, all_of_them.size)
            known = {(k, k + 1): str(k) for k in range(*own)}
            mine = {node: tree.total(node, known, plus) for node in tree.whole_nodes(count, own)}
            return all_of_them.total(count, mine, plus)

        assert together(size, one) == [expected] * size
        assert [tree.owner(leaf, count, size) for leaf in range(count)] == [
            rank for rank in range(size) for _ in range(*tree.share(count, rank, size))
        ]


def plus(a, b):
    return f"({a}+{b})"


def test_a_rank_reads_the_samples_of_its_leaves_only(monkeypatch):
    read = [[], []]
    taken = leaves.some_of

    def watched(U, T, weights, some):
        read[int(ranks_of[id(U)])].append(len(some))
        return taken(U, T, weights, some)

    ranks_of = {}
    meet = ranks.Ranks.once

    def once(self, function):
        return meet(self, function)

    def one(comm):
        model = ImplicitModel(64, 10, 12, seed=0, backend="numpy")
        trainer = model.trainer(model.parameters, "cross_entropy", SGD(0.1))
        U = X[:70].reshape(70, 64).astype("float32")
        ranks_of[id(U)] = comm.rank
        leaf = leaves.LeafTrainer(trainer, 10, ranks.Ranks(comm))
        leaf.step(U, Y[:70], None, np.arange(70))
        return U

    monkeypatch.setattr(leaves, "some_of", watched)
    kept = together(2, one)
    assert [sum(counts) for counts in read] == [30, 40], kept


# --- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_a_training_resumes_on_another_number_of_ranks(backend, tmp_path):
    settings = {"backend": backend}
    whole = trained(epochs=4, settings=settings)
    for sizes in itertools.permutations((1, 2, 3), 2):
        path = tmp_path / f"{sizes}.npz"
        for epochs, size in zip((2, 4), sizes, strict=True):
            own = {"epochs": epochs, "checkpoint": path, "settings": settings}
            found = together(size, functools.partial(trained, **own))
        assert found == [whole] * sizes[1]


def test_a_checkpoint_of_other_leaves_is_refused(tmp_path):
    together(2, lambda comm: trained(comm, checkpoint=tmp_path / "c.npz"))
    found = together(2, lambda comm: trained(comm, micro_batch=5, epochs=3, checkpoint=tmp_path / "c.npz"))
    assert "the micro_batch of" in str(found[0])
    assert isinstance(found[1], ranks.RankError)


def test_only_the_first_rank_writes_and_an_error_of_it_is_one_of_all(tmp_path):
    missing = tmp_path / "missing" / "c.npz"
    found = together(2, lambda comm: trained(comm, checkpoint=missing if comm.rank == 0 else None))
    assert isinstance(found[0], OSError)
    assert isinstance(found[1], ranks.RankError)


# --- no rank waits alone ----------------------------------------------------------------------------------------------


def test_an_error_of_one_rank_is_one_of_all():
    def bad_data(comm):
        model, U = ImplicitModel(64, 10, 12, seed=0, backend="numpy"), X[:20].reshape(20, 64).copy()
        if comm.rank == 1:
            U = U[:, :5]
        return idl_ref.fit(model, U, Y[:20], micro_batch=4, comm=comm, progress=False)

    first, second, third = together(3, bad_data)
    assert isinstance(second, ValueError)
    for other in (first, third):
        assert isinstance(other, ranks.RankError)
        assert str(other).startswith("rank 1 of 3 failed: ValueError: U must have shape (m, p) with p = 64")

    def fails(history, model):
        raise KeyError("mine")

    found = together(2, lambda comm: trained(comm, on_epoch=fails))
    assert isinstance(found[0], KeyError)
    assert str(found[1]) == "rank 0 of 2 failed: KeyError: 'mine'"


def test_an_optimizer_or_a_canary_that_fails_on_one_rank_leaves_none_waiting(monkeypatch):
    right = Trainer.descend

    def descend(self, backward):
        if threading.current_thread().name.endswith("_1"):
            raise MemoryError("no room")
        return right(self, backward)

    with monkeypatch.context() as changed:
        changed.setattr(Trainer, "descend", descend)
        found = together(2, trained)
    assert sorted(str(reason) for reason in found) == ["no room", "rank 1 of 2 failed: MemoryError: no room"]
    canary = leaves.LeafTrainer.canary

    def fails(self, *samples):
        if self.ranks.rank == 1:
            raise MemoryError("no room")
        return canary(self, *samples)

    monkeypatch.setattr(leaves.LeafTrainer, "canary", fails)
    found = together(2, trained)
    assert sorted(str(reason) for reason in found) == ["no room", "rank 1 of 2 failed: MemoryError: no room"]


def test_a_floating_point_error_of_one_rank_is_one_of_all():
    def one(comm):
        def function():
            if comm.rank == 1:
                raise FloatingPointError("not finite")
            if comm.rank == grave:
                raise MemoryError("no room")

        return ranks.Ranks(comm).each(function)

    grave = None
    assert [repr(reason) for reason in together(3, one)] == ["FloatingPointError('not finite')"] * 3
    grave = 2
    assert [type(reason) for reason in together(3, one)] == [ranks.RankError, ranks.RankError, MemoryError]


def test_a_signal_between_two_epochs_ends_the_training_of_all():
    """It comes to one rank after the last step of an epoch, where the others would go on to the next one."""

    def one(comm):
        model = ImplicitModel(64, 10, 12, seed=0, backend="numpy")
        plan = Plan("cross_entropy", 5, 30, 0, None, None, None, 7)
        data = training_samples(model, X[:70], Y[:70], "cross_entropy", None, None)
        training = Training(model, data, None, plan, SGD(0.1), ranks.Ranks(comm))
        with Progress(False, 5, training.batches_of_an_epoch) as display, Interrupts(False) as interrupts:
            done = display.epoch_done

            def signalled(*arguments):
                interrupts.caught = 15 if comm.rank == 1 else None
                return done(*arguments)

            display.epoch_done = signalled
            training.run(None, display, interrupts)
        return training.completed, training.history.interrupted

    assert together(3, one) == [(1, True)] * 3


@pytest.mark.parametrize("size", [1, 2])
def test_a_signal_that_comes_while_ranks_are_asked_is_kept(monkeypatch, size):
    ask = ranks.Ranks.agreed

    def late(self, caught):
        answer = ask(self, caught)
        if caught is None:
            signal.raise_signal(signal.SIGINT)
        return answer

    monkeypatch.setattr(ranks.Ranks, "agreed", late)

    class Comm:
        def allgather(self, value):
            return [value] * size

    all_of_them = ranks.Ranks()
    all_of_them.comm, all_of_them.size = Comm(), size
    with Interrupts(False) as interrupts:
        assert not interrupts.agreed(all_of_them.agreed)
        assert interrupts.agreed(all_of_them.agreed)
        assert interrupts.caught == signal.SIGINT


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_what_on_epoch_changes_on_the_first_rank_is_changed_on_all(backend):
    def halve(history, model):
        model.parameters["C"][...] *= 0.5

    for optimizer in (SGD(0.1), Adam(0.01)):
        own = {"on_epoch": halve, "optimizer": optimizer, "epochs": 3, "settings": {"backend": backend}}
        assert together(3, lambda comm: trained(comm, **own)) == [trained(**own)] * 3  # noqa: B023


def test_what_the_first_rank_alone_does_may_be_given_to_it_alone(tmp_path):
    calls, expected = [], trained()
    for first in (True, False):
        path = tmp_path / f"{first}.npz"

        def one(comm):
            if (comm.rank == 0) != first:  # noqa: B023
                return trained(comm)
            return trained(comm, checkpoint=path, on_epoch=lambda *_: calls.append(comm.rank))  # noqa: B023

        assert together(2, one) == [expected] * 2
        assert path.exists() == first
    assert calls == [0, 0]


def test_a_loss_of_ones_own_is_asked_about_samples_only():
    def loss(outputs, labels):
        assert outputs.size
        E = outputs - np.eye(10, dtype=outputs.dtype)[:, labels]
        return float((E * E).mean()), 2 * E / E.size

    expected = trained(loss=loss)
    for size in (1, 2, 3):
        assert together(size, lambda comm: trained(comm, loss=loss)) == [expected] * size


def test_a_training_that_diverges_ends_on_all_ranks():
    def diverge(comm):
        model = ImplicitModel(64, 10, 12, seed=0, backend="numpy", dtype="float32")
        model.parameters["C"][...] = 3e38
        idl_ref.fit(model, X[:20], Y[:20], optimizer=SGD(1e30), micro_batch=4, comm=comm, progress=False)

    found = together(2, diverge)
    assert [type(reason) for reason in found] == [FloatingPointError] * 2
    assert str(found[0]) == str(found[1])


def test_samples_that_fail_are_counted_on_all_ranks_and_can_be_refused():
    def fit(comm, on_failure):
        settings = {"mitr": 1, "on_failure": on_failure, "backend": "numpy"}
        return trained(comm, settings=settings)

    found = together(2, lambda comm: fit(comm, "raise"))
    assert [type(reason) for reason in found] == [idl_ref.NotConvergedError] * 2
    assert str(found[0]) == str(found[1])
    assert len(set(together(2, lambda comm: fit(comm, "ignore")))) == 1


def test_ranks_that_would_not_train_the_same_model_are_refused():
    found = together(2, lambda comm: trained(comm, micro_batch=7 + comm.rank))
    assert all("all ranks must have the same micro_batch; got 7 on rank 0" in str(reason) for reason in found)
    found = together(2, lambda comm: trained(comm, settings={"kappa": 0.9 + comm.rank / 50}))
    assert all("all ranks must have the same model" in str(reason) for reason in found)
    found = together(2, lambda comm: trained(comm, m=70 + comm.rank))
    assert all("the same samples" in str(reason) for reason in found)
    for own in ({"sample_weight": np.linspace(0, 2, 70)}, {"class_weight": "balanced"}):
        found = together(2, lambda comm: trained(comm, **(own if comm.rank else {})))  # noqa: B023
        assert all("the same data" in str(reason) for reason in found)
    targets = np.where(np.arange(len(Y)) == 69, 0, Y), Y
    found = together(2, lambda comm: trained(comm, targets=targets[comm.rank]))
    assert all("the same data" in str(reason) for reason in found)


def test_a_rank_may_have_lists_where_another_one_has_arrays():
    expected = trained(sample_weight=np.ones(70))

    def one(comm):
        weights = np.ones(70) if comm.rank else [1.0] * 70
        return trained(comm, targets=Y if comm.rank else Y.tolist(), sample_weight=weights)

    assert together(3, one) == [expected] * 3


def test_other_initial_weights_become_those_of_the_first_rank():
    expected = trained(seed=3)
    assert together(3, lambda comm: trained(comm, seed=3 + comm.rank)) == [expected] * 3


def test_machines_with_other_bits_are_refused(monkeypatch):
    right = leaves.LeafTrainer.canary
    monkeypatch.setattr(
        leaves.LeafTrainer, "canary", lambda self, *samples: right(self, *samples) + "x" * (self.ranks.rank == 2)
    )
    monkeypatch.setattr(loop, "processor", lambda: "a kind")
    found = together(3, trained)
    for reason in found:
        assert isinstance(reason, ValueError)
        assert "the same bits for the same samples; got " in str(reason)
        assert "(a kind) on rank 0, and" in str(reason)
        assert "(a kind) on rank 2: train on machines of one kind" in str(reason)


def test_the_canary_sees_outputs_and_gradients():
    model = ImplicitModel(64, 10, 12, seed=0, backend="numpy")
    U, labels = X[:40].reshape(40, 64).astype("float32"), Y[:40]

    def canary():
        trainer = model.trainer(model.parameters, "cross_entropy", SGD(0.1))
        return leaves.LeafTrainer(trainer, 16, ranks.ALONE).canary(U, labels, None)

    found = {canary(), canary()}
    for name in "ABCD":
        kept = model.parameters[name].copy()
        model.parameters[name].flat[5] = np.nextafter(kept.flat[5], np.float32(9)) * np.float32(1.001)
        found.add(canary())
        model.parameters[name][...] = kept
    assert len(found) == 5


def test_a_signal_of_one_rank_ends_the_training_of_all():
    assert together(3, lambda comm: ranks.Ranks(comm).agreed(15 if comm.rank == 1 else None)) == [15] * 3
    assert together(2, lambda comm: ranks.Ranks(comm).agreed(None)) == [None] * 2
    assert ranks.ALONE.agreed(2) == 2

    def twice(comm):
        def interrupt(history, model):
            raise KeyboardInterrupt

        return trained(comm, on_epoch=interrupt)

    found = together(2, twice)
    assert isinstance(found[0], Aborted)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_what_cannot_be_shared_is_refused():
    model, U = ImplicitModel(64, 10, 12, seed=0), X[:20].reshape(20, 64)

    def fit(**options):
        return idl_ref.fit(model, U, Y[:20], progress=False, **options)

    for options, error, words in (
        ({"micro_batch": 0}, ValueError, "micro_batch must be a whole number ≥ 1|micro_batch"),
        ({"micro_batch": "4"}, TypeError, "micro_batch"),
        ({"comm": object()}, TypeError, "comm must be a communicator of MPI.*got object: pass mpi4py.MPI.COMM_WORLD"),
    ):
        with pytest.raises(error, match=words):
            fit(**options)
    (reason,) = together(1, lambda comm: trained(comm, micro_batch=None))
    assert str(reason).startswith("micro_batch is needed with comm")
    rnn = ImplicitRNN(2, 2, 5, 3, seed=0)
    with pytest.raises(ValueError, match="micro_batch and comm are for an ImplicitModel; got ImplicitRNN"):
        rnn.fit(np.ones((4, 3, 2)), [0, 1, 0, 1], micro_batch=2, progress=False)


@pytest.mark.slow
def test_the_command_line_cuts_batches(tmp_path, monkeypatch):
    from idl_ref.__main__ import main
    from idl_ref.commands import launched

    common = ["train", "--epochs", "1", "--lr", "0.1", "--hidden", "32"]
    assert main([*common, "--out", str(tmp_path / "a"), "--micro-batch", "32"]) == 0
    assert main([*common, "--out", str(tmp_path / "b")]) == 0
    assert (tmp_path / "a" / "model.npz").read_bytes() == (tmp_path / "b" / "model.npz").read_bytes()
    assert main([*common, "--out", str(tmp_path / "c"), "--micro-batch", "4"]) == 0
    assert (tmp_path / "a" / "model.npz").read_bytes() != (tmp_path / "c" / "model.npz").read_bytes()
    assert main([*common, "--out", str(tmp_path / "d"), "--micro-batch", "0"]) == 2
    assert launched.micro_batch(None, 32, ranks.ALONE) is None
    monkeypatch.setenv("PMI_SIZE", "4")
    monkeypatch.setitem(__import__("sys").modules, "mpi4py", None)
    with pytest.raises(ImportError, match="4 processes were started by a launcher of MPI, but mpi4py is not installed"):
        launched.ranks()


# --- inputs that are read when they are needed ------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_no_rank_reads_the_samples_of_another_one(monkeypatch, tmp_path, loss):
    """Before the first step, each rank reads its blocks and a few samples; in a step, the samples of its leaves.

    The first rank also reads the samples that give the loss of the start.
    """
    arrays = {"U": X[:600], "targets": Y[:600] if loss == "cross_entropy" else ONE_HOT[:600]}
    arrays["sample_weight"] = np.linspace(0, 2, 600)
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    mapped = {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in arrays}
    monkeypatch.setattr(samples, "BLOCK", 50)
    monkeypatch.setattr(loop, "PROBE", 20)
    read, take = {}, rows.Rows.__getitem__

    def recorded(self, chosen):
        numbers = chosen[-1] if isinstance(chosen, tuple) else chosen
        read.setdefault((threading.get_ident(), self.name), []).append(np.arange(len(self))[numbers])
        return take(self, chosen)

    monkeypatch.setattr(rows.Rows, "__getitem__", recorded)

    def fitted(U, targets, sample_weight, comm=None):
        model = ImplicitModel(64, 10, 12, seed=0, backend="numpy")
        options = {"micro_batch": 10, "batch_size": 60, "optimizer": SGD(0.1), "progress": False, "epochs": 1}
        weights = {"sample_weight": sample_weight, "class_weight": "balanced" if loss == "cross_entropy" else None}
        return digest(model, idl_ref.fit(model, U, targets, loss=loss, comm=comm, **weights, **options))

    def one(comm):
        result = fitted(**mapped, comm=comm)
        return result, {name: read[threading.get_ident(), name] for name in arrays}

    results = together(3, one)
    assert {result for result, _ in results} == {fitted(**{name: array.tolist() for name, array in arrays.items()})}
    order, few = np.random.default_rng([0, 1]).permutation(600), set(np.linspace(0, 599, loop.FEW).astype(int))
    for rank, (_, found) in enumerate(results):
        own = {*range(200 * rank, 200 * rank + 200), *range(10), *few, *(range(20) if rank == 0 else ())}
        leaves_of_rank = order.reshape(10, 3, 2, 10)[:, rank]
        for name, before_and_steps in found.items():
            of_steps = 40 if name == "targets" and loss == "cross_entropy" else 20  # The weights need the labels, too.
            before, steps = before_and_steps[:-of_steps], before_and_steps[-of_steps:]
            assert set(np.concatenate(before)) <= own, name
            assert set(np.concatenate(before)) >= {*range(200 * rank, 200 * rank + 200)}, name
            assert sorted(np.concatenate(steps)) == sorted(np.repeat(leaves_of_rank.ravel(), of_steps // 20)), name


def test_inputs_in_a_file_give_the_bits_of_inputs_in_memory(tmp_path):
    """The model has a preprocessing, and the raw inputs have another dtype."""
    raw = (X[:70] * 16).astype(np.uint8)
    np.save(tmp_path / "inputs.npy", raw)

    def fitted(U, **options):
        model = ImplicitModel(64, 10, 12, seed=0, backend="numpy")
        model.preprocessing = Standardise.fit(raw)
        options = {"batch_size": 30, "epochs": 2, "optimizer": SGD(0.1), "progress": False} | options
        return digest(model, idl_ref.fit(model, U, Y[:70], validation=(U, Y[:70]), **options))

    mapped = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    assert fitted(mapped, micro_batch=7) == fitted(raw.astype(np.float64), micro_batch=7)
    assert fitted(mapped, micro_batch=7) == fitted(raw.tolist(), micro_batch=7)  # read at once
    assert fitted(mapped, micro_batch=30) == fitted(raw)  # leaves as large as batches


BAD = {
    "U": ("U", [23, 5], np.nan, r"U\[20:30\] must be finite; got NaN or inf in 1 of 10 samples, .* sample 3"),
    "label": ("targets", 64, 12, r"targets\[60:70\] must be labels in 0 … 9, .*; got \d … 12"),
    "weight": ("sample_weight", 31, -1, r"sample_weight\[30:40\] must be finite numbers ≥ 0; got -1 at place 1"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("size", [1, 3])
def test_bad_samples_are_refused_on_all_ranks_with_their_place(monkeypatch, size, name):
    monkeypatch.setattr(samples, "BLOCK", 10)
    data = {"U": X[:70].copy(), "targets": Y[:70].copy(), "sample_weight": np.ones(70)}
    which, place, value, message = BAD[name]
    data[which][place if which != "U" else tuple(place)] = value

    def one(comm):
        model = ImplicitModel(64, 10, 12, seed=0, backend="numpy")
        with pytest.raises((ValueError, ranks.RankError), match=message):
            idl_ref.fit(model, **data, micro_batch=7, comm=comm, progress=False)
        return True

    assert together(size, one) == [True] * size


def test_weights_that_are_all_zero_are_refused(monkeypatch):
    """Blocks of zeros are not, and neither are classes without weight."""
    monkeypatch.setattr(samples, "BLOCK", 10)
    weights = np.r_[np.zeros(65), np.ones(5)]
    assert trained(sample_weight=weights) == trained(sample_weight=weights.tolist())
    with pytest.raises(ValueError, match="sample_weight must be positive for at least one sample; got zeros only"):
        trained(sample_weight=np.zeros(70))
    with pytest.raises(ValueError, match="class_weight must be positive for at least one class of the samples"):
        trained(sample_weight=(Y[:70] == 3).astype(float), class_weight={3: 0})


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (Y[:69], r"targets must have shape \(70,\), one label per sample; got \(69,\)"),
        (ONE_HOT[:70], "one-hot"),
        (Y[:70] + 0.5, "continuous"),
        (Y[:70].astype(str), "whole-number class labels"),
    ],
)
def test_targets_of_a_wrong_kind_are_refused_before_the_first_step(targets, message):
    with pytest.raises((ValueError, TypeError), match=message):
        idl_ref.fit(ImplicitModel(64, 10, 12), X[:70], targets, micro_batch=7, progress=False)


def test_names_of_classes_are_read_where_they_are():
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])

    def fitted(targets, own, **options):
        model = ImplicitModel(64, 10, 12, seed=0, backend="numpy")
        model.classes = own
        options = {"batch_size": 30, "epochs": 2, "optimizer": SGD(0.1), "progress": False} | options
        return digest(model, idl_ref.fit(model, X[:70], targets, class_weight={own[3]: 2}, **options))

    expected = fitted(Y[:70], np.arange(10), micro_batch=7)
    assert fitted(names[Y[:70]], names, micro_batch=7) == expected
    assert fitted(names[Y[:70]].tolist(), names, micro_batch=7) == expected
    with pytest.raises(ValueError, match=r"only the classes 'zero'.*; got also 'ten'"):
        fitted(np.where(np.arange(70) == 50, "ten", names[Y[:70]]), names, micro_batch=7)


@pytest.mark.parametrize(
    ("U", "message"),
    [
        (X[:70, :5], r"U must have shape \(m, p\) with p = 64; got \(70, 5\)"),
        (X[:70].reshape(70, 8, 8), r"flatten each sample"),
        (X[:70].astype(complex), "real numbers of at most 64 bits"),
        (np.ma.masked_array(X[:70], X[:70] > 0.5), "masked"),
        (X[:0], "at least one sample"),
    ],
)
def test_inputs_of_a_wrong_kind_are_refused_before_the_first_step(U, message):
    with pytest.raises((ValueError, TypeError), match=message):
        idl_ref.fit(ImplicitModel(64, 10, 12), U, Y[: len(U)], micro_batch=7, progress=False)


def test_a_checkpoint_knows_the_inputs_of_a_file(monkeypatch, tmp_path):
    """Another number of ranks and inputs in memory go on from it, and inputs with one other entry do not."""
    monkeypatch.setattr(samples, "BLOCK", 10)
    np.save(tmp_path / "inputs.npy", X[:70])
    mapped = np.load(tmp_path / "inputs.npy", mmap_mode="r")
    path, other = str(tmp_path / "checkpoint.npz"), X[:70].copy()
    other[69, 30] += 1

    def fitted(U, epochs, comm=None):
        model = ImplicitModel(64, 10, 12, seed=0, backend="numpy")
        options = {"batch_size": 30, "micro_batch": 7, "optimizer": SGD(0.1), "progress": False}
        return digest(model, idl_ref.fit(model, U, Y[:70], epochs=epochs, checkpoint=path, comm=comm, **options))

    together(3, lambda comm: fitted(mapped, 1, comm))
    with pytest.raises(ValueError, match="data"):
        fitted(other, 2)
    assert set(together(2, lambda comm: fitted(X[:70], 2, comm))) == {fitted(mapped, 2)}
