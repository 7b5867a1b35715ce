"""A fixture that makes snapshots of x86 entries, and an event loop that runs only when a test calls it."""

import collections
import threading
import time

import numpy as np
import pytest

from uffdlab.observations.snapshot import Snapshot
from uffdlab.widgets._base import event_loop

ABSENT = 0
WP = 0x8000000000000465  # present, accessed, dirty, uffd-wp
WRITABLE = 0x8000000000000867  # present, writable, accessed, dirty, soft-dirty


@pytest.fixture
def snapshot():
    def make(*runs, first=0, level=1, page_size=4096, **others):
        entries = np.concatenate([np.full(count, entry, dtype=np.uint64) for entry, count in runs])
        mapped = entries != 0
        entries = np.where(
            mapped, entries + (np.arange(entries.size, dtype=np.uint64) + np.uint64(0x100)) * 4096, entries
        )
        facts = {"region": "region-1", "witness": "physical", "kernel": "6.1-series"} | others
        return Snapshot(
            start=0x10_0000_0000 + first * page_size,
            page_size=page_size,
            entries=entries,
            levels=np.full(entries.size, level, np.uint8),
            first=first,
            **facts,
        )

    return make


class Loop:
    """Replaces the event loop of a notebook kernel; callbacks run when a test calls `turn`."""

    def __init__(self):
        self._waiting = collections.deque()

    def add_callback(self, action, *arguments):
        self._waiting.append((action, arguments))

    def call_later(self, _seconds, action):
        self.add_callback(action)

    def turn(self):
        """Run the callbacks that wait now."""
        for _ in range(len(self._waiting)):
            action, arguments = self._waiting.popleft()
            action(*arguments)

    def until(self, condition, seconds=10):
        """Run callbacks until the condition is true."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition did not become true"
            self.turn()
            time.sleep(0.001)

    @staticmethod
    def threads():
        """Return the background threads of widgets."""
        return [thread for thread in threading.enumerate() if thread.name.startswith("uffdlab ")]


@pytest.fixture
def loop(monkeypatch):
    loop = Loop()
    monkeypatch.setattr(event_loop, "running", lambda: loop)
    return loop
