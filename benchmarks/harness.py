"""What a benchmark yields, and how a time is taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One thing that was measured, and a peer measured in the same run for scale.

    Attributes
    ----------
    name : str
        What it is; later runs are compared by it.
    value : float
        In `unit`.
    unit : str
        ``s``, ``ms`` or ``µs``.
    peer : str
        What does the same, or the least of it that must be done; "" if there is none.
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
        """How many times the peer's value."""
        return None if self.peer_value is None else self.value / self.peer_value


def median_seconds(action: Callable[[], object], *, runs: int, warmup: int = 1) -> float:
    """Call `action` and give the median of its times in seconds."""
    for _ in range(warmup):
        action()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
