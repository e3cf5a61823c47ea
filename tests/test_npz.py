"""Data files and other files of foreign origin: what is asked for is read, and nothing asks for more than it weighs."""

import io
import os
import socket
import struct
import time
import tracemalloc
import xml.etree.ElementTree as ET
import zipfile

import numpy as np
import pytest
from conftest import in_time

import idl_ref
from idl_ref import FileFormatError, ImplicitModel, checks, npz
from idl_ref.__main__ import main
from idl_ref.conformance.judge.report import FAILED, SKIPPED, Report, Result

SAVES = (np.savez, np.savez_compressed)
KINDS = {
    "numbers": np.arange(12.0).reshape(3, 4),
    "Fortran order": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "big-endian": np.arange(5, dtype=">i2"),
    "truth values": np.array([True, False]),
    "strings": np.array(["setosa", "virginica", "é"]),
    "nothing": np.zeros((0, 4)),
    "one number": np.float32(3),
    "many": np.random.default_rng(0).integers(0, 9, 300_000),
}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.npz"


def refuse(path, words, names=("x",)):
    """Assert that reading raises FileFormatError quickly, and allocates next to nothing."""
    message, peak = in_time(lambda: refused(path, words, names), 0.5)
    assert peak < 20e6
    assert message.isprintable()


def refused(path, words, names):
    """Return the message of the FileFormatError and the bytes that reading allocated, and its seconds of CPU time."""
    tracemalloc.start()
    start = time.thread_time()
    try:
        with pytest.raises(FileFormatError, match=words) as caught:
            npz.arrays(path, names)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (str(caught.value), peak), time.thread_time() - start


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("save", SAVES)
def test_arrays_are_read_as_numpy_reads_them(path, save, kind):
    save(path, other=np.ones(3), x=KINDS[kind])
    found = npz.arrays(path, ["x"], ["y"])
    assert list(found) == ["x"]
    assert found["x"].dtype == KINDS[kind].dtype
    assert found["x"].flags.aligned
    np.testing.assert_array_equal(found["x"], KINDS[kind])


def test_a_small_file_that_unpacks_to_gigabytes_is_refused(path):
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x.npy", "w") as member,
    ):
        np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (100 << 20,)})
        for _ in range(100):
            member.write(bytes(1 << 20))
    assert path.stat().st_size < 600_000
    refuse(
        path, r"the arrays x must have at most [\d,]+ bytes in a file of this size; got 104,857,728: write them with "
    )


def test_members_that_are_not_asked_for_are_not_read(path):
    """They may be bombs, objects or damaged."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.npy", bytes(200 << 20))
        archive.writestr("damaged.npy", b"nothing of an array")
        stream = io.BytesIO()
        np.save(stream, np.arange(3))
        archive.writestr("x.npy", stream.getvalue())
    tracemalloc.start()
    try:
        np.testing.assert_array_equal(npz.arrays(path, ["x"])["x"], [0, 1, 2])
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()
    refuse(path, r"not a \.npz file of numeric arrays \(ValueError\)", ["x", "damaged"])


def test_a_shape_that_claims_more_than_the_member_holds_is_refused(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": (10**15,)})
    refuse(path, "which does not agree with its shape")


def test_sizes_that_lie_are_refused(path):
    np.savez_compressed(path, x=np.arange(1000))
    content = bytearray(path.read_bytes())
    entry = content.index(npz.ENTRY)
    for size in (0, 1, 100, 10**5, npz.LONG):
        content[entry + 24 : entry + 28] = struct.pack("<I", size)
        path.write_bytes(content)
        refuse(path, "damaged")


def test_damaged_and_truncated_compressed_arrays_are_refused(path):
    np.savez_compressed(path, x=np.random.default_rng(0).standard_normal(1000))
    whole = path.read_bytes()
    for position in range(40, len(whole), 501):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 255]) + whole[position + 1 :])
        try:
            npz.arrays(path, ["x"])
        except FileFormatError:
            continue
    for size in range(0, len(whole), 501):
        path.write_bytes(whole[:size])
        refuse(path, "damaged")


def test_what_is_not_numeric_or_missing_is_refused_with_a_way_out(path):
    np.savez(path, x=np.array([None, 3]), y=np.ones(2))
    refuse(path, r"got an array of Python objects as x: before numpy\.savez, convert it with numpy\.asarray")
    refuse(path, "the file must hold z, y; got x, y", ["z", "y"])
    np.savez(path)
    refuse(path, "the file must hold x; got no arrays")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", b"")
    refuse(path, r"x must be neither compressed nor encrypted; got a member that is: write it with numpy\.savez")


# --- what is no regular file ------------------------------------------------------------------------------------------


@pytest.fixture(params=["a folder", "a pipe", "a socket", "a device"])
def special(request, tmp_path, monkeypatch):
    """Return the kind and the path of what is no regular file."""
    monkeypatch.chdir(tmp_path)
    path = "special.npz"
    if request.param == "a folder":
        os.mkdir(path)
    elif request.param == "a pipe" and hasattr(os, "mkfifo"):
        os.mkfifo(path)
    elif request.param == "a socket" and hasattr(socket, "AF_UNIX"):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path)
    elif request.param == "a device" and os.path.exists("/dev/zero"):
        os.symlink("/dev/zero", path)
    else:
        pytest.skip("not on this platform")
    return request.param, path


def test_what_is_no_file_is_named_as_what_it_is(special, capsys):
    """To open a pipe would wait for ever, and /dev/zero never ends."""
    kind, path = special
    for read in (idl_ref.load, lambda path: npz.arrays(path, ["x"]), lambda path: npz.whole(path, 9)):
        with pytest.raises(OSError, match=f"{path} must be a file; got {kind}") as caught:
            read(path)
        assert isinstance(caught.value, IsADirectoryError) == (kind == "a folder")
    ImplicitModel(64, 10, 4, seed=0).save("model.npz")
    ImplicitModel(64, 10, 4, seed=0).save("model.safetensors")
    os.replace(path, "special.safetensors")
    for arguments in (["predict", "special.safetensors"], ["predict", "model.npz", "--data", "special.safetensors"]):
        assert main(arguments) == 2
        assert f"special.safetensors must be a file; got {kind}" in capsys.readouterr().err


# --- foreign names ----------------------------------------------------------------------------------------------------

EVIL = "\x1b]0;title\x07\x1b[31m\udcff\u202egnp.exe\nsecond line\x00"


def test_text_becomes_one_printable_line():
    assert checks.printable("as it is, ‖A‖∞ = 1 − ε, é") == "as it is, ‖A‖∞ = 1 − ε, é"
    assert checks.printable(EVIL) == r"\x1b]0;title\x07\x1b[31m\udcff\u202egnp.exe second line\x00"
    assert checks.printable(" a\t\r\n\u2028b ") == "a b"
    for code in (*range(0x300), *range(0x2000, 0x2100), *range(0xD7F0, 0xE010), 0xFFFE, 0xE0041):
        text = checks.printable(f"a{chr(code)}b")
        assert text.isprintable()
        ET.fromstring(f"<a>{text.replace('&', '').replace('<', '')}</a>")
        text.encode()


def test_names_of_files_and_members_never_reach_a_terminal_raw(tmp_path, capsys):
    folder = tmp_path / "\x1b[31m\u202e"
    folder.mkdir()
    path = folder / "data.npz"
    np.savez(path, **{"\x1b[2J": np.ones(3)})
    ImplicitModel(64, 10, 4, seed=0).save(folder / "model.npz")
    model = str(folder / "model.npz")
    cases = [
        *(["predict", str(path)], ["predict", model, "--data", str(path)], ["predict", str(folder / "no.npz")]),
        *(["predict", model, "--out", str(folder)], ["predict", model, "--\x1b[2J"], ["predict", str(folder)]),
        *(["export", str(path), "--to", "c", "-o", "x"], ["train", "--data", str(path)]),
    ]
    for arguments in cases:
        try:
            assert main(arguments) == 2
        except SystemExit:  # argparse refuses arguments that it does not know.
            assert "--" in arguments[-1]
        err = capsys.readouterr().err
        assert err.replace("\n", "").isprintable()
        assert "Traceback" not in err
    for read in (idl_ref.load, lambda path: npz.arrays(path, ["x"])):
        for name in ("data.npz", "no.npz"):
            with pytest.raises((FileFormatError, FileNotFoundError)) as caught:
                read(folder / name)
            assert str(caught.value).isprintable()
    assert main(["predict", model, "--out", str(folder / "y.csv")]) == 0
    assert main(["export", model, "--to", "numpy", "--out", str(folder)]) == 0
    assert capsys.readouterr().out.replace("\n", "").isprintable()


def test_a_report_is_clean_in_every_format():
    results = (Result(f"a{EVIL}:forward", EVIL, FAILED, 2.0, EVIL), Result("b:vjp", "g", SKIPPED, None, EVIL))
    report = Report(EVIL, results, (EVIL,), (EVIL,))
    for text in (str(report), report.to_json(), report.to_junit(), report.to_markdown(), report.to_html()):
        assert text.replace("\n", "").isprintable()
        text.encode()
    suite = ET.fromstring(report.to_junit())
    assert len(suite) == 3
    assert r"\x1b]0;title" in suite.attrib["name"]
