"""The contestants. As a script, `contestants.py NAME` waits for lines of JSON: {"prepare": i}, then {"run": calls}.

Each contestant is a process of its own, because several thread pools would compete for the cores. A process sleeps
until its turn. A builder takes a workload and its data. It returns the call to be timed, and a function that makes an
array of what this call returns.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from workloads import TOL, WORKLOADS, Workload, data

Data = dict[str, np.ndarray]
Built = tuple[Callable[[], Any], Callable[[Any], np.ndarray]]
COPIED = 64 << 20  # bytes
MAX_ITER = 5_000  # this is enough for every peer; idl_ref runs with its default, 300


def root(entries: int) -> float:
    """The tolerance for a peer that takes the 2-norm of so many entries: TOL per entry, which float32 can reach."""
    return TOL * entries**0.5


# --- idl_ref ----------------------------------------------------------------------------------------------------------


def idl_ref(workload: Workload, given: Data, backend: str = "numba") -> Built:
    import idl_ref as idl

    if workload.kind in ("solve", "low_rank"):
        A = (given["L"], given["R"]) if workload.kind == "low_rank" else given["A"]
        return lambda: idl.solve_equilibrium(A, given["Z"], backend=backend), lambda solution: solution.X
    s = workload.sizes
    model = idl.ImplicitModel(s["p"], s["q"], s["n"], backend=backend, seed=0)
    for name, parameter in model.parameters.items():
        parameter[...] = given[name]
    if workload.kind == "sample":
        return lambda: model(given["U"]), lambda Y: Y
    if workload.kind == "frozen":
        predictor = model.freeze()
        return lambda: predictor(given["U"]), lambda Y: Y
    if workload.kind == "step":
        return lambda: model.loss_and_gradients(given["U"], given["targets"]), lambda result: result[1]["A"]

    def epoch() -> Any:
        sgd = idl.SGD(0.01)
        return idl.fit(model, given["U"], given["targets"], optimizer=sgd, epochs=1, batch_size=64, progress=False)

    return epoch, lambda history: model.parameters["A"]


def idl_ref_numpy(workload: Workload, given: Data) -> Built:
    return idl_ref(workload, given, "numpy")


def applications(workload: Workload, given: Data, result: Any) -> int:
    """How many products with A, or with Aᵀ, a call of idl_ref makes, summed over columns; A·0 is none."""
    import idl_ref as idl

    if workload.kind in ("solve", "low_rank"):
        return int((result.iterations - 1).sum())
    s = workload.sizes
    model = idl.ImplicitModel(s["p"], s["q"], s["n"], backend="numba", seed=0)
    for name, parameter in model.parameters.items():
        parameter[...] = given[name]
    m = min(s["m"], 64)
    forward = model.forward_pass(given["U"][:m])
    count = (forward.solution.iterations - 1).sum()
    if workload.kind in ("step", "epoch"):
        G_Y = idl.losses.cross_entropy(forward.Y, given["targets"][:m])[1]
        count += (model.layer().backward(forward, G_Y).solution.iterations - 1).sum()
    return int(count * (s["m"] / m))


def anatomy(call: Callable[[], Any], calls: int) -> dict[str, float]:
    """Seconds of one call of idl_ref, and of the compiled functions that Python calls in it; medians.

    Everything is compiled already, so that compiled functions call one another as before.
    """
    from numba.core.dispatcher import Dispatcher

    def timed(function: Callable) -> Callable:
        def wrapped(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                spans.append((start, time.perf_counter()))

        return wrapped

    def united(spans: list[tuple[float, float]]) -> float:
        """Seconds in which at least one thread ran compiled code."""
        seconds, until = 0.0, 0.0
        for start, end in sorted(spans):
            seconds += max(0.0, end - max(start, until))
            until = max(until, end)
        return seconds

    modules = [module for name, module in sys.modules.items() if name.startswith("idl_ref.backends.numba.")]
    members = [(module, *member) for module in modules for member in vars(module).items()]
    originals = [member for member in members if isinstance(member[-1], Dispatcher)]
    for module, name, function in originals:
        setattr(module, name, timed(function))
    records = []
    try:
        for _ in range(calls):
            spans: list[tuple[float, float]] = []
            start = time.perf_counter()
            call()
            records.append((time.perf_counter() - start, united(spans)))
    finally:
        for module, name, function in originals:
            setattr(module, name, function)
    return dict(zip(("all", "compiled"), map(float, np.median(records, axis=0)), strict=True))


def gemm(workload: Workload, given: Data) -> Built:
    """The peak of the machine: the product of two 2048 × 2048 matrices by the BLAS of NumPy."""
    P, Q = np.random.default_rng(0).standard_normal((2, 2048, 2048), dtype=np.float32)
    out = np.empty_like(P)
    return lambda: np.matmul(P, Q, out=out), lambda result: result


def copy(workload: Workload, given: Data) -> Built:
    """How fast this machine copies: 64 MB, which are read and written."""
    source = np.ones(COPIED // 4, np.float32)
    target = np.empty_like(source)
    return lambda: np.copyto(target, source), lambda result: np.zeros(1)


# --- torchidl ---------------------------------------------------------------------------------------------------------


def torchidl(workload: Workload, given: Data) -> Built:
    import torch
    from torchidl import ImplicitFunctionInf, ImplicitModel
    from torchidl.implicit_function import project_onto_Linf_ball

    T = {name: torch.from_numpy(array) for name, array in given.items()}

    def to_array(X: Any) -> np.ndarray:
        return X.detach().numpy()

    if workload.kind in ("solve", "low_rank"):

        @torch.no_grad()
        def solve() -> Any:
            if workload.kind == "low_rank":  # torchidl's model forms the dense product, and then iterates with it
                A = project_onto_Linf_ball(T["L"] * balance, 0.99) @ project_onto_Linf_ball(T["R"].T / balance, 0.99)
            else:
                A = project_onto_Linf_ball(T["A"], 0.99)
            return ImplicitFunctionInf.inn_pred(A, T["Z"], torch.zeros_like(T["Z"]), MAX_ITER, TOL)[0]

        balance = T.get("balance")
        return solve, to_array

    s = workload.sizes
    model = ImplicitModel(s["p"], s["q"], s["n"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(T[name])
    if workload.kind in ("sample", "frozen"):
        return torch.no_grad()(lambda: model(T["U"])), to_array
    loss = torch.nn.CrossEntropyLoss()
    if workload.kind == "step":
        U = T["U"].requires_grad_()

        def step() -> Any:
            model.zero_grad()
            U.grad = None
            loss(model(U), T["targets"]).backward()
            return model.A.grad

        return step, to_array
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def epoch() -> Any:
        order = torch.randperm(len(T["U"]))
        for first in range(0, len(order), 64):
            batch = order[first : first + 64]
            optimizer.zero_grad()
            loss(model(T["U"][batch]), T["targets"][batch]).backward()
            optimizer.step()
        return model.A

    return epoch, to_array


# --- JAX and jaxopt ---------------------------------------------------------------------------------------------------


def _jax_pieces() -> Any:
    """Iterate x ← φ(F(x) + z) until the step is small, by while_loop."""
    import jax
    import jax.numpy as jnp

    def iterate(g: Any, X: Any) -> Any:
        def goes_on(state: Any) -> Any:
            return (state[1] > TOL) & (state[2] < MAX_ITER)

        def body(state: Any) -> Any:
            Y = g(state[0])
            return Y, jnp.abs(Y - state[0]).max(), state[2] + 1

        return jax.lax.while_loop(goes_on, body, (X, jnp.float32(jnp.inf), 0))[0]

    return jax, jnp, iterate


def _jax_model(jnp: Any, equilibrium: Any) -> Any:
    def model(P: Any, U: Any) -> Any:
        A = P["A"] * (0.99 / jnp.maximum(0.99, jnp.abs(P["A"]).sum(axis=1).max()))
        X = equilibrium(A, P["B"] @ U.T)
        return (P["C"] @ X + P["D"] @ U.T).T

    return model


def _jax_run(jax: Any, jnp: Any, workload: Workload, given: Data, solve: Any, equilibrium: Any) -> Built:
    """A jitted contestant, whose arrays lie on JAX's side already."""
    J = {name: jnp.asarray(array) for name, array in given.items()}
    if workload.kind == "solve":
        jitted = jax.jit(lambda A, Z: solve(lambda X: jax.nn.relu(A @ X + Z), jnp.zeros_like(Z)))
        return lambda: jitted(J["A"], J["Z"]).block_until_ready(), np.asarray
    if workload.kind == "low_rank":
        thin = jax.jit(lambda L, R, Z: solve(lambda X: jax.nn.relu(L @ (R.T @ X) + Z), jnp.zeros_like(Z)))
        return lambda: thin(J["L"], J["R"], J["Z"]).block_until_ready(), np.asarray
    model, P = _jax_model(jnp, equilibrium), {name: J[name] for name in "ABCD"}
    if workload.kind in ("sample", "frozen"):
        predict = jax.jit(model)
        return lambda: predict(P, J["U"]).block_until_ready(), np.asarray

    def loss(P: Any, U: Any, t: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(model(P, U)), t[:, None], axis=1).mean()

    if workload.kind == "epoch":
        return _jax_epoch(jax, jnp, J, loss)
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))
    return lambda: jax.block_until_ready(gradients(P, J["U"], J["targets"])), lambda result: np.asarray(result[0]["A"])


def _jax_epoch(jax: Any, jnp: Any, J: Any, loss: Callable) -> Built:
    """One jitted step for each batch, which also gathers its samples; parameters and velocities are donated."""

    def update(P: Any, velocity: Any, U: Any, targets: Any, batch: Any) -> Any:
        G = jax.grad(loss)(P, U[batch], targets[batch])
        velocity = {name: 0.9 * velocity[name] + G[name] for name in G}
        return {name: P[name] - 0.01 * velocity[name] for name in P}, velocity

    step = jax.jit(update, donate_argnums=(0, 1))
    rng, m = np.random.default_rng(0), len(J["U"])

    def epoch() -> Any:
        P = {name: J[name].copy() for name in "ABCD"}
        velocity, order = {name: jnp.zeros_like(w) for name, w in P.items()}, rng.permutation(m)
        for first in range(0, m - 63, 64):
            P, velocity = step(P, velocity, J["U"], J["targets"], order[first : first + 64])
        return jax.block_until_ready(P)["A"]

    return epoch, np.asarray


def jax(workload: Workload, given: Data) -> Built:
    jax, jnp, iterate = _jax_pieces()

    @jax.custom_vjp
    def equilibrium(A: Any, Z: Any) -> Any:
        return iterate(lambda X: jax.nn.relu(A @ X + Z), jnp.zeros_like(Z))

    def forward(A: Any, Z: Any) -> Any:
        X = equilibrium(A, Z)
        return X, (A, X)

    def backward(kept: Any, G: Any) -> Any:
        A, X = kept
        S = (X > 0).astype(X.dtype)
        V = iterate(lambda V: S * (A.T @ V + G), jnp.zeros_like(G))
        return V @ X.T, V

    equilibrium.defvjp(forward, backward)
    return _jax_run(jax, jnp, workload, given, iterate, equilibrium)


def jaxopt(workload: Workload, given: Data, solver: str = "FixedPointIteration", **more: Any) -> Built:
    jax, jnp, _ = _jax_pieces()
    import jaxopt

    def solve(g: Any, X: Any) -> Any:
        return getattr(jaxopt, solver)(g, maxiter=MAX_ITER, tol=root(X.size), **more).run(X).params

    def equilibrium(A: Any, Z: Any) -> Any:
        def g(X: Any, A: Any, Z: Any) -> Any:
            return jax.nn.relu(A @ X + Z)

        return jaxopt.FixedPointIteration(g, maxiter=MAX_ITER, tol=root(Z.size)).run(jnp.zeros_like(Z), A, Z).params

    return _jax_run(jax, jnp, workload, given, solve, equilibrium)


def jaxopt_anderson(workload: Workload, given: Data) -> Built:
    return jaxopt(workload, given, "AndersonAcceleration", history_size=5)


# --- torchdeq ---------------------------------------------------------------------------------------------------------


def torchdeq(workload: Workload, given: Data, solver: str = "fixed_point_iter") -> Built:
    import torch
    from torchdeq import get_deq

    tol = root(workload.sizes["n"])
    settings = {"f_max_iter": MAX_ITER, "b_max_iter": MAX_ITER, "f_tol": tol, "b_tol": tol, "ift": True}
    settings |= {"f_stop_mode": "abs", "b_stop_mode": "abs", "b_solver": solver}
    deq = get_deq(f_solver=solver, **settings)
    T = {name: torch.from_numpy(array) for name, array in given.items()}
    if workload.kind == "solve":  # torchdeq takes samples as rows
        At, Zt = T["A"].T.contiguous(), T["Z"].T.contiguous()
        deq.eval()

        @torch.no_grad()
        def solve() -> Any:
            return deq(lambda X: torch.relu(torch.addmm(Zt, X, At)), torch.zeros_like(Zt))[0][-1]

        return solve, lambda X: X.numpy().T
    W = {name: T[name].requires_grad_() for name in "ABCDU"}

    def step() -> Any:
        for w in W.values():
            w.grad = None
        A = W["A"] * (0.99 / torch.clamp(W["A"].abs().sum(dim=1).max(), min=0.99))
        Z = W["U"] @ W["B"].T
        X = deq(lambda X: torch.relu(torch.addmm(Z, X, A.T)), torch.zeros_like(Z))[0][-1]
        torch.nn.functional.cross_entropy(X @ W["C"].T + W["U"] @ W["D"].T, T["targets"]).backward()
        return W["A"].grad

    return step, lambda gradient: gradient.numpy()


def torchdeq_anderson(workload: Workload, given: Data) -> Built:
    return torchdeq(workload, given, "anderson")


# --- the process ------------------------------------------------------------------------------------------------------


def main() -> None:
    build = globals()[sys.argv[1]]
    warnings.simplefilter("ignore")  # peers warn about failures, which show in the error column
    call: Callable[[], Any] = lambda: None  # noqa: E731
    for line in sys.stdin:
        request = json.loads(line)
        if "prepare" in request:
            workload = WORKLOADS[request["prepare"]]
            given = data(workload)
            call, to_array = build(workload, given)
            result = call()  # compiles
            np.save(request["answer"], to_array(result))
            ours = sys.argv[1] == "idl_ref"
            answer: Any = {"applications": applications(workload, given, result) if ours else 0}
        elif "anatomy" in request:
            answer = anatomy(call, request["anatomy"])
        else:
            answer = []
            for _ in range(request["run"]):
                start = time.perf_counter()
                call()
                answer.append(time.perf_counter() - start)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
