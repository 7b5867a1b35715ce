"""Touches, calls, children, handlers and messages, with the agent on this host's own kernel."""

import errno
import math
import os
import queue
import signal
import threading
import time

import pytest
from msgspec.structs import replace

from uffdlab.errors import (
    AgentError,
    FaultUnresolved,
    IoctlError,
    LabClosed,
    MachineLost,
    NoMessage,
    TouchFailed,
    UsageError,
)
from uffdlab.target.userfaultfd import Fork
from uffdlab.uapi import Feature
from uffdlab.uapi.memory import MEMORY
from uffdlab.uapi.messages import Fault, Remap, Remove, Unmap
from uffdlab.uapi.protocol.target import SyncFeed, TouchWaits

from ..unprivileged import needs_root

EVENTS = Feature.EVENT_FORK | Feature.EVENT_REMAP | Feature.EVENT_REMOVE | Feature.EVENT_UNMAP


@pytest.fixture
def region(host_lab):
    region = host_lab.map(pages=8, memory="anon")
    yield region
    region.unmap()


@pytest.fixture
def uffd(host_lab, region):
    with host_lab.userfaultfd(EVENTS) as uffd:
        uffd.register(region, "missing")
        yield uffd


@pytest.mark.parametrize("memory", [name for name in MEMORY if "hugetlb" not in name])
def test_every_memory_can_be_touched_and_says_what_it_is(host_lab, memory):
    pages = MEMORY[memory].unit // MEMORY[memory].page_size * 2
    try:
        region = host_lab.map(pages=pages, memory=memory)
    except AgentError as error:
        if not needs_root(error) and "this kernel" not in str(error):
            raise
        pytest.skip(str(error))
    assert MEMORY[memory].about in repr(region)
    region.fill(10)
    assert region.read(pages - 1).result() == 9 + pages
    if MEMORY[memory].has_alias:
        assert region.alias.read(1).result() == (11 if MEMORY[memory].shared else 0)
    else:
        with pytest.raises(UsageError, match="cannot have a second"):
            region.alias.read(1)
    region.unmap()


def test_memory_that_is_not_there_is_named(host_lab):
    with pytest.raises(UsageError, match=r"'shmen'.*'anon'.*'hugetlb'"):
        host_lab.map(pages=1, memory="shmen")
    with pytest.raises(UsageError, match="multiple of 512 pages"):
        host_lab.map(pages=1, memory="thp")


def test_the_lab_lists_its_regions_and_the_touches_that_have_not_ended(host_lab, region, uffd):
    assert region in host_lab.regions
    first, second = region.read(2), region.write(5)
    assert host_lab.touches == (first, second)
    assert first.number < second.number
    uffd.copy(region[2])
    first.result()
    assert host_lab.touches == (second,)
    second.withdraw()
    assert host_lab.touches == ()


def test_what_is_intercepted_is_kept_from_the_others(region, uffd):
    taken = []

    def odd(message):
        mine = message.page % 2 == 1
        if mine:
            taken.append(message.page)
        return mine

    before = region.read(1)
    while not uffd._messages:
        time.sleep(0.01)
    stop = uffd.intercept(odd)
    touches = [before, region.read(2), region.read(3)]
    assert uffd.read_fault().page == 2
    while len(taken) < 2:
        time.sleep(0.01)
    stop()
    touches.append(region.read(5))
    assert uffd.read_fault().page == 5
    assert taken == [1, 3]
    uffd.copy(region)
    assert [touch.result() for touch in touches] == [0] * 4


def test_every_kind_of_touch_returns_its_value(region):
    region.write(2, 40)
    assert region.modify(2, add=2).result() == 40
    assert region.read(2).result() == 42
    assert region.kernel_read(2).result() == 42
    assert region.kernel_write(2, 7).result() == 7
    assert region.gup_read(2).result() == 7
    region.gup_write(2, 9).result()
    assert region[2:4].read(0).result() == 9
    region.populate(write=True).result()
    assert region.copy_out(2)[:8] == (9).to_bytes(8, "little")


@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_a_sweep_comes_to_every_page_once(region, order):
    region.fill(1)
    sweep = region.sweep("modify", order=order, value=100, seed=5)
    assert sweep.result() == sum(range(1, 9))
    assert sweep.progress == 8
    assert [region.read(page).result() for page in range(8)] == [101 + page for page in range(8)]


def test_sweeps_of_many_threads_lose_nothing(region):
    touches = region.sweep_threads(6, "modify")
    for touch in touches:
        touch.result()
    assert region.read(3).result() == 6 * 0x55


def test_signals_and_errnos_are_results(region):
    region.mprotect("r")
    assert region.read(0).outcome().ok
    outcome = region.write(0).outcome()
    assert (outcome.state, outcome.signal, outcome.ok) == ("signal", "SIGSEGV", False)
    assert outcome.signal_address == region.start
    with pytest.raises(TouchFailed, match="SIGSEGV"):
        region.write(0).result()
    assert region.kernel_write(0).outcome().returned == -14
    with pytest.raises(TouchFailed, match="EFAULT"):
        region.kernel_write(0).result()


def test_calls_on_a_mapping_say_what_came_back(region):
    region.fill(1)
    assert region[2].madvise("dontneed").ok
    assert region.read(2).result() == 0
    region[4].munmap()
    assert region.read(4).outcome().signal == "SIGSEGV"
    with pytest.raises(IoctlError, match=r"mprotect\(region-\d+, 8 pages, none\) → ENOMEM"):
        region.mprotect("")
    assert region.madvise(12345, check=False).errno == 22
    with pytest.raises(UsageError, match="no advice"):
        region.madvise("dontned")
    with pytest.raises(UsageError, match="r, w and x only"):
        region.mprotect("rq")


def test_a_guarded_page_is_a_segmentation_fault(region):
    region.fill(1)
    try:
        region[3].guard()
    except IoctlError as error:
        if error.errno != errno.EINVAL:
            raise
        pytest.skip("this host's kernel has no guard regions")
    assert region.read(3).outcome().signal == "SIGSEGV"
    region[3].madvise("guard_remove")
    assert region.read(3).result() == 0


def test_a_moved_region_is_where_it_says(region):
    region.fill(1)
    before = region.start
    region.mremap()
    assert region.start != before
    assert region.read(7).result() == 8


def test_events_come_as_they_happen(host_lab, region, uffd):
    with uffd.handle(lambda fault: uffd.copy(region[fault.page], bytes([fault.page + 1]))) as handler:
        assert region.sweep().result() == sum(range(1, 9))
    assert handler.served == 8
    region[5:7].madvise("dontneed")
    removed = uffd.wait_for(Remove)
    assert (removed.region, removed.first, removed.count) == (region.name, 5, 2)
    before = region.start
    region.mremap()
    moved = uffd.wait_for(Remap)
    assert (moved.start, moved.to, moved.length) == (before, region.start, region.length)
    region[7].munmap()
    unmapped = [message for message in uffd.messages(0.3) if isinstance(message, Unmap)]
    assert unmapped[-1].start == region[7].start


def test_a_child_has_page_tables_and_a_userfaultfd_of_its_own(host_lab, region, uffd):
    uffd.copy(region[:4], (77).to_bytes(8, "little"))
    with host_lab.fork() as child:
        forked = uffd.wait_for(Fork).userfaultfd
        assert region.read(0, by=child).result() == 77
        region.write(0, 5, by=child).result()
        assert region.read(0).result() == 77
        assert region.kernel_read(0, by=child).result() == 5
        assert region.sweep(by=child) is not None
        assert forked.read_fault().page == 4
        with pytest.raises(UsageError, match="one at a time"):
            region.read(0, by=child)
        with pytest.raises(NoMessage):
            uffd.read_fault(timeout=0.1)
        forked.close()
    with pytest.raises(UsageError, match="has ended"):
        region.read(0, by=child)


def test_a_child_s_touch_can_be_taken_back_and_dies_with_it(host_lab, region, uffd):
    with host_lab.fork() as child:
        forked = uffd.wait_for(Fork).userfaultfd
        touch = region.read(1, by=child)
        assert touch.state == "waiting"
        assert touch.withdraw()
        last = region.read(1, by=child)
        assert forked.read_fault().page == 1
    assert last.outcome().signal == "SIGKILL"


def test_a_native_handler_counts_what_it_does(host_lab):
    region = host_lab.map(pages=64)
    region.alias.fill(1)
    with host_lab.userfaultfd() as uffd:
        uffd.register(region, "minor", "wp")
        with uffd.handle_natively(minor="continue_wp", wp="unprotect") as handler:
            assert region.sweep("modify", order="random").result() == sum(range(1, 65))
            assert handler.counts.running
        counts = handler.stop()
        assert counts.served == {"missing": 0, "minor": 64, "wp": 64, "rwp": 0}
        assert sum(counts.latency) == counts.total == 128
        assert 0 < counts.percentile(0.5) <= counts.percentile(0.99)
        assert not counts.running
    region.unmap()


def test_a_native_handler_resolves_faults_while_events_wait(host_lab):
    """Until the event of MADV_DONTNEED is read, every fill fails with EAGAIN; and only the handler can read it."""
    region = host_lab.map(pages=64, memory="anon")
    with host_lab.userfaultfd(Feature.EVENT_REMOVE) as uffd:
        uffd.register(region, "missing")
        with uffd.handle_natively(missing="zeropage") as handler:
            for _ in range(50):
                read = region[:32].sweep("read")
                region[32:].madvise("dontneed")
                read.result()
                region[:32].madvise("dontneed")
            assert (handler.counts.total, handler.counts.failed) == (50 * 32, 0)
    region.unmap()


def test_what_a_native_handler_does_not_serve_is_a_message(host_lab):
    region = host_lab.map(pages=2)
    region.alias.fill(1)
    with host_lab.userfaultfd() as uffd:
        uffd.register(region, "minor", "wp")
        with uffd.handle_natively(wp="unprotect") as handler:
            touch = region.read(1)
            fault = uffd.read_fault()
            assert (fault.page, fault.minor) == (1, True)
            uffd.continue_(region[1], wp=True)
            touch.result()
            region.write(1).result()
        assert (handler.counts.forwarded, handler.counts.total) == (1, 1)
        with pytest.raises(UsageError, match="there is forward, continue"):
            uffd.handle_natively(minor="copy")
        with uffd.handle_natively(), pytest.raises(UsageError, match="serves this userfaultfd already"):
            uffd.handle_natively()
    region.unmap()


def test_a_python_handler_cannot_deadlock(region, uffd):
    """It touches an unresolved page itself, waits for it, and fails; the next fault is served all the same."""

    def resolve(fault):
        if fault.page == 1 and not resolve.tried:
            resolve.tried = True
            region.read(2)._result_or_withdraw(0.2)
        uffd.copy(region[fault.page])

    resolve.tried = False
    with uffd.handle(resolve) as handler:
        first = region.read(1)
        second = region.read(3)
        second.result(60)
        assert isinstance(handler.errors[0], FaultUnresolved)
        uffd.wake(region[1])  # faults again: served this time
        first.result(60)


def test_subscribers_see_everything_and_take_nothing(region, uffd):
    seen, done = [], threading.Event()

    def callback(message):
        seen.append(message)
        uffd.copy(region[message.page])  # it may ask the lab
        done.set()

    stop = uffd.subscribe(callback)
    touch = region.read(6)
    assert done.wait(5)
    stop()
    touch.result()
    assert isinstance(seen[0], Fault)
    assert uffd.read_fault() is seen[0]


def test_a_batch_does_an_ioctl_a_page(host_lab):
    region = host_lab.map(pages=1000)
    region.alias.fill(1)
    with host_lab.userfaultfd() as uffd:
        uffd.register(region, "minor", "wp")
        uffd.continue_(region[700])
        result = uffd.batch("UFFDIO_CONTINUE", region, mode=2, check=False)
        assert (result.errno, result.pages) == (17, 700)
        with pytest.raises(IoctlError, match=r"each of pages 700–999, WP\) → EEXIST: after 0 pages"):
            uffd.batch("UFFDIO_CONTINUE", region[700:], mode=2)
        assert uffd.batch("UFFDIO_CONTINUE", region[701:], mode=2).pages == 299
        with pytest.raises(UsageError, match="cannot be made page by page"):
            uffd.batch("UFFDIO_REGISTER", region)
    region.unmap()


def test_eagain_is_resumed_from_where_it_stopped(host_lab, monkeypatch):
    region = host_lab.map(pages=8)
    with host_lab.userfaultfd() as uffd:
        uffd.register(region, "missing")
        data = b"".join(bytes([page]) * 4096 for page in range(8))
        part = uffd.copy(region[:3], data[: 3 * 4096])
        # What the kernel says when it was interrupted after three pages of eight.
        values = {**part.values, "len": 8 * 4096}
        stopped = replace(part, errno=11, output=3 * 4096, done=3 * 4096, values=values, source=data)
        whole = uffd.resume(stopped)
        assert (whole.ok, whole.done) == (True, 8 * 4096)
        assert region.alias.copy_out(7) == data[-4096:]
        assert region.alias.copy_out(3) == data[3 * 4096 : 4 * 4096]
    region.unmap()


def test_closing_under_a_handler_ends_it(host_lab, region):
    uffd = host_lab.userfaultfd()
    uffd.register(region, "missing")
    handler = uffd.handle_natively(missing="zeropage")
    region.read(0).result()
    uffd.close()
    with pytest.raises(UsageError, match="was stopped"):
        handler.stop()
    assert host_lab.ask(TouchWaits(10**9)) is False


def test_no_thread_is_left_of_a_handler_and_a_subscriber_when_the_lab_ends(mortal_lab):
    before = set(threading.enumerate())
    uffd = mortal_lab.userfaultfd()
    handler = uffd.handle(print)
    stop = uffd.subscribe(print)
    started = set(threading.enumerate()) - before
    assert len(started) == 2
    mortal_lab.close()
    for thread in started:
        thread.join(60)
        assert not thread.is_alive()
    handler.stop()
    stop()


def test_what_ends_is_on_the_timeline(mortal_lab):
    region = mortal_lab.map(pages=4)
    mortal_lab.unmap(region)
    assert (mortal_lab.timeline[-1].kind, mortal_lab.timeline[-1].what) == ("unmap", region)
    mortal_lab.restart_target()
    assert mortal_lab.timeline[-1].text == "a new target process"
    received = queue.Queue()
    mortal_lab.timeline.listen(received.put)
    mortal_lab.map(pages=4)
    assert received.get(timeout=5).kind == "map"
    os.kill(mortal_lab.machine.hello.pid, signal.SIGKILL)
    entry = received.get(timeout=10)
    assert (entry.kind, type(entry.what)) == ("lab", MachineLost)
    mortal_lab.close()
    entry = received.get(timeout=5)
    assert (entry.kind, type(entry.what), entry.text) == ("lab", LabClosed, "the lab was closed")
    mortal_lab.close()
    assert received.empty()


def test_features_that_are_none(host_lab):
    with pytest.raises(UsageError, match=r"uapi\.Feature"):
        host_lab.userfaultfd("minor")


def test_a_page_stays_pinned_while_its_value_cannot_be_copied(host_lab, region, uffd):
    source = host_lab.map(pages=1, memory="anon")
    source.fill(7)
    touch = source.gup_read(into=region[2])
    fault = uffd.read_fault()
    assert (fault.page, fault.write) == (2, True)
    assert touch.state == "waiting"
    uffd.copy(region[2])
    assert touch.result() == 0
    assert region.read(2).result() == 7
    source.unmap()


@pytest.mark.parametrize("deadline", [1e8, 1e11, math.inf])
def test_a_wait_can_be_as_long_as_somebody_wants(host_lab, region, uffd, deadline):
    """Neither poll(2), which takes 24 days, nor Python's locks set a limit."""
    assert host_lab.exec(["true"], deadline=deadline).status == 0
    assert host_lab.ask(SyncFeed(), deadline=deadline) is None
    touch = region.read(0)
    assert uffd.read_fault(timeout=deadline).page == 0
    uffd.zeropage(region)
    assert touch.result(timeout=deadline) == 0
    assert not touch.withdraw(timeout=deadline)


def test_nan_is_no_time_to_wait(host_lab, region, uffd):
    touch = region.read(0)
    for wait in (touch.result, touch.withdraw, uffd.read_fault):
        with pytest.raises(UsageError, match="nan is no time"):
            wait(timeout=math.nan)
    uffd.zeropage(region)
    touch.result()


def test_a_moved_range_stays_registered_with_its_userfaultfd(host_lab, region, uffd):
    """Feature.EVENT_REMAP (fs/userfaultfd.c, mremap_userfaultfd_prep): errors name the owner at the new address."""
    region.mremap()
    uffd.wait_for(Remap)
    with host_lab.userfaultfd() as other, pytest.raises(IoctlError, match=r"lab\.userfaultfds\[\d+\] has this range"):
        other.register(region, "missing")
