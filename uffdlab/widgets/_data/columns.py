"""Pack the columns of a table into one byte string; ``unpack_columns.js`` unpacks it.

The first eight bytes are the number of rows.  Then comes each column, padded to a multiple of eight bytes.  A column of
numbers is little-endian.  A column of texts has the end of each text (uint32), then all texts as UTF-8.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_ALIGNED = 8


def numbers(values: Iterable[float], dtype: str) -> bytes:
    """Return a packed column of numbers; `dtype` is that of numpy: ``"f8"``, ``"i4"``, ``"u1"``."""
    return _filled(np.array(list(values), dtype=f"<{dtype}").tobytes())


def texts(values: Iterable[str]) -> bytes:
    """Return a packed column of texts."""
    encoded = [value.encode() for value in values]
    ends = np.cumsum([len(each) for each in encoded], dtype="<u4")
    return _filled(ends.tobytes()) + _filled(b"".join(encoded))


def packed(rows: int, *columns: bytes) -> bytes:
    """Return the packed table of these columns, each with `rows` rows."""
    return rows.to_bytes(_ALIGNED, "little") + b"".join(columns)


def _filled(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNED)
