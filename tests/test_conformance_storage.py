"""float16 and bfloat16: dtypes of inputs and answers, for backends that declare them, with bounds of their own."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from idl_ref.conformance import adapters, check_backend
from idl_ref.conformance.adapters import Plain
from idl_ref.conformance.bugs import BUGS
from idl_ref.conformance.judge.call import ask
from idl_ref.conformance.truth import bounds, files, vectors
from idl_ref.conformance.truth.backend import WITH_STORAGE, Capabilities
from idl_ref.conformance.truth.problem import stored

CASES = [case for case in vectors.load() if case.group == "storage"]
BY_ID = {case.id: case for case in CASES}


def test_nothing_is_asked_unless_it_is_declared():
    class Undeclared(Plain):
        capabilities: ClassVar = {name: value for name, value in WITH_STORAGE.items() if name != "dtypes"}

    report = check_backend(Undeclared(), groups=["storage"])
    assert report.results == ()
    assert any("nothing was asserted" in text for text in report.problems)
    half = check_backend(Plain(), groups=["storage"])
    assert half.ok
    assert len(half.passed) == 2 * len(CASES)


@pytest.mark.parametrize("backend", [adapters.IdlRef("numpy"), adapters.IdlRef("numba")], ids=lambda b: b.name)
def test_twins_that_compute_in_float32_pass(backend):
    assert check_backend(backend, groups=["storage"]).ok


class Kept(Plain):
    """Every array that is kept is rounded to the storage: Z, A X, X after each step, S, V, and the answers."""

    def Z(self, p):
        self.storage = p.storage
        return stored(super().Z(p), p.storage)

    def apply(self, factors, X):
        return stored(super().apply(factors, X), self.storage)

    def phi(self, p, P):
        return stored(super().phi(p, P), p.storage)

    def slope(self, p, P):
        return stored(super().slope(p, P), p.storage)

    def noise(self, factors, slopes, Z, X):
        eps = {"float16": 2.0**-10, "bfloat16": 2.0**-7}[self.storage]
        size = np.abs(X) + slopes * (np.abs(super().apply(tuple(map(np.abs, factors)), np.abs(X))) + np.abs(Z))
        return eps * size

    def readout(self, p, X):
        return stored(super().readout(p, X), p.storage)

    def gradients(self, p, X, V, G_Y):
        return {name: stored(G, p.storage) for name, G in super().gradients(p, X, V, G_Y).items()}


def test_a_backend_that_keeps_every_array_so_passes():
    report = check_backend(Kept(), groups=["storage"])
    assert report.ok, report
    assert max(r.ratio for r in report.passed) > 0.1  # of what it may be off


@pytest.mark.sampled(3)
@pytest.mark.parametrize("storage", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["AdjointNotTransposed", "DDropped", "SlopesMissing", "GradientOfATransposed"])
def test_bugs_are_found_with_few_digits(name, storage):
    assert check_backend(BUGS[name](), groups=[f"storage-*-{storage}"]).failed


def test_the_numbers_are_those_of_the_storage():
    assert stored([1 + 2.0**-8, 1 + 3 * 2.0**-8, -3.0e38, 1e-40], "bfloat16").tolist() == pytest.approx(
        [1.0, 1 + 2.0**-6, -3.0e38, 1e-40], rel=2.0**-8
    )
    assert stored([1 + 2.0**-8, 1 + 3 * 2.0**-8], "bfloat16").tolist() == [1.0, 1 + 2.0**-6]  # ties go to even
    for case in CASES:
        for M in (*case.problem.arrays.values(), case.G_Y):
            assert M.dtype == ("float16" if case.problem.storage == "float16" else "float32")
            np.testing.assert_array_equal(stored(M, case.problem.storage), M)


def test_bounds_are_those_of_the_storage():
    case = BY_ID["storage-tanh-bfloat16"]
    wide = replace(case, problem=replace(case.problem, bfloat16=False, tol=1e-6))
    ratio = bounds.bounds(case, case.truths[0])["X"] / bounds.bounds(wide, wide.truths[0])["X"]
    assert (ratio > 1000).all()
    assert bounds.unit("float16").u == 2.0**-11
    assert bounds.unit("bfloat16").gamma(10**6) == pytest.approx(2.0**-7 + 0.0634, rel=1e-3)  # sums are in float32


def test_answers_of_any_float_are_taken_for_bfloat16():
    problem, G_Y = BY_ID["storage-tanh-bfloat16"].problem, BY_ID["storage-tanh-bfloat16"].G_Y
    declared = Capabilities.declared(WITH_STORAGE)
    out = {name: M.astype(np.float64) for name, M in Plain().forward(problem).items() if name in "XY"}

    class Wide(Plain):
        def forward(self, p):
            return out

    assert ask(Wide(), "forward", problem, G_Y, declared).note == ""
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="bfloat16 as NumPy's own dtype needs the package ml_dtypes")
    out |= {name: M.astype(ml_dtypes.bfloat16) for name, M in out.items()}
    answer = ask(Wide(), "forward", problem, G_Y, declared)
    assert answer.error == answer.note == ""


def test_files_name_the_storage(tmp_path):
    case = BY_ID["storage-f-inf-bfloat16"]
    files.write_problem(tmp_path, case.problem, case.G_Y)
    assert "dtype bfloat16\n" in (tmp_path / "problem.txt").read_text(encoding="ascii")
    assert (tmp_path / "A.bin").stat().st_size == 4 * case.problem.A.size
