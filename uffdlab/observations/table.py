"""The columns of a snapshot as a table with a row for each page: CSV and pandas."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from uffdlab.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from numpy.typing import NDArray

    Columns = Mapping[str, NDArray[Any]]

_NUMBERS = ("page", "address", "entry", "level", "frame")  # the other columns are bits
_BIT = {1: "1", 0: "0", -1: "?"}


def as_csv(columns: Columns) -> str:
    """Return the columns of :meth:`Snapshot.columns` as the text of :meth:`Snapshot.to_csv`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for page, address, entry, level, frame, *bits in zip(*(each.tolist() for each in columns.values()), strict=True):
        where = [page, f"{address:#x}", f"{entry:#018x}", level or "?", "" if frame < 0 else frame]
        writer.writerow([*where, *(_BIT[bit] for bit in bits)])
    return out.getvalue()


def as_pandas(columns: Columns) -> pd.DataFrame:
    """Return the columns of :meth:`Snapshot.columns` as the table of :meth:`Snapshot.to_pandas`."""
    try:
        import pandas as pd  # noqa: PLC0415 - only who asks for it needs it
    except ImportError as error:
        raise UsageError("to_pandas() needs pandas: pip install pandas; to_csv() works without it") from error
    table: dict[str, Any] = {
        "address": columns["address"],
        "entry": columns["entry"],
        "level": pd.array(columns["level"].astype(np.int64), dtype="Int64"),
        "frame": pd.array(columns["frame"], dtype="Int64"),
    }
    table["level"][columns["level"] == 0] = pd.NA
    table["frame"][columns["frame"] < 0] = pd.NA
    for name, bit in columns.items():
        if name not in _NUMBERS:
            table[name] = pd.array(bit == 1, dtype="boolean")
            table[name][bit < 0] = pd.NA
    page = columns["page"]
    first = int(page[0]) if page.size else 0
    return pd.DataFrame(table, index=pd.RangeIndex(first, first + page.size, name="page"))
