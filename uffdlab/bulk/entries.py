"""Page-table entries by the million, in C: reading them out of a guest's RAM, and decoding.

The C code knows how tables are linked (Intel SDM vol. 3, 4.5).  What the bits of an entry mean it is told by a
:class:`Decoder`, which :mod:`uffdlab.pte` makes.
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
"""Stands among the known bits of an entry that a :class:`Decoder` leaves to the caller."""


class OutsideRam(Exception):
    """A table is said to lie at a frame that is not RAM."""

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
    """Number of the entry in its table."""
    word: int
    """The raw entry."""


class Reading(NamedTuple):
    """Entries as they were read; all arrays have one element a page."""

    words: NDArray[np.uint64]
    levels: NDArray[np.uint8]
    states: NDArray[np.uint32]
    known: NDArray[np.uint32]
    odd: int
    """Of how many `known` is :data:`ODD`."""


class Decoder:
    """Tells the states of plain entries, those that a few low bits decide.

    Parameters
    ----------
    low : ndarray of uint32, shape (8192,)
        States by bits 11:0 of the entry, and bit 12 set for an entry above the PTE level.
    plain : (int, int)
        An entry is plain if, under this mask, it equals this value.
    known, known_empty : int
        Which bits are known of a plain entry, and of one that is 0.
    """

    def __init__(self, low: NDArray[np.uint32], plain: tuple[int, int], known: int, known_empty: int) -> None:
        self._low = np.ascontiguousarray(low, dtype=np.uint32)
        assert self._low.shape == (8192,)
        self.c = ffi.new("struct bulk_decoder *")
        self.c.low = ffi.from_buffer("uint32_t[]", self._low)
        self.c.plain_mask, self.c.plain = plain
        self.c.known_plain, self.c.known_empty, self.c.odd = known, known_empty, int(ODD)

    def decode(self, words: NDArray[np.uint64], above: bool) -> tuple[NDArray[np.uint32], NDArray[np.uint32], int]:
        """Decode entries that all are, or all are not, above the PTE level; gives states, known, how many are odd."""
        words = np.ascontiguousarray(words, dtype=np.uint64)
        states, known = (np.empty(words.shape, dtype=np.uint32) for _ in range(2))
        odd = lib.bulk_decode(
            self.c, _of("uint64_t[]", words), words.size, above, _out("uint32_t[]", states), _out("uint32_t[]", known)
        )
        return states, known, int(odd)


class Ram:
    """A guest's RAM as it lies in a file.

    Parameters
    ----------
    words : ndarray of uint64, shape (frames, 512)
        The file; the guest may write to it at any time.
    below : int
        How many of its frames lie below 4 GiB; the rest begins at 4 GiB.
    """

    def __init__(self, words: NDArray[np.uint64], below: int) -> None:
        self._words = words  # keeps it mapped
        self._c = ffi.new("struct bulk_ram *")
        self._c.words = _of("uint64_t[]", words.reshape(-1))
        self._c.below, self._c.above = min(below, len(words)), max(len(words) - below, 0)

    def path(self, root: int, levels: int, address: int) -> list[Step]:
        """Walk from the table at frame `root` to one address; the last step is the entry where the walk ends.

        Raises
        ------
        OutsideRam
        """
        steps, outside = ffi.new("struct bulk_step[]", levels), ffi.new("uint64_t *")
        count = lib.bulk_path(self._c, root, levels, address, steps, outside)
        if not count:
            raise OutsideRam(int(outside[0]))
        return [Step(step.level, step.table, step.slot, step.word) for step in steps[0:count]]

    def frame(self, frame: int) -> bytes:
        """Copy 4 KiB out of it.

        Raises
        ------
        OutsideRam
        """
        below, above = self._c.below, self._c.above
        if 0 <= frame < below:
            return bytes(self._words[frame])
        if 0 <= frame - _FOUR_GIB_FRAME < above:
            return bytes(self._words[below + frame - _FOUR_GIB_FRAME])
        raise OutsideRam(frame)

    def frames(self, frames: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Copy frames, uint64[n, 512].

        Raises
        ------
        OutsideRam
        """
        rows = np.where(frames >= _FOUR_GIB_FRAME, frames - _FOUR_GIB_FRAME + self._c.below, frames)
        high = (frames >= _FOUR_GIB_FRAME) & (frames < _FOUR_GIB_FRAME + self._c.above)
        outside = ~(((frames >= 0) & (frames < self._c.below)) | high)
        if outside.any():
            raise OutsideRam(int(frames[outside][0]))
        return np.take(self._words, rows, axis=0)

    def read(self, root: int, levels: int, start: int, count: int, bottom: int, decoder: Decoder) -> Reading | None:
        """Read the entries of `count` pages at level `bottom`, or None if a table changed while it was read.

        Where an entry above the bottom is no table, it stands with its own level for all that lies below it.

        Raises
        ------
        OutsideRam
        """
        # In one block: malloc keeps one for the next time, but would give four back to the kernel, and new memory costs
        # ten times as much as what is done here.
        block = np.empty(17 * count, dtype=np.uint8)
        words = block[: 8 * count].view(np.uint64)
        states, known = (block[at * count : (at + 4) * count].view(np.uint32) for at in (8, 12))
        levels_ = block[16 * count :]
        c = ffi.new("struct bulk_reading *")
        c.start, c.count, c.bottom = start, count, bottom
        c.words, c.levels = _out("uint64_t[]", words), _out("uint8_t[]", levels_)
        c.states, c.known = _out("uint32_t[]", states), _out("uint32_t[]", known)
        end = lib.bulk_read(self._c, decoder.c, root, levels, c)
        if end == lib.BULK_OUTSIDE:
            raise OutsideRam(int(c.outside))
        if end == lib.BULK_CHANGED:
            return None
        if c.alike and count:
            levels_ = np.broadcast_to(np.uint8(c.level), count)
            states, known = (np.broadcast_to(np.uint32(each), count) for each in (c.state, c.told))
        return Reading(words, levels_, states, known, int(c.odd))


def _of(kind: str, array: NDArray[Any]) -> Any:
    return ffi.from_buffer(kind, array)


def _out(kind: str, array: NDArray[Any]) -> Any:
    return ffi.from_buffer(kind, array, require_writable=True)
