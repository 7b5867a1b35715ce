"""Reset of a lab after each way to lose its kernel: the error comes in time, and nothing is left."""

import contextlib
import os
import signal
import subprocess

import pytest

from uffdlab.errors import GuestPanic, LabClosed, MachineTimeout, TargetLost, WitnessError
from uffdlab.lab import Lab
from uffdlab.uapi.protocol.agent import Ping, TriggerSysrq

from ..leftovers import gone_within

pytestmark = pytest.mark.vm

# x86: an invalid instruction, and an endless loop with interrupts off.
UD2 = b"\x0f\x0b"
CLI_JMP_SELF = b"\xfa\xeb\xfe"
KERNEL_MAP = 0xFFFF_FFFF_8000_0000  # __START_KERNEL_map: address of physical memory in a kernel that is not relocated


@pytest.fixture
def own_lab():
    with Lab("6.1-series") as lab:
        yield lab


@pytest.fixture(scope="module")
def other_lab():
    """Another lab, with a touch that waits all the time."""
    with Lab("6.1-series") as lab:
        yield lab, start_waiting_touch(lab)


def start_waiting_touch(lab):
    """Start a touch that waits for a minor fault; return its region, userfaultfd and touch."""
    region = lab.map(pages=4)
    region.alias.fill(7)
    uffd = lab.userfaultfd()
    uffd.register(region, "minor")
    touch = region.read(0)
    uffd.read_fault()
    return region, uffd, touch


def overwrite_function(lab, symbol, code):
    """Overwrite the beginning of a kernel function before its first call."""
    names = subprocess.run(["nm", lab.machine.settings.image], capture_output=True, text=True, check=True).stdout
    address = next(line.split()[0] for line in names.splitlines() if line.endswith(f" {symbol}"))
    os.pwrite(lab.machine._ram, code, int(address, 16) - KERNEL_MAP)


@contextlib.contextmanager
def raises_with_console(error, message):
    """Expect an error that has the console output."""
    with pytest.raises(error, match=message) as caught:
        yield
    assert "the last line of the console" in caught.value.console


def panic(lab):
    with raises_with_console(GuestPanic, "sysrq triggered crash"):
        lab.ask(TriggerSysrq("c"))


def oops(lab):
    overwrite_function(lab, "write_sysrq_trigger", UD2)
    with raises_with_console(GuestPanic, "Kernel panic - not syncing: Fatal exception, after invalid opcode"):
        lab.ask(TriggerSysrq("h"))
    assert "RIP: 0010:write_sysrq_trigger+0x0/" in lab.console


def spin(lab):
    overwrite_function(lab, "write_sysrq_trigger", CLI_JMP_SELF)
    with raises_with_console(MachineTimeout, r"agent\.sysrq: no answer within 1\.0 s: the machine hangs"):
        lab.machine.ask(TriggerSysrq("h"), deadline=1)


def stop(lab):
    os.kill(lab.machine.pids[1], signal.SIGSTOP)
    with raises_with_console(MachineTimeout, r"agent\.ping: no answer within 1\.0 s: the machine hangs"):
        lab.machine.ask(Ping(), deadline=1)


def delete_libraries(lab):
    lab.exec(["sh", "-c", "kill -STOP -1; rm -rf /usr/lib"], deadline=20)


@pytest.mark.parametrize("cause", [panic, oops, spin, stop, delete_libraries])
def test_a_lab_works_after_a_reset(own_lab, other_lab, cause):
    region, uffd, touch = start_waiting_touch(own_lab)
    own_lab.exec(["sh", "-c", "echo '<0>the last line of the console' >/dev/kmsg"])
    lost = own_lab.machine.pids
    cause(own_lab)
    own_lab.reset()
    assert gone_within(1, *lost)
    assert own_lab.machine.restored
    fresh = own_lab.map(pages=4)
    fresh.alias.fill(1)
    assert fresh.alias.read(3).result() == 4
    with own_lab.userfaultfd() as other:
        other.register(fresh, "minor", "wp")
        other.continue_(fresh[0], wp=True)
        with pytest.raises(TargetLost, match="does not exist any more: the lab was reset; "):
            uffd.continue_(fresh[1])  # although both have the same number in their targets
    assert fresh.snapshot("physical").entries[0]
    with pytest.raises((TargetLost, GuestPanic)):  # either may come first
        touch.result(timeout=1)
    for call in (lambda: region.read(0), lambda: region[1:3].madvise("dontneed"), region.alias.fill, region.mremap):
        with pytest.raises(TargetLost, match=r"region-\d+('s alias)? does not exist any more: .*map a new one"):
            call()
    with pytest.raises(WitnessError):
        region.snapshot()
    assert own_lab.regions == (fresh,)
    assert [entry.text for entry in own_lab.timeline if "reset" in entry.text] == [
        "the lab was reset: a new machine, a new target"
    ]
    lab, (_, other_uffd, other_touch) = other_lab
    assert other_touch.state == "waiting"
    assert lab.ask(Ping(3)) == 3
    assert other_uffd.number  # it is still open


def test_a_reset_does_not_disturb_another_lab(other_lab):
    _, (region, uffd, touch) = other_lab
    uffd.continue_(region[0])
    assert touch.result() == 7


@pytest.mark.long  # the error comes after 15 s without an answer
def test_a_kernel_that_continues_after_an_oops_is_reported():
    """With panic_on_oops=0 a call that waits for the crashed thread hangs.  Its error must name the oops."""
    with Lab("6.1-series", command_line="sysctl.kernel.panic_on_oops=0") as lab:
        region = lab.map(pages=4)
        region.alias.fill(7)
        uffd = lab.userfaultfd()
        uffd.register(region, "minor")
        lab.exec(["sh", "-c", "echo '<0>the last line of the console' >/dev/kmsg"])
        overwrite_function(lab, "handle_userfault", UD2)
        touch = region.read(0)
        assert lab.ask(Ping(3)) == 3
        assert lab.console.search("RIP: 0010:handle_userfault")
        with raises_with_console(GuestPanic, "crashed: invalid opcode"):
            region.mremap()  # the crashed thread still has the lock on the address space
        lab.reset()
        with pytest.raises(TargetLost):
            touch.result(1)
        again = lab.map(pages=4)
        again.alias.fill(1)
        assert again.alias.read(3).result() == 4


def test_a_lab_can_be_reset_twice_but_not_after_closing(own_lab):
    for _ in range(2):
        own_lab.reset()
        own_lab.map(pages=1).alias.fill(1)
    own_lab.close()
    with pytest.raises(LabClosed):
        own_lab.reset()
