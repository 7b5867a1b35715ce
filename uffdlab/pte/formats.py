"""The formats of raw words, by name: how each is decoded, where its frame is found, and how it is taken apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

import numpy as np

from uffdlab.pte import arm64, pagemap, scan, x86

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from uffdlab.pte.states import Bit, State

    Words: TypeAlias = NDArray[np.uint64]
    Levels: TypeAlias = NDArray[np.uint8]
    Flags: TypeAlias = NDArray[np.uint32]


class Facts(Protocol):
    """What a decoder must know beside the words: a :class:`uffdlab.observations.snapshot.Snapshot` has it."""

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
    """Where a word holds a page frame number: bits `low` up to, not including, `end`, shifted right by `shift`."""

    low: int
    end: int
    shift: int

    def frames(self, words: Words) -> NDArray[np.int64]:
        """Return what the field holds, as page frame numbers (4 KiB units); int64, shape (n,)."""
        held = words >> np.uint64(self.low) & np.uint64((1 << self.end - self.low) - 1)
        return (held << np.uint64(self.shift)).astype(np.int64)

    def mark(self, words: Words, value: int) -> Words:
        """Return the words with `value` in this field."""
        field = np.uint64((1 << self.end) - (1 << self.low))
        return words & ~field | np.uint64(value << self.low) & field


class Format(NamedTuple):
    """One format of raw words."""

    decode: Callable[[Words, Levels, Facts], tuple[Flags, Flags]]
    """Words, levels and facts → states and known, uint32 of shape (n,)."""
    frames: Callable[[Words, Levels], NDArray[np.int64]]
    """Words and levels → page frame numbers, int64 of shape (n,), -1 where none is known; of a huge leaf the first."""
    explain: Callable[[int, int], list[Bit]]
    """One word and its level → its bits, highest first; put together they are the word."""
    bits: Mapping[State, int]
    """In which bit of a present page's word each state lies."""
    frame_field: Callable[[int], FrameField] | None = None
    """Level → where a present page's word holds its frame; None if it holds none."""


def _of_entries(end: int) -> Callable[[int], FrameField]:
    # A leaf above the PTE level covers 9 bits of the address more for each level.
    def field(level: int) -> FrameField:
        low = 12 + 9 * max(0, level - 1)
        return FrameField(low, end, low - 12)

    return field


FORMATS: Final[dict[str, Format]] = {
    "x86-64": Format(
        lambda words, levels, facts: x86.decode_x86(words, levels, tracks_soft_dirty=facts.tracks_soft_dirty),
        x86.frames_x86,
        x86.explain_x86,
        x86.BITS,
        _of_entries(x86.FRAME_MASK.bit_length()),
    ),
    "arm64": Format(
        lambda words, levels, _facts: arm64.decode_arm64(words, levels),
        arm64.frames_arm64,
        arm64.explain_arm64,
        arm64.BITS,
        _of_entries(arm64.FRAME_MASK.bit_length()),
    ),
    "pagemap": Format(
        lambda words, _levels, facts: pagemap.decode_pagemap(
            words,
            vma_soft_dirty=facts.vma_soft_dirty,
            hugetlb=facts.hugetlb,
            tracks_soft_dirty=facts.tracks_soft_dirty,
        ),
        lambda words, _levels: pagemap.frames_pagemap(words),
        lambda word, _level: pagemap.explain_pagemap(word),
        pagemap.BITS,
        lambda _level: FrameField(0, pagemap.FRAME_MASK.bit_length(), 0),
    ),
    "pagemap-scan": Format(
        lambda words, _levels, facts: scan.decode_scan(
            words,
            answered=facts.answered,
            vma_soft_dirty=facts.vma_soft_dirty,
            tracks_soft_dirty=facts.tracks_soft_dirty,
        ),
        lambda words, _levels: np.full(words.shape, -1, dtype=np.int64),
        lambda word, _level: scan.explain_scan(word),
        scan.BITS,
    ),
}
