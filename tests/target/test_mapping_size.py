"""The size of a mapping is checked, and the huge pages it needs are reserved."""

import pytest

from uffdlab.errors import UsageError
from uffdlab.target.mapping_size import page_count, reserve
from uffdlab.uapi.memory import MEMORY

HUGE = 2 << 20


@pytest.mark.parametrize(
    ("memory", "given", "count"),
    [
        ("shmem", {"pages": 3}, 3),
        ("shmem", {"size": 3 * 4096}, 3),
        ("hugetlb", {"pages": 2, "page_size": HUGE}, 2),
        ("hugetlb", {"size": 2 * HUGE}, 2),
        ("thp", {"pages": 512}, 512),
    ],
)
def test_a_size_is_given_in_pages_or_in_bytes(memory, given, count):
    size = {"pages": None, "size": None, "page_size": None, **given}
    assert page_count(memory, **size) == (MEMORY[memory], count)


@pytest.mark.parametrize(
    ("memory", "given", "message"),
    [
        ("shmen", {"pages": 1}, r"no memory 'shmen'; did you mean shmem\? The kinds are 'anon'"),
        ("shmem", {}, "either in pages as pages=…"),
        ("shmem", {"pages": 1, "size": 4096}, "either in pages as pages=…"),
        ("shmem", {"pages": "4"}, "pages='4' is no number"),
        ("shmem", {"pages": True}, "pages=True is no number"),
        ("shmem", {"size": 4097}, "size=4097 is not a positive multiple"),
        ("shmem", {"pages": 0}, "at least 1 page"),
        ("shmem", {"pages": 10**12}, r"128 TiB"),
        ("shmem", {"pages": 1, "page_size": HUGE}, "pages of 4096 bytes, not of 2097152"),
        ("thp", {"pages": 500}, "a multiple of 512 pages"),
    ],
)
def test_an_impossible_size_is_refused(memory, given, message):
    size = {"pages": None, "size": None, "page_size": None, **given}
    with pytest.raises(UsageError, match=message):
        page_count(memory, **size)


@pytest.mark.parametrize(("memory", "expected"), [("hugetlb", 3), ("hugetlb-private", 6)])
def test_huge_pages_are_reserved_and_twice_as_many_for_a_private_mapping_with_its_alias(memory, expected):
    reserved = []

    def reserve_free(page_size, pages):
        reserved.append((page_size, pages))
        return pages

    reserve(MEMORY[memory], 3, reserve_free)
    assert reserved == [(HUGE, expected)]


def test_memory_without_huge_pages_reserves_none():
    reserve(MEMORY["shmem"], 3, lambda *_: pytest.fail("nothing is to be reserved"))


def test_too_few_free_huge_pages_are_refused():
    with pytest.raises(UsageError, match=r"3 huge pages of 2 MiB are needed, and the guest has 1 free.*memory_mib"):
        reserve(MEMORY["hugetlb"], 3, lambda *_: 1)
