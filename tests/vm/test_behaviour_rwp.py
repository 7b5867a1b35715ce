"""Read-write protection (Linux 7.3), as the rwp tests of the kernel's uffd-unit-tests check it."""

import contextlib
import errno

import pytest

from uffdlab.errors import NoMessage
from uffdlab.pte import State
from uffdlab.target.userfaultfd import Fork
from uffdlab.uapi import Feature, RegisterMode

from ..unprivileged import UNPRIVILEGED
from .lab_fixtures import LINES, LOCAL, on_each, with_swap

pytestmark = [pytest.mark.vm, pytest.mark.long]

lab = on_each(*LINES, LOCAL, UNPRIVILEGED)

ALL = ("anon", "anon-shared", "shmem", "shmem-private", "tmpfs", "hugetlb", "hugetlb-private")
PAGES = 4
on_all = pytest.mark.parametrize("memory", ALL)


@pytest.fixture
def region(region_of, needs, memory):
    needs("RWP", "UFFDIO_RWPROTECT", "UFFDIO_SET_MODE", f"{'shmem' if memory == 'tmpfs' else memory}: RWP")
    region = region_of(PAGES)
    region.fill(1)
    return region


@pytest.fixture
def uffd(lab, region, features):
    """A userfaultfd registered for RWP, with every page protected; each fault is a message."""
    with lab.userfaultfd(features(Feature.RWP)) as uffd:
        uffd.register(region, "rwp")
        uffd.rwprotect(region)
        yield uffd


@pytest.fixture
def asynchronous(uffd):
    """The same in asynchronous mode: the kernel resolves each fault itself."""
    uffd.set_mode(enable=Feature.RWP_ASYNC)
    return uffd


def protected(region):
    return region.snapshot("pagemap").has(State.UFFD_WP).tolist()


@on_all
def test_rwp_sync(region, uffd):
    assert protected(region) == [True] * PAGES
    for access in (region.read, region.write):
        uffd.rwprotect(region[1])
        touch = access(1)
        fault = uffd.read_fault()
        assert (fault.page, fault.rwp, fault.missing, fault.write) == (1, True, False, access == region.write)
        assert touch.state == "waiting"
        uffd.rwprotect(region[1], rwp=False)
        assert touch.outcome().ok
    assert protected(region) == [True, False, True, True]


@on_all
def test_access_to_an_unprotected_page_causes_no_fault(region, uffd):
    uffd.rwprotect(region[2], rwp=False)
    assert region.read(2).result() == 3
    region.write(2, 9).result()
    with pytest.raises(NoMessage):
        uffd.read_fault(timeout=0.05)


@on_all
def test_rwp_async(region, asynchronous):
    assert region.read(0).result() == 1
    region.write(1, 5).result()
    assert protected(region) == [False, False, True, True]
    with pytest.raises(NoMessage):
        asynchronous.read_fault(timeout=0.05)


@on_all
def test_rwp_pagemap(region, asynchronous):
    """PAGEMAP_SCAN distinguishes pages that were accessed from the others."""
    region[: PAGES // 2].sweep().result()
    # In such a mapping the scan witness derives the mark from PAGE_IS_ACCESSED.
    assert region.snapshot("scan").lacks(State.UFFD_WP).tolist() == [True, True, False, False]


@on_all
def test_rwp_mprotect(region, asynchronous):
    """The marks stay, with their meaning, after mprotect to PROT_NONE and back."""
    region.mprotect("")
    region.mprotect("rw")
    assert protected(region) == [True] * PAGES
    region.sweep().result()
    assert protected(region) == [False] * PAGES
    assert region.snapshot("scan").lacks(State.UFFD_WP).all()


@on_all
def test_rwp_gup(region, asynchronous):
    assert region.gup_read(0).result() == 1
    assert protected(region) == [False] + [True] * (PAGES - 1)


@on_all
def test_rwp_gup_waits_in_synchronous_mode(region, uffd):
    touch = region.gup_read(3)
    assert uffd.read_fault().rwp
    uffd.rwprotect(region[3], rwp=False)
    assert touch.result() == 4


@on_all
def test_rwp_async_toggle(region, asynchronous):
    assert region.read(0).result() == 1
    asynchronous.set_mode(disable=Feature.RWP_ASYNC)
    touch = region.read(1)
    assert asynchronous.read_fault().rwp
    asynchronous.rwprotect(region[1], rwp=False)
    assert touch.result() == 2
    asynchronous.set_mode(enable=Feature.RWP_ASYNC)
    asynchronous.rwprotect(region)
    assert region.sweep().result() == sum(range(1, PAGES + 1))


@on_all
def test_rwp_close(region, uffd):
    uffd.close()
    assert protected(region) == [False] * PAGES
    assert region.sweep().result() == sum(range(1, PAGES + 1))


@on_all
@pytest.mark.parametrize("pin", [False, True], ids=["rwp-fork", "rwp-fork-pin"])
@pytest.mark.parametrize("events", [False, True], ids=["no-event", "event"])
def test_rwp_fork(lab, region, features, pin, events, pinned):
    with lab.userfaultfd(features(Feature.RWP, Feature.EVENT_FORK if events else Feature(0))) as uffd:
        uffd.register(region, "rwp")
        with pinned(region[0]) if pin else contextlib.nullcontext():
            uffd.rwprotect(region)
            with lab.fork() as child:
                assert child.snapshot(region).has(State.UFFD_WP).tolist() == [events] * PAGES
                touch = region.read(0, by=child)
                if events:
                    forked = uffd.wait_for(Fork).userfaultfd
                    assert forked.read_fault().rwp
                    forked.rwprotect(region[0], rwp=False)
                    assert touch.result() == 1
                    forked.close()
                assert touch.result() == 1
        assert protected(region) == [True] * PAGES


@pytest.mark.parametrize("memory", ["anon"])
def test_rwp_swap_cow(lab, region, uffd):
    """A page that was swapped out and is shared with a child is still protected when it comes back."""
    with_swap(lab)
    region.page_out()
    assert region.snapshot("pagemap").has(State.SWAPPED | State.UFFD_WP).all()
    with lab.fork():
        touch = region.write(1, 5)
        assert uffd.read_fault().rwp
        uffd.rwprotect(region[1], rwp=False)
        touch.result()


@on_all
def test_rwp_and_wp_exclude_each_other(region, uffd):
    both = uffd.register(region, RegisterMode.RWP, RegisterMode.WP, check=False)
    assert both.errno == errno.EINVAL
    # Nor can one mode replace the other while there may be marks.
    assert uffd.register(region, "wp", check=False).errno == errno.EBUSY
    uffd.unregister(region)
    assert uffd.register(region, "wp").ok
