"""Page numbers as text: ``page 3``, ``pages 3–7``, ``0–31, 40``."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_SHOWN_RANGES = 8


def page_range_text(first: int, last: int) -> str:
    """Return a run of pages as text: ``page 3``, ``pages 3–7``."""
    return f"page {first}" if first == last else f"pages {first}–{last}"


def page_ranges(pages: Iterable[int]) -> str:
    """Return page numbers as text: ``0–31, 40, 48–63``; after the eighth range, an ellipsis."""
    numbers = np.asarray(sorted(pages), dtype=np.int64)
    if not numbers.size:
        return ""
    ends = [*(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist(), numbers.size]
    ranges, low = [], 0
    for end in ends:
        first, last = int(numbers[low]), int(numbers[end - 1])
        ranges.append(str(first) if first == last else f"{first}–{last}")
        low = end
    shown = ranges[:_SHOWN_RANGES]
    return ", ".join([*shown, "…"] if len(ranges) > len(shown) else shown)
