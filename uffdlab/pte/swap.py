"""Swap entries and PTE markers, which all formats have in common; and the bit operations that the decoders share."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from uffdlab.pte.states import ALL, KINDS, Bit, State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Entries: TypeAlias = NDArray[np.uint64]
    Levels: TypeAlias = NDArray[np.uint8]
    Flags: TypeAlias = NDArray[np.uint32]
    # Lowest bit, width, name, meaning; and what it means if it is zero, where that is something else.
    Field: TypeAlias = tuple[int, int, str, str] | tuple[int, int, str, str, str]

# The types above the swap files are handed out downwards from 31, and which exist depends on the kernel's configuration
# and age (include/linux/swap.h).  The marker is the topmost, 31, except up to 6.1 (until commit 15520a3f0469 in 6.2),
# where SWP_SWAPIN_ERROR is 31 and the marker 30.  Other entries of these types hold a page frame number. The kernel
# never hands out the first frames, so a small offset with one of these two types is a marker.
_MARKER_TYPES = (30, 31)
_MARKER_UFFD_WP, _MARKER_POISON, _MARKER_GUARD = (
    1,
    2,
    4,
)  # swapops.h: PTE_MARKER_*; 5.19, 6.6 (6.2 as SWAPIN_ERROR), 6.13
_MARKER_LIMIT = 8
_SURE_SWAP_TYPES = 22  # 32 - device 4 - migration 3 - hwpoison 1 - marker 1 - swapin error 1


def classify(kinds: Entries, offsets: Entries) -> tuple[Flags, Flags]:
    """Return the states and known bits of swap entries and markers, of KINDS and UFFD_WP only; uint32, shape (n,)."""
    marker = (kinds >= _MARKER_TYPES[0]) & (offsets > 0) & (offsets < _MARKER_LIMIT)
    # Type 31 with anything else: a swap-in error of 6.1 or a marker bit newer than this table.
    unclear = ~marker & (kinds == _MARKER_TYPES[1])
    states = np.where(marker, np.uint32(State.MARKER), np.uint32(State.SWAPPED))
    for bit, state in ((_MARKER_UFFD_WP, State.UFFD_WP), (_MARKER_POISON, State.POISON), (_MARKER_GUARD, State.GUARD)):
        states |= np.where(marker & (offsets & np.uint64(bit) != 0), np.uint32(state), np.uint32(0))
    states[unclear] = 0
    known = np.where(unclear, np.uint32(0), np.uint32(KINDS))
    return states, known


def marker_meaning(kind: int, offset: int) -> str:
    """Describe what a marker stores; empty if the entry is not a marker."""
    names = [
        name
        for bit, name in ((_MARKER_UFFD_WP, "uffd-wp"), (_MARKER_POISON, "poison"), (_MARKER_GUARD, "guard"))
        if offset & bit
    ]
    if kind in _MARKER_TYPES and 0 < offset < _MARKER_LIMIT:
        return "marker: " + ", ".join(names)
    return ""


def kind_meaning(kind: int, offset: int) -> str:
    """Describe a swap entry by its type."""
    if marker_meaning(kind, offset):
        return "PTE marker"
    if kind < _SURE_SWAP_TYPES:
        return f"swap file {kind}"
    if kind == _MARKER_TYPES[1]:
        return "swap-in error (6.1), or a marker with an unknown bit"
    return "swap file, bad page, migration or device page, as the kernel was configured"


def set_where(states: Flags, where: NDArray[np.bool_], state: State) -> None:
    """Set bits in place, where `where` is true."""
    states |= np.where(where, np.uint32(state), np.uint32(0))


def bit(entries: Entries, number: int) -> NDArray[np.bool_]:
    """Return where bit `number` is set; bool, shape (n,)."""
    found: NDArray[np.bool_] = (entries & np.uint64(1 << number)) != 0
    return found


def arrays(entries: ArrayLike, levels: ArrayLike) -> tuple[Entries, Levels]:
    """Return both as arrays of the same shape: uint64 and uint8."""
    array = np.ascontiguousarray(entries, dtype=np.uint64)
    return array, np.broadcast_to(np.asarray(levels, dtype=np.uint8), array.shape)


def forget(states: Flags, known: Flags, state: State) -> None:
    """Make `state` unknown everywhere, in place."""
    states &= np.uint32(~state & ALL)
    known &= np.uint32(~state & ALL)


def split(entry: int, fields: Sequence[Field]) -> list[Bit]:
    """Split an entry into fields."""
    found = []
    for low, width, name, *meanings in fields:
        value = entry >> low & (1 << width) - 1
        found.append(Bit(low, name, value, meanings[0 if value else -1], width))
    return found
