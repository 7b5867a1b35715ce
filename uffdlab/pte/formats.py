"""The formats of raw entries, by name: how to decode each, where it holds the page frame, and what its fields mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

import numpy as np

from uffdlab.pte import arm64, pagemap, scan, x86

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from uffdlab.pte.states import Bit, State

    Entries: TypeAlias = NDArray[np.uint64]
    Levels: TypeAlias = NDArray[np.uint8]
    Flags: TypeAlias = NDArray[np.uint32]


class Facts(Protocol):
    """What a decoder must know besides the raw entries; :class:`uffdlab.observations.snapshot.Snapshot` provides it."""

    @property
    def vma_soft_dirty(self) -> bool:
        """See :func:`uffdlab.pte.decode_pagemap`."""

    @property
    def hugetlb(self) -> bool:
        """See :func:`uffdlab.pte.decode_pagemap`."""

    @property
    def tracks_soft_dirty(self) -> bool:
        """False for a kernel without CONFIG_MEM_SOFT_DIRTY."""

    @property
    def answered(self) -> int:
        """See :func:`uffdlab.pte.decode_scan`."""


class FrameField(NamedTuple):
    """Where an entry holds a page frame number: bits `low` up to, not including, `end`, shifted right by `shift`."""

    low: int
    end: int
    shift: int

    def frames(self, entries: Entries) -> NDArray[np.int64]:
        """Return the page frame numbers (4 KiB units) in this field; int64, shape (n,)."""
        held = entries >> np.uint64(self.low) & np.uint64((1 << self.end - self.low) - 1)
        return (held << np.uint64(self.shift)).astype(np.int64)

    def mark(self, entries: Entries, value: int) -> Entries:
        """Return the entries with `value` in this field; uint64, shape (n,)."""
        field = np.uint64((1 << self.end) - (1 << self.low))
        return entries & ~field | np.uint64(value << self.low) & field


class Format(NamedTuple):
    """One format of raw entries."""

    decode: Callable[[Entries, Levels, Facts], tuple[Flags, Flags]]
    """Entries, levels and facts → states and known, uint32 of shape (n,)."""
    frames: Callable[[Entries, Levels], NDArray[np.int64]]
    """Entries and levels → page frame numbers, int64 of shape (n,): -1 where unknown, the first one of a huge leaf."""
    explain: Callable[[int, int], list[Bit]]
    """One entry and its level → its fields, highest bit first; together they cover all 64 bits."""
    bits: Mapping[State, int]
    """The bit number of each state in the entry of a present page."""
    frame_field: Callable[[int], FrameField] | None = None
    """Level → where the entry of a present page holds its frame; None if it holds none."""


def _of_entries(end: int) -> Callable[[int], FrameField]:
    # Each level above the PTE level adds 9 bits to the offset within the page.
    def field(level: int) -> FrameField:
        low = 12 + 9 * max(0, level - 1)
        return FrameField(low, end, low - 12)

    return field


FORMATS: Final[dict[str, Format]] = {
    "x86-64": Format(
        lambda entries, levels, facts: x86.decode_x86(entries, levels, tracks_soft_dirty=facts.tracks_soft_dirty),
        x86.frames_x86,
        x86.explain_x86,
        x86.BITS,
        _of_entries(x86.FRAME_MASK.bit_length()),
    ),
    "arm64": Format(
        lambda entries, levels, _facts: arm64.decode_arm64(entries, levels),
        arm64.frames_arm64,
        arm64.explain_arm64,
        arm64.BITS,
        _of_entries(arm64.FRAME_MASK.bit_length()),
    ),
    "pagemap": Format(
        lambda entries, _levels, facts: pagemap.decode_pagemap(
            entries,
            vma_soft_dirty=facts.vma_soft_dirty,
            hugetlb=facts.hugetlb,
            tracks_soft_dirty=facts.tracks_soft_dirty,
        ),
        lambda entries, _levels: pagemap.frames_pagemap(entries),
        lambda entry, _level: pagemap.explain_pagemap(entry),
        pagemap.BITS,
        lambda _level: FrameField(0, pagemap.FRAME_MASK.bit_length(), 0),
    ),
    "pagemap-scan": Format(
        lambda entries, _levels, facts: scan.decode_scan(
            entries,
            answered=facts.answered,
            vma_soft_dirty=facts.vma_soft_dirty,
            tracks_soft_dirty=facts.tracks_soft_dirty,
        ),
        lambda entries, _levels: np.full(entries.shape, -1, dtype=np.int64),
        lambda entry, _level: scan.explain_scan(entry),
        scan.BITS,
    ),
}
