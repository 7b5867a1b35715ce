"""Makes many labs, one after the other, and prints as JSON what this process held before and after them.

``python many_labs.py LABS PART IMAGE``: PART more come before all that; the median time of the first and of the last
PART is told.  It is a process of its own, since what other tests have left in one comes and goes.
"""

import ctypes
import gc
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from uffdlab import cachedir
from uffdlab.lab import Lab

sys.path.insert(0, str(Path(__file__).parents[1]))
from processes import held


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
    ctypes.CDLL(None).malloc_trim(0)  # what is free in the C library's arenas, one a thread, is not held
    rows = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return {name: int(rows[name].split()[0]) / 1024 for name in ("Pss", "Anonymous")}


def named():
    # What has a name in the file system or among the sockets.  The folders are this process's own.
    folders = Path(tempfile.gettempdir()), cachedir.folder("machines").parent
    files = [(str(path), path.stat().st_size) for folder in folders for path in folder.rglob("*") if not path.is_dir()]
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sorted(files), sorted(line for line in lines if any(str(folder) in line for folder in folders))


def everything():
    return {**held()._asdict(), "memory": memory_mib(), "named": named()}


def median(times):
    return {what: statistics.median(getattr(each, what) for each in times) for what in Times._fields}


def main(labs, part, kernel):
    for _ in range(part):
        once(kernel)
    before = everything()
    times = [once(kernel) for _ in range(labs)]
    report = {"before": before, "after": everything(), "first": median(times[:part]), "last": median(times[-part:])}
    print(json.dumps(report))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
