"""The wait for the first message of an agent."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from uffdlab.errors import MachineTimeout
from uffdlab.machines.base import BaseMachine


class Starting(BaseMachine):
    """A machine whose agent answers the n-th wait, and whose process waits for a CPU as long as told."""

    def __init__(self, answers_at, without_cpu):
        self.waits = []
        self._answers_at = answers_at
        self._closed = False
        self._client = SimpleNamespace(hello=self._hello_within)
        self._console = SimpleNamespace(tail=lambda: "")
        self._process = SimpleNamespace(seconds_without_cpu=lambda: without_cpu)

    def _hello_within(self, seconds):
        self.waits.append(seconds)
        if len(self.waits) < self._answers_at:
            time.sleep(seconds)
            raise MachineTimeout("late")
        return "hello"


def test_the_time_that_a_machine_waits_for_a_cpu_does_not_count():
    machine = Starting(2, without_cpu=30.0)
    machine.wait_for_hello(5 * 0.1)
    assert machine._hello == "hello"
    assert machine.waits[0] == 0.5
    assert 0.1 < machine.waits[1] <= 5.0  # ten times the deadline at most


def test_a_machine_that_has_a_cpu_and_says_nothing_is_late():
    machine = Starting(2, without_cpu=0.0)
    with pytest.raises(MachineTimeout, match=r"^late$"):
        machine.wait_for_hello(0.1)
    assert machine.waits == [0.1]


def test_a_machine_that_stays_late_says_how_long_it_had_no_cpu():
    machine = Starting(9, without_cpu=1.0)
    with pytest.raises(MachineTimeout, match=r"sent nothing within \d+ s, 1 s of them without a CPU"):
        machine.wait_for_hello(0.2)
