"""Forked children of the target: what ends one, and what its touch says then."""

import os
import signal

import pytest

from uffdlab.errors import UsageError, WitnessError
from uffdlab.uapi import Feature

from .scripts import run


def test_a_touch_is_withdrawn_whose_child_has_ended_and_nobody_is_signalled(host_lab):
    printed = run("""
        bystander = os.fork()  # of the same process group
        if not bystander:
            signal.pause()
        pid = children.fork()["pid"]
        child = children.find(pid)
        os.kill(pid, signal.SIGSTOP)
        touches.start(1, "read", PAGE, 8, 8, 0, None, child)
        child.end()
        touches.withdraw(1)
        touches.end_touches_of(child)
        touches.withdraw(1)
        print([(number, end["state"], end["signal"]) for number, end in touches.ended()])
        print(os.waitpid(bystander, os.WNOHANG))
        os.kill(bystander, signal.SIGKILL)
    """)
    assert printed == [f"[(1, 'signal', {int(signal.SIGKILL)})]", "(0, 0)"]


@pytest.mark.parametrize("times", [100])
def test_children_end_while_their_touches_are_withdrawn(host_lab, times):
    """The end is told after the child has gone: a withdrawal that comes between reaches nobody."""
    region = host_lab.map(pages=1, memory="anon")
    with host_lab.userfaultfd(Feature.EVENT_FORK) as uffd:
        uffd.register(region, "missing")
        for _ in range(times):
            child = host_lab.fork()
            touch = region.read(0, by=child)
            child.end()
            touch.withdraw()
            assert touch.outcome().state in ("signal", "withdrawn")
    region.unmap()


def test_a_child_that_somebody_kills_is_told_of_at_once(host_lab):
    region = host_lab.map(pages=1, memory="anon")
    with host_lab.userfaultfd(Feature.EVENT_FORK) as uffd:
        uffd.register(region, "missing")
        child = host_lab.fork()
        touch = region.read(0, by=child)
        os.kill(child.pid, signal.SIGKILL)
        assert touch.outcome().signal == "SIGKILL"
        child.end()
    region.unmap()


def test_a_child_keeps_its_number_until_it_is_ended():
    printed = run("""
        pid = children.fork()["pid"]
        child = children.find(pid)
        os.kill(pid, signal.SIGKILL)
        assert child.process.wait(10) == signal.SIGKILL
        assert children.newly_ended() == [child] and children.newly_ended() == []
        assert child.process.status() == signal.SIGKILL
        print(os.path.exists(f"/proc/{pid}"))
        try:
            touches.start(1, "read", PAGE, 8, 8, 0, None, child)
        except Refusal as refusal:
            print(refusal)
        child.end()
        children.forget(child)
        print(os.path.exists(f"/proc/{pid}"))
        child.process.signal(signal.SIGKILL)
    """)
    assert printed[0] == "True"
    assert printed[1].endswith("has ended by signal 9")
    assert printed[2] == "False"


def test_a_child_that_cannot_keep_its_descriptors_says_so():
    printed = run("""
        os.dup2(touches.done_fd, 40)  # above the limit that is set below
        low = resource.getrlimit(resource.RLIMIT_NOFILE)
        before = set(os.listdir("/proc/self/fd"))
        children._done_fd = 40
        taken = [os.open("/", os.O_RDONLY) for _ in range(8)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, low[1]))
        for fd in taken[:4]:
            os.close(fd)
        child = children.find(children.fork()["pid"])
        assert child.process.wait(10) is not None
        print(child.signal)
        try:
            touches.start(1, "read", PAGE, 8, 8, 0, None, child)
        except Refusal as refusal:
            print(refusal)
    """)
    assert printed[0] == "0"
    assert printed[1].endswith("with status 100: fcntl or dup2 failed in it: Too many open files")


def test_a_child_makes_its_touch_whoever_holds_the_allocator():
    """A thread's first use of its own variables allocates; a child that did so would wait for a lock nobody opens."""
    printed = run(
        """
        import ctypes
        libc = ctypes.CDLL(None)
        libc.malloc.restype = ctypes.c_void_p
        libc.malloc.argtypes = libc.malloc_trim.argtypes = [ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]
        blocks = [libc.malloc(20_000) for _ in range(20_000)]
        for block in blocks[::2]:
            libc.free(block)
        ended = False

        def allocate():
            while not ended:
                libc.malloc_trim(0)  # visits each of them, with the lock held

        threads = [threading.Thread(target=allocate) for _ in range(2)]
        for thread in threads:
            thread.start()
        made = 0
        for number in range(50):
            child = children.find(children.fork()["pid"])
            touches.start(number, "read", PAGE, 8, 8, 0, None, child)
            if select.select([touches.done_fd], [], [], 20)[0]:
                made += 1
            child.end()
            touches.end_touches_of(child)
            touches.ended()
            children.forget(child)
        ended = True
        print(made)
        """,
        GLIBC_TUNABLES="glibc.malloc.arena_max=1:glibc.malloc.tcache_count=0",
    )
    assert printed == ["50"]


def test_a_child_that_has_ended_has_no_page_tables(host_lab):
    """Its pid is 0 then, which would be the target itself."""
    region = host_lab.map(pages=1, memory="anon")
    child = host_lab.fork()
    child.end()
    with pytest.raises(UsageError, match="has ended"):
        child.snapshot(region)
    region.unmap()


def test_a_region_that_the_child_does_not_have_is_not_shown_as_absent_pages(host_lab):
    older = host_lab.map(pages=2, memory="anon")
    with host_lab.fork() as child:
        younger = host_lab.map(pages=2, memory="anon")
        with pytest.raises(WitnessError, match="not all mapped"):
            child.snapshot(younger)
        older[1].munmap()
        assert len(child.snapshot(older).entries) == 2
        younger.unmap()
    older.unmap()
