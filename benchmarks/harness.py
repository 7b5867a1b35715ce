"""A row of a benchmark's result, and how to measure a time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measurement, and that of a peer in the same run for comparison.

    Attributes
    ----------
    name : str
        What was measured; it identifies the row in later runs.
    value : float
        In `unit`.
    unit : str
        ``s``, ``ms`` or ``µs``.
    peer : str
        Something that does the same, or only the necessary part of it; "" if there is none.
    peer_value : float or None
        In `unit`.
    """

    name: str
    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None

    @property
    def ratio(self) -> float | None:
        """`value` divided by `peer_value`."""
        return None if self.peer_value is None else self.value / self.peer_value


def median_seconds(action: Callable[[], object], *, runs: int, warmup: int = 1) -> float:
    """Call `action` repeatedly; return the median of its times in seconds."""
    for _ in range(warmup):
        action()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
