"""What the agent reads of /proc/self/pagemap, here of the process of the tests itself."""

import mmap
import os
import struct

import pytest

from uffdlab.agent.native import ffi
from uffdlab.agent.rpc import Refusal
from uffdlab.agent.witnesses.pagemap import PagemapBuffer, all_soft_dirty, check_mapped, read_entries
from uffdlab.agent.witnesses.soft_dirty import SoftDirty, _vm_flags

PRESENT, SOFT_DIRTY = 1 << 63, 1 << 55
BEYOND = 1 << 62  # where no process has memory


@pytest.fixture
def memory():
    """Four pages; the second and the third one are written."""
    with mmap.mmap(-1, 4 * mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as mapped:
        mapped.madvise(mmap.MADV_NOHUGEPAGE)
        mapped[mmap.PAGESIZE], mapped[2 * mmap.PAGESIZE] = 1, 1
        with memoryview(mapped) as view:
            yield int(ffi.cast("uintptr_t", ffi.from_buffer(view)))


def words(entries):
    return struct.unpack(f"<{len(entries) // 8}Q", entries)


def test_the_entry_of_each_page_in_its_place(memory):
    found = words(read_entries(memory, 4, mmap.PAGESIZE))
    assert [bool(entry & PRESENT) for entry in found] == [False, True, True, False]


def test_of_a_larger_page_the_entry_of_its_start(memory):
    assert [bool(entry & PRESENT) for entry in words(read_entries(memory, 2, 2 * mmap.PAGESIZE))] == [False, True]


def test_the_buffer_holds_what_is_read(memory):
    buffer = PagemapBuffer()
    for pages in (1, 4, 2):  # it grows, and is used again
        at = buffer.put(memory, pages)
        assert buffer.entries(pages) == read_entries(memory, pages, mmap.PAGESIZE)
        assert bytes(ffi.buffer(ffi.cast("char *", at), 8 * pages)) == buffer.entries(pages)


def test_addresses_that_no_process_has_are_refused():
    for read in (lambda: read_entries(BEYOND, 1, mmap.PAGESIZE), lambda: PagemapBuffer().put(BEYOND, 1)):
        with pytest.raises(Refusal, match="no such address"):
            read()


def test_a_range_is_refused_unless_all_of_it_is_mapped(memory):
    check_mapped(memory, 4, mmap.PAGESIZE)
    with pytest.raises(Refusal, match="not all mapped") as refused:
        check_mapped(0, 1, mmap.PAGESIZE)
    assert refused.value.kind == "unmapped"
    for pages in (0, -1, 1 << 23):
        with pytest.raises(Refusal, match="cannot be read with one call"):
            check_mapped(memory, pages, mmap.PAGESIZE)


def test_all_pages_are_soft_dirty_if_each_one_is():
    dirty, clean = struct.pack("<Q", SOFT_DIRTY | 1), struct.pack("<Q", PRESENT | ~SOFT_DIRTY & (1 << 63) - 1)
    assert all_soft_dirty(dirty * 3)
    assert not all_soft_dirty(dirty + clean + dirty)


def test_the_flags_of_a_mapping_are_those_of_smaps(memory):
    assert {"rd", "wr"} <= set(_vm_flags(memory, "self"))
    assert _vm_flags(0, "self") == []


def test_a_new_mapping_is_soft_dirty_where_the_kernel_tracks_that(memory):
    soft_dirty = SoftDirty(memory + mmap.PAGESIZE)
    assert soft_dirty.vma_soft_dirty(memory, lambda: False) == soft_dirty.tracked


def test_an_address_that_does_not_exist_is_refused_for_the_process_that_was_read():
    for process in ("self", str(os.getpid())):
        with pytest.raises(Refusal, match=f"/proc/{process}/pagemap ends"):
            read_entries(BEYOND, 1, mmap.PAGESIZE, process)
