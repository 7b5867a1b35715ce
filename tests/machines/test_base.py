"""The wait for the first message of an agent."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from uffdlab.errors import MachineTimeout
from uffdlab.machines.base import BaseMachine
from uffdlab.machines.rpc.client import Client
from uffdlab.uapi.protocol.agent import ReadClock


@pytest.fixture
def machine():
    """Return a function that makes a machine whose agent never answers and whose process waits for a CPU so long."""
    ours, theirs = socket.socketpair()
    clients = []

    def make(without_cpu):
        machine = object.__new__(BaseMachine)
        machine._process = SimpleNamespace(seconds_without_cpu=without_cpu)
        machine._client = Client(
            ours,
            make_lost_error=MachineTimeout,
            make_late_error=MachineTimeout,
            make_malformed_error=MachineTimeout,
        )
        clients.append(machine._client)
        return machine

    yield make
    for client in clients:
        client.close(MachineTimeout("closed"))
    theirs.close()


def test_the_time_that_a_machine_waits_for_a_cpu_is_asked_after_the_deadline(machine):
    told = []
    with pytest.raises(MachineTimeout, match=r"sent nothing within \d+\.\d s"):
        machine(lambda: told.append(1) or 0.2).wait_for_hello(0.2)
    assert told


def test_a_machine_that_has_a_cpu_is_late_at_its_deadline(machine):
    with pytest.raises(MachineTimeout, match="sent nothing within"):
        machine(lambda: 0.0).wait_for_hello(0.1)


@pytest.mark.parametrize(("without_cpu", "left"), [(0.0, -1.0), (2.0, 1.0), (1000.0, 49.0)])
def test_the_time_without_a_cpu_is_bounded_by_ten_deadlines(machine, without_cpu, left):
    times = iter([0.0, without_cpu])
    assert machine(lambda: next(times))._patience(5.0)(6.0) == left


def test_a_request_waits_for_more_time_as_well(machine):
    told = []
    client = machine(lambda: 0.0)._client
    with pytest.raises(MachineTimeout, match="no answer within"):
        client.ask(ReadClock(), 0.1, lambda waited: told.append(waited) or 0.2 * (len(told) < 3))
    assert len(told) == 3
