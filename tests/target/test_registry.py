"""The registry finds regions, userfaultfds and touches, and ends them when the target or the machine is lost."""

import pytest

from uffdlab.errors import LabClosed, MachineLost, TargetLost, UsageError
from uffdlab.target.region import Region
from uffdlab.target.registry import Registry
from uffdlab.target.timeline import Timeline
from uffdlab.target.touch import Touch
from uffdlab.target.userfaultfd import Userfaultfd
from uffdlab.uapi import Feature
from uffdlab.uapi.protocol.target import OpenedUserfaultfd, OpenUserfaultfd, StartTouch


class AnsweringTarget:
    """The parts of a target that its registry uses."""

    def __init__(self):
        self.timeline = Timeline()
        self.registry = Registry()

    def ask(self, request):
        assert isinstance(request, OpenUserfaultfd)
        opened = {"number": 7, "way": "userfaultfd(2)", "offered": 0, "asked": 0}
        return OpenedUserfaultfd(errno=0, fields={}, started_ns=0, ended_ns=0, **opened)

    def must_answer(self):
        pass


@pytest.fixture
def target():
    return AnsweringTarget()


@pytest.fixture
def registry(target):
    registry = target.registry
    registry.add_region(Region(target, 1, "shmem", 0x10000, 0x90000, 4, 4096))
    registry.add_region(Region(target, 2, "hugetlb", 0x40000000, 0x80000000, 2, 2 << 20))
    Userfaultfd.open(target, Feature(0))
    registry.add_touch(Touch(target, StartTouch(1, "read", 0x10000, 8, 8, 0), "read of page 0"))
    return registry


def test_an_address_in_a_region_is_found(registry):
    assert registry.locate(0x12345) == ("region-1", 2)
    assert registry.locate(0x40000000 + (3 << 20)) == ("region-2", 1)
    assert registry.locate(0x14000) == ("", None)
    assert registry.page_size_at(0x40000000) == 2 << 20
    assert registry.page_size_at(0x14000) == 4096
    assert registry.memory_at(0x40000000) == "hugetlb"
    assert registry.memory_at(0x14000) == ""


def test_an_address_in_a_region_or_its_alias_is_described(registry):
    assert registry.describe(0x12345) == "page 2 of region-1"
    assert registry.describe(0x92345) == "page 2 of region-1's alias"
    assert registry.describe(0x14000) == ""


def test_an_unmapped_region_is_not_found(registry):
    (first, second) = registry.regions
    registry.unmapped(first)
    registry.drop_userfaultfd(7)
    assert registry.regions == (second,)
    assert registry.locate(0x12345) == ("", None)
    assert registry.userfaultfd(7) is None
    with pytest.raises(UsageError, match="it was unmapped"):
        first._must_be_there()
    assert registry.pop_touch(1).number == 1
    assert registry.pop_touch(1) is None


def test_a_touch_never_begins_after_a_fault_of_its_page(registry):
    (touch,) = registry.touches
    touch.started_ns = 2000
    registry.fault_arrived(0x11000, 500)
    assert touch.started_ns == 2000  # the fault of another page
    registry.fault_arrived(0x10FFF, 1500)
    assert touch.started_ns == 1500
    registry.fault_arrived(0x10000, 1800)
    assert touch.started_ns == 1500


def test_an_old_fault_of_the_page_is_of_another_touch(registry):
    (touch,) = registry.touches
    touch.started_ns = 60_000_000_000
    registry.fault_arrived(0x10000, 5)
    assert touch.started_ns == 60_000_000_000


def test_a_lost_target_ends_its_regions_userfaultfds_and_touches(registry):
    regions, (uffd,), (touch,) = registry.regions, registry.userfaultfds, registry.touches
    registry.lose("it was killed")
    assert (registry.regions, registry.userfaultfds, registry.touches) == ((), (), ())
    for region in regions:
        with pytest.raises(TargetLost, match="it was killed"):
            region._must_be_there()
    for wait in (uffd.read_fault, touch.result):
        with pytest.raises(TargetLost, match="it was killed"):
            wait()


def test_a_closed_lab_ends_every_wait_with_lab_closed(registry):
    (region, _), (uffd,), (touch,) = registry.regions, registry.userfaultfds, registry.touches
    registry.lose(LabClosed("this lab is closed"))
    region._must_be_there()  # raises nothing: the closed lab itself refuses each request
    for wait in (uffd.read_fault, touch.result):
        with pytest.raises(LabClosed, match="this lab is closed"):
            wait()


def test_a_lost_machine_ends_every_wait(registry):
    (uffd,), (touch,) = registry.userfaultfds, registry.touches
    registry.machine_lost(MachineLost("gone"))
    for wait in (uffd.read_fault, touch.result):
        with pytest.raises(MachineLost, match="gone"):
            wait()
    assert registry.userfaultfds == (uffd,)
