"""Snapshots made of entries as the kernel writes them; an event loop that runs when it is told to."""

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
    """As the event loop of a notebook kernel; what is called later is called in its turn."""

    def __init__(self):
        self._waiting = collections.deque()

    def add_callback(self, action, *given):
        self._waiting.append((action, given))

    def call_later(self, _seconds, action):
        self.add_callback(action)

    def turn(self):
        """Do what waits now."""
        for _ in range(len(self._waiting)):
            action, given = self._waiting.popleft()
            action(*given)

    def until(self, met, seconds=10):
        """Turn until `met` is true."""
        end = time.monotonic() + seconds
        while not met():
            assert time.monotonic() < end, "it did not come"
            self.turn()
            time.sleep(0.001)

    @staticmethod
    def threads():
        """The threads that look or do something for a widget."""
        return [each for each in threading.enumerate() if each.name.startswith("uffdlab ")]


@pytest.fixture
def loop(monkeypatch):
    loop = Loop()
    monkeypatch.setattr(event_loop, "running", lambda: loop)
    return loop
