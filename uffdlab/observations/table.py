"""A snapshot as a table, one row a page: CSV and pandas."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from uffdlab import pte
from uffdlab.errors import UsageError
from uffdlab.pte import State

if TYPE_CHECKING:
    import pandas as pd

    from uffdlab.observations.snapshot import Snapshot


def as_csv(snapshot: Snapshot) -> str:
    """Give the text of :meth:`Snapshot.to_csv`."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["page", "address", "word", "level", "frame", *(pte.state_name(state) for state in State)])
    states, known = snapshot.states.tolist(), snapshot.known.tolist()
    for index, (page, address, word, level, frame) in enumerate(
        zip(
            snapshot.pages,
            snapshot.addresses.tolist(),
            snapshot.words.tolist(),
            snapshot.levels.tolist(),
            snapshot.frames().tolist(),
            strict=True,
        )
    ):
        bits = [str(int(bool(states[index] & bit))) if known[index] & bit else "?" for bit in State]
        writer.writerow([page, f"{address:#x}", f"{word:#018x}", level or "?", "" if frame < 0 else frame, *bits])
    return out.getvalue()


def as_pandas(snapshot: Snapshot) -> pd.DataFrame:
    """Give the table of :meth:`Snapshot.to_pandas`."""
    try:
        import pandas as pd  # noqa: PLC0415 - only who asks for it needs it
    except ImportError as error:
        raise UsageError("to_pandas() needs pandas: pip install pandas; to_csv() does without") from error
    frames = snapshot.frames()
    columns: dict[str, Any] = {
        "address": snapshot.addresses,
        "word": snapshot.words,
        "level": pd.array(snapshot.levels.astype(np.int64), dtype="Int64"),
        "frame": pd.array(frames, dtype="Int64"),
    }
    columns["level"][snapshot.levels == 0] = pd.NA
    columns["frame"][frames < 0] = pd.NA
    for state in State:
        column = pd.array(snapshot.has(state), dtype="boolean")
        column[~snapshot.knows(state)] = pd.NA
        columns[pte.state_name(state)] = column
    return pd.DataFrame(columns, index=pd.RangeIndex(snapshot.first, snapshot.first + len(snapshot), name="page"))
