"""A lab's connection to its machine: start, requests, replacement and close."""

import time

import pytest

from uffdlab.errors import LabClosed, MachineLost, UsageError
from uffdlab.machines import factory
from uffdlab.machines.connection import Connection
from uffdlab.machines.factory import Options
from uffdlab.uapi.protocol.agent import KillTarget, Ping, ReadClock
from uffdlab.uapi.protocol.target import WithdrawTouch


class GreetedMachine:
    """A machine that answers, and records its requests."""

    name = "qemu"

    def __init__(self):
        self.requests, self.subscribers, self.closed = [], [], False

    def ask(self, request, *, deadline):
        self.requests.append((request, deadline))
        return time.monotonic_ns() + 10**12 if isinstance(request, ReadClock) else None

    def notify_to(self, subscriber):
        self.subscribers.append(subscriber)
        return lambda: self.subscribers.remove(subscriber)

    def close(self):
        self.closed = True
        raise MachineLost("it has already ended")


@pytest.fixture
def started(monkeypatch):
    machines = []

    def start(kernel, machine, options):
        assert (machine, options) == (None, Options(cpus=2))
        machines.append(GreetedMachine())
        return f"{kernel} {len(machines)}", machines[-1]

    monkeypatch.setattr(factory, "start", start)
    return machines


def test_a_request_to_the_agent_has_more_time_than_one_to_the_target():
    machine = GreetedMachine()
    connection = Connection(None, machine, Options())
    connection.ask(WithdrawTouch(1), deadline=3.0)
    connection.ask(KillTarget(), deadline=3.0)
    assert machine.requests == [(WithdrawTouch(1), 3.0), (KillTarget(), 8.0)]


def test_now_is_the_guest_s_clock():
    connection = Connection(None, GreetedMachine(), Options())
    connection.open(print)
    assert connection.now() - time.monotonic_ns() == pytest.approx(10**12, abs=10**8)


def test_a_machine_of_the_same_kind_replaces_a_lost_one(started):
    connection = Connection("6.1-series", None, Options(cpus=2))
    connection.open(print)
    assert connection.kernel == "6.1-series 1"
    connection.end()
    connection.start()
    connection.open(print)
    assert connection.kernel == "6.1-series 2"
    assert connection.machine is started[1]
    assert [(machine.closed, len(machine.subscribers)) for machine in started] == [(True, 0), (False, 1)]


def test_a_machine_of_the_caller_is_not_replaced():
    machine = GreetedMachine()
    connection = Connection("mine", machine, Options())
    with pytest.raises(UsageError, match="make a new machine, and a new lab"):
        connection.end()
    assert (connection.kernel, machine.closed) == ("mine", False)


def test_the_error_of_a_closed_connection_says_how_to_open_a_lab():
    machine = GreetedMachine()
    connection = Connection("mine", machine, Options())
    connection.open(print)
    connection.close()
    assert (machine.closed, machine.subscribers) == (True, [])
    for call in (connection.must_answer, lambda: connection.ask(Ping())):
        with pytest.raises(LabClosed, match=r"uffdlab\.Lab\('mine'\)"):
            call()
