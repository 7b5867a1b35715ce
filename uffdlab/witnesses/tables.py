"""Tables: the page tables of one address space, read out of guest-physical memory in vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    Words: TypeAlias = NDArray[np.uint64]

__all__ = ["Memory", "Reading", "Root", "Step", "Tables", "points_to_tables"]

_PRESENT = np.uint64(1 << 0)
_PSE = np.uint64(1 << 7)
_FRAME = np.uint64(0x000FFFFFFFFFF000)
_PIECE = 64  # page tables compared at once: 256 KiB, which stays in the processor's cache


class Memory(Protocol):
    """Guest-physical memory as the witness needs it: a :class:`uffdlab.machines.PhysicalMemory` is one."""

    def words(self, frame: int | NDArray[np.int64]) -> Words:
        """Read 4 KiB frames as uint64[..., 512], a copy for an array of frames; WitnessError for one outside RAM."""
        ...  # pragma: no cover

    def root_candidates(self) -> list[tuple[int, int]]:
        """Give (physical address of the top table, levels) of each virtual processor now."""
        ...  # pragma: no cover

    def paused(self) -> AbstractContextManager[object]:
        """Stop the guest's processors for the time of a with block."""
        ...  # pragma: no cover


class Root(NamedTuple):
    """Where an address space begins: the frame of its top table, and how many levels there are."""

    frame: int
    levels: int


class Step(NamedTuple):
    """One entry on the way from the top table to a page."""

    level: int
    """5 or 4 at the top, 1 = PTE."""
    table: int
    """Page frame of the table."""
    slot: int
    """Number of the entry in its table."""
    word: int
    """The raw entry."""


class Reading(NamedTuple):
    """A finished reading: the entries, and what it takes to see whether they still hold."""

    words: Words
    levels: NDArray[np.uint8]
    parents: Words
    frames: NDArray[np.int64]
    tables: Words


class Tables:
    """Reads the tables below one root.

    Parameters
    ----------
    memory : Memory
    root : Root
    """

    def __init__(self, memory: Memory, root: Root) -> None:
        self.memory = memory
        self.root = root

    def path(self, address: int) -> list[Step]:
        """Walk to one address; the last step is the entry where the walk ends.

        Raises
        ------
        WitnessError
            A table lies outside of RAM.
        """
        steps = []
        frame = self.root.frame
        for level in range(self.root.levels, 0, -1):
            index = address >> 3 + 9 * level & 511
            word = int(self.memory.words(frame)[index])
            steps.append(Step(level, frame, index, word))
            if not word & 1 or (level in (2, 3) and word & int(_PSE)):
                break
            frame = (word & int(_FRAME)) >> 12
        return steps

    def read(self, start: int, count: int, bottom: int) -> Reading:
        """Read the entries of `count` pages at level `bottom`.

        Where an entry above the bottom is no table, it stands with its own level for all that lies below it.
        """
        parents, parent_levels = self._parents(start, count, bottom)
        is_table = points_to_tables(parents, parent_levels, bottom + 1)
        frames = _frames(parents[is_table])
        tables = self._tables(frames)
        if is_table.all():
            blocks, levels = tables, np.full(tables.size, bottom, dtype=np.uint8)
        else:
            blocks = np.repeat(parents, 512).reshape(-1, 512)
            blocks[is_table] = tables
            levels = np.repeat(np.where(is_table, np.uint8(bottom), parent_levels), 512)
        low = start >> 3 + 9 * bottom & 511
        words = blocks.reshape(-1)[low : low + count]
        return Reading(words, levels[low : low + count], parents, frames, tables)

    def still_holds(self, reading: Reading, start: int, count: int, bottom: int) -> bool:
        """Tell whether everything would be read the same now."""
        parents, _ = self._parents(start, count, bottom)
        if not np.array_equal(parents, reading.parents):
            return False
        return all(
            np.array_equal(self.memory.words(reading.frames[low : low + _PIECE]), reading.tables[low : low + _PIECE])
            for low in range(0, reading.frames.size, _PIECE)
        )

    def _parents(self, start: int, count: int, bottom: int) -> tuple[Words, NDArray[np.uint8]]:
        # The entries one level above the bottom that cover the range.
        last = start + (count << 3 + 9 * bottom) - 1
        words = np.array([self.root.frame << 12 | 1], dtype=np.uint64)
        levels = np.array([self.root.levels + 1], dtype=np.uint8)
        for level in range(self.root.levels, bottom, -1):
            is_table = points_to_tables(words, levels, level + 1)
            blocks = np.repeat(words, 512).reshape(-1, 512)
            blocks[is_table] = self._tables(_frames(words[is_table]))
            below = np.repeat(np.where(is_table, np.uint8(level), levels), 512)
            shift = 3 + 9 * level
            low = start >> shift & 511
            size = (last >> shift) - (start >> shift) + 1
            words, levels = blocks.reshape(-1)[low : low + size], below[low : low + size]
        return words, levels

    def _tables(self, frames: NDArray[np.int64]) -> Words:
        return self.memory.words(frames) if frames.size else np.empty((0, 512), dtype=np.uint64)


def points_to_tables(words: Words, levels: NDArray[np.uint8], level: int) -> NDArray[np.bool_]:
    """Tell which entries are of exactly this level, present and no huge leaf (there is one at PMD and PUD only)."""
    tables: NDArray[np.bool_] = (levels == level) & (words & _PRESENT != 0)
    if level in (2, 3):
        tables &= words & _PSE == 0
    return tables


def _frames(words: Words) -> NDArray[np.int64]:
    return ((words & _FRAME) >> np.uint64(12)).astype(np.int64)
