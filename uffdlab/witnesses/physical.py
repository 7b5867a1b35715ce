"""PhysicalWitness: the host walks the guest's page tables in the guest's RAM; the guest does not help."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

import numpy as np

from uffdlab.errors import UsageError, WitnessError
from uffdlab.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from uffdlab.witnesses import Mapped

    Words: TypeAlias = NDArray[np.uint64]
    Kick: TypeAlias = Callable[[float], AbstractContextManager[object]]

__all__ = ["Memory", "PhysicalWitness"]

_PRESENT = np.uint64(1 << 0)
_PSE = np.uint64(1 << 7)
_FRAME = np.uint64(0x000FFFFFFFFFF000)
_BOTTOMS = {1 << 12: 1, 1 << 21: 2, 1 << 30: 3}  # page size → level of its entries
_PIECE = 64  # page tables compared at once: 256 KiB, which stays in the processor's cache
_MOST_READS = 3
_BEACON_LOOKS = 3


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


class _Root(NamedTuple):
    frame: int
    levels: int


class _Walk(NamedTuple):
    """A finished walk: the result, and what it takes to see whether it still holds."""

    words: Words
    levels: NDArray[np.uint8]
    parents: Words
    frames: NDArray[np.int64]
    tables: Words


class PhysicalWitness:
    """Reads page-table entries of the target from the guest's RAM.

    The target's top page table is found by content: of the tables the virtual processors are using while the target
    spins in user mode, the one that maps the beacon's address to a page which holds the beacon.  The beacon is looked
    at again before and after every later read, so a table that is no longer the target's is never believed.

    Parameters
    ----------
    memory : Memory
        The guest's RAM.
    beacon : (int, bytes)
        An address in the target and the random bytes the target keeps there, within one 4 KiB page.
    kick : callable
        ``kick(seconds)`` → context manager; within it the target keeps a processor busy in user mode.
    kernel : str
        Name of the kernel, for the snapshot.
    now : callable, optional
        Gives the target's CLOCK_MONOTONIC in ns for the snapshot.
    patience : float
        Seconds to look for the target before giving up.
    tracks_soft_dirty : bool
        False for a kernel without CONFIG_MEM_SOFT_DIRTY.
    """

    name = "physical"

    def __init__(
        self,
        memory: Memory,
        beacon: tuple[int, bytes],
        kick: Kick,
        *,
        kernel: str = "",
        now: Callable[[], int] | None = None,
        patience: float = 5.0,
        tracks_soft_dirty: bool = True,
    ) -> None:
        address, nonce = beacon
        if len(nonce) < 8 or (address & 0xFFF) + len(nonce) > 4096:
            raise UsageError("a beacon is at least 8 bytes within one 4 KiB page")
        self._memory = memory
        self._address = address
        self._nonce = nonce
        self._kick = kick
        self._kernel = kernel
        self._now = now
        self._patience = patience
        self._tracks_soft_dirty = tracks_soft_dirty
        self._root: _Root | None = None

    def read(self, region: Mapped, first: int, count: int) -> Snapshot:
        """Take a snapshot; see :class:`uffdlab.witnesses.Witness`.

        The tables are read until two reads agree; failing that, once more with the guest paused.
        """
        start = region.start + first * region.page_size
        bottom = _BOTTOMS.get(region.page_size)
        if bottom is None:
            raise UsageError(
                f"{region.name} has pages of {region.page_size} bytes; x86-64 knows 4 KiB, 2 MiB and 1 GiB"
            )
        root = self._verified_root()
        # The addresses came from the guest.
        if start < 0 or start % region.page_size or (start + count * region.page_size) >> (11 + 9 * root.levels):
            raise self._error(f"{region.name} at {start:#x} with {count} pages does not lie in user space")
        if count:
            words, levels = self._stable(root, start, count, bottom)
        else:
            words, levels = np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.uint8)
        if not self._beacon_under(root):
            raise self._error(
                f"while {region.name} was read the target's page tables went away; the target has ended, or the guest "
                "was rebooted"
            )
        if bottom > 1:
            split = np.flatnonzero(_points_to_tables(words, levels, bottom))
            if split.size:
                raise self._error(
                    f"page {first + int(split[0])} of {region.name} should be one entry of {region.page_size} bytes, "
                    "but there is a table of smaller pages"
                )
        return Snapshot(
            region=region.name,
            start=start,
            page_size=region.page_size,
            witness=self.name,
            words=words,
            levels=levels,
            time_ns=self._now() if self._now else 0,
            kernel=self._kernel,
            first=first,
            tracks_soft_dirty=self._tracks_soft_dirty,
        )

    # --- whose tables

    def _verified_root(self) -> _Root:
        if self._root is not None:
            # The kernel may be moving the beacon's page just now: look more than once before doubting the root.
            for _ in range(_BEACON_LOOKS):
                if self._beacon_under(self._root):
                    return self._root
                time.sleep(0.001)
            self._root = None
        self._root = self._find_root()
        return self._root

    def _find_root(self) -> _Root:
        deadline = time.monotonic() + self._patience
        pause = 0.001
        seen: set[tuple[int, int]] = set()
        with self._kick(self._patience):
            while True:
                for address, levels in self._memory.root_candidates():
                    seen.add((address, levels))
                    root = _Root(address >> 12, levels)
                    if levels in (4, 5) and self._beacon_under(root):
                        return root
                if time.monotonic() > deadline:
                    break
                time.sleep(pause)
                pause = min(2 * pause, 0.05)
        modes = {levels for _, levels in seen} - {4, 5}
        if modes:
            raise self._error(f"a processor uses a paging mode of {min(modes)} levels; only 4 and 5 are known here")
        raise self._error(
            f"none of the {len(seen)} page tables seen in {self._patience:g} s maps the target's beacon at "
            f"{self._address:#x}; the target may have ended, or it gets no processor time (take a snapshot with "
            "witness='pagemap' instead)"
        )

    def _beacon_under(self, root: _Root) -> bool:
        # Any error on the way, such as a frame outside RAM, only means that this is not the target's table.
        frame = root.frame
        try:
            for level in range(root.levels, 0, -1):
                shift = 3 + 9 * level
                word = int(self._memory.words(frame)[self._address >> shift & 511])
                if not word & 1:
                    return False
                frame = (word & int(_FRAME)) >> 12
                if level in (2, 3) and word & int(_PSE):
                    below = (1 << shift - 12) - 1
                    frame = frame & ~below | self._address >> 12 & below
                    break
            offset = self._address & 0xFFF
            content = np.ascontiguousarray(self._memory.words(frame)).tobytes()
        except WitnessError:
            return False
        return content[offset : offset + len(self._nonce)] == self._nonce

    # --- what they say

    def _stable(self, root: _Root, start: int, count: int, bottom: int) -> tuple[Words, NDArray[np.uint8]]:
        for _ in range(_MOST_READS - 1):
            walk = self._walk(root, start, count, bottom)
            if self._still_holds(walk, root, start, count, bottom):
                return walk.words, walk.levels
        with self._memory.paused():
            walk = self._walk(root, start, count, bottom)
        return walk.words, walk.levels

    def _walk(self, root: _Root, start: int, count: int, bottom: int) -> _Walk:
        parents, parent_levels = self._parents(root, start, count, bottom)
        is_table = _points_to_tables(parents, parent_levels, bottom + 1)
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
        return _Walk(words, levels[low : low + count], parents, frames, tables)

    def _parents(self, root: _Root, start: int, count: int, bottom: int) -> tuple[Words, NDArray[np.uint8]]:
        # The entries one level above the bottom that cover the range.  An entry that is no table stands, with its own
        # level, for all that lies below it.
        last = start + (count << 3 + 9 * bottom) - 1
        words = np.array([root.frame << 12 | 1], dtype=np.uint64)
        levels = np.array([root.levels + 1], dtype=np.uint8)
        for level in range(root.levels, bottom, -1):
            is_table = _points_to_tables(words, levels, level + 1)
            blocks = np.repeat(words, 512).reshape(-1, 512)
            blocks[is_table] = self._tables(_frames(words[is_table]))
            below = np.repeat(np.where(is_table, np.uint8(level), levels), 512)
            shift = 3 + 9 * level
            low = start >> shift & 511
            size = (last >> shift) - (start >> shift) + 1
            words, levels = blocks.reshape(-1)[low : low + size], below[low : low + size]
        return words, levels

    def _tables(self, frames: NDArray[np.int64]) -> Words:
        return self._memory.words(frames) if frames.size else np.empty((0, 512), dtype=np.uint64)

    def _still_holds(self, walk: _Walk, root: _Root, start: int, count: int, bottom: int) -> bool:
        parents, _ = self._parents(root, start, count, bottom)
        if not np.array_equal(parents, walk.parents):
            return False
        return all(
            np.array_equal(self._memory.words(walk.frames[low : low + _PIECE]), walk.tables[low : low + _PIECE])
            for low in range(0, walk.frames.size, _PIECE)
        )

    def _error(self, message: str) -> WitnessError:
        return WitnessError(f"physical: {message}", witness=self.name)


def _points_to_tables(words: Words, levels: NDArray[np.uint8], level: int) -> NDArray[np.bool_]:
    # Entries of exactly this level that are present and no huge leaf (which there is at PMD and PUD only).
    tables: NDArray[np.bool_] = (levels == level) & (words & _PRESENT != 0)
    if level in (2, 3):
        tables &= words & _PSE == 0
    return tables


def _frames(words: Words) -> NDArray[np.int64]:
    return ((words & _FRAME) >> np.uint64(12)).astype(np.int64)
