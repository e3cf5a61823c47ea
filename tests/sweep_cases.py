"""Functions that build models for sweeps, in a module that the workers of every executor can import."""

import dataclasses
import os
import signal
import time

import numpy as np

import idl_ref

CALLS: list = []  # the points for which models were built in this process


def data(m=60):
    x, y = idl_ref.datasets.two_moons(m, seed=0)
    return (x, y, *idl_ref.datasets.two_moons(40, seed=1))


def plain(kappa, seed, backend="numpy"):
    CALLS.append((kappa, seed))
    model = idl_ref.ImplicitModel(2, 2, 8, kappa=kappa, bias=True, seed=seed, backend=backend)
    return model, {"epochs": 2, "optimizer": idl_ref.SGD(0.2), "batch_size": 16}


def hard(kappa, loss, seed):
    """Nonnegative rows whose sums are all κ, of which one step of Picard removes 1 − κ of the error."""
    model = idl_ref.ImplicitModel(
        2, 2, 8, kappa=kappa, seed=seed, backend="numpy", f=idl_ref.ImplicitFunctionRows, dtype="float64"
    )
    A = np.random.default_rng(seed).random((8, 8))
    model.parameters["A"][...] = kappa * A / A.sum(axis=1, keepdims=True)
    model.parameters["B"][...] = np.abs(model.parameters["B"])
    return model, {"epochs": 2, "loss": loss, "optimizer": idl_ref.SGD(0.01)}


def compiled(seed):
    return plain(0.9, seed, "numba")


def without_a_seed(kappa):
    return idl_ref.ImplicitModel(2, 2, 4, kappa=kappa)


SHARED = idl_ref.ImplicitModel(2, 2, 4, seed=0)


def shared(kappa):
    return SHARED


def no_model(kappa):
    return {"kappa": kappa}


def with_a_checkpoint(kappa):
    return idl_ref.ImplicitModel(2, 2, 4, kappa=kappa, seed=0), {"checkpoint": "x.npz"}


def killed_once(folder, seed):
    """End the process of a worker without a word, the first time that seed 5 comes to one."""
    if seed == 5 and os.getppid() != 1 and os.environ.get("IDL_REF_DRIVER") != str(os.getpid()):
        try:
            os.close(os.open(os.path.join(folder, "killed"), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    return plain(0.9, seed)


def interrupted(flag, seed):
    """Press Ctrl-C in the first epoch of seed 2, as long as the file is there."""
    model, options = plain(0.9, seed)

    def press(history, model):
        if seed == 2 and os.path.exists(flag):
            signal.raise_signal(signal.SIGINT)  # os.kill may reach another thread, and the main thread later

    return model, {**options, "on_epoch": press}


def slow(folder, seed):
    """Leave a file with the number of the process, and take a tenth of a second."""
    time.sleep(0.1)
    with open(os.path.join(folder, f"{os.getpid()}.pid"), "a"):
        pass
    return plain(0.9, seed)


def threads(backend, seed):
    """Give the loss of a model the value of the number of threads that a fit has: of BLAS, and of Numba."""
    import numba
    from threadpoolctl import threadpool_info

    model, options = plain(0.9, seed, backend)

    def note(history, model):
        blas = [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
        history.loss[-1] = max(blas) + 100.0 * numba.get_num_threads()

    return model, {**options, "epochs": 1, "on_epoch": note}


def few_iterations(seed):
    """A model whose solver gives up after two iterations, and would warn about it."""
    model, options = plain(0.9, seed)
    settings = dataclasses.replace(model.settings, mitr=2, grad_mitr=2)
    return idl_ref.ImplicitModel.from_parameters(settings, model.parameters), options


OPTIMIZER = idl_ref.SGD(0.2, momentum=0.9)


def shared_optimizer(seed):
    model, options = plain(0.9, seed)
    return model, {**options, "epochs": 10, "optimizer": OPTIMIZER}


def noted(note, seed):
    return plain(0.5 if note.endswith("a") else 0.9, seed)


def deadly(seed):
    """End the process of every worker to which seed 3 comes."""
    if seed == 3 and os.environ.get("IDL_REF_DRIVER") != str(os.getpid()):
        os.kill(os.getpid(), signal.SIGKILL)
    return plain(0.9, seed)
