"""Makes many labs, one after the other, and prints as JSON which resources this process has before and after.

``python many_labs.py LABS PART IMAGE``: PART more labs are made before the measurement.  Prints the median times of the
first PART and the last PART labs.  It runs in a process of its own, which has no resources of other tests.
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
from leftovers import open_resources


class Times(NamedTuple):
    """Seconds for one lab: wall-clock time, and CPU time of this process."""

    wall: float
    cpu: float


def use_one_lab(kernel):
    wall, cpu = time.perf_counter(), time.process_time()
    with Lab(kernel) as lab:
        region = lab.map(pages=4)
        region.alias.fill(1)
        region.snapshot()
    return Times(time.perf_counter() - wall, time.process_time() - cpu)


def memory_mib():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # returns free memory of the C library's arenas
    rows = dict(line.split(":", 1) for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return {name: int(rows[name].split()[0]) / 1024 for name in ("Pss", "Anonymous")}


def named_files():
    # Files, and sockets with a name.  The folders belong to this process.
    folders = Path(tempfile.gettempdir()), cachedir.folder("machines").parent
    files = [(str(path), path.stat().st_size) for folder in folders for path in folder.rglob("*") if not path.is_dir()]
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sorted(files), sorted(line for line in lines if any(str(folder) in line for folder in folders))


def resources():
    return {**open_resources()._asdict(), "memory": memory_mib(), "named": named_files()}


def median(times):
    return {clock: statistics.median(getattr(lab, clock) for lab in times) for clock in Times._fields}


def main(labs, part, kernel):
    for _ in range(part):
        use_one_lab(kernel)
    before = resources()
    times = [use_one_lab(kernel) for _ in range(labs)]
    report = {"before": before, "after": resources(), "first": median(times[:part]), "last": median(times[-part:])}
    print(json.dumps(report))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
