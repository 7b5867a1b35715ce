"""The feed thread reports what it cannot read, and reads it once it can."""

import os
import queue
import resource
import signal
import threading
from pathlib import Path

import pytest

from uffdlab.errors import FaultUnresolved, TargetLost
from uffdlab.target.userfaultfd import Fork
from uffdlab.uapi import Feature
from uffdlab.uapi.protocol.target import ForkTarget, SyncFeed
from uffdlab.uapi.protocol.witnesses import DescribeTarget

from .scripts import run


def _free_below(limit, taken):
    return limit - sum(fd < limit for fd in taken)


def test_a_fork_that_no_descriptor_is_left_for_is_told_of_and_goes_on_when_there_is(mortal_lab, caplog):
    """Once an error in the feed was its end, and nobody heard of a touch or a message any more."""
    lab = mortal_lab
    region = lab.map(pages=2, memory="anon")
    uffd = lab.userfaultfd(Feature.EVENT_FORK)
    uffd.register(region[0], "missing")
    received = queue.Queue()
    lab.timeline.listen(received.put)
    pid = lab.ask(DescribeTarget()).pid
    taken = sorted(int(each.name) for each in Path(f"/proc/{pid}/fd").iterdir())
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # Three are free, for fork itself: a pipe and a file. The child's userfaultfd finds none.
    low = next(limit for limit in range(3, 1000) if _free_below(limit, taken) == 3)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (low, before[1]))
    children = []
    forking = threading.Thread(target=lambda: children.append(lab.fork()))
    forking.start()
    entry = received.get(timeout=20)
    while "Too many open files" not in entry.text:
        entry = received.get(timeout=20)
    assert f"userfaultfd {uffd.number} cannot be read" in entry.text
    assert "cannot be read" in caplog.text
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    forking.join(20)
    (child,) = children
    assert uffd.wait_for(Fork, timeout=20).userfaultfd.number > 0
    assert region.read(1).result() == 0  # and ends are told as before
    child.end()


def test_a_call_that_is_late_says_whether_it_sleeps(mortal_lab):
    region = mortal_lab.map(pages=1, memory="anon")
    uffd = mortal_lab.userfaultfd(Feature.EVENT_FORK)
    uffd.register(region, "missing")
    with pytest.raises(FaultUnresolved, match="it waits in the kernel"), uffd.unread():
        mortal_lab.ask(ForkTarget(), deadline=0.5)


def test_a_call_that_is_late_for_another_reason_does_not_blame_the_kernel(mortal_lab):
    os.kill(mortal_lab.ask(DescribeTarget()).pid, signal.SIGSTOP)
    with pytest.raises(FaultUnresolved, match="it was stopped by a signal"):
        mortal_lab.ask(SyncFeed(), deadline=0.5)


def test_a_target_that_ends_by_a_signal_without_a_name_leaves_the_agent(mortal_lab):
    os.kill(mortal_lab.ask(DescribeTarget()).pid, signal.SIGRTMIN + 3)
    with pytest.raises(TargetLost, match=f"by signal {signal.SIGRTMIN + 3}"):
        mortal_lab.map(pages=1).read(0).result()
    mortal_lab.restart_target()


def test_the_feed_reads_while_userfaultfds_are_opened_and_closed(mortal_lab):
    """It goes through all of them, and adopts those of FORK events."""
    printed = run("""
        import sys, threading
        from uffdlab.agent.target import Target
        sys.setswitchinterval(1e-6)
        target = Target(lambda *_: None, bytes(32), 0x10_0000_0000)
        failed = []

        def read():
            try:
                while not over.is_set():
                    target._send_pending()
            except Exception as error:
                failed.append(error)

        over = threading.Event()
        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(20):
            numbers = [target._uffd_open(0, 0)["number"] for _ in range(200)]
            for number in numbers:
                target._uffd_close(number)
        over.set()
        reader.join()
        print(failed)
    """)
    assert printed == ["[]"]
