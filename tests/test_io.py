import io
import json
import os
import struct
import sys
import tracemalloc
import zipfile
import zlib
from dataclasses import replace

import numpy as np
import pytest

import idl_ref
from idl_ref import (
    FileFormatError,
    ImplicitFunction,
    ImplicitFunctionInf,
    ImplicitFunctionRows,
    ImplicitFunctionTriu,
    ImplicitModel,
)
from idl_ref.preprocessing import Standardise

SUFFIXES = (".npz", ".safetensors")
EXECUTED = []


def make(**settings):
    model = ImplicitModel(3, 2, 4, seed=0, **settings)
    model.preprocessing = Standardise(0.1, 3.3)
    return model


def assert_same(one, two):
    assert replace(one.settings, backend="auto") == replace(two.settings, backend="auto")
    assert one.preprocessing == two.preprocessing
    assert one.parameters.keys() == two.parameters.keys()
    for name, value in one.parameters.items():
        assert value.dtype == two.parameters[name].dtype
        assert value.tobytes() == two.parameters[name].tobytes()


def refuse(path, words=None, memory=20e6):
    """Assert that loading raises FileFormatError, names the file, and allocates less than `memory` bytes."""
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match=words) as caught:
            idl_ref.load(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 2000
    assert peak < memory


@pytest.fixture
def saved(tmp_path):
    """Return the path of a model file, its header and its arrays."""
    path = tmp_path / "model.npz"
    make().save(path)
    with np.load(path) as archive:
        arrays = dict(archive)
    header = json.loads(arrays.pop("header").tobytes())
    return path, header, arrays


def forge(path, header, arrays, **keywords):
    """Write a file in the format of `save` with an arbitrary header and arbitrary arrays."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    if path.suffix == ".npz":
        np.savez(path, header=np.frombuffer(text, np.uint8), **arrays, **keywords)
    else:
        numpy = pytest.importorskip("safetensors.numpy")
        path.write_bytes(numpy.save(arrays, metadata={"header": text.decode()}))


# --- saving and loading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"no_D": True, "bias": True, "dtype": "float64"},
        {"is_low_rank": True, "rank": 2, "kappa": 0.1, "f": ImplicitFunctionRows},
        {"f": ImplicitFunctionTriu, "activation": "tanh", "tol": 0.1 + 0.2, "grad_tol": 1e-300, "mitr": 10**5},
        {"f": ImplicitFunction, "method": "anderson", "backend": "numpy", "on_failure": "raise", "grad_mitr": 1},
        {"f": ImplicitFunctionInf, "straight_through": True, "kappa": 3.9, "activation": "sigmoid"},
    ],
)
def test_round_trip_is_bitwise(tmp_path, suffix, settings):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    model = make(**settings)
    model.parameters["B"][0, :2] = np.finfo(model.dtype).smallest_subnormal, -0.0
    for preprocessing in (model.preprocessing, Standardise([1.7e9, 0.1, -3.0], [1, 2, 0.3]), None):
        model.preprocessing = preprocessing
        model.save(tmp_path / f"model{suffix}")
        loaded = idl_ref.load(str(tmp_path / f"model{suffix}"))
        assert_same(loaded, model)
        assert all(value.flags.writeable for value in loaded.parameters.values())
    assert os.listdir(tmp_path) == [f"model{suffix}"]


def test_a_file_asks_for_the_backend_that_works_here(tmp_path):
    """What is made with one backend is served where another one works; the file tells which one it was."""
    path = tmp_path / "model.npz"
    for backend in ("auto", "numpy", "numba", "cuda"):
        make(backend=backend).save(path)
        with np.load(path) as archive:
            assert json.loads(archive["header"].tobytes())["settings"]["backend"] == backend
        loaded = idl_ref.load(path)
        assert loaded.backend == "auto"
        assert loaded(np.ones((2, 3))).shape == (2, 2)
        assert idl_ref.load(path, backend="numpy").freeze().backend == "numpy"


def test_settings_of_a_solver_can_replace_those_of_the_file(tmp_path):
    path = tmp_path / "model.npz"
    make(mitr=10**15, grad_mitr=10**6, tol=1e-5).save(path)
    for own, name in (({}, "mitr"), ({"mitr": 7}, "grad_mitr"), ({"grad_mitr": 7}, "mitr")):
        words = rf"{name} must be .* at most 100000; got 10+\. .*: idl_ref\.load\(path, {name}=…\) sets a number"
        with pytest.raises(FileFormatError, match=f": {words}"):
            idl_ref.load(path, **own)
    loaded = idl_ref.load(path, mitr=10**6, grad_mitr=3, tol=1e-4, method="picard", on_failure="raise")
    changes = {"mitr": 10**6, "grad_mitr": 3, "tol": 1e-4, "method": "picard", "on_failure": "raise"}
    assert loaded.settings == replace(make().settings, **changes)
    with pytest.raises(TypeError, match=r"load takes the settings mitr, .*; got dtype, kappa: leave it out"):
        idl_ref.load(path, kappa=0.5, dtype="float64")
    for own, words in (({"mitr": 0}, "mitr must be"), ({"backend": "tpu"}, "backend must be one of")):
        with pytest.raises(ValueError, match=words) as caught:
            idl_ref.load(path, **own)
        assert not isinstance(caught.value, FileFormatError)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_odd_layouts_are_saved_by_value(tmp_path, suffix):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    model = make()
    model.parameters["A"] = np.asfortranarray(model.parameters["A"])
    model.parameters["B"] = np.repeat(model.parameters["B"], 2, axis=1)[:, ::2]
    model.save(tmp_path / f"model{suffix}")
    loaded = idl_ref.load(tmp_path / f"model{suffix}")
    for name, value in model.parameters.items():
        np.testing.assert_array_equal(loaded.parameters[name], value)
    loaded.loss_and_gradients(np.ones((2, 3)), [0, 1])


def test_a_loaded_model_predicts_and_trains(tmp_path):
    model = make()
    model.save(tmp_path / "model.npz")
    loaded = ImplicitModel.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(loaded(np.ones((2, 3))), model(np.ones((2, 3))))
    idl_ref.fit(loaded, np.ones((2, 3)), [0, 1], epochs=1, progress=False)


def test_names_outside_ascii(tmp_path):
    path = tmp_path / "modèle φ.npz"
    make().save(path)
    assert_same(idl_ref.load(path), make())


# --- errors while saving ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model", "model.pkl", "model.npy", "model.npz.gz", ".npz", "model.NPZ"])
def test_other_suffixes_are_refused(tmp_path, name):
    for call in (make().save, idl_ref.load):
        with pytest.raises(ValueError, match=r"a model file must end in \.npz or \.safetensors; got "):
            call(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot write .*: there is no folder .*nowhere"):
        make().save(tmp_path / "nowhere" / "model.npz")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        idl_ref.load(tmp_path / "nowhere" / "model.npz")


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "model.npz").mkdir()
    with pytest.raises(OSError, match=r"model\.npz"):
        idl_ref.load(tmp_path / "model.npz")
    with pytest.raises(OSError, match=r"model\.npz"):
        make().save(tmp_path / "model.npz")
    assert os.listdir(tmp_path) == ["model.npz"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, value):
    model = make()
    model.parameters["C"][0, 1] = value
    with pytest.raises(ValueError, match="C must be finite to be saved; got NaN or inf"):
        model.save(tmp_path / "model.npz")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("failing", ["fsync", "replace", "rename"])
@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch, suffix, failing, failure):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"model{suffix}"
    make().save(path)
    model = make()
    model.parameters["A"] += 1

    def fail(*arguments, **keywords):
        raise failure

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        try:
            model.save(path)
            expected = model
        except (OSError, KeyboardInterrupt):
            expected = make()
    assert_same(idl_ref.load(path), expected)
    assert os.listdir(tmp_path) == [path.name]


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "model.npz"
    make().save(path)

    def half(stream, **arrays):
        stream.write(b"PK\x03\x04 half a file")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", half)
        with pytest.raises(OSError, match="disk full"):
            make(activation="tanh").save(path)
    assert_same(idl_ref.load(path), make())
    assert os.listdir(tmp_path) == ["model.npz"]


def test_a_model_that_a_file_cannot_hold_is_not_saved(tmp_path):
    class Mine(ImplicitFunctionInf):
        pass

    with pytest.raises(ValueError, match="only the ImplicitFunction classes of idl_ref; got f=Mine: use one of"):
        ImplicitModel(3, 2, 4, Mine).save(tmp_path / "model.npz")
    model = make()
    model.parameters["A"] = np.zeros((2, 2), np.float32)
    with pytest.raises(ValueError, match="parameter A must be"):
        model.save(tmp_path / "model.npz")
    assert os.listdir(tmp_path) == []


def test_parameters_beyond_the_layout_are_not_saved_silently(tmp_path):
    model = make()
    model.parameters["E"] = np.zeros(2, np.float32)
    path = tmp_path / "model.npz"
    try:
        model.save(path)
    except ValueError:
        assert os.listdir(tmp_path) == []
    else:
        idl_ref.load(path)


@pytest.mark.parametrize("call", ["save", "load"])
def test_safetensors_is_missing(tmp_path, monkeypatch, call):
    path = tmp_path / "model.safetensors"
    if call == "load":
        path.write_bytes(b"x" * 100)
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    with pytest.raises(ImportError, match=r'need the package safetensors: pip install "idl-ref\[io\]", or use \.npz'):
        make().save(path) if call == "save" else idl_ref.load(path)
    assert os.listdir(tmp_path) == (["model.safetensors"] if call == "load" else [])


# --- damaged and foreign files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_truncated_files(tmp_path, suffix):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"model{suffix}"
    make().save(path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        refuse(path)


def test_flipped_bits_of_an_npz_are_refused_or_harmless(tmp_path):
    path = tmp_path / "model.npz"
    model = make()
    model.save(path)
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        for bit in (0, 3, 7):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                loaded = idl_ref.load(path)
            except FileFormatError:
                continue
            assert_same(loaded, model)


def test_flipped_bits_of_a_safetensors_raise_nothing_else(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    make().save(path)
    whole = path.read_bytes()
    for position in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            idl_ref.load(path)
        except FileFormatError:
            continue


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"PK", b"hello" * 100, b"\x00" * 1000, b"\xff" * 1000, b"\x93NUMPY\x01\x00"])
def test_foreign_files(tmp_path, suffix, content):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    refuse(path)


def test_each_format_under_the_name_of_the_other(tmp_path):
    pytest.importorskip("safetensors")
    for suffix, other in (SUFFIXES, SUFFIXES[::-1]):
        make().save(tmp_path / f"model{suffix}")
        os.replace(tmp_path / f"model{suffix}", tmp_path / f"other{other}")
        refuse(tmp_path / f"other{other}")


def test_foreign_npz(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x_train=np.zeros(3))
    refuse(path, "not an idl_ref model: it has no header")
    np.savez(path, header=np.zeros(3), A=np.eye(3))
    refuse(path, "the header of the file is not JSON")
    np.savez(path)
    refuse(path, "it has no header")


def test_foreign_safetensors(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "model.safetensors"
    for metadata in (None, {}, {"header": "{}"}, {"header": "no JSON"}, {"format": "pt"}):
        path.write_bytes(numpy.save({"A": np.eye(3)}, metadata=metadata))
        refuse(path, "not an idl_ref model")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "its header is not JSON"),
        (b"\xff\xfe\x00", "its header is not JSON"),
        (b"{", "its header is not JSON"),
        (b"[" * 100_000, "its header is not JSON"),
        (b"9" * 10_000, "its header is not JSON"),
        (b"[]", 'the format in its header is not "idl_ref model"'),
        (b"null", 'the format in its header is not "idl_ref model"'),
        (b'{"format": "onnx"}', 'the format in its header is not "idl_ref model"'),
        (b'{"format": "idl_ref model"}', "the format version must be 1 or 2 .* got None: update idl_ref"),
        (b'{"format": "idl_ref model", "version": 3}', "the format version must be 1 or 2 .* got 3: update idl_ref"),
        (
            b'{"format": "idl_ref model", "version": "1"}',
            "the format version must be 1 or 2 .* got '1': update",
        ),
        (b'{"format": "idl_ref model", "version": 1}', "the settings in the file are not those of a model"),
    ],
)
def test_headers(saved, text, words):
    path, _, arrays = saved
    forge(path, text, arrays)
    refuse(path, words)


def test_a_header_that_is_too_long(saved):
    path, header, arrays = saved
    forge(path, {**header, "padding": " " * (1 << 20)}, arrays)
    refuse(path, r"the header of the file must have at most 1048576 bytes; got \d+")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.npy", bytes(50 << 20))
    refuse(path, "header must be neither compressed nor encrypted; got a member that is: save the model again")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kappa", 2),
        ("kappa", -1),
        ("kappa", float("nan")),
        ("kappa", "0.9"),
        ("hidden_dim", 10**9),
        ("hidden_dim", 10**30),
        ("hidden_dim", 0),
        ("hidden_dim", 4.0),
        ("hidden_dim", None),
        ("input_dim", True),
        ("output_dim", [2]),
        ("f", "evil"),
        ("f", "os.system"),
        ("f", ["inf"]),
        ("f", None),
        ("f", "rows\0"),
        ("dtype", "float64"),
        ("dtype", "float16"),
        ("dtype", "O"),
        ("dtype", {"names": ["a"], "formats": ["f4"]}),
        ("dtype", [["a", "f4"]]),
        ("dtype", "nonsense"),
        ("dtype", 4),
        ("rank", 2),
        ("is_low_rank", True),
        ("bias", True),
        ("no_D", True),
        ("no_D", 0),
        ("mitr", 0),
        ("mitr", 10**15),
        ("grad_mitr", 10**5 + 1),
        ("grad_mitr", 10**400),
        ("hidden_dim", 10**400),
        ("tol", float("inf")),
        ("tol", 10**400),
        ("grad_tol", 10**4000),
        ("kappa", -(10**400)),
        ("activation", "gelu"),
        ("activation", {}),
        ("backend", "tpu"),
        ("method", 3),
        ("on_failure", "shout"),
        ("straight_through", 1),
        ("extra", 1),
    ],
)
def test_tampered_settings(saved, suffix, name, value):
    path, header, arrays = saved
    header["settings"][name] = value
    path = path.with_suffix(suffix)
    forge(path, header, arrays)
    refuse(path)


@pytest.mark.parametrize("value", [None, 3, "x", [], {}, ["kappa"]])
def test_settings_that_are_none(saved, value):
    path, header, arrays = saved
    forge(path, {**header, "settings": value}, arrays)
    refuse(path, "the settings in the file are not those of a model")
    header["settings"].pop("tol")
    forge(path, header, arrays)
    refuse(path, "the settings in the file are not those of a model")


@pytest.mark.parametrize(
    "value",
    [
        *(3, "x", [], {}, [1, 2], {"mean": 0}, {"mean": 0, "scale": 0}, {"mean": "a", "scale": 1}),
        {"mean": 0, "scale": None},
        {"mean": float("nan"), "scale": 1},
        {"mean": float("-inf"), "scale": 1},
        {"mean": 0, "scale": 1, "more": 2},
        {"mean": 10**400, "scale": 1},
        {"mean": 0, "scale": 10**400},
    ],
)
def test_tampered_preprocessing(saved, value):
    path, header, arrays = saved
    forge(path, {**header, "preprocessing": value}, arrays)
    refuse(path, "the settings in the file are not those of a model")
    arrays = {name: W for name, W in arrays.items() if name not in ("mean", "scale")}
    crc = {name: header["crc32"][name] for name in arrays}
    forge(path, {**header, "version": 1, "preprocessing": value, "crc32": crc}, arrays)
    refuse(path, "the settings in the file are not those of a model")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("mean", "scale", "words"),
    [
        (np.nan, 1.0, "mean must be finite"),
        (0.0, np.inf, "scale must be finite"),
        (0.0, 0.0, "the preprocessing or the classes do not fit the model: scale must be a finite number ≥"),
        (0.0, -1.0, "the preprocessing or the classes do not fit the model: scale must be a finite number ≥"),
        (0.0, 1e-320, "the preprocessing or the classes do not fit the model: scale must be a finite number ≥"),
        (1e300, 1.0, "the preprocessing or the classes do not fit the model: mean and scale must be normal numbers"),
        (0.0, 1e-300, "the preprocessing or the classes do not fit the model: mean and scale must be normal numbers"),
        (np.float32(0), 1.0, r"mean must have shape \(1,\) and dtype (float64|F64); got"),
        ([0.0, 1.0], 1.0, r"mean must have shape \(1,\)"),
    ],
)
def test_tampered_constants(saved, suffix, mean, scale, words):
    path, header, arrays = saved
    arrays |= {"mean": np.atleast_1d(mean), "scale": np.atleast_1d(scale)}
    header["crc32"] |= {name: zlib.crc32(arrays[name].tobytes()) for name in ("mean", "scale")}
    path = path.with_suffix(suffix)
    forge(path, header, arrays)
    refuse(path, words)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("preprocessing", [{"mean": 0.1, "scale": 3.3}, None])
def test_files_of_version_1(saved, suffix, preprocessing):
    """In a file of version 1, the header holds mean and scale as numbers."""
    path, header, arrays = saved
    arrays = {name: W for name, W in arrays.items() if name not in ("mean", "scale")}
    crc = {name: header["crc32"][name] for name in arrays}
    path = path.with_suffix(suffix)
    forge(path, {**header, "version": 1, "preprocessing": preprocessing, "crc32": crc}, arrays)
    model = make()
    model.preprocessing = preprocessing and Standardise(**preprocessing)
    assert_same(idl_ref.load(path), model)
    forge(path, {**header, "version": 1, "preprocessing": {"mean": [0.1] * 3, "scale": 1.0}, "crc32": crc}, arrays)
    refuse(path, "mean and scale must be numbers")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.pop("B"), "must hold the arrays"),
        (lambda a: a.pop("D"), "must hold the arrays"),
        (lambda a: a.update(E=np.zeros(3)), "must hold the arrays"),
        (lambda a: a.update({f"E{i}": np.zeros(1) for i in range(900)}), "must hold the arrays"),
        (lambda a: a.update(A=a["A"].astype(float)), r"A must have shape \(4, 4\) and dtype (float32|F32); got"),
        (lambda a: a.update(A=a["A"].astype(np.int32)), "A must have"),
        (lambda a: a.update(A=np.zeros((4, 5), np.float32)), r"A must have shape \(4, 4\)"),
        (lambda a: a.update(A=np.zeros(16, np.float32)), r"A must have shape \(4, 4\)"),
        (lambda a: a.update(A=np.zeros((0, 0), np.float32)), r"A must have shape \(4, 4\)"),
        (lambda a: a.update(C=np.zeros((2, 4, 1), np.float32)), r"C must have shape \(2, 4\)"),
    ],
)
def test_arrays_that_are_not_those_of_the_settings(saved, suffix, change, words):
    path, header, arrays = saved
    change(arrays)
    path = path.with_suffix(suffix)
    forge(path, header, arrays)
    refuse(path, words)


class Evil:
    def __reduce__(self):
        return EXECUTED.append, ("executed",)


@pytest.mark.parametrize("name", ["A", "header"])
def test_pickles_are_never_executed(saved, name):
    path, header, arrays = saved
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(path, **{"header": text, **arrays, name: np.array([Evil()], dtype=object)})
    refuse(path)
    with zipfile.ZipFile(path, "w") as archive:
        import pickle

        archive.writestr("header.npy", pickle.dumps(Evil()))
    refuse(path)
    assert EXECUTED == []


def npy(shape, data, dtype="<f4", text=None):
    """Return the bytes of a .npy file whose header may contradict its data."""
    text = text or f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode("latin1") + data


def forge_members(path, header, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        text = json.dumps(header).encode()
        archive.writestr("header.npy", npy((len(text),), text, "|u1"))
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def members_of(arrays, **others):
    result = {}
    for name, value in arrays.items():
        stream = io.BytesIO()
        np.save(stream, value)
        result[name] = stream.getvalue()
    return {**result, **others}


def test_an_array_that_claims_to_be_huge(saved):
    """If settings and array header claim 10 GB that the file lacks, the file is refused before memory is allocated."""
    path, header, _ = saved
    n = 50_000
    header["settings"]["hidden_dim"] = n
    shapes = {"A": (n, n), "B": (n, 3), "C": (2, n), "D": (2, 3)}
    forge_members(path, header, {name: npy(shape, bytes(100)) for name, shape in shapes.items()})
    refuse(path)


@pytest.mark.parametrize("count", [10**7, 10**10, 10**13, 10**25, -1, "x"])
def test_a_header_that_claims_to_be_huge(saved, count):
    path, _, arrays = saved
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.npy", npy((count,), b"{}", "|u1") if count != "x" else npy("'x'", b"{}"))
        for name, content in members_of(arrays).items():
            archive.writestr(f"{name}.npy", content)
    refuse(path)


def test_more_data_than_the_array_holds(saved):
    """A member of the right shape is followed by 50 MB of zeros."""
    path, header, arrays = saved
    bomb = members_of(arrays)["A"] + bytes(50 << 20)
    forge_members(path, header, members_of(arrays, A=bomb), zipfile.ZIP_DEFLATED)
    try:
        loaded = idl_ref.load(path)
    except FileFormatError:
        refuse(path)
    else:
        np.testing.assert_array_equal(loaded.parameters["A"], arrays["A"])


def test_less_data_than_the_array_holds(saved):
    path, header, arrays = saved
    forge_members(path, header, members_of(arrays, A=members_of(arrays)["A"][:-4]))
    refuse(path)


@pytest.mark.parametrize("method", [8, 9, 12, 14, 93, 99])
def test_a_compression_that_is_not_there(saved, method):
    """The list of members claims that members are compressed, although they are not."""
    path, *_ = saved
    content = bytearray(path.read_bytes())
    position = content.find(b"PK\x01\x02")
    while position >= 0:
        content[position + 10 : position + 12] = struct.pack("<H", method)
        position = content.find(b"PK\x01\x02", position + 1)
    path.write_bytes(content)
    refuse(path)


@pytest.mark.parametrize(
    "text",
    [
        *("(", "{", "\n", "'" * 9, "1" * 900, "(" * 3000, "\tx\n  y\n z"),
        "{'descr': '<f4', 'shape': (4, 4)}",
        "{'descr': __import__('os')}",
        "{'descr': 'O', 'fortran_order': False, 'shape': (4, 4)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (4, 4)}",
    ],
    ids=range(11),
)
def test_an_array_with_a_damaged_description(saved, text):
    path, header, arrays = saved
    forge_members(path, header, members_of(arrays, A=npy(None, bytes(64), text=text)))
    refuse(path)


def test_other_versions_of_the_array_format(saved):
    path, header, arrays = saved
    for version in ((2, 0), (3, 0), (9, 9)):
        stream = io.BytesIO()
        np.lib.format.write_array(stream, arrays["A"], (2, 0))
        content = bytearray(stream.getvalue())
        content[6:8] = version
        forge_members(path, header, members_of(arrays, A=bytes(content)))
        refuse(path)


def test_byte_swapped_arrays_are_refused(saved):
    path, header, arrays = saved
    forge(path, header, {**arrays, "A": arrays["A"].astype(">f4")})
    refuse(path, "A must have")


def test_fortran_order_is_read(saved):
    path, header, arrays = saved
    forge(path, header, {**arrays, "A": np.asfortranarray(arrays["A"])})
    np.testing.assert_array_equal(idl_ref.load(path).parameters["A"], arrays["A"])


def test_two_members_of_one_name(saved):
    path, *_ = saved
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("A.npy", npy((9, 9), bytes(4)))
    refuse(path)


def test_names_that_climb_out_of_the_archive(saved):
    path, header, arrays = saved
    forge_members(path, header, members_of(arrays, **{"../A": b"x"}))
    refuse(path, "must hold the arrays")


def test_compressed_archives_are_refused(saved):
    path, header, arrays = saved
    np.savez_compressed(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    refuse(path, "must be neither compressed nor encrypted; got a member that is: save the model again")


def test_sizes_and_places_of_64_bits(saved):
    """In an archive above 4 GB, the 32-bit fields are 0xFFFFFFFF, and 64-bit fields after the names hold the sizes."""
    path, _, arrays = saved
    content = path.read_bytes()
    size, place = struct.unpack("<II", content[-10:-2])
    entries, listed, at = [], content[place : place + size], 0
    while at < len(listed):
        n, extra = struct.unpack("<HH", listed[at + 28 : at + 32])
        entry, name = bytearray(listed[at : at + 46]), listed[at + 46 : at + 46 + n]
        packed, unpacked = struct.unpack("<II", entry[20:28])
        (local,) = struct.unpack("<I", entry[42:46])
        longs = struct.pack("<HHQQQ", 1, 24, unpacked, packed, local)
        entry[20:28], entry[30:32], entry[42:46] = b"\xff" * 8, struct.pack("<H", len(longs) + 6), b"\xff" * 4
        entries.append(bytes(entry) + name + struct.pack("<HHH", 7, 2, 0) + longs)
        at += 46 + n + extra
    whole = b"".join(entries)
    record = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, len(entries), len(entries), len(whole), place)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, place + len(whole), 1)
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(content[:place] + whole + record + locator + end)
    with np.load(path) as archive:
        np.testing.assert_array_equal(archive["A"], arrays["A"])
    np.testing.assert_array_equal(idl_ref.load(path).parameters["A"], arrays["A"])
    path.write_bytes(content[:place] + whole.replace(longs[:4], b"\2\0\x18\0") + record + locator + end)
    refuse(path, "its list of members is broken")
    huge = record[:40] + struct.pack("<QQ", 1 << 40, place)
    path.write_bytes(content[:place] + whole + huge + locator + end)
    refuse(path, r"the list of members must have at most 65536 bytes; got \d+")


@pytest.mark.parametrize(
    ("offset", "form", "value", "words"),
    [
        (8, "<H", 1, "must be neither compressed nor encrypted"),
        (16, "<I", 7, "damaged: the checksum of"),
        (24, "<I", 1 << 30, "contradicts the file"),
        (28, "<H", 60_000, "its list of members is broken"),
        (34, "<H", 1, "contradicts the file"),
        (42, "<I", 3, "is not at the position that the list of members gives"),
    ],
)
def test_lists_of_members_that_lie(saved, offset, form, value, words):
    path, *_ = saved
    content = bytearray(path.read_bytes())
    entry = content.rfind(b"PK\x01\x02")
    struct.pack_into(form, content, entry + offset, value)
    path.write_bytes(content)
    refuse(path, words)
    content[-6:-2] = struct.pack("<I", len(content))
    path.write_bytes(content)
    refuse(path, "its list of members lies outside the file")


def test_a_safetensors_header_that_claims_to_be_huge(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    for size in (1 << 21, 1 << 40, (1 << 64) - 1):
        path.write_bytes(struct.pack("<Q", size) + b"{}" + bytes(1000))
        refuse(path, r"the header of the file must have at most 1048576 bytes; got \d+")


def test_a_safetensors_file_is_read_and_not_mapped(tmp_path, monkeypatch):
    """Access to a mapped file that somebody shortens in the meantime kills the process with SIGBUS."""
    safetensors = pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    ImplicitModel(3, 2, 200, seed=0).save(path)
    parse, whole = idl_ref.io._parse, path.read_bytes()

    def shorten(text):
        os.truncate(path, len(whole) // 2)
        return parse(text)

    with monkeypatch.context() as patch:
        patch.setattr(safetensors, "safe_open", None)
        patch.setattr(idl_ref.io, "_parse", shorten)
        refuse(path, "damaged")
    path.write_bytes(whole + b"0")
    refuse(path, "damaged")


def test_errors_are_value_errors():
    assert issubclass(FileFormatError, ValueError)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(saved, suffix, value):
    """The checksum of the forged array is correct, so that only the check for finite numbers refuses the file."""
    path, header, arrays = saved
    arrays["B"][0, 1] = value
    header["crc32"]["B"] = zlib.crc32(arrays["B"].tobytes())
    path = path.with_suffix(suffix)
    forge(path, header, arrays)
    refuse(path, "B must be finite; got NaN or inf")


@pytest.mark.slow
def test_a_long_list_of_members_is_not_even_read(saved):
    path, header, arrays = saved
    forge(path, header, {**arrays, **{f"E{i}": np.zeros(1) for i in range(20_000)}})
    # The list alone has 1.2e6 bytes, so that the memory limit shows that the list was not read.
    refuse(path, r"the list of members must have at most 65536 bytes; got \d+", memory=1e5)
    # So many members need the 64-bit record.
    forge(path, header, {**arrays, **{f"E{i}": np.zeros(0) for i in range(70_000)}})
    refuse(path, r"the list of members must have at most 65536 bytes; got \d+", memory=1e5)


def test_an_archive_with_something_behind_it(saved):
    path, *_ = saved
    path.write_bytes(path.read_bytes() + b"more")
    refuse(path, "its last bytes are not those of one")


@pytest.mark.parametrize("key", ["version", "settings", "preprocessing"])
def test_what_a_file_says_is_quoted_at_most_in_part(saved, key):
    path, header, arrays = saved
    for value in ("x" * 500_000, {"x" * 500_000: 1}, list(range(50_000))):
        forge(path, {**header, key: value}, arrays)
        refuse(path)
    for name in ("f", "kappa", "hidden_dim", "activation"):
        settings = {**header["settings"], name: "x" * 500_000}
        forge(path, {**header, "settings": settings}, arrays)
        refuse(path)
