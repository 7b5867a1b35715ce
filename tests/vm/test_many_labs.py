"""A thousand labs, one after the other, leave nothing, and the last comes up as fast as the first.

``UFFDLAB_LABS`` is another number of them, for a busy machine; ``pytest -rP`` shows what was measured.
"""

import gc
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from uffdlab import kernels
from uffdlab.lab import Lab
from uffdlab.machines import store

from ..processes import held  # noqa: TID252 - tests are no package that is installed

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(10_000)]

LABS = int(os.environ.get("UFFDLAB_LABS", "1000"))
PART = max(5, LABS // 10)
GROWTH = 4  # MiB that this process may have grown by, of a thousand machines of 1 GiB each


class Times(NamedTuple):
    """What one lab took: seconds by the clock, and of this process's processor time."""

    wall: float
    cpu: float


def once(kernel):
    wall, cpu = time.perf_counter(), time.process_time()
    with Lab(kernel) as lab:
        region = lab.map(pages=4)
        region.alias.fill(1)
        region.snapshot()
    return Times(time.perf_counter() - wall, time.process_time() - cpu)


def memory_mib():
    gc.collect()
    rows = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return {name: int(rows[name].split()[0]) / 1024 for name in ("Pss", "Anonymous")}


def named():
    # What has a name in the file system or among the sockets.  The folders are this test's own: others have labs too.
    folders = Path(tempfile.gettempdir()), store.folder("machines").parent
    files = {(path, path.stat().st_size) for folder in folders for path in folder.rglob("*") if not path.is_dir()}
    lines = Path("/proc/net/unix").read_text().splitlines()
    return files, {line for line in lines if any(str(folder) in line for folder in folders)}


def median(times, what):
    return statistics.median(getattr(each, what) for each in times)


def test_a_thousand_labs_leave_nothing(monkeypatch, tmp_path):
    kernel = kernels.get("6.1-series").image
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for _ in range(PART):
        once(kernel)
    before, memory, (files, sockets) = held(), memory_mib(), named()
    times = [once(kernel) for _ in range(LABS)]
    after, now = held(), memory_mib()
    first, last = times[:PART], times[-PART:]
    print(f"{LABS} labs: {before} before, {after} after")  # noqa: T201 - for -rP, as all here
    for what in ("wall", "cpu"):
        one, other = median(first, what), median(last, what)
        print(f"{what}: the first {PART} took {one:.4f} s each, the last {PART} {other:.4f} s: {other / one:.3f}")  # noqa: T201
    for what, mib in memory.items():
        print(f"{what}: {mib:.1f} MiB before, {now[what]:.1f} MiB after")  # noqa: T201
    print(f"files: {len(files)} before, {len(named()[0])} after")  # noqa: T201
    assert after == before
    assert named() == (files, sockets)
    # What is its own; how much of a library is in memory, and shared with whom, is the machine's doing.
    assert now["Anonymous"] - memory["Anonymous"] < GROWTH
    # By the clock others on this machine count too.
    assert median(last, "cpu") < 1.2 * median(first, "cpu")
