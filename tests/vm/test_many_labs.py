"""A thousand labs, one after the other, leave nothing, and the last comes up as fast as the first.

``UFFDLAB_LABS`` is another number of them, for a busy machine; ``pytest -rP`` shows the times.
"""

import gc
import os
import statistics
import threading
import time
from pathlib import Path

import pytest

from uffdlab.lab import Lab

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(5400)]

LABS = int(os.environ.get("UFFDLAB_LABS", "1000"))
PART = max(5, LABS // 10)


def held():
    """Give what this process has: descriptors (sockets among them), threads, children."""
    gc.collect()
    children = [pid for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), children


def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def named():
    return {path for folder in ("/tmp", "/dev/shm") for path in Path(folder).glob("uffdlab*")}


def once():
    started = time.perf_counter()
    with Lab("6.1-series") as lab:
        region = lab.map(pages=4)
        region.alias.fill(1)
        region.snapshot()
    return time.perf_counter() - started


def test_a_thousand_labs_leave_nothing():
    for _ in range(PART):
        once()
    before, resident, files = held(), resident_mib(), named()
    times = [once() for _ in range(LABS)]
    assert held() == before
    assert named() <= files
    assert resident_mib() - resident < 20  # MiB, for a thousand
    first, last = statistics.median(times[:PART]), statistics.median(times[-PART:])
    print(f"{LABS} labs: the first {PART} took {first:.3f} s each, the last {PART} {last:.3f} s")  # noqa: T201 - for -rP
    assert last < 2 * first
