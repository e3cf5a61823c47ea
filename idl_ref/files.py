"""This module writes files so that no reader ever finds half of one: beside the target first, and then renamed."""

from __future__ import annotations

import os
import socket
import stat
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Any

from idl_ref import checks

DAY = 86400.0
_numbers = count()


@contextmanager
def replacing(path: str | os.PathLike[str], mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a draft for writing, which takes the place of `path` when the block ends without an exception.

    A link is followed, the permissions of an existing file are kept, and what is written is on the disk before the
    file is renamed. After an exception, `path` is as it was. Drafts that killed processes have left are removed. What
    is neither a file nor missing, such as a pipe or /dev/stdout, is written to directly.

    Parameters
    ----------
    path : str or path
        The file to write or to replace. Its folder must exist.
    mode : {"wb", "w"}
        Bytes, or text in UTF-8 whose line ends are written as they are.

    Raises
    ------
    OSError
        The folder is missing or read-only, the disk is full, or `path` is a folder.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with replacing(f"{folder}/notes.txt", "w") as stream:
    ...         _ = stream.write("whole")
    ...     Path(folder, "notes.txt").read_text()
    'whole'
    """
    target = _target(path)
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    if target.exists() and not target.is_file():
        with target.open(mode, **text) as stream:
            yield stream
        return
    _remove_stale(target)
    draft = _draft(target)
    try:
        with draft.open(mode.replace("w", "x"), **text) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if target.exists():
            draft.chmod(stat.S_IMODE(target.stat().st_mode))
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def replace_all(contents: Mapping[Path, bytes]) -> None:
    """Write several files that belong together: all drafts are written before the first one is renamed."""
    with ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(replacing(path)).write(content)


def probe(path: str | os.PathLike[str]) -> None:
    """Raise the OSError now that `replacing` would raise later: for a missing folder, a read-only one, or a full disk.

    Examples
    --------
    >>> probe("no/such/folder/model.npz")
    Traceback (most recent call last):
    FileNotFoundError: cannot write no/such/folder/model.npz: there is no folder no/such/folder.
    """
    target = _target(path)
    if target.exists() and not target.is_file():
        return
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(f"cannot write {checks.printable(path)}: the file is read-only.")
    draft = _draft(target)
    try:
        with draft.open("xb") as stream:
            stream.write(bytes(1 << 16))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as reason:
        raise type(reason)(f"cannot write {checks.printable(path)}: {reason.strerror}.") from None
    finally:
        draft.unlink(missing_ok=True)


def _target(path: str | os.PathLike[str]) -> Path:
    """Return the file behind a path, after its links, and refuse a folder and a file in a folder that is missing."""
    target, shown = Path(path), checks.printable(path)
    if target.exists() and not target.is_file() and not target.is_dir():
        return target  # The links of /dev/stdout lead to a name that cannot be opened.
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(f"cannot write {shown}: it is a folder.")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"cannot write {shown}: there is no folder {checks.printable(Path(path).parent)}.")
    return target


def _family(target: Path) -> str:
    """Return how the names of all drafts for a target begin. They are short, however long its own name is."""
    return f".idl_ref-{zlib.crc32(os.fsencode(target.name)):08x}-{zlib.crc32(socket.gethostname().encode()):08x}-"


def _draft(target: Path) -> Path:
    """Return the path of a new draft, whose name tells which process writes it."""
    return target.with_name(f"{_family(target)}{os.getpid()}-{next(_numbers)}-{time.time_ns():x}")


def _remove_stale(target: Path) -> None:
    """Remove drafts for the target whose process no longer runs, or that are older than a day."""
    family = _family(target)
    with suppress(OSError):  # What cannot be listed or removed stays; the new file is written all the same.
        for entry in os.scandir(target.parent):
            if entry.name.startswith(family) and _is_stale(entry, entry.name.removeprefix(family)):
                os.unlink(entry.path)


def _is_stale(entry: os.DirEntry[str], rest: str) -> bool:
    """Tell whether nobody writes a draft any more. `rest` is its name from the number of its process."""
    process = rest.partition("-")[0]
    if os.name == "posix" and process.isdigit() and int(process) != os.getpid():
        try:
            os.kill(int(process), 0)  # The signal 0 only asks whether the process is there.
        except ProcessLookupError:
            return True
        except OSError:
            return False
    return time.time() - entry.stat().st_mtime > DAY
