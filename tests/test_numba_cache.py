"""Compiled code on disk: what is damaged, or belongs to something else, is compiled anew and never executed."""

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import idl_ref

pytest.importorskip("numba")
import numba

from idl_ref.backends.numba import compiling

ROOT = Path(idl_ref.__file__).parents[1]
SOURCE = "def triple(x):\n    return 3 * x\n"
pytestmark = pytest.mark.skipif(compiling.PLAIN, reason="nothing is compiled")


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Return a function that gives a new dispatcher of one and the same function, as a new process would have it."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "triple.py"
    path.write_text(SOURCE, encoding="utf-8")

    def entry():
        names = {"__name__": __name__}
        exec(compile(SOURCE, path, "exec"), names)
        return compiling.entry(names["triple"])

    return entry


def files(folder, ending):
    return sorted((folder / "cache").rglob(f"*{ending}"))


def hits(kernel):
    return sum(kernel.stats.cache_hits.values())


def zeroed(content):
    """The content with one block of zeros in the middle, as a crash of the machine leaves it."""
    middle = len(content) // 2
    return content[:middle] + bytes(512) + content[middle + 512 :]


DAMAGES = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "last byte": lambda content: content[:-1],
    "garbage": lambda content: b"hello world" * 99,
    "zeros": lambda content: bytes(len(content)),
    "another pickle": lambda content: pickle.dumps([1, 2]),
    "two other pickles": lambda content: pickle.dumps(numba.__version__) + pickle.dumps((1, 2)),
    "zeros in the middle": zeroed,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
def test_a_damaged_file_is_compiled_anew_and_written_anew(fresh, tmp_path, ending, damage):
    assert (fresh()(2), len(files(tmp_path, ending))) == (6, 1)
    assert hits(again := fresh()) == 0
    assert (again(2), hits(again)) == (6, 1)
    path = files(tmp_path, ending)[0]
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    damaged = fresh()
    assert (damaged(2), hits(damaged)) == (6, 0)
    repaired = fresh()
    assert (repaired(2), hits(repaired)) == (6, 1)


def test_a_flipped_bit_in_machine_code_is_never_executed(fresh, tmp_path):
    fresh()(2)
    path = files(tmp_path, ".nbc")[0]
    whole = path.read_bytes()
    for position in range(len(whole) // 3, len(whole), len(whole) // 9):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
        damaged = fresh()
        assert (damaged(2), hits(damaged)) == (6, 0)


def test_an_entry_of_other_types_under_the_same_name_is_not_taken(fresh, tmp_path):
    """Two processes that start at once choose the same file name for different entries."""
    fresh()(2)
    whole = files(tmp_path, ".nbc")[0].read_bytes()
    for path in files(tmp_path, ""):
        if path.is_file():
            path.unlink()
    fresh()(2.5)
    files(tmp_path, ".nbc")[0].write_bytes(whole)
    kernel = fresh()
    assert (kernel(2.5), hits(kernel)) == (7.5, 0)


def test_a_file_that_cannot_be_read_or_written_does_not_stop_a_call(fresh, tmp_path):
    fresh()(2)
    for path in (*files(tmp_path, ".nbi"), *files(tmp_path, ".nbc")):
        path.unlink()
        path.mkdir()
    assert fresh()(2) == 6


@pytest.mark.slow
def test_processes_that_start_at_once_with_a_damaged_cache(tmp_path):
    code = textwrap.dedent("""
        import sys
        from idl_ref.backends.numba.compiling import double
        sys.stdin.read(1)
        print(double(21), double(10.5))
    """)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def start(count):
        pipe = subprocess.PIPE
        command = [sys.executable, "-W", "error", "-c", code]
        started = [
            subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
            for _ in range(count)
        ]
        for process in started:  # All of them have imported the module; now they call at once.
            process.stdin.write("\n")
            process.stdin.flush()
        return [process.communicate(timeout=600) for process in started]

    assert start(1) == [("42 21.0\n", "")]
    for ending, content in ((".nbi", b""), (".nbc", b"garbage")):
        for path in files(tmp_path, ending):
            path.write_bytes(content)
        assert start(2) == [("42 21.0\n", "")] * 2
