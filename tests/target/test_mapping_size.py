"""How much of which memory can be asked for."""

import pytest

from uffdlab.errors import UsageError
from uffdlab.target.mapping_size import page_count, reserve
from uffdlab.uapi.memory import MEMORY

HUGE = 2 << 20


@pytest.mark.parametrize(
    ("memory", "asked", "count"),
    [
        ("shmem", {"pages": 3}, 3),
        ("shmem", {"size": 3 * 4096}, 3),
        ("hugetlb", {"pages": 2, "page_size": HUGE}, 2),
        ("hugetlb", {"size": 2 * HUGE}, 2),
        ("thp", {"pages": 512}, 512),
    ],
)
def test_pages_or_bytes(memory, asked, count):
    asked = {"pages": None, "size": None, "page_size": None, **asked}
    assert page_count(memory, **asked) == (MEMORY[memory], count)


@pytest.mark.parametrize(
    ("memory", "asked", "message"),
    [
        ("shmen", {"pages": 1}, r"no memory 'shmen'; the kinds are 'anon'"),
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
def test_an_impossible_size_is_refused(memory, asked, message):
    asked = {"pages": None, "size": None, "page_size": None, **asked}
    with pytest.raises(UsageError, match=message):
        page_count(memory, **asked)


@pytest.mark.parametrize(("memory", "wanted"), [("hugetlb", 3), ("hugetlb-private", 6)])
def test_huge_pages_are_reserved_also_for_the_alias_of_a_private_mapping(memory, wanted):
    asked = []

    def free(page_size, pages):
        asked.append((page_size, pages))
        return pages

    reserve(MEMORY[memory], 3, free)
    assert asked == [(HUGE, wanted)]


def test_other_memory_reserves_none():
    reserve(MEMORY["shmem"], 3, lambda *_: pytest.fail("nothing is to be reserved"))


def test_too_few_huge_pages():
    with pytest.raises(UsageError, match=r"3 huge pages of 2 MiB are needed, and the guest has 1 free.*memory_mib"):
        reserve(MEMORY["hugetlb"], 3, lambda *_: 1)
