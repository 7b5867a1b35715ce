"""A moment of a lab as text, on the time axis of its timeline."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uffdlab.target.timeline import Timeline


def zero_ns(timeline: Timeline) -> int:
    """Return the time of the first entry, which all times are counted from; 0 if there is none."""
    return timeline[0].started_ns if len(timeline) else 0


def duration(us: float) -> str:
    """Return a time in µs as text: ``12.3 µs``, ``4.56 ms``, ``1.20 s``."""
    if us < 1000:
        return f"{us:.1f} µs"
    return f"{us / 1000:.2f} ms" if us < 1e6 else f"{us / 1e6:.2f} s"


def moment(timeline: Timeline, time_ns: int) -> str:
    """Return a time of the guest's CLOCK_MONOTONIC in ns as text, counted from the first entry."""
    return duration(max(0, time_ns - zero_ns(timeline)) / 1000)
