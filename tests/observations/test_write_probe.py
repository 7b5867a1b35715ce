from dataclasses import replace

import numpy as np
import pytest

from uffdlab.observations.cross_examination import CrossExamination
from uffdlab.observations.snapshot import Snapshot
from uffdlab.observations.write_probe import WriteProbe
from uffdlab.pte import State

WRITABLE, PROTECTED, ABSENT = 0x8000_0000_0000_1867, 0x8000_0000_0000_1C65, 0


def snapshot_of(*entries, witness="physical"):
    return Snapshot("r", 0x10000, 4096, witness, np.array(entries, np.uint64), np.ones(len(entries), np.uint8))


def probe(before, after=None, *, trapped=False, refused="", page=0):
    return WriteProbe(
        page, trapped, None, refused, snapshot_of(before), snapshot_of(before if after is None else after)
    )


@pytest.mark.parametrize(
    ("entry", "write", "contradicts"),
    [
        (WRITABLE, probe(WRITABLE), State(0)),
        (WRITABLE, probe(WRITABLE, trapped=True), State.WRITABLE),
        (WRITABLE, probe(WRITABLE, refused="SIGSEGV"), State.WRITABLE),
        (PROTECTED, probe(PROTECTED, trapped=True), State(0)),
        (PROTECTED, probe(PROTECTED), State.WRITABLE),
        (PROTECTED, probe(PROTECTED, WRITABLE), State(0)),  # asynchronous mode: the kernel removed the protection
        (ABSENT, probe(ABSENT, WRITABLE), State(0)),
        (ABSENT, probe(ABSENT, trapped=True), State(0)),
    ],
)
def test_the_result_of_a_write_is_compared_with_the_snapshot(entry, write, contradicts):
    assert write.contradicts(snapshot_of(entry)) == contradicts


def test_a_write_contradicts_a_wrong_witness():
    writes = [probe(WRITABLE), probe(PROTECTED, trapped=True, page=1)]
    assert CrossExamination([snapshot_of(WRITABLE, PROTECTED)], writes).agree
    found = CrossExamination([snapshot_of(WRITABLE, WRITABLE)], writes).disagreements
    assert [(item.page, item.bit, item.second, item.second_entry) for item in found] == [
        (1, State.WRITABLE, "write probe", PROTECTED)
    ]
    assert "page 1, writable: physical read" in str(found[0])


def test_a_write_probe_reports_what_the_write_changed():
    assert str(probe(PROTECTED, trapped=True)) == "a write to page 0 trapped; the page is unchanged"
    assert "refused with SIGBUS" in str(probe(ABSENT, refused="SIGBUS"))
    copied = probe(0x8000_0000_0000_1025, 0x8000_0000_0000_2867)
    assert copied.copied
    assert "succeeded" in str(copied)
    assert "dirty" in str(copied)


# Entries of pagemap without frames, as an unprivileged user reads them.
PRESENT_FILE, PRESENT_PRIVATE = 1 << 63 | 1 << 61, 1 << 63


@pytest.mark.parametrize(
    ("before", "after", "copied"),
    [
        (PRESENT_FILE, PRESENT_PRIVATE, True),  # a page of the file, then a private copy
        (PRESENT_FILE, PRESENT_FILE, None),
        (PRESENT_PRIVATE, PRESENT_PRIVATE, None),
        (0, PRESENT_PRIVATE, False),  # there was nothing to copy
        (PRESENT_PRIVATE | 5, PRESENT_PRIVATE | 5, False),
        (PRESENT_PRIVATE | 5, PRESENT_PRIVATE | 6, True),
    ],
)
def test_a_copy_on_write_is_detected_without_frames_or_reported_as_unknown(before, after, copied):
    write = WriteProbe(
        0,
        False,
        None,
        "",
        *(replace(snapshot_of(entry, witness="pagemap"), form="pagemap") for entry in (before, after)),
    )
    assert write.copied is copied
