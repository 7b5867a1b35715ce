"""A cell that is run again: what is in the way says who has it, and how to go on."""

import re

import pytest

from uffdlab.errors import FaultUnresolved, IoctlError


@pytest.fixture
def region(host_lab):
    region = host_lab.map(pages=8)
    region.alias.fill()
    yield region
    region.unmap()


def evaluated(error, host_lab, **names):
    """What the error says to do, as a call: the text between backquotes is none, so it is found by its shape."""
    (call,) = re.findall(r"(lab\.userfaultfds\[\d+\]\.\w+\([^)]*\))", str(error))
    return eval(call, {"lab": host_lab, **names})


def test_a_range_that_is_registered_already_names_its_owner(host_lab, region):
    with host_lab.userfaultfd(), host_lab.userfaultfd() as first, host_lab.userfaultfd() as second:
        first.register(region[4:], "minor", "wp")
        owner = f"lab.userfaultfds[{host_lab.userfaultfds.index(first)}]"
        with pytest.raises(IoctlError) as refused:
            second.register(region, "minor")
        assert f"{owner} has this range" in str(refused.value)
        assert "try again" not in str(refused.value)
        evaluated(refused.value, host_lab)
        assert not first.number
        assert second.register(region, "minor").ok


def test_a_sleeper_of_another_userfaultfd_says_who_must_wake_it(host_lab, region):
    """UFFDIO_CONTINUE maps memory that belongs to another userfaultfd, and wakes its own sleepers alone."""
    with host_lab.userfaultfd() as old, host_lab.userfaultfd() as new:
        old.register(region, "minor", "wp")
        touch = region.read(5)
        old.read_fault()
        with pytest.raises(FaultUnresolved, match="nobody has resolved its page fault"):
            touch.result(timeout=0)
        assert new.continue_(region[5]).ok
        with pytest.raises(FaultUnresolved, match=r"page 5 of region-\d+ is mapped by now, .* only that one") as waits:
            touch.result(timeout=0)
        evaluated(waits.value, host_lab, region=region)
        assert touch.result(timeout=60) == 6


def test_a_sleeper_that_was_not_woken(host_lab, region):
    with host_lab.userfaultfd() as uffd:
        uffd.register(region, "minor", "wp")
        touch = region.write(2)
        uffd.read_fault()
        uffd.continue_(region[2], dontwake=True)
        with pytest.raises(FaultUnresolved, match="is mapped by now") as waits:
            touch.result(timeout=0)
        evaluated(waits.value, host_lab, region=region)
        touch.result(timeout=60)


def test_a_write_to_a_protected_page(host_lab, region):
    with host_lab.userfaultfd() as uffd:
        uffd.register(region, "minor", "wp")
        uffd.continue_(region)
        uffd.writeprotect(region)
        touch = region.write(3)
        assert uffd.read_fault().wp
        with pytest.raises(FaultUnresolved, match=r"write-protected; .*wp=False\) resolves its fault; touch") as waits:
            touch.result(timeout=0)
        evaluated(waits.value, host_lab, region=region)
        touch.result(timeout=60)


def test_a_sweep_that_waits_is_not_taken_for_one_that_waits_for_its_first_page(host_lab):
    region = host_lab.map(pages=2, memory="anon")
    with host_lab.userfaultfd() as uffd:
        uffd.register(region, "missing")
        uffd.zeropage(region[0])
        sweep = region.sweep("read")
        uffd.read_fault()
        with pytest.raises(FaultUnresolved, match="nobody has resolved its page fault"):
            sweep.result(0.1)
        sweep.withdraw()
    region.unmap()
