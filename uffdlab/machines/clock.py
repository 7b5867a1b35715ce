"""The guest's clock: the frequency of its time-stamp counter, and a check that its clock runs as fast as the host's.

A guest that measures the frequency of its time-stamp counter does so in a few milliseconds of its boot.  Under
emulation, on a busy host, the measurement can be wrong, and the guest's clock then runs many times too fast for ever.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TOLERANCE = 0.05  # of the rate; less does not matter for the times of page faults

_RDTSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")  # rdtsc; shl $32, %rdx; or %rdx, %rax; ret
_COUNTED = 0.005  # seconds
_READS = 5  # of the guest's clock; the quickest is used
_LONGEST = 3.0  # seconds for the measurement


@functools.cache
def counter_mhz() -> int | None:
    """Return the frequency of this processor's time-stamp counter in MHz, or None if it cannot be measured."""
    try:
        with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
            page.write(_RDTSC)
            anchor = ctypes.c_char.from_buffer(page)
            read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(anchor))
            first, started, _ = _read_both(read)
            time.sleep(_COUNTED)
            last, ended, _ = _read_both(read)
            del anchor  # it holds the map open
    except OSError:  # this host forbids writable and executable memory
        return None
    return round((ended - started) * 1000 / (last - first))


def rate(ask: Callable[[], int]) -> float:
    """Return how fast a guest's clock runs, 1.0 if as fast as the host's.  This takes 30 ms, more on a busy host.

    Parameters
    ----------
    ask : callable
        Returns the guest's CLOCK_MONOTONIC in ns.
    """
    start, until = _read_both(ask), time.monotonic() + _LONGEST
    pause = 0.03
    while True:
        time.sleep(pause)
        end = _read_both(ask)
        passed = end[0] - start[0]
        if (start[2] + end[2]) / passed < TOLERANCE / 2 or time.monotonic() > until:
            return (end[1] - start[1]) / passed
        pause *= 2


def offset_ns(ask: Callable[[], int]) -> int:
    """Return by how many ns a guest's clock is ahead of the host's, with an error of half the quickest round trip.

    Parameters
    ----------
    ask : callable
        Returns the guest's CLOCK_MONOTONIC in ns.
    """
    ours, guest, _ = _read_both(ask)
    return guest - ours


def _read_both(ask: Callable[[], int]) -> tuple[int, int, int]:
    # Returns (the host's time, the guest's, the largest error between them), in ns.
    best = (0, 0, 1 << 62)
    for _ in range(_READS):
        asked = time.monotonic_ns()
        guest = ask()
        off = (time.monotonic_ns() - asked) // 2
        if off < best[2]:
            best = asked + off, guest, off
    return best
