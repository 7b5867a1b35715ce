"""Rows as the columns that they are made of, in one run of bytes; ``columns.js`` takes them apart again.

Eight bytes with the number of rows, then each column, filled up to eight bytes: numbers little-endian, or for texts
where each ends (uint32) and then all of them as UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_ALIGNED = 8


def numbers(values: Iterable[float], dtype: str) -> bytes:
    """Pack a column of numbers; `dtype` as of numpy: ``"f8"``, ``"i4"``, ``"u1"``."""
    return _filled(np.array(list(values), dtype=f"<{dtype}").tobytes())


def texts(values: Iterable[str]) -> bytes:
    """Pack a column of texts."""
    encoded = [value.encode() for value in values]
    ends = np.cumsum([len(each) for each in encoded], dtype="<u4")
    return _filled(ends.tobytes()) + _filled(b"".join(encoded))


def packed(rows: int, *columns: bytes) -> bytes:
    """Put columns of so many rows together."""
    return rows.to_bytes(_ALIGNED, "little") + b"".join(columns)


def _filled(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNED)
