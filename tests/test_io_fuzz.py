"""For any file that Hypothesis makes, a reader returns what it holds or raises an error that names its fault.

The readers are `load` for models and `npz.arrays` for data. Reading takes less than a second of CPU time and less than
100 MB, and executes nothing; a model that is read solves within a time that its file cannot choose. Messages are safe
to print. IDL_REF_FUZZ=10000 sets how many model files are made; there are a quarter as many data files.
"""

import io
import json
import os
import struct
import sys
import tempfile
import time
import tracemalloc
import warnings
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from conftest import in_time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import idl_ref
from idl_ref import ImplicitFunctionTriu, ImplicitModel, npz
from idl_ref.preprocessing import Standardise

COUNT = int(os.environ.get("IDL_REF_FUZZ", "1000"))
FORBIDDEN = {"pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"}
WATCHED = []  # This list is not empty while a file is read.


def _hook(event, arguments):
    if WATCHED and (event in FORBIDDEN or (event == "exec" and arguments[0].co_filename == "<string>")):
        WATCHED.append(event)  # Code of an imported module has the name of a file.


sys.addaudithook(_hook)


def whole_files():
    """Return valid files of different kinds as bytes, also in .safetensors if that package is installed."""
    low_rank = {"is_low_rank": True, "rank": 2, "dtype": "float64"}
    kinds = {"bias": True}, low_rank, {"f": ImplicitFunctionTriu, "no_D": True}
    result = {".npz": [], ".safetensors": []}
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            model = ImplicitModel(3, 2, 4, seed=0, **kind)
            model.preprocessing = Standardise(0.5, 2.0)
            for suffix, files in result.items():
                with suppress(ImportError):
                    model.save(Path(folder) / f"model{suffix}")
                    files.append((Path(folder) / f"model{suffix}").read_bytes())
    return result


EVIL = ("\x1b]0;title\x07", "\ud800", "\u202egnp.exe", "a\nb\0c")  # texts that a terminal or a report would obey
FILES = whole_files()
SUFFIXES = [suffix for suffix, files in FILES.items() if files]
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
values = st.recursive(
    scalars | st.sampled_from([10**9, 10**15, 10**400, -(10**400), 1e308, -1, 0, "float64", "os.system", *EVIL]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
edits = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "insert", "repeat", "end"]), st.integers(0, 1 << 16), st.binary(max_size=9)
    ),
    max_size=6,
)


def edited(content, changes):
    for kind, where, data in changes:
        at = where % (len(content) + 1)
        if kind == "flip":
            content = content[:at] + bytes(b ^ 0xFF for b in content[at : at + len(data)]) + content[at + len(data) :]
        elif kind == "cut":
            content = content[:at] + content[at + len(data) :]
        elif kind == "insert":
            content = content[:at] + data + content[at:]
        elif kind == "repeat":
            content = content[:at] + content[at : at + 200] * (len(data) + 1) + content[at:]
        else:
            content = content[:at]
    return content


def npy(description, data):
    text = description.encode("latin1", "replace")[:65535]
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def described(dtype, shape):
    return f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n"


@st.composite
def forged_archives(draw, text, shapes):
    """Draw an .npz archive with a given header, whose arrays may or may not agree with the header."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))) as target:
        target.writestr("header.npy", npy(described("|u1", (len(text),)), text))
        for name, shape in shapes.items():
            honest = described("<f4", shape)
            description = draw(st.sampled_from([honest, honest, honest, described("|O", shape), repr(draw(values))]))
            data = draw(st.sampled_from([bytes(64), bytes(10), b"cos\nsystem\n(S'true'\ntR.", bytes(1 << 17)]))
            target.writestr(f"{name}.npy", npy(description, data))
        if draw(st.booleans()):
            target.writestr(draw(st.sampled_from(["A\x1b[31m", "\u202e.npy", "x\ny.npy"])), b"")
    return stream.getvalue()


@st.composite
def forged_safetensors(draw, text, shapes):
    """Draw a .safetensors file with a given header, whose arrays may or may not agree with the header."""
    tensors = {"__metadata__": {"header": text.decode()}}
    for name, shape in shapes.items():
        offsets = draw(st.sampled_from([[0, 64], [0, 10**12], [64, 0]]))
        tensors[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": offsets}
    tensors[draw(st.sampled_from(["A", "E", "__metadata__"]))] = draw(values)
    content = json.dumps(tensors).encode()
    size = draw(st.sampled_from([len(content), len(content) + 1, 1 << 20, 1 << 63]))
    return struct.pack("<Q", size) + content + draw(st.binary(max_size=80))


@st.composite
def hostile_files(draw):
    """Draw a suffix and the bytes of a file: noise, a damaged valid file, or a file with a forged header."""
    suffix = draw(st.sampled_from(SUFFIXES))
    kind = draw(st.sampled_from(["noise", "damaged", "damaged", "forged", "forged"]))
    if kind == "noise":
        start = draw(st.sampled_from([b"", b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY\x01\x00", bytes(8), b"\x80\x04"]))
        return suffix, start + draw(st.binary(max_size=200))
    if kind == "damaged":
        return suffix, edited(draw(st.sampled_from(FILES[suffix])), draw(edits))
    plain = ImplicitModel(3, 2, 4, seed=0).settings.plain()
    header = {"format": "idl_ref model", "version": 1, "settings": plain, "preprocessing": None, "crc32": {}}
    inside = draw(st.sampled_from([header, plain, plain]))
    inside[draw(st.sampled_from([*inside, "more"]))] = draw(values)
    n = plain.get("hidden_dim", 4)
    shapes = {"A": (n, n), "B": (n, 3), "C": (2, n), "D": (2, 3)}
    forged = forged_archives if suffix == ".npz" else forged_safetensors
    return suffix, draw(forged(json.dumps(header).encode(), shapes))


def observed(read, path):
    """Return what `read(path)` returns, or None after a FileFormatError, after checking what it cost."""
    return in_time(lambda: _observed(read, path), 1)


def _observed(read, path):
    """Return what one reading returns, and the seconds of CPU time that it took."""
    tracemalloc.start()
    start = time.thread_time()  # CPU time does not include waiting on a busy machine.
    WATCHED.append("reading")
    result = message = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy warns of arrays that Python 2 wrote.
            result = read(path)
    except idl_ref.FileFormatError as reason:
        message = str(reason)
    finally:
        events, seconds, (_, peak) = WATCHED[1:], time.thread_time() - start, tracemalloc.get_traced_memory()
        WATCHED.clear()
        tracemalloc.stop()
    assert message is None or (0 < len(message) < 1000 and message.isprintable())
    assert events == []
    assert peak < 100e6
    return result, seconds


@settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck))
@given(hostile_files())
def test_hostile_files(tmp_path_factory, file):
    suffix, content = file
    path = tmp_path_factory.getbasetemp() / f"model{suffix}"
    path.write_bytes(content)
    model = observed(idl_ref.load, path)
    if model is not None:
        assert all(np.isfinite(W).all() for W in model.parameters.values())
        assert max(model.mitr, model.grad_mitr) <= 100_000


def data_files():
    """Return valid data files as bytes: stored and compressed, with labels of several kinds, and with a bomb inside."""
    x, result = np.arange(24.0).reshape(6, 2, 2), []
    for y in (np.arange(6), np.arange(6).astype(str), np.arange(6) > 2):
        for save in (np.savez, np.savez_compressed):
            stream = io.BytesIO()
            save(stream, x_test=x, y_test=y, bomb=np.zeros(1 << 20))
            result.append(stream.getvalue())
    return result


DATA = data_files()


@st.composite
def hostile_data(draw):
    """Draw the bytes of a data file: a damaged valid one, or an archive whose arrays lie about themselves."""
    if draw(st.booleans()):
        return edited(draw(st.sampled_from(DATA)), draw(edits))
    return draw(forged_archives(b"{}", {"x_test": (4, 4), "y_test": (4,)}))


@settings(max_examples=COUNT // 4, deadline=None, suppress_health_check=list(HealthCheck))
@given(hostile_data())
def test_hostile_data(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "data.npz"
    path.write_bytes(content)
    arrays = observed(lambda path: npz.arrays(path, ["x_test"], ["y_test"]), path)
    if arrays is not None:
        assert "x_test" in arrays
        assert sum(array.nbytes for array in arrays.values()) <= npz.FREE + npz.RATIO * len(content)
        assert not any(array.dtype.hasobject for array in arrays.values())
