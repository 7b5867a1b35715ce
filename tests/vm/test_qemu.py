"""Real QEMU machines: they start, they end in every possible way, and leave nothing."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import uffdlab
from uffdlab import cachedir, errors, kernels
from uffdlab.machines import clock
from uffdlab.machines.qemu import start
from uffdlab.machines.qemu.machine import QemuMachine
from uffdlab.uapi.protocol.agent import Ping, ReadClock, TriggerSysrq

from ..leftovers import alive, children, gone_within, open_resources, wait_until

pytestmark = pytest.mark.vm

ALL = ("6.1-base", "6.1-series", "6.1-as-posted", "debian/bookworm", "debian/trixie", "debian/trixie-backports")

# An init with more methods for the host than the real one.
TEST_INIT = b"""#!/usr/bin/python3 -ISBXutf8
import mmap, os, struct, time
from uffdlab.agent import commands, init

mappings = []

def read(path):
    with open(path, "rb") as file:
        return file.read()

def pages(pattern, count):
    # Pages filled with a pattern and their number, and the frames they are in.
    memory = mmap.mmap(-1, count * 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mappings.append(memory)
    for page in range(count):
        memory[page * 4096:(page + 1) * 4096] = (pattern + struct.pack("<Q", page)) * (4096 // (len(pattern) + 8))
    from uffdlab.agent.native import ffi
    address = int(ffi.cast("uintptr_t", ffi.from_buffer(memory)))
    with open("/proc/self/pagemap", "rb", buffering=0) as file:
        file.seek(address // 4096 * 8)
        entries = struct.unpack(f"<{count}Q", file.read(8 * count))
    return [entry & (1 << 55) - 1 for entry in entries]

def write(path, data):
    with open(path, "wb", buffering=0) as file:
        return file.write(data)

commands.METHODS.update({
    "test.read": read,
    "test.write": write,
    "test.list": os.listdir,
    "test.wall_ns": time.time_ns,
    "test.random": lambda: os.urandom(16),
    "test.sleep": time.sleep,
    "test.pages": pages,
    "test.exit": lambda: os._exit(3),
})
init.main()
"""


@pytest.fixture(autouse=True)
def _emulated(monkeypatch):
    monkeypatch.setenv("UFFDLAB_ACCEL", "tcg")


@pytest.fixture(scope="module")
def kernel():
    return kernels.get("6.1-series")


def start_with_test_init(kernel, **options):
    return start.start(kernel, extra={"init": TEST_INIT}, **options)


def pids(machine):
    supervisor = machine.pids[0]
    return supervisor, *children(supervisor)


@pytest.mark.timeout(1800)  # a kernel that does not exist yet is built first
@pytest.mark.parametrize("name", ALL)
def test_every_kernel_boots_and_is_restored(name):
    image = kernels.get(name)
    with start.start(image, cold=True) as machine:
        cold = machine.hello
        assert not machine.restored
        start._save(machine, machine.settings)
        assert machine.ask(Ping(1)) == 1  # it still runs
    assert cold.release == image.release
    assert cold.page_size == 4096
    with start.start(image) as machine:
        assert machine.restored
        assert machine.ask(Ping("here")) == "here"
        assert machine.hello.release == image.release


def test_options_reach_the_guest(kernel):
    with start_with_test_init(kernel, cpus=2, memory_mib=512, append="uffdlab.test=yes", cold=True) as machine:
        assert machine.hello.cpus == 2
        assert b"uffdlab.test=yes" in machine._client.call("test.read", ("/proc/cmdline",), 10)
        total = int(re.search(rb"MemTotal: +(\d+) kB", machine._client.call("test.read", ("/proc/meminfo",), 10))[1])
        assert 400 << 10 < total <= 512 << 10


def test_a_restored_guest_has_the_current_time_and_its_own_randomness(kernel):
    start_with_test_init(kernel).close()
    with start_with_test_init(kernel) as one, start_with_test_init(kernel) as two:
        assert one.restored
        assert two.restored
        for machine in (one, two):
            assert abs(machine._client.call("test.wall_ns", (), 10) - time.time_ns()) < 2e9
        assert one._client.call("test.random", (), 10) != two._client.call("test.random", (), 10)


def test_a_guest_has_no_device_of_the_host(kernel):
    with start_with_test_init(kernel) as machine:
        assert set(machine._client.call("test.list", ("/sys/class/net",), 10)) <= {"lo"}
        disks = machine._client.call("test.list", ("/sys/class/block",), 10)
        assert all(name.startswith(("ram", "loop", "zram")) for name in disks)
        _supervisor, emulator = pids(machine)
        status = Path(f"/proc/{emulator}/status").read_text()
        assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)
        sockets = [str(link.readlink()) for link in Path(f"/proc/{emulator}/fd").iterdir()]
        assert not any("/9p" in name or name.endswith((".sock", ".img")) for name in sockets)


def test_the_guests_clock_runs_at_the_hosts_rate(kernel):
    for cold in (True, False):
        with start.start(kernel, cold=cold) as machine:
            assert clock.rate(lambda guest=machine: guest.ask(ReadClock())) == pytest.approx(1, abs=clock.TOLERANCE)


@pytest.mark.long
def test_a_guest_with_a_wrong_clock_rate_is_neither_used_nor_saved(kernel, own_states, monkeypatch):
    monkeypatch.setattr(clock, "counter_mhz", lambda: 100)  # a rate that a guest on a busy host may measure
    with pytest.raises(errors.MachineError, match=r"clock runs \d+\.?\d* times as fast as the host's, after each of 3"):
        start.start(kernel)
    assert own_states() == []


def test_a_panic_is_reported_with_the_console(kernel):
    with start.start(kernel) as machine:
        started = time.monotonic()
        with pytest.raises(errors.GuestPanic, match="sysrq triggered crash") as caught:
            machine.ask(TriggerSysrq("c"), deadline=10)
        assert time.monotonic() - started < 10
        assert "Kernel panic" in caught.value.console
        with pytest.raises(errors.GuestPanic):
            machine.ask(Ping(1))


def test_the_end_of_the_agent_is_reported_as_a_panic(kernel):
    with start_with_test_init(kernel) as machine, pytest.raises(errors.GuestPanic, match="Attempted to kill init"):
        machine._client.call("test.exit", (), 10)


def test_the_error_of_a_failed_init_has_its_console_output(kernel):
    script = b"#!/usr/bin/python3 -ISBXutf8\nraise SystemExit('this init gives up')\n"
    with pytest.raises(errors.MachineLost, match="this init gives up"):
        start.start(kernel, extra={"init": script}, cold=True, deadline=30)


def test_a_guest_that_hangs_is_reported(kernel):
    with start_with_test_init(kernel) as machine:
        started = time.monotonic()
        with pytest.raises(errors.MachineTimeout, match=r"test\.sleep: no answer within 1\.0 s"):
            machine._client.call("test.sleep", (3,), 1)
        assert time.monotonic() - started < 5
        assert machine.ask(Ping(7), deadline=10) == 7  # the late answer to the first call is dropped


def test_a_paused_guest_does_not_answer_until_it_runs_again(kernel):
    with start.start(kernel) as machine:
        with machine.physical.paused(), pytest.raises(errors.MachineTimeout):
            machine.ask(Ping(), deadline=0.5)
        assert machine.ask(Ping(2)) == 2


def test_a_guest_that_sends_no_hello_is_reported(kernel):
    script = b"#!/usr/bin/python3 -ISBXutf8\nimport time\nprint('sleeping on', flush=True)\ntime.sleep(1000)\n"
    with pytest.raises(errors.MachineTimeout, match="did not start") as caught:
        start.start(kernel, extra={"init": script}, cold=True, deadline=12)
    assert "sleeping on" in caught.value.console


def test_a_killed_qemu_is_reported_and_ends_its_supervisor(kernel):
    with start_with_test_init(kernel) as machine:
        supervisor, emulator = pids(machine)
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(machine._client.call, "test.sleep", (60,), 60) for _ in range(2)]
            time.sleep(0.3)
            killed = time.monotonic()
            os.kill(emulator, signal.SIGKILL)
            for future in waiting:
                with pytest.raises(errors.MachineLost, match="killed by signal 9"):
                    future.result(10)
        assert time.monotonic() - killed < 5
        assert gone_within(1, supervisor)
        with pytest.raises(errors.MachineLost):
            machine.physical.root_candidates()


def test_a_killed_supervisor_ends_qemu(kernel):
    with start.start(kernel) as machine:
        supervisor, emulator = pids(machine)
        os.kill(supervisor, signal.SIGKILL)
        assert gone_within(1, emulator)
        with pytest.raises(errors.MachineLost, match="killed with its supervisor"):
            machine.ask(Ping())


OWNER = """
    import os, sys, threading, time
    from uffdlab import kernels
    from uffdlab.machines.qemu import start
    from uffdlab.uapi.protocol.agent import Ping
    made = []
    thread = threading.Thread(target=lambda: made.append(start.start(kernels.get("6.1-series"))))
    thread.start()
    thread.join()  # a machine does not depend on the thread that started it
    machine = made[0]
    time.sleep(0.2)
    assert machine.ask(Ping(5)) == 5
    supervisor = machine.pids[0]
    with open(f"/proc/{supervisor}/task/{supervisor}/children") as file:
        print(supervisor, *file.read().split(), flush=True)
"""


@contextlib.contextmanager
def owner(code):
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(OWNER) + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    )
    try:
        yield process, [int(pid) for pid in process.stdout.readline().split()]
    finally:
        process.kill()
        process.communicate()


def test_no_process_outlives_an_owner_that_is_killed():
    with owner("sys.stdin.read()") as (process, found):
        assert len(found) == 2
        assert all(alive(pid) for pid in found)
        process.kill()
        assert gone_within(1, *found)


def test_no_process_outlives_a_killed_owner_whose_forked_child_lives():
    code = """
        child = os.fork()
        if child == 0:
            time.sleep(20)
            os._exit(0)
        print(child, flush=True)
        sys.stdin.read()
    """
    with owner(code) as (process, found):
        child = int(process.stdout.readline())
        process.kill()
        try:
            assert gone_within(1, *found)
            assert alive(child)
        finally:
            os.kill(child, signal.SIGKILL)


def test_no_process_outlives_an_owner_that_exits_without_closing():
    with owner("") as (process, found):
        assert process.wait(10) == 0
        assert gone_within(1, *found)


def test_a_forked_child_neither_uses_nor_ends_the_machine():
    code = """
        from uffdlab import errors
        child = os.fork()
        if child == 0:
            try:
                machine.ask(Ping(1))
            except errors.MachineLost:
                machine.close()
                del machine, made
                sys.exit(7)
        _pid, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), machine.ask(Ping(6)), flush=True)
    """
    with owner(code) as (process, _found):
        assert process.stdout.readline().split() == ["7", "6"]


def test_a_machine_that_is_garbage_collected_ends(kernel):
    machine = start.start(kernel)
    found = pids(machine)
    del machine
    assert gone_within(1, *found)


def test_machines_at_the_same_time_share_nothing(kernel):
    with ThreadPoolExecutor(3) as pool:
        machines = list(pool.map(lambda _: start_with_test_init(kernel), range(3)))
    try:
        for number, machine in enumerate(machines):
            machine._client.call("test.write", ("/mine", bytes([number])), 10)
        assert [machine._client.call("test.read", ("/mine",), 10) for machine in machines] == [b"\0", b"\1", b"\2"]
        machines[0].close()
        assert machines[1].ask(Ping(1)) == 1
    finally:
        for machine in machines:
            machine.close()


def test_twenty_machines_leak_nothing(kernel):
    def once():
        with start.start(kernel) as machine:
            machine.physical.root_candidates()

    once()
    before = open_resources()
    for _ in range(20):
        once()
    assert open_resources() == before


def test_a_closed_machine_refuses_each_call_but_keeps_its_console(kernel):
    machine = start.start(kernel)
    physical = machine.physical
    frame = physical.root_candidates()[0][0] // 4096
    content = physical.read_frames(frame)
    machine.close()
    machine.close()
    for use in (lambda: machine.ask(Ping()), lambda: machine.physical, lambda: physical.read_frames(frame)):
        with pytest.raises(errors.LabClosed):
            use()
    assert content.any()
    assert isinstance(machine.console(), str)


@pytest.mark.parametrize("memory_mib", [1024, 3072])
def test_physical_reads_the_memory_of_the_guest(kernel, memory_mib):
    pattern = os.urandom(24)
    with start_with_test_init(kernel, memory_mib=memory_mib, cold=True) as machine:
        frames = machine._client.call("test.pages", (pattern, 300), 10)
        expected = np.frombuffer(
            b"".join((pattern + page.to_bytes(8, "little")) * 128 for page in range(300)), dtype="<u8"
        ).reshape(300, 512)
        assert np.array_equal(machine.physical.read_frames(np.array(frames)), expected)
        assert machine.physical.read(frames[7] * 4096 + 3, 40) == (pattern + (7).to_bytes(8, "little") + pattern)[3:43]
        if memory_mib > 2816:
            assert max(frames) >= (1 << 32) // 4096  # memory above 4 GiB was read
        roots = machine.physical.root_candidates()
        assert len(roots) == 1
        assert roots[0][1] == 4
        assert machine.physical.read_frames(roots[0][0] // 4096)[256:].any()  # the kernel's half
        with pytest.raises(errors.WitnessError):
            machine.physical.read_frames(0xFEE00)


# Saved states


@pytest.fixture
def own_states(monkeypatch, tmp_path):
    # The test's own cache for machines; the kernel comes from the user's cache.
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path))
    return lambda: sorted(cachedir.folder("machines").glob("*.state"))


@pytest.mark.parametrize("damage", ["cut", "garbled header", "garbled devices", "other pages", "one bit"])
def test_a_damaged_state_is_replaced_by_a_cold_boot(kernel, own_states, damage):
    start.start(kernel).close()
    (state,) = own_states()
    data = bytearray(state.read_bytes())
    match damage:
        case "cut":
            del data[-5000:]
        case "garbled header":
            data[40:60] = b"x" * 20
        case "garbled devices":
            at = data.index(b"QEVM")
            data[at : at + 2000] = os.urandom(2000)
        case "other pages":
            data[-len(data) // 2 :] = os.urandom(1) * (len(data) // 2)
        case "one bit":
            data[len(data) // 3] ^= 4
    state.write_bytes(data)
    with start.start(kernel) as machine:
        assert not machine.restored
        assert machine.ask(Ping(1)) == 1
    with start.start(kernel) as machine:
        assert machine.restored


def test_a_restore_that_stalls_is_replaced_by_a_cold_boot(kernel, own_states, monkeypatch):
    start.start(kernel).close()
    (state,) = own_states()
    wake = QemuMachine.wake

    def wake_while_stopped(machine, saved):
        assert wait_until(lambda: len(machine.pids) == 2)
        os.kill(machine.pids[-1], signal.SIGSTOP)
        wake(machine, saved)

    monkeypatch.setattr(QemuMachine, "wake", wake_while_stopped)
    monkeypatch.setattr("uffdlab.machines.qemu.machine._RESTORE_DEADLINE", 0.5)
    with start.start(kernel) as machine:
        assert not machine.restored
        assert machine.ask(Ping(1)) == 1
    assert state in own_states()  # the state itself was not damaged


def test_machines_started_at_the_same_time_save_one_state(kernel, own_states):
    with ThreadPoolExecutor(4) as pool:
        for machine in pool.map(lambda _: start.start(kernel), range(4)):
            assert machine.ask(Ping(3)) == 3
            machine.close()
    assert len(own_states()) == 1
    assert [path.name for path in own_states()[0].parent.iterdir() if path.suffix != ".state"] == []


def test_a_cold_boot_saves_nothing(kernel, own_states):
    start.start(kernel, cold=True).close()
    assert own_states() == []


def test_each_set_of_options_has_its_own_state(kernel, own_states):
    start.start(kernel).close()
    with start.start(kernel, append="uffdlab.other=1") as machine:
        assert not machine.restored
    assert len(own_states()) == 2


def test_a_boot_is_announced_before_it_is_done_and_a_restore_is_not(capfd):
    memory_mib = 517  # no other test has a saved state of this size
    for key in ("first", "second"):
        with uffdlab.Lab("6.1-series", memory_mib=memory_mib, command_line=f"uffdlab.unused={os.getpid()}"):
            shown = capfd.readouterr().err
        assert ("6.1-series: boots under" in shown) == (key == "first")
        assert ("6.1-series: booted under" in shown) == (key == "first")
