"""The guest's clock: that it is told how fast the processor counts, and runs as fast as ours.

A guest that finds out by itself how fast its time-stamp counter counts does so in some milliseconds of its boot.  Under
emulation, on a busy host, these may be any milliseconds, and its clock then runs many times too fast for ever.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TOLERANCE = 0.05  # of the rate; what page faults take is not told from less

_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")  # rdtsc; shl $32, %rdx; or %rdx, %rax; ret
_COUNTED = 0.005  # seconds
_LOOKS = 5  # at the guest's clock; the quickest counts
_LONGEST = 3.0  # seconds to find out


@functools.cache
def counter_mhz() -> int | None:
    """Return how fast this processor's time-stamp counter counts, in MHz; None where that cannot be measured."""
    try:
        with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
            page.write(_RDTSC)
            anchor = ctypes.c_char.from_buffer(page)
            read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(anchor))
            first, started, _ = _look(read)
            time.sleep(_COUNTED)
            last, ended, _ = _look(read)
            del anchor  # it holds the map open
    except OSError:  # a host that lets nobody write code
        return None
    return round((ended - started) * 1000 / (last - first))


def rate(ask: Callable[[], int]) -> float:
    """Return how fast a guest's clock runs, 1.0 if as fast as ours; it takes 30 ms, more on a busy host.

    Parameters
    ----------
    ask : callable
        Gives the guest's CLOCK_MONOTONIC in ns.
    """
    start, until = _look(ask), time.monotonic() + _LONGEST
    pause = 0.03
    while True:
        time.sleep(pause)
        end = _look(ask)
        passed = end[0] - start[0]
        if (start[2] + end[2]) / passed < TOLERANCE / 2 or time.monotonic() > until:
            return (end[1] - start[1]) / passed
        pause *= 2


def ahead_ns(ask: Callable[[], int]) -> int:
    """Return by how many ns a guest's clock is ahead of our CLOCK_MONOTONIC, to half the quickest round trip.

    Parameters
    ----------
    ask : callable
        Gives the guest's CLOCK_MONOTONIC in ns.
    """
    ours, guest, _ = _look(ask)
    return guest - ours


def _look(ask: Callable[[], int]) -> tuple[int, int, int]:
    # (our time, the guest's, how far off these two may be at most), ns.
    best = (0, 0, 1 << 62)
    for _ in range(_LOOKS):
        asked = time.monotonic_ns()
        guest = ask()
        off = (time.monotonic_ns() - asked) // 2
        if off < best[2]:
            best = asked + off, guest, off
    return best
