"""Every kind of memory on a real kernel: mapped, faulted, read from its page tables, swapped out."""

import pytest

from uffdlab.errors import UsageError
from uffdlab.lab import Lab
from uffdlab.pte import State
from uffdlab.uapi.memory import MEMORY

from ..unprivileged import UNPRIVILEGED
from .lab_fixtures import LINES, LOCAL, on_each, sees_entries, with_swap

pytestmark = [pytest.mark.vm, pytest.mark.long]

lab = on_each(*LINES, LOCAL, UNPRIVILEGED)

IN_A_SMALL_GUEST = [name for name in MEMORY if "1g" not in name]


def pages_of(memory):
    return max(4, MEMORY[memory].unit // MEMORY[memory].page_size)


@pytest.mark.parametrize("memory", IN_A_SMALL_GUEST)
def test_each_kind_of_memory_has_the_expected_entries_and_alias(lab, memory):
    kind = MEMORY[memory]
    pages = pages_of(memory)
    region = lab.map(pages=pages, memory=memory)
    region.fill(1)
    state = region.snapshot()
    raw = sees_entries(lab)
    assert state.has(State.PRESENT | State.WRITABLE if raw else State.PRESENT).all()
    if memory == "shmem-thp" and "6.1" in lab.kernel and set(state.levels) == {1}:
        pytest.skip("built with CONFIG_BASE_SMALL, 6.1's page cache cannot hold huge pages (MAX_XAS_ORDER is 7)")
    assert state.levels.tolist() == [(2 if kind.thp or kind.hugetlb else 1) if raw else 0] * pages
    if kind.has_alias:
        assert region.alias.read(2).result() == (3 if kind.shared else 0)
        region.alias.write(2, 99).result()
        assert region.read(2).result() == (99 if kind.shared else 3)
    examined = lab.cross_examine(region)
    assert not examined.disagreements, str(examined)
    region.unmap()


@pytest.mark.parametrize("memory", IN_A_SMALL_GUEST)
def test_a_missing_fault_is_resolved_by_copy(lab, memory):
    region = lab.map(pages=pages_of(memory), memory=memory)
    with lab.userfaultfd() as uffd:
        uffd.register(region, "missing", "wp")
        touch = region.read(3)
        fault = uffd.read_fault()
        assert (fault.page, fault.missing, fault.write) == (3, True, False)
        uffd.copy(region[3], (0xABC).to_bytes(8, "little"), wp=True)
        assert touch.result() == 0xABC
        state = region[3].snapshot()
        assert state.has(State.PRESENT | State.UFFD_WP).all()
        if sees_entries(lab):
            assert state.lacks(State.WRITABLE).all()
        write = region.write(3, 5)
        assert uffd.read_fault().wp
        uffd.writeprotect(region[3], wp=False)
        write.result()
        assert region.read(3).result() == 5
    region.unmap()


@pytest.mark.parametrize("memory", ["anon", "shmem"])
def test_a_page_that_was_swapped_out_keeps_its_content_and_its_wp_bit(lab, memory):
    with_swap(lab)
    region = lab.map(pages=16, memory=memory)
    region.fill(7)
    try:
        with lab.userfaultfd() as uffd:
            uffd.register(region, "wp")
            uffd.writeprotect(region)
            region.page_out()
            state = region.snapshot("pagemap")
            absent = state.lacks(State.PRESENT)
            assert absent.sum() >= 12, "MADV_PAGEOUT took too few pages"
            assert state.has(State.UFFD_WP).all()
            page = int(absent.argmax())
            assert region.read(page).result() == 7 + page
            assert region[page].snapshot().has(State.UFFD_WP)[0]
    finally:
        region.unmap()


def test_a_page_of_1_gib_is_mapped_by_continue():
    with Lab("6.1-series", memory_mib=5120) as lab:
        region = lab.map(pages=1, memory="hugetlb-1g")
        region.alias.write(0, 42).result(60)
        with lab.userfaultfd() as uffd:
            uffd.register(region, "minor", "wp")
            touch = region.read(0)
            assert uffd.read_fault().minor
            uffd.continue_(region, wp=True)
            assert touch.result() == 42
            state = region.snapshot()
            assert state.levels.tolist() == [3]
            assert state.has(State.UFFD_WP)[0]


def test_too_many_pages_of_1_gib_are_refused(lab):
    if not sees_entries(lab):
        pytest.skip("a host may have them, and a test must not use them up")
    with pytest.raises(UsageError, match="huge pages of 1 GiB are needed"):
        lab.map(pages=1, memory="hugetlb-1g")
