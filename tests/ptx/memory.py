"""Global and shared memory with checks for errors that a GPU would not report, such as races.

Accesses are recorded for each word of 4 bytes. For a word of shared memory: which threads read and wrote it since the
last barrier. For a word of global memory: whether it belongs to an array, whether it was ever written, and which block
accessed it in this launch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ptx.program import PTXError

GLOBAL_BASE = 0x7F0000000000  # the address where global memory begins
GAP = 256  # bytes between two arrays that belong to neither, so that an access beyond an array is noticed
NOBODY, SEVERAL = -1, 1024  # in the place of the number of a thread or a block; a block has at most 1,024 threads


class Reports(list):
    """The errors found, each once: pairs of a description and the instruction that caused the error."""

    def add(self, what: str, instruction: str) -> None:
        """Report an error, unless the same one was already reported for this instruction."""
        if (what, instruction) not in self:
            self.append((what, instruction))

    def kinds(self) -> set[str]:
        """Return the descriptions without the instructions."""
        return {what for what, _ in self}


class Memory:
    """The bytes of a memory space, with the checks that shared and global memory have in common."""

    def __init__(self, size: int, reports: Reports, space: str) -> None:
        self.bytes = np.zeros(-(-size // 16) * 16 + 16, np.uint8)
        self.limit, self.reports, self.space = size, reports, space

    def words(self, addresses: np.ndarray, width: int, count: int, instruction: str) -> np.ndarray:
        """Return which words each thread accesses with `count` values of `width` bytes.   -> (threads, words)

        Raises PTXError for a misaligned access and for one out of bounds, which would abort the kernel on a GPU.
        """
        size = width * count
        if (addresses & (size - 1)).any():
            raise PTXError(f"misaligned access to {self.space} memory: {instruction}")
        if addresses.min() < 0 or addresses.max() + size > self.limit:
            raise PTXError(f"access beyond the end of {self.space} memory: {instruction}")
        return (addresses[:, None] >> 2) + np.arange(max(size // 4, 1))

    def get(self, addresses: np.ndarray, dtype: Any, count: int) -> list[np.ndarray]:
        """Return the `count` numbers at each address, as one array per number."""
        numbers, first = self.bytes.view(dtype), addresses // np.dtype(dtype).itemsize
        return [numbers[first + j] for j in range(count)]

    def set(self, addresses: np.ndarray, values: list[np.ndarray]) -> None:
        """Store numbers at each address, one array per number."""
        numbers, first = self.bytes.view(values[0].dtype), addresses // values[0].itemsize
        for j, value in enumerate(values):
            numbers[first + j] = value


class Shared(Memory):
    """The shared memory of a block, which reports races and reads of uninitialised words.

    A race is an access to a word that another thread wrote, or a write to a word that another thread read, without a
    barrier in between.
    """

    def __init__(self, size: int, reports: Reports) -> None:
        super().__init__(size, reports, "shared")
        words = len(self.bytes) // 4
        self.bytes.view(np.uint32)[:] = 0x7FC0DEAD  # a NaN, which shows in the results if it is read
        self.written = np.zeros(words, bool)
        # Who accessed a word last: `now` plus the number of a thread or SEVERAL, or less if it was before a barrier.
        self.now = 0
        self.writer, self.reader = np.full(words, NOBODY), np.full(words, NOBODY)

    def barrier(self) -> None:
        """Forget who accessed which word: accesses before a barrier do not race with those after it."""
        self.now += SEVERAL + 1

    def note_read(self, words: np.ndarray, threads: np.ndarray, instruction: str) -> None:
        """Record that threads read words, and report errors.   words (threads, words), threads (threads,)"""
        if not self.written[words].all():
            self.reports.add("read of uninitialised shared memory", instruction)
        threads = self.now + threads[:, None]
        if self._others(self.writer[words], threads):
            self.reports.add("shared race: read of what another thread wrote, no barrier between", instruction)
        known = self.reader[words]
        readers = np.where((known >= self.now) & (known != threads), self.now + SEVERAL, threads)
        self.reader[words] = readers
        overwritten = self.reader[words] != readers  # by another thread that reads the same word
        if overwritten.any():
            self.reader[words[overwritten]] = self.now + SEVERAL

    def note_write(self, words: np.ndarray, threads: np.ndarray, instruction: str) -> None:
        """Record that threads write words, and report errors.   words (threads, words), threads (threads,)"""
        threads = self.now + threads[:, None]
        others = self._others(self.writer[words], threads)
        self.writer[words], self.written[words] = threads, True
        if others or (self.writer[words] != threads).any():  # overwritten by another thread that writes the same word
            self.reports.add("shared race: two threads wrote, no barrier between", instruction)
        if self._others(self.reader[words], threads):
            self.reports.add("shared race: write of what another thread read, no barrier between", instruction)

    def _others(self, known: np.ndarray, threads: np.ndarray) -> bool:
        """Tell whether some of the words were accessed by other threads since the last barrier."""
        return bool(((known >= self.now) & (known != threads)).any())


class Global(Memory):
    """The arrays of a launch in global memory, with gaps between them.

    Two blocks of a launch have no order, so that a word which one block writes must not be accessed by another one.
    """

    def __init__(self, arrays: list[Any], reports: Reports) -> None:
        sizes = [-(-array.values.nbytes // GAP) * GAP + GAP for array in arrays]
        super().__init__(sum(sizes), reports, "global")
        words = len(self.bytes) // 4
        self.inside, self.written = np.zeros(words, bool), np.zeros(words, bool)
        self.block = np.full(words, NOBODY)
        self.arrays, self.starts, start = arrays, [], 0
        for array, size in zip(arrays, sizes, strict=True):
            raw = array.values.view(np.uint8)
            self.bytes[start : start + raw.size] = raw
            part = slice(start // 4, (start + raw.size + 3) // 4)
            self.inside[part], self.written[part] = True, np.repeat(array.written, max(array.values.itemsize // 4, 1))
            self.starts.append(start)
            start += size

    def copy_back(self) -> None:
        """Copy the contents of global memory after the launch back to the arrays."""
        for array, start in zip(self.arrays, self.starts, strict=True):
            raw = array.values.view(np.uint8)
            raw[:] = self.bytes[start : start + raw.size]
            words = self.written[start // 4 : (start + raw.size + 3) // 4]
            array.written[:] = words.reshape(array.values.size, max(array.values.itemsize // 4, 1)).all(axis=1)

    def note(self, words: np.ndarray, block: int, instruction: str, write: bool) -> None:
        """Record that a block reads or writes words, and report errors; raises PTXError outside of every array."""
        if not self.inside[words].all():
            raise PTXError(f"global access outside of every array: {instruction}")
        if ((self.block[words] != NOBODY) & (self.block[words] != block)).any():
            what = "global word written by two blocks" if write else "global read of what another block wrote"
            self.reports.add(what, instruction)
        if write:
            self.block[words], self.written[words] = block, True
        elif not self.written[words].all():
            self.reports.add("read of uninitialised global memory", instruction)
