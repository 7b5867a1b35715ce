"""A lab on a real kernel: waiting touches, deadlines, errors, and a lab that stays usable."""

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import uffdlab
from uffdlab.errors import (
    FaultUnresolved,
    GuestPanic,
    IoctlError,
    LabClosed,
    MachineLost,
    NoMessage,
    TargetLost,
    TouchFailed,
    UffdlabError,
    UsageError,
    WitnessError,
)
from uffdlab.lab import Lab
from uffdlab.pte import State
from uffdlab.uapi.protocol.agent import KillTarget
from uffdlab.uapi.protocol.target import CallIoctl, StartTouch

pytestmark = pytest.mark.vm


@pytest.fixture
def registered(lab):
    region = lab.map(pages=8)
    region.alias.fill(100)
    uffd = lab.userfaultfd()
    uffd.register(region, "minor", "wp")
    yield region, uffd
    uffd.close()
    region.unmap()


@pytest.mark.parametrize("end", ["killed", "panicked", "closed"])
def test_the_end_of_the_machine_ends_every_wait(end):
    lab = Lab("6.1-series")
    try:
        region = lab.map(pages=4)
        region.alias.fill(1)
        uffd = lab.userfaultfd()
        uffd.register(region, "minor")
        touch = region.read(1)
        assert uffd.read_fault().page == 1

        def end_it():
            if end == "closed":
                lab.close()
            elif end == "killed":
                os.kill(lab.machine.pids[0], signal.SIGKILL)
            else:
                with contextlib.suppress(UffdlabError):
                    lab.exec(["sh", "-c", "echo c > /proc/sysrq-trigger"])

        ending = threading.Thread(target=end_it)
        ending.start()
        expected = {"killed": MachineLost, "panicked": GuestPanic, "closed": LabClosed}[end]
        for wait in (lambda: touch.result(timeout=60), lambda: uffd.read_fault(timeout=60), region.read):
            with pytest.raises(expected):
                wait()
        with pytest.raises((expected, WitnessError)):
            region.snapshot()
        ending.join()
        assert end != "panicked" or "sysrq" in str(touch._end.exception())
    finally:
        lab.close()


def test_regions_of_a_lost_target_are_refused_after_a_restart():
    with Lab("6.1-series") as lab:
        old = lab.map(pages=4)
        old_uffd = lab.userfaultfd()
        number = old_uffd.number
        lab.restart_target()
        new = lab.map(pages=4)
        new_uffd = lab.userfaultfd()
        assert (old.start, number) == (new.start, new_uffd.number)
        new.write(0, 7).result()
        for call in (lambda: old.write(0, 8), lambda: old.madvise("dontneed"), old.unmap, old.alias.fill,
                     lambda: new_uffd.register(old, "minor"), lambda: old_uffd.register(new, "minor"),
                     old_uffd.read_fault):  # fmt: skip
            with pytest.raises(TargetLost, match="replaced by a new one"):
                call()
        old_uffd.close()
        assert new.read(0).result() == 7
        new_uffd.register(new, "minor")


def test_the_example_of_the_design_runs_as_written():
    lab = uffdlab.Lab("6.1-series")
    region = lab.map(pages=64, memory="shmem")
    region.alias.fill()
    uffd = lab.userfaultfd()
    uffd.register(region, "minor", "wp")
    before = region.snapshot()
    uffd.continue_(region[:32], wp=True)
    uffd.continue_(region[32:48])
    after = region.snapshot()
    comparison = uffdlab.compare(before, after)
    assert "32 pages" in str(comparison)
    touch = region.write(3)
    fault = uffd.read_fault()
    assert (fault.page, fault.write, fault.wp) == (3, True, True)
    assert touch.state == "waiting"
    uffd.writeprotect(region[3], wp=False)
    touch.result()
    lab.close()


def test_a_touch_waits_until_its_fault_is_resolved(registered):
    region, uffd = registered
    touch = region.read(2)
    fault = uffd.read_fault()
    assert (fault.page, fault.minor, fault.write) == (2, True, False)
    assert touch.state == "waiting"
    with pytest.raises(FaultUnresolved) as caught:
        touch.result(timeout=0.05)
    assert caught.value.address == region[2].start
    assert region.snapshot().lacks(State.PRESENT)[2]
    uffd.continue_(region[2])
    assert touch.result() == 102
    assert touch.waited_ns >= 50_000_000


def test_a_waiting_touch_can_be_withdrawn(registered):
    region, uffd = registered
    touch = region.write(5, 0xBAD)
    uffd.read_fault()
    assert touch.withdraw() is True
    with pytest.raises(TouchFailed, match="withdrawn"):
        touch.result()
    uffd.continue_(region[5])
    assert region.alias.read(5).result() == 105


def test_many_touches_wait_at_once(registered):
    region, uffd = registered
    touches = [region.read(page) for page in range(8)]
    assert {uffd.read_fault().page for _ in touches} == set(range(8))
    assert {touch.state for touch in touches} == {"waiting"}
    uffd.continue_(region, wp=True)
    assert [touch.result() for touch in touches] == [100 + page for page in range(8)]


def test_dontwake_leaves_the_thread_asleep_until_wake(registered):
    region, uffd = registered
    touch = region.read(1)
    uffd.read_fault()
    uffd.continue_(region[1], dontwake=True)
    assert touch.state == "waiting"
    uffd.wake(region[1])
    assert touch.result() == 101


def test_copy_resolves_a_missing_fault(lab):
    region = lab.map(pages=2)
    uffd = lab.userfaultfd()
    uffd.register(region, "missing", "wp")
    touch = region.read(1)
    assert uffd.read_fault().missing
    uffd.copy(region[1], (0x1234).to_bytes(8, "little"), wp=True)
    assert touch.result() == 0x1234
    state = region[1].snapshot()
    assert state.has(State.UFFD_WP)[0]
    assert state.lacks(State.WRITABLE)[0]
    assert region.alias.copy_out(1) == (0x1234).to_bytes(8, "little") + bytes(4088)


def test_after_unregister_the_kernel_resolves_faults_again(registered):
    region, uffd = registered
    touch = region.read(4)
    uffd.read_fault()
    uffd.unregister(region)
    uffd.wake(region)  # UNREGISTER itself wakes only threads that wait for a missing page
    assert touch.result() == 104
    with pytest.raises(NoMessage):
        uffd.read_fault(timeout=0.1)


@pytest.mark.parametrize(
    ("wrong", "errno_name", "message"),
    [
        ({"start": 1}, "EINVAL", "unaligned"),
        ({"len": 0}, "EINVAL", "empty"),
        ({"mode": 1 << 9}, "EINVAL", "no mode bits 0x200"),
    ],
)
def test_wrong_fields_reach_the_kernel_and_their_errno_is_explained(registered, wrong, errno_name, message):
    region, uffd = registered
    values = {"start": region.start, "len": 4096, "mode": 0} | wrong
    with pytest.raises(IoctlError, match=f"{errno_name}.*{message}"):
        uffd.ioctl("UFFDIO_CONTINUE", values)


def test_errors_leave_the_lab_usable(registered):
    region, uffd = registered
    uffd.continue_(region[0])
    with pytest.raises(IoctlError, match="EEXIST"):
        uffd.continue_(region[0])
    empty = region.lab.map(pages=1)
    uffd.register(empty, "minor")
    with pytest.raises(IoctlError, match=r"EFAULT.*page cache"):
        uffd.continue_(empty)
    with pytest.raises(IoctlError, match=r"ENOENT.*registered for WP"):
        uffd.writeprotect(empty)
    assert region.read(0).result() == 100
    empty.unmap()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"pages": 0}, "at least 1 page"),
        ({"pages": -1}, "at least 1 page"),
        ({"size": 4097}, "multiple of the page size, 4096"),
        ({}, "pages=… or in bytes"),
        ({"pages": 1, "size": 4096}, "pages=… or in bytes"),
        ({"pages": 1, "memory": "shmen"}, "The kinds are 'anon', .*'shmem', .*'hugetlb'"),
        ({"pages": 1, "page_size": 8192}, "pages of 4096 bytes"),
        ({"pages": 100_000, "memory": "hugetlb"}, "huge pages of 2 MiB are needed"),
    ],
)
def test_an_impossible_mapping_is_refused_with_a_reason(lab, wrong, message):
    with pytest.raises(UsageError, match=message):
        lab.map(**wrong)


def test_running_out_of_memory_ends_the_target_but_not_the_lab(lab):
    region = lab.map(pages=10**6)
    with pytest.raises(UsageError, match="memory and swap"):
        region.alias.fill()
    with pytest.raises((TouchFailed, TargetLost)):
        region.alias.sweep("write", order="ascending").result(60)
    lab.restart_target()
    small = lab.map(pages=1)
    small.alias.fill(7)
    assert small.alias.read(0).result() == 7


def test_a_lost_target_fails_its_touches_and_a_new_one_works(lab):
    region = lab.map(pages=2)
    region.alias.fill()
    uffd = lab.userfaultfd()
    uffd.register(region, "minor")
    touch = region.read(0)
    lab.ask(KillTarget())
    with pytest.raises(TargetLost, match="restart_target"):
        touch.result(timeout=5)
    with pytest.raises(TargetLost):
        lab.map(pages=1)
    lab.restart_target()
    again = lab.map(pages=4)
    again.alias.fill()
    assert again.alias.snapshot().has(State.PRESENT).all()


def test_a_call_that_waits_in_the_kernel_is_ended_at_its_deadline(lab):
    """UFFDIO_COPY from a registered page faults itself; nobody resolves it."""
    region, source = lab.map(pages=1), lab.map(pages=1)
    uffd = lab.userfaultfd()
    if "USER_MODE_ONLY" in uffd.way:
        pytest.skip("a userfaultfd for user mode only gets no faults from kernel mode")
    uffd.register(region, "missing")
    uffd.register(source, "missing")
    fields = {"dst": region.start, "src": source.start, "len": 4096}
    started = time.monotonic()
    with pytest.raises(FaultUnresolved, match="killed"):
        lab.ask(CallIoctl(uffd.number, "UFFDIO_COPY", fields, None), deadline=1)
    assert time.monotonic() - started < 6
    lab.restart_target()
    lab.map(pages=1).alias.fill()


def test_a_target_killed_during_a_call_is_reported_at_once(lab):
    """The call waits in the kernel, on the target's own connection, when the target is killed."""
    region, source = lab.map(pages=1), lab.map(pages=1)
    uffd = lab.userfaultfd()
    uffd.register(region, "missing")
    uffd.register(source, "missing")
    fields = {"dst": region.start, "src": source.start, "len": 4096}
    lab.exec(["true"])  # the first program installs the shell and its tools
    pid = str(lab.target_pid)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(lab.ask, CallIoctl(uffd.number, "UFFDIO_COPY", fields, None), deadline=50)
        assert uffd.read_fault().page == 0
        lab.exec(["kill", "-9", pid])
        with pytest.raises(TargetLost, match="SIGKILL"):
            call.result(10)
    lab.restart_target()
    lab.map(pages=1).alias.fill()


def test_a_target_killed_while_it_sends_does_not_disturb_the_next_one(lab):
    lab.exec(["true"])
    for turn in range(5):
        big = lab.map(pages=64 << 10)  # half a megabyte of pagemap entries; a request below is as large
        pid = str(lab.target_pid)
        with ThreadPoolExecutor(3) as pool:
            calls = [pool.submit(lab._target.read_pagemap, big.start, big.pages, 4096) for _ in range(2)]
            calls.append(pool.submit(lab.ask, StartTouch(10**6, "none", 0, 0, 0, 0, {"more": bytes(1 << 19)})))
            time.sleep(0.002 * turn)
            lab.exec(["kill", "-9", pid])
            for call in calls:
                error = call.exception(30)
                assert error is None or isinstance(error, (TargetLost, UsageError)), error
        lab.restart_target()
        region = lab.map(pages=3)
        region.alias.fill(turn)
        assert region.alias.read(2).result() == turn + 2  # fill writes value + page
        until = time.monotonic() + 5
        while not lab.machine._client._target.marker_returned:  # the target's own connection is up again
            assert time.monotonic() < until
            time.sleep(0.01)


def test_each_call_of_a_closed_lab_is_refused():
    lab = Lab("6.1-series")
    region = lab.map(pages=1)
    uffd = lab.userfaultfd()
    lab.close()
    lab.close()
    for attempt in (lambda: lab.map(pages=1), region.snapshot, lambda: region.read(0), lambda: uffd.wake(region)):
        with pytest.raises(LabClosed, match=r"Lab\('6\.1-series'\)"):
            attempt()


def test_closing_a_lab_ends_a_waiting_touch():
    lab = Lab("6.1-series")
    region = lab.map(pages=1)
    region.alias.fill()
    uffd = lab.userfaultfd()
    uffd.register(region, "minor")
    touch = region.read(0)
    waiting = threading.Timer(0.3, lab.close)
    waiting.start()
    with pytest.raises(uffdlab.UffdlabError):
        touch.result(timeout=20)
    waiting.join()


def test_a_restart_of_the_target_invalidates_its_page_tables(lab):
    """After a restart the witness must not read the old page tables."""
    region = lab.map(pages=4)
    region.alias.fill()
    region.alias.snapshot("physical")
    witness = lab.witness("physical")
    lab.restart_target()
    with pytest.raises(WitnessError, match="physical"):
        witness.read(region, 0, 4)


def test_hugetlb_entries_are_at_the_pmd(lab):
    region = lab.map(pages=3, memory="hugetlb")
    region.alias.fill(5)
    state = region.alias.snapshot()
    assert state.levels.tolist() == [2, 2, 2]
    assert (state.frames() % 512 == 0).all()
    assert region.alias.read(2).result() == 7
    region.unmap()
