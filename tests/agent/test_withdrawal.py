"""An access that was made is never called withdrawn, and one that is called withdrawn was not made."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from uffdlab.errors import FaultUnresolved, TouchFailed
from uffdlab.target.userfaultfd import Fork
from uffdlab.uapi import Feature

from .scripts import run

# A touch of this process, straight through the native core; `end_of` waits for its end.
_TOUCH = """
from uffdlab.agent.native import ffi

def touch_of(kind, **fields):
    touch = ffi.new("struct lab_touch *")
    touch.kind, touch.done_fd = kind, touches.done_fd
    for name, value in fields.items():
        setattr(touch, name, value)
    assert lib.lab_touch_start(touch) == 0
    return touch

def end_of(touch):
    assert select.select([touches.done_fd], [], [], 20)[0]
    os.eventfd_read(touches.done_fd)
    lib.lab_touch_join(touch)
    return touch.state

DONE, WITHDRAWN = lib.LAB_TOUCH_DONE, lib.LAB_TOUCH_WITHDRAWN
"""


@pytest.fixture
def page(host_lab):
    region = host_lab.map(pages=1, memory="anon")
    with host_lab.userfaultfd(Feature.EVENT_FORK) as uffd:
        uffd.register(region, "missing")
        yield region, uffd
    region.unmap()


@pytest.mark.parametrize("by_child", [False, True])
def test_a_call_that_was_made_after_its_withdrawal_is_done(host_lab, page, by_child):
    """The kernel's own fault takes no signal: it goes on when it is resolved."""
    region, uffd = page
    with host_lab.fork() as child:
        forked = uffd.wait_for(Fork).userfaultfd
        touch = region.kernel_write(0, 7, by=child if by_child else None)
        with pytest.raises(FaultUnresolved, match="no signal reaches it"):
            touch.withdraw(timeout=0.2)
        (forked if by_child else uffd).zeropage(region)
        outcome = touch.outcome()
        assert (outcome.state, outcome.returned) == ("done", 8)
        assert touch.result() == 7
        assert touch.withdraw() is False
        assert region.read(0, by=child if by_child else None).result() == 7


@pytest.mark.parametrize("times", [300])
def test_a_value_is_changed_if_and_only_if_its_write_is_done(host_lab, page, times):
    region, uffd = page
    with ThreadPoolExecutor(2) as threads:
        for _ in range(times):
            touch = region.modify(0, add=5)
            ends = threads.submit(touch.withdraw), threads.submit(uffd.zeropage, region)
            for end in ends:
                end.result()
            assert region.read(0).result() == (5 if touch.outcome().state == "done" else 0)
            region.madvise("dontneed")


def test_a_withdrawn_sweep_says_how_far_it_came():
    """At whichever instruction the signal arrives."""
    printed = run(
        _TOUCH,
        """
        import random, time
        COUNT = 1 << 18
        memory = native.map_memory(0, 8 * COUNT, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE, -1)
        values = ffi.cast("uint64_t *", memory)  # plain memory of ours, not registered
        withdrawn = wrong = 0
        for number in range(1, 201):
            touch = touch_of(lib.LAB_TOUCH_SWEEP, each=lib.LAB_TOUCH_WRITE, address=memory, length=8 * COUNT, stride=8,
                             jump=1, value=number)
            until = time.monotonic_ns() + random.randrange(800_000)
            while time.monotonic_ns() < until and touch.state == lib.LAB_TOUCH_STARTED:
                pass
            lib.lab_touch_withdraw(touch)
            state, made = end_of(touch), touch.progress
            withdrawn += state == WITHDRAWN and 0 < made < COUNT
            wrong += made > 0 and values[made - 1] != number
            wrong += made < COUNT and values[made] == number
            wrong += state == DONE and made != COUNT
        print(withdrawn > 0, wrong)
        """,
    )
    assert printed == ["True 0"]


def test_a_call_s_byte_was_read_if_and_only_if_it_is_done():
    """Of read(2) from a pipe into which a byte comes as it is withdrawn."""
    printed = run(
        _TOUCH,
        """
        import time
        ours, theirs = os.pipe2(os.O_NONBLOCK)
        os.set_blocking(ours, True)
        buffer = ffi.new("char[8]")
        number = {"x86_64": 0, "aarch64": 63}[os.uname().machine]
        seen, wrong, rounds = set(), 0, 0
        while rounds < 3000 and (rounds < 500 or len(seen) < 2):
            rounds += 1
            arguments = [ours, int(ffi.cast("uintptr_t", buffer)), 1, 0, 0, 0]
            touch = touch_of(lib.LAB_TOUCH_SYSCALL, number=number, arguments=arguments)
            writer = threading.Thread(target=os.write, args=(theirs, b"x"))
            writer.start()
            lib.lab_touch_withdraw(touch)
            state = end_of(touch)
            writer.join()
            os.set_blocking(ours, False)
            try:
                left = len(os.read(ours, 8))
            except BlockingIOError:
                left = 0
            os.set_blocking(ours, True)
            seen.add(state)
            wrong += (state, left) not in {(DONE, 0), (WITHDRAWN, 1)}
            wrong += state == DONE and touch.returned != 1
        print(sorted(seen) == [DONE, WITHDRAWN], wrong)
        """,
    )
    assert printed == ["True 0"]


def test_a_call_is_withdrawn_by_eintr_and_only_when_it_was_to_be():
    printed = run(
        _TOUCH,
        """
        import ctypes, errno
        from uffdlab.agent.pidfd import asleep
        number = {"x86_64": 281, "aarch64": 22}[os.uname().machine]  # epoll_pwait: never restarted
        poll = select.epoll()
        events = ffi.new("char[16]")
        arguments = [poll.fileno(), int(ffi.cast("uintptr_t", events)), 1, (1 << 64) - 1, 0, 8]

        def waiting():
            touch = touch_of(lib.LAB_TOUCH_SYSCALL, number=number, arguments=arguments)
            while not (touch.started_ns and asleep(touch.thread_id)):
                pass
            return touch

        touch = waiting()
        lib.lab_touch_withdraw(touch)
        print(end_of(touch) == WITHDRAWN, touch.returned == -errno.EINTR)
        touch = waiting()
        tgkill = {"x86_64": 234, "aarch64": 131}[os.uname().machine]  # as another process would, by number
        ctypes.CDLL(None).syscall(tgkill, os.getpid(), touch.thread_id, signal.SIGUSR1)
        print(end_of(touch) == DONE, touch.returned == -errno.EINTR)
        """,
    )
    assert printed == ["True True", "True True"]


def test_a_signal_from_another_process_is_distinguished_from_one_of_the_access(host_lab, page):
    region, _ = page
    child = host_lab.fork()
    touch = region.read(0, by=child)
    os.kill(child.pid, signal.SIGSEGV)
    outcome = touch.outcome()
    assert (outcome.signal, outcome.signal_address, outcome.signal_code) == ("SIGSEGV", 0, 0)
    with pytest.raises(TouchFailed, match="SIGSEGV"):
        touch.result()
    child.end()


def test_a_value_that_was_not_read_is_not_reported(host_lab, page):
    region, _ = page
    for touch in (region.modify(0, add=5), region.sweep("write", value=9), region.write(0, 9)):
        touch.withdraw()
        outcome = touch.outcome()
        assert (outcome.state, outcome.value, outcome.data) == ("withdrawn", 0, b"")
