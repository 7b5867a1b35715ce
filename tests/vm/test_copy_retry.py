"""UFFDIO_COPY while its destination changes: copy-retry/ must get the results that copy_retry.py expects.

If the source is absent, the kernel copies without its locks and then looks up the destination again.  It must compare
what it finds with what it had before.
"""

import itertools
import re
import shutil

import pytest

from uffdlab.lab import Lab

from .copy_retry import (
    KINDS,
    SERIES,
    Case,
    Difference,
    compared,
    compile_program,
    expected,
    read,
    run_cases,
    unexpected,
)

CHANGES = (
    *("nothing", "gone", "half-gone", "moved", "mapped-again", "other-offset", "unregistered", "without-wp", "only-wp"),
    *("only-minor", "other-uffd", "read-only", "no-access", "half-read-only", "empty", "half", "dropped", "punched"),
    *("filled-elsewhere", "copied-already", "changing", "giant"),
)
REPLACEMENTS = tuple(f"to-{kind}" for kind in KINDS)
FULL = tuple(f"to-full-{kind}" for kind in KINDS)
# Changes, the page of the source that is absent, and the mode.
PARTS = (
    ((*CHANGES, *REPLACEMENTS, *FULL), 0, 0),
    (("nothing", "without-wp", "only-wp", "only-minor", "read-only", *REPLACEMENTS), 0, 2),
    ((*CHANGES, *REPLACEMENTS), 512, 0),
)
ALL_BUT_THE_ERRNO = frozenset(Difference) - {Difference.EINVAL_FIRST}
NEWEST = frozenset({Difference.EINVAL_FIRST, Difference.HUGE_FILLS_ANOTHER, Difference.HUGE_PAST_THE_END})
KNOWN = {
    "6.1-base": ALL_BUT_THE_ERRNO,
    "6.1-series": SERIES,
    "debian/trixie": ALL_BUT_THE_ERRNO - {Difference.RESERVES_ONCE},
    "debian/trixie-backports": NEWEST,
}
REPORT = re.compile(r"BUG|WARNING|Oops|Bad page|Bad rss|kernel tried|unable to handle")

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return compile_program(tmp_path_factory.mktemp("copy_retry"))


def error_lines(lab):
    return [line for line in lab.exec(["dmesg"]).text.splitlines() if REPORT.search(line)]


@pytest.mark.vm
@pytest.mark.timeout(600)
def test_a_mapping_that_replaces_the_destination_gets_no_foreign_content(program):
    """A short form of the next test."""
    starts = ("anon", "shmem", "hugetlb-private")
    changes = ("nothing", "gone", "without-wp", "half", "to-shmem", "to-hugetlb", "to-full-hugetlb")
    with Lab("6.1-series", hugepages=16) as lab:
        assert unexpected(run_cases(lab, program, starts, changes, 0, 0), KNOWN["6.1-series"]) == {}
        assert error_lines(lab) == []


@pytest.mark.vm
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kernel", KNOWN)
def test_copy_ends_as_expected_for_every_change_to_every_kind_of_memory(program, kernel):
    with Lab(kernel, hugepages=16) as lab:
        found = {}
        for part in PARTS:
            found |= run_cases(lab, program, tuple(KINDS), *part)
        assert unexpected(found, KNOWN[kernel]) == {}
        assert error_lines(lab) == []


CASES = [
    Case(start, change, held > 0, mode > 0)
    for changes, held, mode in PARTS
    for start, change in itertools.product(KINDS, changes)
]


@pytest.mark.parametrize("difference", Difference)
def test_each_difference_changes_an_expected_result(difference):
    assert any(expected(case) != expected(case, frozenset({difference})) for case in CASES if case.possible)


def test_foreign_content_is_never_expected():
    line = (
        "start=anon change=to-hugetlb held=0 mode=0 errno=0 result=4194304 pages=p1024 content=s1,x423,z88,s512 "
        "write=w blocks=1024 old_blocks=-1 huge=2 reserved=0 "
        "left_used=0 left_reserved=0 left_surplus=0 rounds=3 lost=0 same=0"
    )
    case, result = read(line)
    assert {name for name, value, wanted in compared(result, expected(case, ALL_BUT_THE_ERRNO)) if value != wanted} == {
        "content", "leaks_pages", "same_in_each_round",
    }  # fmt: skip
