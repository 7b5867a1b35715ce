"""The frequency of the processor's counter; the rate and the offset of a guest's clock."""

import time

import pytest

from uffdlab.machines import clock


@pytest.mark.parametrize("guest_rate", [1.0, 0.5, 39.0])
def test_the_rate_of_the_guest_s_clock_is_measured(guest_rate):
    start = time.monotonic_ns()
    found = clock.rate(lambda: int((time.monotonic_ns() - start) * guest_rate) + 10**12)
    assert found == pytest.approx(guest_rate, rel=clock.TOLERANCE)


def test_slow_answers_make_the_measurement_longer():
    asked_at = []

    def ask():
        asked_at.append(time.monotonic())
        time.sleep(0.004)
        return time.monotonic_ns()

    assert clock.rate(ask) == pytest.approx(1, abs=clock.TOLERANCE)
    assert asked_at[-1] - asked_at[0] > 0.1


def test_two_measurements_of_the_counter_agree():
    first = clock.counter_mhz()
    assert 500 < first < 10_000
    clock.counter_mhz.cache_clear()
    assert clock.counter_mhz() == pytest.approx(first, rel=0.01)


def test_without_executable_memory_the_frequency_is_unknown(monkeypatch):
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
