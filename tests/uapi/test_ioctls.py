"""What is known of each ioctl fits together, and fits what is made from it."""

import inspect

import pytest

from uffdlab import uapi
from uffdlab.fuzz.generator import CALLS
from uffdlab.target.userfaultfd import Userfaultfd
from uffdlab.uapi.layout import LAYOUTS
from uffdlab.uapi.memory import MEMORY


@pytest.mark.parametrize("ioctl", uapi.IOCTLS.values(), ids=list(uapi.IOCTLS))
def test_the_columns_of_an_ioctl_fit_together(ioctl):
    assert ioctl.batch is LAYOUTS[ioctl.name].batch
    assert ("mode" in ioctl.fields) is bool(len(ioctl.modes))
    assert not ioctl.protects or ioctl.protects in list(map(int, ioctl.modes))
    for way in ioctl.resolves:
        assert way.fault in uapi.FAULTS
        assert not way.mode & ~sum(map(int, ioctl.modes))
    if ioctl.trial:
        assert ioctl.trial.memory in MEMORY
        assert ioctl.trial.page in ("absent", "cached", "present")
        assert ioctl.trial.page != "cached" or MEMORY[ioctl.trial.memory].has_alias
    if ioctl.method:
        takes = inspect.signature(getattr(Userfaultfd, ioctl.method)).parameters
        assert {str(flag.name).lower() for flag in ioctl.modes} <= set(takes)


def test_ways_to_resolve_a_fault_have_names_of_their_own():
    names = [way.name for ioctl in uapi.IOCTLS.values() for way in ioctl.resolves]
    assert len(set(names)) == len(names) > 5


def test_random_calls_make_them():
    calls = {ioctl.random_call for ioctl in uapi.IOCTLS.values()} - {""}
    assert calls <= set(CALLS)
    assert len(CALLS) == len(set(CALLS))
