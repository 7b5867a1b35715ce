"""docs/reference/uffd-unit-tests.md agrees with the tests of tests/vm."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = ("test_behaviour_uffd_unit", "test_behaviour_rwp", "test_behaviour_changing")
KERNEL_ALL = {"anon", "shmem", "shmem-private", "hugetlb", "hugetlb-private"}
OUR_ALL = KERNEL_ALL | {"anon-shared", "tmpfs"}


def rows():
    """Return for each row: the kernel's test and its memory, our test and its memory (None if it has no choice)."""
    lines = (ROOT / "docs/reference/uffd-unit-tests.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [
        (
            kernel_test,
            _memory(kernel_memory, KERNEL_ALL),
            our_test.strip("`"),
            None if our_memory == "—" else _memory(our_memory, OUR_ALL),
        )
        for kernel_test, kernel_memory, our_test, our_memory, _ in cells[2:]
    ]


def _memory(cell, everything):
    return everything if cell == "all" else set(cell.split(", "))


@pytest.fixture(scope="module")
def tests():
    """Return the memory types of each behaviour test by its name."""
    found = {}
    for name in FILES:
        module = importlib.import_module(f"tests.vm.{name}")
        for test, function in vars(module).items():
            if test.startswith("test_"):
                marks = [mark for mark in getattr(function, "pytestmark", []) if mark.args[:1] == ("memory",)]
                found[test] = set(marks[0].args[1]) if marks else None
        assert set(module.LINES) == {"6.1-series", "debian/trixie", "debian/trixie-backports"}
    return found


@pytest.mark.parametrize(("kernel_test", "kernel_memory", "our_test", "our_memory"), rows())
def test_our_test_has_every_memory_of_the_kernel_s_test(tests, kernel_test, kernel_memory, our_test, our_memory):
    assert tests[our_test] == our_memory
    if (
        our_memory is not None and "move-pmd" not in kernel_test
    ):  # the kernel's test takes THP for a mode of anon, ours for a memory
        assert kernel_memory <= our_memory


def test_every_behaviour_test_is_in_the_table_or_is_our_own(tests):
    own = {name for name in tests if name not in {our_test for _, _, our_test, _ in rows()}}
    assert own == {
        "test_move_to_an_overlapping_range",
        "test_faults_of_every_kind_of_access",
        "test_wp_marks_of_a_range_that_is_registered_again_without_wp",
        "test_access_to_an_unprotected_page_causes_no_fault",
        "test_a_copy_that_was_interrupted_is_resumed",
        "test_resume_waits_until_the_mappings_no_longer_change",
        "test_a_call_waits_for_its_event_to_be_read",
        "test_a_handler_and_unread_messages_exclude_each_other",
        "test_the_list_of_ioctls_with_an_output_field_is_complete",
    }


def test_all_in_the_table_is_every_memory_of_the_test(tests):
    assert tests["test_zeropage"] == OUR_ALL
    assert re.match(r"[a-z-]+$", rows()[0][0])
