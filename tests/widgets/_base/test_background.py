"""Widgets read the lab on threads of their own.  Results arrive by the event loop, and none arrive after closing."""

import threading
from types import SimpleNamespace

import pytest

from uffdlab.errors import LabClosed
from uffdlab.target.timeline import Timeline
from uffdlab.uapi import FaultFlag
from uffdlab.uapi.messages import Fault
from uffdlab.widgets import FaultLog, PageGrid
from uffdlab.widgets._base.background import BackgroundReader, run_in_background

ABSENT, WP = 0, 0x8000000000000465


class SlowRead:
    """Returns its number of calls when the gate is released, and records the calling threads."""

    def __init__(self):
        self.gate, self.threads = threading.Semaphore(0), []

    def __call__(self):
        self.threads.append(threading.current_thread())
        assert self.gate.acquire(timeout=10)
        return len(self.threads)


@pytest.fixture
def slow():
    return SlowRead()


@pytest.fixture
def shown():
    return []


def wait_for_threads(loop):
    loop.until(lambda: not loop.threads())


def test_a_read_runs_on_a_thread_and_its_result_arrives_on_the_loop(loop, slow, shown):
    reader = BackgroundReader(slow, lambda result: shown.append((result, threading.current_thread())), shown.append)
    reader.ask()
    loop.turn()
    assert reader.busy
    assert shown == []
    slow.gate.release()
    loop.until(lambda: shown)
    assert shown == [(1, threading.main_thread())]
    assert slow.threads[0] is not threading.main_thread()
    assert not reader.busy
    wait_for_threads(loop)


def test_requests_during_a_read_make_one_more_read(loop, slow, shown):
    reader = BackgroundReader(slow, shown.append, shown.append)
    for _ in range(100):
        reader.ask()
    for _ in range(2):
        slow.gate.release()
    loop.until(lambda: shown == [1, 2])
    wait_for_threads(loop)
    loop.turn()
    assert len(slow.threads) == 2


def test_the_result_of_an_older_read_does_not_replace_a_newer_one(loop, slow, shown):
    reader = BackgroundReader(slow, shown.append, shown.append)
    reader.ask()
    loop.until(lambda: slow.threads)
    slow.gate.release(2)
    reader.now()
    wait_for_threads(loop)
    loop.turn()
    assert len(shown) == 1


@pytest.mark.parametrize("end", ["close", "forget"])
def test_a_read_that_ends_after_closing_is_not_shown(loop, slow, shown, end):
    reader = BackgroundReader(slow, shown.append, shown.append)
    reader.ask()
    loop.until(lambda: slow.threads)
    getattr(reader, end)()
    slow.gate.release()
    wait_for_threads(loop)
    loop.turn()
    assert shown == []
    assert not reader.busy
    if end == "close":
        reader.ask()
        reader.now()
        assert len(slow.threads) == 1


def test_the_error_of_a_read_is_reported(loop, shown):
    def fails():
        raise LabClosed("closed")

    reader = BackgroundReader(fails, print, shown.append)
    reader.ask()
    loop.until(lambda: shown)
    assert str(shown[0]) == "closed"


def test_a_reader_knows_whether_it_runs_on_this_thread(loop, shown):
    reader = BackgroundReader(lambda: reader.here, shown.append, shown.append)
    assert not reader.here
    reader.ask()
    loop.until(lambda: shown)
    assert shown == [True]
    assert not reader.here


def test_without_an_event_loop_a_read_runs_at_once(shown):
    reader = BackgroundReader(lambda: 7, shown.append, shown.append)
    reader.ask()
    assert run_in_background(lambda: 8, shown.append) is None
    assert shown == [7, 8]


def test_a_task_runs_on_a_thread_and_its_result_on_the_loop(loop, slow, shown):
    thread = run_in_background(slow, shown.append)
    loop.turn()
    assert shown == []
    slow.gate.release()
    thread.join(10)
    loop.turn()
    assert shown == [1]


# In widgets


class Region:
    """A region that a grid follows, in a guest that is slow to answer."""

    def __init__(self, slow, snapshot):
        self.lab, self.regions, self.timeline = self, (), Timeline()
        self.touches, self.userfaultfds = (), ()
        self.start, self.page_size, self.pages = 0x10_0000_0000, 4096, 8
        self._slow, self._snapshot = slow, snapshot

    def snapshot(self):
        number = self._slow()
        taken = self._snapshot((WP, number), (ABSENT, 8 - number), time_ns=number)
        self.timeline.add("snapshot", "by the grid", number, None, taken)
        return taken


@pytest.fixture
def region(slow, snapshot):
    slow.gate.release()  # for the first read, when the grid begins to follow
    return Region(slow, snapshot)


def present_pages(grid):
    return int((grid.snapshot.entries != 0).sum())


def test_a_following_grid_does_not_block_the_notebook(loop, slow, region, snapshot):
    grid = PageGrid(snapshot((ABSENT, 8))).follow(region)
    assert present_pages(grid) == 1
    for _ in range(20):
        region.timeline.add("ioctl", "UFFDIO_CONTINUE", 5)
    loop.until(lambda: len(slow.threads) == 2)
    for _ in range(5):
        loop.turn()  # does not wait for the read
    assert present_pages(grid) == 1
    slow.gate.release()
    loop.until(lambda: present_pages(grid) == 2)
    assert slow.threads[1] is not threading.main_thread()
    grid.close()
    wait_for_threads(loop)


def test_closing_a_grid_during_its_read_leaves_nothing(loop, slow, region, snapshot):
    grid = PageGrid(snapshot((ABSENT, 8))).follow(region)
    region.timeline.add("ioctl", "UFFDIO_CONTINUE", 5)
    loop.until(lambda: len(slow.threads) == 2)
    grid.close()
    slow.gate.release()
    wait_for_threads(loop)
    loop.turn()
    assert present_pages(grid) == 1
    assert region.timeline._listeners == []
    assert grid.ended == ""


def test_the_static_form_waits_for_the_read(loop, slow, region, snapshot):
    grid = PageGrid(snapshot((ABSENT, 8))).follow(region)
    region.timeline.add("ioctl", "UFFDIO_CONTINUE", 5)
    slow.gate.release()
    data, _ = grid._repr_mimebundle_()
    assert present_pages(grid) == 2
    assert "pages 0–1: present" in data["text/html"]
    grid.close()


def test_a_snapshot_by_the_user_makes_the_grid_read_again(loop, slow, region, snapshot):
    grid = PageGrid(snapshot((ABSENT, 8))).follow(region)
    slow.gate.release()
    region.timeline.add("snapshot", "by hand", 50, None, snapshot((WP, 5), (ABSENT, 3), time_ns=50))
    loop.until(lambda: present_pages(grid) == 2)
    for _ in range(5):
        loop.turn()
    assert len(slow.threads) == 2  # its own snapshot causes no further read
    grid.close()


def test_a_fault_log_reads_the_touches_on_a_thread(loop, slow):
    slow.gate.release()
    touch = type(
        "Touch", (), {"number": 1, "address": 0x3000, "what": "read", "state": property(lambda _: slow() and "waiting")}
    )()
    region = SimpleNamespace(name="region-1", page_of=lambda address: address >> 12)
    lab = SimpleNamespace(timeline=Timeline(), touches=(touch,), regions=(region,))
    log = FaultLog(SimpleNamespace(), lab)
    assert [touch["what"] for touch in log.waiting] == ["read"]
    fault = Fault(3, "region-1", 0x3000, FaultFlag.WRITE, 0, 1000)
    lab.timeline.add("message", repr(fault), 1000, None, fault)
    loop.until(lambda: len(slow.threads) == 2)
    assert slow.threads[1] is not threading.main_thread()
    assert log.shown == []
    slow.gate.release()
    loop.until(lambda: log.shown)
    log.close()
    wait_for_threads(loop)
