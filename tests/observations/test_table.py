"""The columns of a snapshot as CSV and as a data frame."""

import numpy as np
import pytest

from uffdlab.observations.snapshot import Snapshot
from uffdlab.observations.table import as_csv, as_pandas
from uffdlab.pte import State, state_name

COLUMNS = {
    "page": np.array([5, 6]),
    "address": np.array([0x5000, 0x6000], dtype=np.uint64),
    "entry": np.array([0x867, 0], dtype=np.uint64),
    "level": np.array([1, 0], dtype=np.uint8),
    "frame": np.array([0x42, -1]),
    "present": np.array([1, 0], dtype=np.int8),
    "file": np.array([-1, -1], dtype=np.int8),
}


def test_csv_shows_unknown_values_as_question_marks():
    assert as_csv(COLUMNS) == (
        "page,address,entry,level,frame,present,file\n"
        "5,0x5000,0x0000000000000867,1,66,1,?\n"
        "6,0x6000,0x0000000000000000,?,,0,?\n"
    )


def test_a_data_frame_shows_unknown_values_as_na():
    pandas = pytest.importorskip("pandas")
    table = as_pandas(COLUMNS)
    assert table.index.tolist() == [5, 6]
    assert table["frame"].tolist() == [0x42, pandas.NA]
    assert table["present"].tolist() == [True, False]
    assert table["file"].isna().all()


def test_a_snapshot_has_one_column_for_each_bit():
    entries = np.array([0x867, 0], dtype=np.uint64)
    columns = Snapshot("r", 0x5000, 4096, "physical", entries, np.ones(2, np.uint8), first=5).columns()
    assert list(columns) == ["page", "address", "entry", "level", "frame", *(state_name(bit) for bit in State)]
    assert {column.shape for column in columns.values()} == {(2,)}
    assert columns["page"].tolist() == [5, 6]
    assert columns["frame"].tolist() == [0, -1]
    assert columns["present"].tolist() == [1, 0]
    assert columns[state_name(State.EXCLUSIVE)].tolist() == [-1, 0]


def test_a_snapshot_without_pages_is_a_table_without_rows():
    empty = Snapshot("r", 0, 4096, "physical", np.zeros(0, np.uint64), np.zeros(0, np.uint8))
    assert len(empty.to_csv().splitlines()) == 1
    pytest.importorskip("pandas")
    assert len(empty.to_pandas()) == 0
