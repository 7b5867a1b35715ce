"""Timings of several kernels are compared by the fastest round of each."""

from __future__ import annotations

from uffdlab.scenarios.continue_timing import Timing


def test_the_fastest_rounds_are_compared():
    timing = Timing("CONTINUE", ("a", "b"), ((10.0, 100.0, 20.0), (900.0, 11.0, 22.0)))
    assert timing.fastest == (10.0, 11.0)
    assert timing.ratios == (1.0, 1.1)
    assert str(timing) == "CONTINUE, ns per page: a 10, b 11; ratio 1.100 (fastest of 3 rounds)"
