"""Whether processes run, and what this process has open."""

import contextlib
import threading
import time
from pathlib import Path
from typing import NamedTuple


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=5.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def gone_within(seconds, *pids):
    return wait_until(lambda: not any(alive(pid) for pid in pids), seconds)


def children(pid="self"):
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found += map(int, (task / "children").read_text().split())
    return found


class OpenResources(NamedTuple):
    """Resources of this process that could leak: descriptors (also of sockets), threads, children."""

    descriptors: int
    threads: int
    children: int


def open_resources():
    return OpenResources(len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), len(children()))


def nothing_left(before):
    # Wait: a thread may not have ended yet.  There may be fewer: the collector may free what an earlier test left.
    return wait_until(lambda: all(now <= then for now, then in zip(open_resources(), before, strict=True)))
