"""The columns of the table of ioctls agree with each other and with the code that uses them."""

import inspect
import keyword

import pytest

from uffdlab import uapi
from uffdlab.fuzz.generator import CALLS
from uffdlab.target.userfaultfd import Userfaultfd
from uffdlab.uapi.layout import LAYOUTS
from uffdlab.uapi.memory import MEMORY


@pytest.mark.parametrize("ioctl", uapi.IOCTLS.values(), ids=list(uapi.IOCTLS))
def test_the_columns_of_an_ioctl_are_consistent(ioctl):
    assert ioctl.batch is LAYOUTS[ioctl.name].batch
    assert ("mode" in ioctl.fields) is bool(len(ioctl.modes))
    assert not ioctl.moves or "src" in ioctl.fields
    assert not ioctl.protects or ioctl.protects in list(map(int, ioctl.modes))
    for way in ioctl.resolves:
        assert way.fault in uapi.FAULTS
        assert not way.mode & ~sum(map(int, ioctl.modes))
    if ioctl.trial:
        assert ioctl.trial.memory in MEMORY
        assert ioctl.trial.page in ("absent", "cached", "present")
        assert ioctl.trial.page != "cached" or MEMORY[ioctl.trial.memory].has_alias
    if ioctl.method:
        parameters = inspect.signature(getattr(Userfaultfd, ioctl.method)).parameters
        assert {str(flag.name).lower() for flag in ioctl.modes} <= set(parameters)


def test_each_way_to_resolve_a_fault_has_a_different_name():
    names = [way.name for ioctl in uapi.IOCTLS.values() for way in ioctl.resolves]
    assert len(set(names)) == len(names) > 5


def test_random_calls_make_every_ioctl():
    calls = {ioctl.random_call for ioctl in uapi.IOCTLS.values()} - {""}
    assert calls <= set(CALLS)
    assert len(CALLS) == len(set(CALLS))


@pytest.mark.parametrize("name", sorted(set(uapi.IOCTLS) - {"UFFDIO_API"}))
def test_an_ioctl_is_a_method_with_its_name(name):
    method = name.removeprefix("UFFDIO_").lower()
    assert callable(getattr(Userfaultfd, method + "_" * keyword.iskeyword(method)))
    assert uapi.IOCTLS[name].method in ("", method + "_" * keyword.iskeyword(method))


def test_the_package_exports_what_its_two_modules_define():
    assert {"IOCTLS", "RegisterMode", "ContinueMode", "Feature", "FEATURES_SINCE", "flag_names"} <= set(uapi.__all__)
    assert {ioctl.modes.__name__ for ioctl in uapi.IOCTLS.values()} <= set(uapi.__all__)
    assert not {"LAYOUTS", "Layout", "EVENT_FORK", "enum"} & set(uapi.__all__)
    assert set(uapi.__all__) <= set(dir(uapi))
    with pytest.raises(AttributeError, match="no attribute 'LAYOUTS'"):
        _ = uapi.LAYOUTS
