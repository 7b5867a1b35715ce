"""How fast a processor counts, and how fast a guest's clock runs."""

import time

import pytest

from uffdlab.machines import clock


@pytest.mark.parametrize("true", [1.0, 0.5, 39.0])
def test_the_rate_is_that_of_the_guest(true):
    start = time.monotonic_ns()
    found = clock.rate(lambda: int((time.monotonic_ns() - start) * true) + 10**12)
    assert found == pytest.approx(true, rel=clock.TOLERANCE)


def test_slow_answers_make_the_measurement_longer():
    asked = []

    def ask():
        asked.append(time.monotonic())
        time.sleep(0.004)
        return time.monotonic_ns()

    assert clock.rate(ask) == pytest.approx(1, abs=clock.TOLERANCE)
    assert asked[-1] - asked[0] > 0.1


def test_the_counter_counts_evenly():
    first = clock.counter_mhz()
    assert 500 < first < 10_000
    clock.counter_mhz.cache_clear()
    assert clock.counter_mhz() == pytest.approx(first, rel=0.01)


def test_a_host_without_executable_memory(monkeypatch):
    def refuse(*_, **__):
        raise PermissionError

    monkeypatch.setattr(clock.mmap, "mmap", refuse)
    clock.counter_mhz.cache_clear()
    assert clock.counter_mhz() is None
    clock.counter_mhz.cache_clear()


def test_the_offset_comes_from_the_fastest_answer():
    delays = iter([0.02, 0.0, 0.02, 0.02, 0.02])

    def ask():
        time.sleep(next(delays))
        return time.monotonic_ns() + 10**12

    assert clock.offset_ns(ask) == pytest.approx(10**12, abs=10**7)
