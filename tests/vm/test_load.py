"""For ten minutes touches are withdrawn and resolved while children end: the target must survive."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import pytest

from uffdlab.target.userfaultfd import Fork
from uffdlab.uapi import Feature
from uffdlab.uapi.protocol.witnesses import DescribeTarget

from .lab_fixtures import LOCAL, on_each

SECONDS = 600
pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(2 * SECONDS + 300)]
lab = on_each(LOCAL, "debian/trixie")


class Load:
    """Repeats rounds of one kind until the time is over or one fails."""

    features = Feature(0)

    def __init__(self, lab, pool):
        self.lab, self.pool, self.rounds, self.states = lab, pool, 0, set()
        self.region = lab.map(pages=1, memory="anon")
        self.uffd = lab.userfaultfd(self.features)
        self.uffd.register(self.region, "missing")
        self._random = random.Random(1)

    def call_at_once(self, *calls):
        """Make the calls at the same time, each on a thread, in random order."""
        started = [self.pool.submit(call) for call in self._random.sample(calls, len(calls))]
        for call in started:
            call.result()

    def run(self, end):
        """Play rounds until this time (time.monotonic())."""
        while time.monotonic() < end:
            self.play()
            self.rounds += 1
        self.uffd.close()
        self.region.unmap()


class OwnTouches(Load):
    """A touch of the target is withdrawn three times while its fault is resolved."""

    def play(self):
        """Play a round; compare the outcome of the touch with the page."""
        touch = self.region.modify(0, add=5)
        self.call_at_once(touch.withdraw, lambda: self.uffd.zeropage(self.region), touch.withdraw, touch.withdraw)
        state = touch.outcome().state
        self.states.add(state)
        assert self.region.read(0).result() == (5 if state == "done" else 0)
        self.region.madvise("dontneed")


class ChildrensTouches(Load):
    """Two children end while their touches are withdrawn and resolved."""

    features = Feature.EVENT_FORK

    def play(self):
        """Play a round; the outcome of each touch must be reported."""
        children = [self.lab.fork(), self.lab.fork()]
        forked = [self.uffd.wait_for(Fork, timeout=60).userfaultfd for _ in children]
        touches = [self.region.modify(0, add=5, by=child) for child in children]
        resolve = [partial(uffd.zeropage, self.region, check=False) for uffd in forked]
        ends = [child.end for child in children]
        self.call_at_once(*ends, *(touch.withdraw for touch in touches * 2), *resolve)
        self.states |= {touch.outcome().state for touch in touches}
        for uffd in forked:
            uffd.close()


KINDS = OwnTouches, OwnTouches, ChildrensTouches  # only the last kind gets fork events


def descriptors_and_mappings(lab, pid):
    """Return how many descriptors and mappings the target has."""
    counted = lab.exec(["sh", "-c", f"ls /proc/{pid}/fd | wc -l; wc -l </proc/{pid}/maps"])
    return [int(text) for text in counted.stdout.split()]


def test_a_target_survives_ten_minutes_of_withdrawals_forks_and_exits(lab):
    lab.restart_target()
    lost = threading.Event()
    lab.timeline.listen(lambda entry: lost.set() if entry.kind == "target" and "lost" in entry.text else None)
    pid = lab.ask(DescribeTarget()).pid
    before = descriptors_and_mappings(lab, pid)
    end = time.monotonic() + SECONDS
    with ExitStack() as stack:
        pools = [stack.enter_context(ThreadPoolExecutor(4)) for _ in KINDS]
        loads = [kind(lab, pool) for kind, pool in zip(KINDS, pools, strict=True)]
        players = stack.enter_context(ThreadPoolExecutor(len(loads)))
        for playing in [players.submit(load.run, end) for load in loads]:
            playing.result()
    assert not lost.is_set()
    assert all(load.rounds > 0 for load in loads)
    assert lab.touches == ()
    assert {"done", "withdrawn"} <= loads[0].states
    assert "signal" in loads[-1].states
    assert lab.ask(DescribeTarget()).pid == pid
    fds, maps = descriptors_and_mappings(lab, pid)
    assert fds == before[0]
    assert maps < before[1] + 64  # the C library keeps stacks of ended threads
