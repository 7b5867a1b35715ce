"""PAGEMAP_SCAN of the process of the tests itself, where this host's kernel has it."""

import mmap
import struct

import pytest

from uffdlab.agent.native import ffi
from uffdlab.agent.rpc import Refusal
from uffdlab.agent.witnesses import scan
from uffdlab.agent.witnesses.scan import Scan
from uffdlab.agent.witnesses.soft_dirty import SoftDirty

PAGE = mmap.PAGESIZE
PRESENT = 1 << 3  # PAGE_IS_PRESENT of include/uapi/linux/fs.h


@pytest.fixture
def memory():
    """Eight pages; the second and the third one are written."""
    with mmap.mmap(-1, 8 * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as mapped:
        mapped.madvise(mmap.MADV_NOHUGEPAGE)
        mapped[PAGE], mapped[2 * PAGE] = 1, 1
        with memoryview(mapped) as view:
            yield int(ffi.cast("uintptr_t", ffi.from_buffer(view)))


def runs_of(answer):
    return list(struct.iter_unpack("<3Q", answer["runs"]))


def scanner(memory):
    return Scan(memory + PAGE, SoftDirty(memory + PAGE))


@pytest.mark.parametrize("at_once", [1, 1 << 14])
def test_the_runs_are_those_of_the_pages_that_are_there(memory, monkeypatch, at_once):
    monkeypatch.setattr(scan, "_RUNS_AT_ONCE", at_once)
    found = scanner(memory)
    if not found.facts["answered"]:
        pytest.skip("this kernel has no PAGEMAP_SCAN")
    assert found.facts["answered"] & PRESENT
    there = [(start, end) for start, end, categories in runs_of(found.read(memory, 8, PAGE)) if categories & PRESENT]
    assert there == [(memory + PAGE, memory + 3 * PAGE)]


def test_too_many_runs_are_refused(memory, monkeypatch):
    monkeypatch.setattr(scan, "_RUNS_AT_ONCE", 1)
    found = scanner(memory)
    if not found.facts["answered"]:
        pytest.skip("this kernel has no PAGEMAP_SCAN")
    monkeypatch.setattr(scan, "_MAX_RUNS", 1)
    with pytest.raises(Refusal, match="too many different states"):
        found.read(memory, 8, PAGE)


def test_a_kernel_without_it_is_no_witness(memory, monkeypatch):
    def unknown(*_):
        raise OSError(25, "Inappropriate ioctl for device")

    monkeypatch.setattr(scan.fcntl, "ioctl", unknown)
    found = scanner(memory)
    assert found.facts == {"answered": 0}
    with pytest.raises(Refusal, match="no PAGEMAP_SCAN") as refused:
        found.read(memory, 8, PAGE)
    assert refused.value.kind == "no-witness"
