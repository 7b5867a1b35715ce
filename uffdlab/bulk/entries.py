"""Read millions of page-table entries from a guest's RAM and decode them, in C.

The C code knows how tables are linked (Intel SDM vol. 3, 4.5). A :class:`Decoder`, which :mod:`uffdlab.pte` makes,
defines what the bits of an entry mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from uffdlab.bulk._bulk import ffi, lib

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ODD", "Decoder", "OutsideRam", "Ram", "Reading", "Step"]

_FOUR_GIB_FRAME = 1 << 20

ODD = np.uint32(0xFFFFFFFF)
"""The value of `known` for an entry that a :class:`Decoder` cannot decode; the caller must decode it."""


class OutsideRam(Exception):
    """An entry points to a table at a frame that is not RAM.

    Attributes
    ----------
    frame : int
        The page frame number.
    """

    def __init__(self, frame: int) -> None:
        super().__init__(f"frame {frame:#x} is not RAM")
        self.frame = frame


class Step(NamedTuple):
    """One entry on the way from the top table to a page."""

    level: int
    """5 or 4 at the top, 1 = PTE."""
    table: int
    """Page frame of the table."""
    slot: int
    """Index of the entry in its table, 0 to 511."""
    entry: int
    """The raw entry."""


class Reading(NamedTuple):
    """Entries as they were read. Each array has one element for each page."""

    entries: NDArray[np.uint64]
    levels: NDArray[np.uint8]
    states: NDArray[np.uint32]
    known: NDArray[np.uint32]
    odd: int
    """The number of entries whose `known` is :data:`ODD`."""


class Decoder:
    """Decodes plain entries: those whose states depend only on their low bits.

    Parameters
    ----------
    low : ndarray of uint32, shape (8192,)
        The states. The index is bits 11:0 of the entry, and bit 12 is set for an entry above the PTE level.
    plain : (int, int)
        A mask and a value. An entry is plain if its bits in the mask equal the value.
    known, known_empty : int
        The known states of a plain entry, and of an entry that is 0.
    """

    def __init__(self, low: NDArray[np.uint32], plain: tuple[int, int], known: int, known_empty: int) -> None:
        self._low = np.ascontiguousarray(low, dtype=np.uint32)
        assert self._low.shape == (8192,)
        self.c = ffi.new("struct bulk_decoder *")
        self.c.low = ffi.from_buffer("uint32_t[]", self._low)
        self.c.plain_mask, self.c.plain = plain
        self.c.known_plain, self.c.known_empty, self.c.odd = known, known_empty, int(ODD)

    def decode(self, entries: NDArray[np.uint64], above: bool) -> tuple[NDArray[np.uint32], NDArray[np.uint32], int]:
        """Decode entries.

        Parameters
        ----------
        entries : ndarray of uint64
            The raw entries.
        above : bool
            Whether all of them are above the PTE level; else all are PTEs.

        Returns
        -------
        states, known : ndarray of uint32
        odd : int
            The number of entries whose `known` is :data:`ODD`.
        """
        entries = np.ascontiguousarray(entries, dtype=np.uint64)
        states, known = (np.empty(entries.shape, dtype=np.uint32) for _ in range(2))
        odd = lib.bulk_decode(
            self.c,
            _of("uint64_t[]", entries),
            entries.size,
            above,
            _out("uint32_t[]", states),
            _out("uint32_t[]", known),
        )
        return states, known, int(odd)


class Ram:
    """A guest's RAM in a file.

    Parameters
    ----------
    content : ndarray of uint64, shape (frames, 512)
        The mapped file. The guest may write to it at any time.
    below : int
        The number of frames below 4 GiB. The other frames begin at 4 GiB.
    """

    def __init__(self, content: NDArray[np.uint64], below: int) -> None:
        self._content = content  # keeps the file mapped
        self._c = ffi.new("struct bulk_ram *")
        self._c.frames = _of("uint64_t[]", content.reshape(-1))
        self._c.below, self._c.above = min(below, len(content)), max(len(content) - below, 0)

    def path(self, root: int, levels: int, address: int) -> list[Step]:
        """Walk from the table at frame `root` to one address. The last step is the entry at which the walk ends.

        Raises
        ------
        OutsideRam
            A table is not in RAM.
        """
        steps, outside = ffi.new("struct bulk_step[]", levels), ffi.new("uint64_t *")
        count = lib.bulk_path(self._c, root, levels, address, steps, outside)
        if not count:
            raise OutsideRam(int(outside[0]))
        return [Step(step.level, step.table, step.slot, step.entry) for step in steps[0:count]]

    def frame(self, frame: int) -> bytes:
        """Return a copy of a frame, 4096 bytes.

        Raises
        ------
        OutsideRam
            The frame is not in RAM.
        """
        below, above = self._c.below, self._c.above
        if 0 <= frame < below:
            return bytes(self._content[frame])
        if 0 <= frame - _FOUR_GIB_FRAME < above:
            return bytes(self._content[below + frame - _FOUR_GIB_FRAME])
        raise OutsideRam(frame)

    def frames(self, frames: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Return copies of n frames, an array of uint64 with shape (n, 512).

        Raises
        ------
        OutsideRam
            A frame is not in RAM.
        """
        rows = np.where(frames >= _FOUR_GIB_FRAME, frames - _FOUR_GIB_FRAME + self._c.below, frames)
        high = (frames >= _FOUR_GIB_FRAME) & (frames < _FOUR_GIB_FRAME + self._c.above)
        outside = ~(((frames >= 0) & (frames < self._c.below)) | high)
        if outside.any():
            raise OutsideRam(int(frames[outside][0]))
        return np.take(self._content, rows, axis=0)

    def read(self, root: int, levels: int, start: int, count: int, bottom: int, decoder: Decoder) -> Reading | None:
        """Read the entries of `count` pages at level `bottom`. Return None if a table changed during the read.

        Parameters
        ----------
        root : int
            The page frame of the top table.
        levels : int
            The number of levels of the page table, 4 or 5.
        start : int
            The address of the first page.

        An entry above the bottom level that does not point to a table is returned, with its own level, for every page
        in its range.

        Raises
        ------
        OutsideRam
            A table is not in RAM.
        """
        # The arrays share one block: malloc keeps one block for the next call, but would return four to the kernel.
        # New memory costs ten times as much time as the read itself.
        block = np.empty(17 * count, dtype=np.uint8)
        entries = block[: 8 * count].view(np.uint64)
        states, known = (block[at * count : (at + 4) * count].view(np.uint32) for at in (8, 12))
        levels_ = block[16 * count :]
        c = ffi.new("struct bulk_reading *")
        c.start, c.count, c.bottom = start, count, bottom
        c.entries, c.levels = _out("uint64_t[]", entries), _out("uint8_t[]", levels_)
        c.states, c.known = _out("uint32_t[]", states), _out("uint32_t[]", known)
        end = lib.bulk_read(self._c, decoder.c, root, levels, c)
        if end == lib.BULK_OUTSIDE:
            raise OutsideRam(int(c.outside))
        if end == lib.BULK_CHANGED:
            return None
        if c.alike and count:
            levels_ = np.broadcast_to(np.uint8(c.alike_level), count)
            states, known = (np.broadcast_to(np.uint32(each), count) for each in (c.alike_state, c.alike_known))
        return Reading(entries, levels_, states, known, int(c.odd))


def _of(kind: str, array: NDArray[Any]) -> Any:
    return ffi.from_buffer(kind, array)


def _out(kind: str, array: NDArray[Any]) -> Any:
    return ffi.from_buffer(kind, array, require_writable=True)
