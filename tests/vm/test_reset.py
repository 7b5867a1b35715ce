"""A lab put back, in whatever way its kernel was lost: the error comes in time, and nothing is left."""

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

# x86: an instruction that no processor knows, and a loop that no interrupt ends.
UD2 = b"\x0f\x0b"
CLI_JMP_SELF = b"\xfa\xeb\xfe"
KERNEL_MAP = 0xFFFF_FFFF_8000_0000  # __START_KERNEL_map; where physical memory begins for a kernel that is not moved


@pytest.fixture
def own():
    with Lab("6.1-series") as lab:
        yield lab


@pytest.fixture(scope="module")
def beside():
    """Another lab, in which a touch waits all the time."""
    with Lab("6.1-series") as lab:
        yield lab, waiting(lab)


def waiting(lab):
    """Leave a touch waiting for a minor fault."""
    region = lab.map(pages=4)
    region.alias.fill(7)
    uffd = lab.userfaultfd()
    uffd.register(region, "minor")
    touch = region.read(0)
    uffd.read_fault()
    return region, uffd, touch


def put_in_kernel(lab, symbol, code):
    """Overwrite the beginning of a function of the kernel, before it is called for the first time."""
    names = subprocess.run(["nm", lab.machine.settings.image], capture_output=True, text=True, check=True).stdout
    address = next(line.split()[0] for line in names.splitlines() if line.endswith(f" {symbol}"))
    os.pwrite(lab.machine._ram, code, int(address, 16) - KERNEL_MAP)


@contextlib.contextmanager
def raises_with_console(error, message):
    """Expect an error with what the console said."""
    with pytest.raises(error, match=message) as caught:
        yield
    assert "these are the last words" in caught.value.console


def panic(lab):
    with raises_with_console(GuestPanic, "sysrq triggered crash"):
        lab.ask(TriggerSysrq("c"))


def oops(lab):
    put_in_kernel(lab, "write_sysrq_trigger", UD2)
    with raises_with_console(GuestPanic, "Kernel panic - not syncing: Fatal exception, after invalid opcode"):
        lab.ask(TriggerSysrq("h"))
    assert "RIP: 0010:write_sysrq_trigger+0x0/" in lab.console


def spin(lab):
    put_in_kernel(lab, "write_sysrq_trigger", CLI_JMP_SELF)
    with raises_with_console(MachineTimeout, r"agent\.sysrq: no answer within 1\.0 s: the machine hangs"):
        lab.machine.ask(TriggerSysrq("h"), deadline=1)


def stop(lab):
    os.kill(lab.machine.pids[1], signal.SIGSTOP)
    with raises_with_console(MachineTimeout, r"agent\.ping: no answer within 1\.0 s: the machine hangs"):
        lab.machine.ask(Ping(), deadline=1)


def mess_up(lab):
    lab.exec(["sh", "-c", "kill -STOP -1; rm -rf /usr/lib"], deadline=20)


@pytest.mark.parametrize("accident", [panic, oops, spin, stop, mess_up])
def test_a_lab_works_after_a_reset(own, beside, accident):
    region, uffd, touch = waiting(own)
    own.exec(["sh", "-c", "echo '<0>these are the last words' >/dev/kmsg"])
    lost = own.machine.pids
    accident(own)
    own.reset()
    assert gone_within(1, *lost)
    assert own.machine.restored
    fresh = own.map(pages=4)
    fresh.alias.fill(1)
    assert fresh.alias.read(3).result() == 4
    with own.userfaultfd() as other:
        other.register(fresh, "minor", "wp")
        other.continue_(fresh[0], wp=True)
        with pytest.raises(TargetLost, match="does not exist any more: the lab was reset; "):
            uffd.continue_(fresh[1])  # though both have the same number in their targets
    assert fresh.snapshot("physical").entries[0]
    with pytest.raises((TargetLost, GuestPanic)):  # whichever came first
        touch.result(timeout=1)
    for gone in (lambda: region.read(0), lambda: region[1:3].madvise("dontneed"), region.alias.fill, region.mremap):
        with pytest.raises(TargetLost, match=r"region-\d+('s alias)? does not exist any more: .*map a new one"):
            gone()
    with pytest.raises(WitnessError):
        region.snapshot()
    assert own.regions == (fresh,)
    assert [entry.text for entry in own.timeline if "reset" in entry.text] == [
        "the lab was reset: a new machine, a new target"
    ]
    neighbour, (_, its_uffd, its_touch) = beside
    assert its_touch.state == "waiting"
    assert neighbour.ask(Ping(3)) == 3
    assert its_uffd.number  # open


def test_a_reset_does_not_disturb_another_lab(beside):
    _, (region, uffd, touch) = beside
    uffd.continue_(region[0])
    assert touch.result() == 7


@pytest.mark.long  # 15 s until it is said that nobody answers
def test_a_kernel_that_continues_after_an_oops_is_reported():
    """As the command line asks for; what it was doing is stuck, and the error of what waits for that tells of it."""
    with Lab("6.1-series", command_line="sysctl.kernel.panic_on_oops=0") as lab:
        region = lab.map(pages=4)
        region.alias.fill(7)
        uffd = lab.userfaultfd()
        uffd.register(region, "minor")
        lab.exec(["sh", "-c", "echo '<0>these are the last words' >/dev/kmsg"])
        put_in_kernel(lab, "handle_userfault", UD2)
        touch = region.read(0)
        assert lab.ask(Ping(3)) == 3
        assert lab.console.search("RIP: 0010:handle_userfault")
        with raises_with_console(GuestPanic, "crashed: invalid opcode"):
            region.mremap()  # the thread that is gone holds the lock on the address space
        lab.reset()
        with pytest.raises(TargetLost):
            touch.result(1)
        again = lab.map(pages=4)
        again.alias.fill(1)
        assert again.alias.read(3).result() == 4


def test_a_lab_can_be_reset_twice_but_not_after_closing(own):
    for _ in range(2):
        own.reset()
        own.map(pages=1).alias.fill(1)
    own.close()
    with pytest.raises(LabClosed):
        own.reset()
