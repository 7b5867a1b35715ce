"""A lab and its machine: gdb, options and console."""

import re
import shutil
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest

from uffdlab.errors import GuestPanic, MachineError, UsageError
from uffdlab.lab import Lab
from uffdlab.uapi.protocol.agent import Ping, TriggerSysrq

pytestmark = pytest.mark.vm


@pytest.fixture
def own_lab():
    with Lab("6.1-series") as lab:
        yield lab


def crash(lab):
    with pytest.raises(GuestPanic):
        lab.ask(TriggerSysrq("c"))


def test_the_console_of_a_crashed_guest_can_be_searched(own_lab):
    crash(own_lab)
    assert "Kernel panic" in own_lab.console
    assert re.fullmatch(r".*Kernel panic - not syncing: sysrq.*", own_lab.console.search("kernel PANIC - not"))
    assert own_lab.console.search(r"^nothing like this$") == ""
    assert len(own_lab.console.tail(3).splitlines()) == 3
    with pytest.raises(UsageError, match="not a regular expression"):
        own_lab.console.search("(")


def test_options_of_a_lab_reach_its_guest():
    with Lab("6.1-series", cpus=2, memory_mib=512, hugepages=8, command_line="uffdlab.of=mine") as lab:
        output = lab.exec(["sh", "-c", "nproc; cat /proc/cmdline /proc/meminfo"]).text
        assert output.startswith("2\n")
        assert "uffdlab.of=mine" in output
        assert re.search(r"^HugePages_Free: +8$", output, re.MULTILINE)
        assert 400 << 10 < int(re.search(r"^MemTotal: +(\d+) kB", output, re.MULTILINE)[1]) <= 512 << 10
        region = lab.map(pages=8, memory="hugetlb")
        region.alias.fill(1)


@pytest.mark.skipif(not shutil.which("gdb"), reason="no gdb here: apt-get install gdb")
def test_gdb_stops_where_a_page_fault_is_handed_to_userspace(own_lab):
    region = own_lab.map(pages=1)
    region.alias.fill(5)
    uffd = own_lab.userfaultfd()
    uffd.register(region, "minor")
    text = own_lab.gdb()
    assert own_lab.gdb() == text
    stub = Path(re.search(r"target remote ([^']+)'", text)[1])
    assert stat.S_IMODE(stub.parent.stat().st_mode) == 0o700
    command = ["gdb", "-nx", "-batch", re.match(r"gdb (\S+) -ex", text)[1]]
    for line in (f"target remote {stub}", "break handle_userfault", "continue", "backtrace 3", "delete", "detach"):
        command += ["-ex", line]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as gdb:
        watchdog = threading.Timer(120, gdb.kill)
        watchdog.start()
        output = []
        for line in gdb.stdout:
            output.append(line)
            if line.startswith("Breakpoint 1 at"):
                threading.Thread(target=region.read, args=(0,), daemon=True).start()
        watchdog.cancel()
    text = "".join(output)
    assert re.search(r"Breakpoint 1, .*handle_userfault", text), text
    assert re.search(r"^#1 .*", text, re.MULTILINE), text
    fault = uffd.read_fault(timeout=30)
    assert fault.minor
    uffd.continue_(region)
    assert region.read(0).result() == 5
    own_lab.close()
    assert not stub.parent.exists()


def test_gdb_is_refused_without_a_guest():
    with Lab(machine="local") as lab, pytest.raises(UsageError, match="gdb can only attach to a guest in QEMU"):
        lab.gdb()


def test_a_lab_with_a_machine_of_the_user_cannot_be_reset():
    from uffdlab.machines import local

    with Lab(machine=local.start()) as lab:
        with pytest.raises(UsageError, match="did not start its machine"):
            lab.reset()
        assert lab.ask(Ping(3)) == 3
        started = time.monotonic()
        with pytest.raises((UsageError, MachineError)):
            lab.ask(TriggerSysrq("c"))  # must not crash this host
        assert time.monotonic() - started < 10
