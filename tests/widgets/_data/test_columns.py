"""Packed columns: the bytes that the JavaScript unpacks."""

from uffdlab.widgets._data import columns

# The same as in tests/widgets-js/unpack_columns.test.js.
BYTES = "0300000000000000000000000000f83f00000000000002c000000000000008400200000002000000060000000000000"
BYTES += "0c3a97061676500" + "00"


def test_columns_are_packed_as_the_javascript_expects():
    packed = columns.packed(3, columns.numbers([1.5, -2.25, 3], "f8"), columns.texts(["é", "", "page"]))
    assert packed.hex() == BYTES


def test_each_column_begins_at_a_multiple_of_eight():
    for rows in range(12):
        numbers, texts = columns.numbers(range(rows), "u1"), columns.texts(["x"] * rows)
        assert len(numbers) % 8 == len(texts) % 8 == 0
        assert columns.packed(rows, numbers, texts)[:8] == rows.to_bytes(8, "little")
