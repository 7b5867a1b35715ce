import struct

import numpy as np
import pytest

from uffdlab.errors import WitnessError
from uffdlab.pte import Category, State, decode_scan, explain_scan
from uffdlab.uapi.protocol.witnesses import ScanRuns
from uffdlab.witnesses.scan import ScanWitness

# Categories whose absence means something: before 7.3, and since (there a missing WRITTEN means nothing).
OLD, NEW = 0xFF, 0x3FF & ~Category.WRITTEN
START = 0x7F00_0000_0000
PAGE = 4096


class Region:
    name, start, pages, page_size = "region", START, 64, PAGE


def answer(*runs, vma_soft_dirty=False):
    entries = [
        entry for low, high, categories in runs for entry in (START + low * PAGE, START + high * PAGE, categories)
    ]
    return ScanRuns(struct.pack(f"<{len(entries)}Q", *entries), vma_soft_dirty, 5)


def read(reply, count, answered=OLD):
    return ScanWitness(lambda *_: reply, answered).read(Region, 0, count)


def test_runs_become_one_entry_for_each_page():
    present = Category.PRESENT | Category.FILE
    found = read(answer((0, 2, present), (2, 3, 0), (3, 5, present | Category.WRITTEN)), 5)
    assert found.entries.tolist() == [present, present, 0, present | 2, present | 2]
    assert found.has(State.PRESENT).tolist() == [True, True, False, True, True]
    assert found.has(State.UFFD_WP).tolist() == [True, True, False, False, False]
    assert found.knows(State.UFFD_WP).all()
    assert not found.knows(State.WRITABLE).any()
    assert (found.frames() == -1).all()


def test_with_rwp_in_the_kernel_only_written_is_evidence_about_uffd_wp():
    entries = [Category.PRESENT, Category.PRESENT | Category.WRITTEN, 0, Category.PRESENT | Category.WPALLOWED]
    states, known = decode_scan(entries, answered=NEW, vma_soft_dirty=False)
    assert (known & State.UFFD_WP != 0).tolist() == [False, True, True, True]
    assert (states & State.UFFD_WP != 0).tolist() == [False, False, False, True]


def test_a_guard_is_recognized_but_another_marker_may_be_a_swap_entry():
    states, known = decode_scan([16, Category.SWAPPED | Category.GUARD], answered=NEW, vma_soft_dirty=True)
    assert not known[0] & (State.SWAPPED | State.MARKER)
    assert known[0] & State.GUARD
    assert states[1] == State.MARKER | State.GUARD
    assert known[1] & State.SWAPPED
    _, older = decode_scan([Category.SWAPPED], answered=OLD, vma_soft_dirty=True)
    assert not older[0] & State.GUARD


def test_huge_is_unknown_for_an_absent_page():
    states, known = decode_scan([Category.HUGE, Category.HUGE | Category.PRESENT], answered=OLD, vma_soft_dirty=True)
    assert not states[0]
    assert not known[0] & State.HUGE
    assert states[1] & known[1] & State.HUGE


@pytest.mark.parametrize(
    ("vma_soft_dirty", "tracks", "expected"), [(False, True, True), (True, True, False), (False, False, False)]
)
def test_soft_dirty_is_known_only_where_the_mapping_is_not_soft_dirty(vma_soft_dirty, tracks, expected):
    _, known = decode_scan([Category.PRESENT], answered=OLD, vma_soft_dirty=vma_soft_dirty, tracks_soft_dirty=tracks)
    assert bool(known[0] & State.SOFT_DIRTY) is expected


def test_every_bit_that_is_set_is_known():
    entries = np.arange(1 << 10, dtype=np.uint64)
    for answered in (OLD, NEW):
        states, known = decode_scan(entries, answered=answered, vma_soft_dirty=False)
        assert not (states & ~known).any()


@pytest.mark.parametrize("entry", [0, 0x3FF, 1 << 63 | 5])
def test_the_explained_bits_add_up_to_the_entry(entry):
    assert sum(bit.value << bit.number for bit in explain_scan(entry)) == entry


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (answer((0, 1, 8)), "not all mapped"),
        (answer((0, 1, 8), (2, 3, 8)), "not all mapped"),
        (answer((1, 3, 8)), "not all mapped"),
        (answer(), "not all mapped"),
        (answer((0, 3, 8), (3, 3, 0)), "do not consist of pages"),
    ],
)
def test_an_impossible_answer_is_an_error(reply, message):
    with pytest.raises(WitnessError, match=message) as caught:
        read(reply, 3)
    assert caught.value.witness == "scan"
