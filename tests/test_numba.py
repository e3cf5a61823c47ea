"""The compiled twin: one answer whatever the tile, the threads, the layout of the arrays and the batch mates."""

import dataclasses
import functools
import gc
import itertools
import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import DTYPES, equations, matrix, pair

import idl_ref
from idl_ref import ImplicitModel, SolveOptions, activations, backends, fit, solve_adjoint, solve_equilibrium

numba = pytest.importorskip("numba")
from idl_ref.backends.numba import compiling, descent, kernels, levels, one_sample, passes, products, substitution  # noqa: E402
from idl_ref.backends.numba import launches as numba_  # noqa: E402

ROOT = Path(idl_ref.__file__).parents[1]
METHODS = ("picard", "anderson", "newton", "auto")


def options(**changes):
    return SolveOptions(**{"on_failure": "ignore", "max_iter": 2000, **changes})


def solve(A, Z, method="auto", tile=None, **more):
    return solve_equilibrium(A, Z, options=options(method=method, tile=tile), backend="numba", **more)


def same(a, b):
    """Bit for bit, NaN included."""
    for name in ("X", "status", "iterations", "step", "error_bound"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.fixture
def eager_threads(monkeypatch):
    """Several threads however small the problem is, also where a busy machine let a caller wait."""
    monkeypatch.setattr(numba_, "PARALLEL_FLOPS", 0)
    monkeypatch.setattr(numba_.threads, "LATE", np.inf)
    numba_.threads.crew().rests_until = 0.0


def instead(monkeypatch, call):
    """Let `call` make the calls of the kernels that solve tiles."""
    for module, name in ((kernels, "picard"), (kernels, "guarded"), (substitution, "substitute")):
        monkeypatch.setattr(module, name, functools.partial(call, getattr(module, name)))


def problem(n=37, m=21, dtype=np.float32, low_rank=False):
    """A hard matrix for half of the columns' sizes, so that columns end at different times; one of them is bad."""
    rng = np.random.default_rng(n)
    A = pair(n, 5, 0.95, rng, dtype) if low_rank else matrix("hard", n, 0.97, rng, dtype)
    Z = (rng.standard_normal((n, m)) * 10.0 ** rng.integers(-4, 3, m)).astype(dtype)
    Z[3, m // 2] = np.nan
    return A, Z


@pytest.mark.parametrize("low_rank", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_answers_are_bitwise_the_same_for_every_tile_and_alone(method, dtype, low_rank):
    A, Z = problem(dtype=dtype, low_rank=low_rank)
    whole = solve(A, Z, method)
    for tile in (1, 2, 5, 8, 11, 16, 100):
        same(whole, solve(A, Z, method, tile))
    for j in (0, 7, 10, 20):
        alone = solve(A, Z[:, [j]], method)
        np.testing.assert_array_equal(alone.X[:, 0], whole.X[:, j])
        assert alone.iterations[0] == whole.iterations[j]


@pytest.mark.parametrize("low_rank", [False, True])
def test_the_adjoint_is_bitwise_the_same_for_every_tile(low_rank):
    A, G = problem(low_rank=low_rank)
    S = np.random.default_rng(0).random(G.shape).astype(G.dtype)
    whole = solve_adjoint(A, S, G, options=options(), backend="numba")
    for tile in (1, 8, 13):
        same(whole, solve_adjoint(A, S, G, options=options(tile=tile), backend="numba"))


@pytest.mark.parametrize("method", METHODS)
def test_answers_are_bitwise_the_same_for_every_number_of_threads(method, eager_threads, monkeypatch):
    A, Z = problem(n=150, m=90)
    ran, several = set(), threading.Event()

    def watched(kernel, *arguments):
        ran.add(threading.get_ident())
        if len(ran) > 1:
            several.set()
        elif serial is not None:  # On a busy machine, one thread could be done before another one begins.
            several.wait(30)
        return kernel(*arguments)

    serial = None
    instead(monkeypatch, watched)
    monkeypatch.setattr(numba_.numba, "get_num_threads", lambda: 1)
    serial = solve(A, Z, method)
    assert len(ran) == 1
    for threads in (2, 3, 7):
        monkeypatch.setattr(numba_.numba, "get_num_threads", lambda threads=threads: threads)
        for tile in (None, 1, 13):
            same(serial, solve(A, Z, method, tile))
    assert len(ran) > 1


def test_the_number_of_threads_that_numba_is_told_counts(eager_threads, monkeypatch):
    A, Z = problem(n=150, m=90)
    asked = []
    share = numba_.threads.share
    monkeypatch.setattr(numba_.threads, "share", lambda kernel, n, *more: asked.append(n) or share(kernel, n, *more))
    before = numba.get_num_threads()
    try:
        for threads in range(1, numba.config.NUMBA_NUM_THREADS + 1):
            numba.set_num_threads(threads)
            solve(A, Z, "picard")
            assert numba.get_num_threads() == threads
    finally:
        numba.set_num_threads(before)
    assert asked == list(range(1, numba.config.NUMBA_NUM_THREADS + 1))


def test_small_solves_stay_on_one_thread(monkeypatch):
    monkeypatch.setattr(numba_.threads, "crew", lambda: pytest.fail("a small solve woke another thread"))
    solve(*problem(n=100, m=60))


@given(equation=equations())
@settings(max_examples=40)
def test_it_takes_the_steps_of_the_definition(equation):
    how = {"activation": equation.activation, "X0": equation.X0, "options": options(method="picard", tol=1e-4)}
    numpy_twin = solve_equilibrium(equation.A, equation.Z, backend="numpy", **how)
    compiled = solve_equilibrium(equation.A, equation.Z, backend="numba", **how)
    assert np.all(abs(compiled.iterations - numpy_twin.iterations) <= 1)
    apart = abs(compiled.X - numpy_twin.X).max(axis=0, initial=0)
    assert np.all(apart <= compiled.error_bound + numpy_twin.error_bound)
    np.testing.assert_array_equal(compiled.status, numpy_twin.status)


@pytest.mark.parametrize("inner", [1, 127, 128, 129, 700])
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_over_several_blocks(inner, dtype):
    """`BLOCK` columns of A at a time; low rank, so that the inner length is n."""
    rng = np.random.default_rng(inner)
    L, R = pair(inner, 1, 0.5, rng, dtype)
    Z = rng.standard_normal((inner, 9)).astype(dtype)
    solution = solve((L, R), Z, "picard", activation="identity")
    Z64, L64, R64 = (M.astype(float) for M in (Z, L, R))
    exact = Z64 + L64 @ (R64.T @ Z64) / (1 - R64.T @ L64)
    assert np.all(abs(solution.X - exact).max(axis=0) <= solution.error_bound)
    assert products.BLOCK == 128


@pytest.mark.parametrize("name", activations.TABLE)
@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_are_those_of_the_table(name, dtype):
    """A = 0: X is φ(Z), after one product; the edges included."""
    edges = [0.0, -0.0, 1.0, -1.0, np.nextafter(1, 2), 1e-30, -1e-30, 30.0, -30.0, 800.0, -800.0]
    Z = np.array([*edges, *np.random.default_rng(0).standard_normal(100) * 5], dtype)[:, None]
    row = activations.get(name)
    solution = solve(np.zeros((len(Z), len(Z)), dtype), Z, "picard", activation=name)
    expected = row.phi(Z.astype(np.longdouble))
    assert np.all(abs(solution.X - expected) <= 2.5 * np.finfo(dtype).eps * abs(expected) + np.finfo(dtype).tiny)


def test_strided_read_only_and_fortran_arrays_work_and_stay_as_they_are():
    A, Z = problem(n=20, m=9)
    expected = solve(A, Z)
    big_A, big_Z = np.zeros((40, 60), A.dtype), np.zeros((20, 27), Z.dtype)
    big_A[::2, ::3], big_Z[:, ::3] = A, Z
    frozen_A, frozen_Z = A.copy(), Z.copy()
    frozen_A.flags.writeable = frozen_Z.flags.writeable = False
    for a, z in (
        (np.asfortranarray(A), np.asfortranarray(Z)),
        (big_A[::2, ::3], big_Z[:, ::3]),
        (frozen_A, frozen_Z),
        (A[::-1][::-1], Z[:, ::-1][:, ::-1]),
    ):
        copies = a.copy(), z.copy()
        same(solve(a, z), expected)
        np.testing.assert_array_equal(a, copies[0])
        np.testing.assert_array_equal(z, copies[1])


@pytest.mark.parametrize("m", [1, 2])
def test_a_few_columns_of_a_wider_array(m):
    """One column of it is an array that NumPy calls Fortran-ordered in one place and not in another."""
    A, Z = problem(n=20, m=9)
    same(solve(A, Z[:, :m]), solve(A, Z[:, :m].copy()))
    same(solve(A[:, :], Z[:, 2 : 2 + m]), solve(A, Z[:, 2 : 2 + m].copy()))


def test_it_compiles_once_for_all_layouts_and_both_directions():
    A, Z = problem(n=20, m=9, dtype=np.float64)
    solve(A, Z)
    before = len(kernels.picard.signatures)
    solve(np.asfortranarray(A), np.asfortranarray(Z), X0=np.zeros_like(Z))
    solve(A[::-1], Z[:, :1])
    solve_adjoint(A, np.ones_like(Z), Z, options=options(method="picard"), backend="numba")
    solve(pair(20, 3, 0.5, np.random.default_rng(0), np.float64), Z, "picard", activation="tanh")
    assert len(kernels.picard.signatures) == before


@pytest.mark.sampled(2)
@pytest.mark.parametrize("dtype", DTYPES)
def test_after_warmup_nothing_is_left_to_compile(dtype, eager_threads):
    idl_ref.warmup([np.dtype(dtype).name])
    entries = [products.pack, kernels.picard, kernels.guarded, substitution.substitute]
    entries += [passes.constant, passes.forward, passes.readout, passes.backward, passes.terms, passes.outers]
    entries += [levels.solve, levels.forward, levels.pack_inputs]
    entries += [descent.cross_entropy, descent.mse, descent.sgd, descent.adam]
    before = [len(entry.signatures) for entry in entries]
    for method in METHODS:
        solve(*problem(n=150, m=90, dtype=dtype), method)
        solve(*problem(dtype=dtype, low_rank=True), method)
    solve(np.triu(problem(dtype=dtype)[0], 1), problem(dtype=dtype)[1])
    solve(np.triu(problem(dtype=dtype)[0], 1), problem(dtype=dtype)[1], "blocks")
    U, labels = np.ones((5, 4)), np.arange(5) % 3
    for low, no_D, bias in itertools.product((False, True), repeat=3):
        rank = {"is_low_rank": True, "rank": 2} if low else {}
        model = ImplicitModel(4, 3, 8, no_D=no_D, bias=bias, dtype=np.dtype(dtype).name, backend="numba", **rank)
        model.loss_and_gradients(U, labels)
        model(U, np.zeros((5, 8)))
        fit(model, U, labels, epochs=1, class_weight="balanced", progress=False)
        fit(model, U, np.ones((5, 3)), loss="mse", epochs=1, optimizer=idl_ref.Adam("auto", clip=1.0), progress=False)
        if not low:
            feed_forward = dataclasses.replace(model.settings, method="blocks")
            model.parameters["A"][...] = np.tri(8, k=-1)
            feed_forward.layer(model.effective_weights()).forward(np.ones((4, 5), dtype))  # by blocks
    assert [len(entry.signatures) for entry in entries] == before


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_frozen_model_compiles_nothing_at_a_request(dtype):
    low = {"is_low_rank": True, "rank": 2}
    models = [ImplicitModel(4, 3, 8, dtype=np.dtype(dtype).name, backend="numba", **more) for more in ({}, low)]
    predictors = [model.freeze() for model in models]
    entries = [kernels.picard, kernels.guarded, passes.constant, passes.forward, passes.readout, one_sample.predict]
    before = [len(entry.signatures) for entry in entries]
    for predictor in predictors:
        for m in (1, 5):
            predictor(np.ones((m, 4)))
            predictor.certified(np.ones((m, 4)), seconds=1.0)
    assert [len(entry.signatures) for entry in entries] == before


def test_warmup_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match='dtype must be "float32" or "float64"'):
        idl_ref.warmup(["float16"])
    with pytest.raises(ValueError, match="cuda"):
        idl_ref.warmup(backend="cuda")


def test_many_python_threads_get_their_own_answers(eager_threads):
    A, Z = problem(n=150, m=90)
    expected = solve(A, Z)
    with ThreadPoolExecutor(8) as pool:
        for solution in pool.map(lambda _: solve(A, Z), range(40)):
            same(solution, expected)


def test_a_failure_in_one_thread_is_not_lost(eager_threads, monkeypatch):
    monkeypatch.setattr(numba_.numba, "get_num_threads", lambda: 2)
    me, failed = threading.get_ident(), threading.Event()

    def call(kernel, *arguments):
        if threading.get_ident() != me:
            failed.set()
            raise MemoryError("no room for a tile")
        assert failed.wait(60)  # this thread keeps its first tile until the other thread has failed with the second
        return kernel(*arguments)

    A, Z = problem(n=150, m=90)
    solve(A, Z)  # the kernels are compiled, and the threads have started
    while not all(helper.idle for helper in numba_.threads.crew().helpers):  # One may have begun too late.
        time.sleep(1e-3)
    instead(monkeypatch, call)
    with pytest.raises(MemoryError, match="no room for a tile"):
        solve(A, Z)


def test_substitution_is_the_same_on_several_threads(eager_threads, monkeypatch):
    A, Z = problem(n=150, m=90)
    A = np.triu(A, 1)
    serial = solve(A, Z, "substitution", 1000)
    monkeypatch.setattr(numba_.numba, "get_num_threads", lambda: 3)
    for tile in (None, 7):
        same(serial, solve(A, Z, "substitution", tile))


def child(queue, A, Z):
    queue.put(solve(A, Z).X)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_a_forked_child_solves_too(eager_threads):
    A, Z = problem(n=150, m=90)
    expected = solve(A, Z)  # the parent has started its threads
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue, A, Z))
    process.start()
    np.testing.assert_array_equal(queue.get(timeout=600), expected.X)
    process.join(60)
    assert process.exitcode == 0


LAYERS = textwrap.dedent("""
    import atexit, sys, threading, numpy as np, numba
    from idl_ref import SolveOptions, solve_equilibrium
    from idl_ref.backends.numba import launches as numba_
    numba_.PARALLEL_FLOPS = 0
    rng = np.random.default_rng(0)
    A = rng.random((150, 150)); A *= 0.95 / A.sum(axis=1, keepdims=True)
    Z = rng.standard_normal((150, 96))
    one = solve_equilibrium(A, Z, backend="numba").X
    wrong = []
    def work():
        for _ in range(5):
            wrong.append(not np.array_equal(solve_equilibrium(A, Z, backend="numba").X, one))
    threads = [threading.Thread(target=work) for _ in range(6)]
    [t.start() for t in threads]; [t.join() for t in threads]
    numba.njit(parallel=True)(lambda x: x + x)(np.ones(9))  # somebody else's parallel code, between ours
    work()
    print(numba.threading_layer(), len(wrong), sum(wrong))
    atexit.register(work)  # the last ones when no thread can be started any more
""")


def layer_is_installed(layer):
    module = {"tbb": "tbbpool", "omp": "omppool", "workqueue": "workqueue"}[layer]
    return (
        subprocess.run([sys.executable, "-c", f"import numba.np.ufunc.{module}"], capture_output=True).returncode == 0
    )


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["workqueue", "omp", "tbb"])
def test_concurrent_calls_are_right_under_every_threading_layer(layer):
    if not layer_is_installed(layer):
        pytest.skip(f"numba has no {layer} here")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "2"}
    command = [sys.executable, "-c", LAYERS]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == [layer, "35", "0"]
    assert not result.stderr


@pytest.mark.slow
def test_it_works_where_nothing_can_be_written(tmp_path):
    """As a user without rights, with the package read-only and no home."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("only root can become another user")
    code = (
        f"import os, sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import concurrent.futures.thread, hashlib, importlib.util, numpy as np, numba\n"
        "numba.njit(lambda x: np.empty((2, x)).sum())(3)\n"  # loads what may be readable for root only
        "os.setgid(65534); os.setuid(65534)\n"
        "import idl_ref\n"
        "print(idl_ref.solve_equilibrium(np.eye(2) / 2, np.ones((2, 1)), backend='numba').converged)\n"
        "from idl_ref.backends.numba import kernels\n"
        "print(type(kernels.picard._cache).__name__)"
    )
    subprocess.run(["cp", "-r", str(ROOT / "idl_ref"), str(tmp_path)], check=True)
    subprocess.run(["rm", "-rf", str(tmp_path / "idl_ref" / "backends" / "__pycache__")], check=True)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and str(folder).startswith("/tmp/pytest"):
            folder.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("NUMBA", "XDG", "PYTHON"))}
    environment |= {"HOME": "/nonexistent", "NUMBA_OPT": "1"}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, cwd="/")
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["True", "NullCache"]


SOFTSIGN_OF_1 = textwrap.dedent("""
    import numpy as np, idl_ref
    from idl_ref.backends.numba import kernels
    options = idl_ref.SolveOptions(method="picard")
    how = {"activation": "softsign", "options": options, "backend": "numba"}
    print(idl_ref.solve_equilibrium(np.zeros((1, 1)), np.ones((1, 1)), **how).X[0, 0])
    print(sum(kernels.picard.stats.cache_hits.values()))
""")


def run_copy(folder, before=""):
    environment = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache"), "NUMBA_OPT": "1"}
    command = [sys.executable, "-c", before + SOFTSIGN_OF_1]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, cwd=folder)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.mark.slow
def test_compiled_code_is_kept_until_a_file_it_was_made_of_changes(tmp_path):
    subprocess.run(["cp", "-r", str(ROOT / "idl_ref"), str(tmp_path)], check=True)
    assert run_copy(tmp_path) == ["0.5", "0"]
    assert run_copy(tmp_path) == ["0.5", "1"]
    path = tmp_path / "idl_ref" / "backends" / "numba" / "functions.py"  # not the file of the entry point
    text = path.read_text(encoding="utf-8")
    softsign = "return vec.divide(p, vec.add(one, vec.magnitude(p)))"
    assert text.count(softsign) == 1
    path.write_text(text.replace(softsign, softsign.replace("one", "vec.add(one, one)")), encoding="utf-8")
    assert run_copy(tmp_path) == ["0.3333333333333333", "0"]


def test_compiled_code_depends_on_the_files_that_it_is_made_of_and_on_no_other(tmp_path):
    """A comment in a file of another twin recompiles nothing; one in a file that kernels take functions from does."""
    subprocess.run(["cp", "-r", str(ROOT / "idl_ref"), str(tmp_path)], check=True)
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from idl_ref.backends.numba import compiling
        before = compiling.FINGERPRINT
        for name in sys.argv[1:]:
            path = Path("idl_ref", *name.split("/"))
            text = path.read_text(encoding="utf-8")
            path.write_text(text + "# a comment\\n", encoding="utf-8")
            print(name, "same" if compiling._fingerprint() == before else "new")
            path.write_text(text, encoding="utf-8")
    """)
    other = ["backends/cuda/columns.py", "backends/numpy/solve.py", "backends/__init__.py", "equilibrium.py"]
    taken = ["backends/numba/functions.py", "backends/methods.py", "activations.py", "certificate.py"]
    command = [sys.executable, "-c", code, *other, *taken]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    expected = {**dict.fromkeys(other, "same"), **dict.fromkeys(taken, "new")}
    assert dict(line.split() for line in done.stdout.splitlines()) == expected


def test_the_fingerprint_covers_the_file_of_every_compiled_function():
    from idl_ref.backends.numba import functions, one_sample, trials

    rooms = (functions, products, idl_ref.backends.numba.columns, trials, kernels, one_sample)
    compiled = [value for room in rooms for value in vars(room).values() if hasattr(value, "py_func")]
    assert len(compiled) > 60
    files = {Path(value.py_func.__code__.co_filename) for value in compiled}
    assert files <= set(compiling.sources())


def test_a_kernel_compiles_when_it_is_called_without_garbage_collection():
    seen = []

    def compile_signature(signature):
        seen.append((signature, gc.isenabled()))
        if signature == "bad":
            raise TypeError("no such type")
        return "code"

    assert gc.isenabled()
    assert compiling._undisturbed(compile_signature)("a signature") == "code"
    with pytest.raises(TypeError, match="no such type"):
        compiling._undisturbed(compile_signature)("bad")
    assert seen == [("a signature", False), ("bad", False)]
    assert gc.isenabled()


@pytest.mark.slow
def test_compiled_code_is_not_shared_between_widths_of_vectors(tmp_path):
    """Told which features the CPU has, Numba's cache takes it for the same CPU; but the vectors are others."""
    flags = "import llvmlite.binding as b; print(b.get_host_cpu_features().flatten())"
    features = subprocess.run([sys.executable, "-c", flags], capture_output=True, text=True, check=True).stdout.strip()
    code = textwrap.dedent("""
        import sys, numpy as np, idl_ref
        from idl_ref.backends.numba import compiling
        A, Z = np.eye(40, k=1, dtype="f") / 2 + np.eye(40, dtype="f") / 4, np.ones((40, 9), "f")
        for method in sys.argv[1:]:
            s = idl_ref.solve_equilibrium(A, Z, options=idl_ref.SolveOptions(method=method), backend="numba")
            truth = np.linalg.solve(np.eye(40) - A, Z)
            assert abs(s.X - truth).max() <= s.error_bound.max() + 1e-12, (method, abs(s.X - truth).max())
        print(compiling.FINGERPRINT)
    """)
    seen = []
    for told, methods in (("", ["picard"]), (features, ["anderson"]), ("", ["anderson"])):
        environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_CPU")}
        environment |= {"PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_OPT": "1"}
        environment |= {"NUMBA_CPU_FEATURES": told} if told else {}
        command = [sys.executable, "-c", code, *methods]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        seen.append(done.stdout.strip())
    if compiling.vec.VECTOR_BYTES > 16:
        assert seen[0] == seen[2] != seen[1]


def test_where_nothing_is_compiled_the_twin_is_there_by_name_only(monkeypatch):
    assert backends.resolve("auto") == "numba"
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    assert idl_ref.available_backends()["numba"] == "available"
    assert (backends.resolve("numba"), backends.resolve("auto")) == ("numba", "numpy")


@pytest.mark.slow
def test_a_full_disk_does_not_stop_a_solve(tmp_path):
    pytest.importorskip("resource")
    subprocess.run(["cp", "-r", str(ROOT / "idl_ref"), str(tmp_path)], check=True)
    nothing_more = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
    assert run_copy(tmp_path, nothing_more) == ["0.5", "0"]


def test_a_column_that_is_not_finite_is_certified_to_nothing_beyond_the_ball_too():
    A, Z = np.array([[0.0, 2.0], [0.1, 0.0]]), np.array([[1.0, np.nan], [1.0, 0.0]])  # ‖A‖∞ = 2, Perron root below 1
    solution = solve_equilibrium(A, Z, options=options(), backend="numba")
    assert solution.status.tolist() == [0, 3]
    assert np.isfinite(solution.error_bound[0])
    assert solution.error_bound[1] == np.inf
