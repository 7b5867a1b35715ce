"""Changes that the kernel makes to pages by itself, provoked here: docs/findings/behind-the-back.md."""

import errno

import pytest

from uffdlab.errors import IoctlError, NoMessage
from uffdlab.pte import State

from ..unprivileged import UNPRIVILEGED
from .lab_fixtures import LINES, LOCAL, on_each

pytestmark = [pytest.mark.vm, pytest.mark.long]

lab = on_each(*LINES, LOCAL, UNPRIVILEGED)

PAGES = 512  # a huge page


@pytest.mark.parametrize("memory", ["shmem", "tmpfs", "anon-shared"])
def test_pages_that_were_only_read_can_be_reclaimed_and_written_ones_cannot(lab, memory):
    # Except new pages: up to 31 for each processor are not on the kernel's LRU lists yet.
    read, written = (lab.map(pages=PAGES, memory=memory) for _ in range(2))
    with lab.userfaultfd() as uffd:
        uffd.register(read, "minor")
        uffd.register(written, "minor")
        assert read.alias.sweep("read").result() == 0
        written.alias.fill(1)
        for region in (read, written):
            region.alias.madvise("pageout")
        results = [uffd.continue_(read[page], check=False) for page in range(PAGES)]
        assert {result.errno for result in results} <= {0, errno.EFAULT}
        assert sum(result.errno == errno.EFAULT for result in results) > PAGES // 2
        with pytest.raises(IoctlError, match=r"EFAULT: .* read but never written"):
            uffd.continue_(read[[result.errno for result in results].index(errno.EFAULT)])
        assert uffd.continue_(written).ok
        assert written.sweep("read").result() == sum(range(1, PAGES + 1))
    read.unmap()
    written.unmap()


def test_a_collapse_unmaps_small_pages(lab):
    region = lab.map(pages=PAGES, memory="shmem-thp")
    region.alias.fill()
    region.alias[5].madvise("remove")  # the huge page is split
    region.alias.fill(1)
    region.sweep("read").result()
    assert region.snapshot("pagemap").has(State.PRESENT).all()
    region.alias.madvise("collapse")
    assert not region.snapshot("pagemap").has(State.PRESENT).any()
    assert region.sweep("read").result() == sum(range(1, PAGES + 1))
    region.unmap()


@pytest.mark.parametrize("modes", [("minor", "wp"), ("minor",), ("wp",)], ids=" ".join)
def test_a_write_to_a_mapped_page_can_be_a_minor_fault(lab, modes):
    """A read maps a huge page that is not writable if WP is possible.  The first write unmaps it."""
    region = lab.map(pages=PAGES, memory="shmem-thp")
    with lab.userfaultfd() as uffd:
        uffd.register(region, *modes)
        assert region.read(2).result() == 0
        if not region.snapshot("pagemap").has(State.PRESENT).all():
            pytest.skip(f"{lab.kernel} gave no huge page")
        touch = region.write(1, 5)
        if modes == ("minor", "wp"):
            fault = uffd.read_fault()
            assert (fault.page, fault.minor, fault.write) == (1, True, True)
            assert not region.snapshot("pagemap").has(State.PRESENT).any()
            uffd.continue_(region[1])
        touch.result()
        with pytest.raises(NoMessage):
            uffd.read_fault(timeout=0.05)
    assert region.read(1).result() == 5
    region.unmap()
