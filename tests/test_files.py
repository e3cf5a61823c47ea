"""Files are written whole or not at all."""

import os
import stat
import subprocess
import sys
import textwrap
import time

import pytest

from idl_ref import files


def drafts(folder):
    return [name for name in os.listdir(folder) if name.startswith(".idl_ref-")]


@pytest.mark.parametrize(("mode", "old", "new"), [("wb", b"old", b"new"), ("w", "old", "new\r\n")])
def test_replaces(tmp_path, mode, old, new):
    path = tmp_path / "a.txt"
    for content in (old, new):
        with files.replacing(path, mode) as stream:
            stream.write(content)
    assert path.read_bytes() == (new if mode == "wb" else new.encode())
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_exception_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def interrupted():
        with files.replacing(path) as stream:
            stream.write(b"half of")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_keeps_permissions_and_links(tmp_path):
    real, link = tmp_path / "real.npz", tmp_path / "link.npz"
    real.write_text("old")
    real.chmod(0o600)
    link.symlink_to(real)
    with files.replacing(link) as stream:
        stream.write(b"new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o600


def test_takes_a_name_of_255_bytes(tmp_path):
    path = tmp_path / ("n" * 251 + ".npz")
    with files.replacing(path) as stream:
        stream.write(b"new")
    assert path.read_bytes() == b"new"


def test_removes_the_drafts_of_killed_processes_only(tmp_path):
    path = tmp_path / "a.npz"
    program = f"""
        import os
        from idl_ref import files
        with files.replacing({str(path)!r}) as stream:
            stream.write(b"half")
            os._exit(9)
    """
    for _ in range(3):
        subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    assert len(drafts(tmp_path)) == 1  # each process removes what the one before it has left
    with files.replacing(path), files.replacing(path):  # A draft that is being written stays.
        assert len(drafts(tmp_path)) == 2
    assert drafts(tmp_path) == []


def test_removes_the_drafts_of_other_machines_after_a_day(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    draft = files._draft(path.resolve())
    monkeypatch.setattr(os, "getpid", lambda: 1)  # That process runs, so that only the age can tell.
    for age, left in ((0.9, 1), (1.1, 0)):
        draft.write_text("half")
        os.utime(draft, (time.time() - age * files.DAY,) * 2)
        files._remove_stale(path.resolve())
        assert len(drafts(tmp_path)) == left


def test_writes_to_a_pipe(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", 'from idl_ref import files\nwith files.replacing("/dev/stdout") as s: s.write(b"here")'],
        capture_output=True,
        check=True,
    )
    assert result.stdout == b"here"


@pytest.mark.parametrize("kind", ["folder", "missing", "full", "read-only"])
def test_probe_tells_beforehand(tmp_path, kind, monkeypatch):
    path = tmp_path / "a.npz"
    expected = {
        "folder": "it is a folder",
        "missing": "there is no folder",
        "full": "No space left",
        "read-only": "the file is read-only",
    }[kind]
    if kind == "folder":
        path.mkdir()
    elif kind == "missing":
        path = tmp_path / "nowhere" / "a.npz"
    elif kind == "full":

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
    else:
        path.write_text("old")
        monkeypatch.setattr(os, "access", lambda *_: False)  # Root may write to every file.
    with pytest.raises(OSError, match=expected):
        files.probe(path)
    assert drafts(tmp_path) == []


def test_probe_leaves_nothing(tmp_path):
    files.probe(tmp_path / "a.npz")
    assert os.listdir(tmp_path) == []
