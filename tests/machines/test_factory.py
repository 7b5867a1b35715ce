"""A machine is chosen by its name, and refuses the options that it does not support."""

import pytest

from uffdlab import settings
from uffdlab.errors import UsageError
from uffdlab.lab import Lab


@pytest.fixture(autouse=True)
def _without_variable(monkeypatch):
    monkeypatch.delenv(settings.MACHINE.variable, raising=False)


def test_an_unknown_machine_is_refused_with_the_known_ones():
    with pytest.raises(UsageError, match=r"no machine 'qemuu'; the kinds are 'qemu', 'local'"):
        Lab(machine="qemuu")


def test_a_machine_with_its_own_kernel_takes_no_kernel():
    with pytest.raises(UsageError, match=r"not '6\.1-series': leave the kernel out, Lab\(machine='local'\)"):
        Lab("6.1-series", machine="local")


@pytest.mark.parametrize("option", [{"cpus": 2}, {"memory_mib": 512}, {"hugepages": 4}, {"command_line": "quiet"}])
def test_the_local_machine_refuses_options_of_a_guest(option):
    with pytest.raises(UsageError, match=f"^{next(iter(option))}: machine='local' does not take these"):
        Lab(machine="local", **option)


@pytest.mark.parametrize("option", [{"hugepages": 4}, {"command_line": "quiet"}, {"pte_reader": True}])
def test_vagrant_refuses_options_of_the_boot(option):
    with pytest.raises(UsageError, match=f"^machine='vagrant' does not take {next(iter(option))};"):
        Lab(machine="vagrant", **option)


def test_a_negative_number_of_huge_pages_is_refused():
    with pytest.raises(UsageError, match="hugepages=-1"):
        Lab(hugepages=-1)


def test_the_environment_variable_chooses_the_machine_if_none_is_given(monkeypatch):
    monkeypatch.setenv(settings.MACHINE.variable, "local")
    with Lab() as lab:
        assert repr(lab) == f"<Lab Linux {lab.release}: Linux {lab.release} in local>"
    monkeypatch.setenv(settings.MACHINE.variable, "elsewhere")
    with pytest.raises(UsageError, match="no machine 'elsewhere'"):
        Lab()
    with Lab(machine="local") as lab:
        assert lab.release


@pytest.mark.parametrize("bad", [3, 6.1, b"6.1-series", ["6.1-series"]])
def test_a_kernel_that_is_no_text_is_refused(bad):
    with pytest.raises(UsageError, match="kernel is text or a path"):
        Lab(bad)
