"""What a lab has in its target, and what becomes of it."""

import pytest

from uffdlab.errors import LabClosed, MachineLost, TargetLost, UsageError
from uffdlab.target.region import Region
from uffdlab.target.registry import Belongings
from uffdlab.target.touch import Touch
from uffdlab.target.userfaultfd import Userfaultfd
from uffdlab.uapi import Feature


class AnsweringLab:
    """As much of a lab as its belongings need."""

    def target_call(self, method, *_, **__):
        assert method == "uffd_open"
        return {"offered": 0, "asked": 0, "way": "userfaultfd(2)", "errno": 0, "number": 7}

    def must_answer(self):
        pass


@pytest.fixture
def lab():
    return AnsweringLab()


@pytest.fixture
def belongings(lab):
    made = Belongings()
    made.add_region(Region(lab, 1, "shmem", 0x10000, 0x90000, 4, 4096))
    made.add_region(Region(lab, 2, "hugetlb", 0x40000000, 0x80000000, 2, 2 << 20))
    made.add_userfaultfd(Userfaultfd(lab, Feature(0)))
    made.add_touch(Touch(lab, 1, "read", 0x10000, "read of page 0"))
    return made


def test_an_address_is_found(belongings):
    assert belongings.locate(0x12345) == ("region-1", 2)
    assert belongings.locate(0x40000000 + (3 << 20)) == ("region-2", 1)
    assert belongings.locate(0x14000) == ("", None)
    assert belongings.page_size_at(0x40000000) == 2 << 20
    assert belongings.page_size_at(0x14000) == 4096


def test_what_was_let_go_is_not_found(belongings):
    (first, second) = belongings.regions
    belongings.unmapped(first)
    belongings.drop_userfaultfd(7)
    assert belongings.regions == (second,)
    assert belongings.locate(0x12345) == ("", None)
    assert belongings.userfaultfd(7) is None
    with pytest.raises(UsageError, match="it was unmapped"):
        first.must_be_there()
    assert belongings.pop_touch(1).number == 1
    assert belongings.pop_touch(1) is None


def test_a_lost_target_takes_everything_with_it(belongings):
    regions, (uffd,), (touch,) = belongings.regions, belongings.userfaultfds, belongings.touches
    belongings.lose("it was killed")
    assert (belongings.regions, belongings.userfaultfds, belongings.touches) == ((), (), ())
    for region in regions:
        with pytest.raises(TargetLost, match="it was killed"):
            region.must_be_there()
    for wait in (uffd.read_fault, touch.result):
        with pytest.raises(TargetLost, match="it was killed"):
            wait()


def test_a_closed_lab_says_so_itself(belongings):
    (region, _), (uffd,), (touch,) = belongings.regions, belongings.userfaultfds, belongings.touches
    belongings.lose(LabClosed("this lab is closed"))
    region.must_be_there()  # the lab refuses whatever is asked of it
    for wait in (uffd.read_fault, touch.result):
        with pytest.raises(LabClosed, match="this lab is closed"):
            wait()


def test_a_lost_machine_ends_every_wait(belongings):
    (uffd,), (touch,) = belongings.userfaultfds, belongings.touches
    belongings.hear_no_more(MachineLost("gone"))
    for wait in (uffd.read_fault, touch.result):
        with pytest.raises(MachineLost, match="gone"):
            wait()
    assert belongings.userfaultfds == (uffd,)
