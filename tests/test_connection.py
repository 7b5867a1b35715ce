"""A lab's machine, from its start to its end."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from uffdlab import connection as connection_module
from uffdlab.connection import Connection
from uffdlab.errors import LabClosed, MachineLost, UsageError
from uffdlab.machines import choice
from uffdlab.machines.choice import Options


class Spoken:
    """A machine that answers and remembers what was asked of it."""

    name = "qemu"

    def __init__(self):
        self.asked, self.ears, self.closed = [], [], False

    def call(self, method, *params, deadline):
        self.asked.append((method, params, deadline))
        return time.monotonic_ns() + 10**12 if method == "agent.clock" else "answer"

    def notify_to(self, hear):
        self.ears.append(hear)
        return lambda: self.ears.remove(hear)

    def close(self):
        self.closed = True
        raise MachineLost("it was gone already")


def ignore(_nonce):
    """Hear of a new target."""


@pytest.fixture
def started(monkeypatch):
    machines = []

    def start(kernel, machine, options):
        assert (machine, options) == (None, Options(cpus=2))
        machines.append(Spoken())
        return f"{kernel} {len(machines)}", machines[-1]

    monkeypatch.setattr(choice, "start", start)
    return machines


def test_the_agent_has_longer_than_the_target_to_say_that_it_is_late():
    machine = Spoken()
    connection = Connection(None, machine, Options())
    assert connection.target_call("ioctl", 1, deadline=3.0) == "answer"
    assert machine.asked[-1] == ("target.ioctl", (3.0, 1), 8.0)


def test_the_first_target_starts_when_it_is_needed_and_only_one_does():
    machine, met = Spoken(), []
    connection = Connection(None, machine, Options())
    connection.open(print, met.append)
    connection.call("agent.exec")
    assert not met
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(connection.target_call, ["beacon"] * 4))
    assert [method for method, *_ in machine.asked].count("agent.spawn") == len(met) == 1
    connection.new_target()
    connection.target_call("beacon")
    assert len(set(met)) == 2
    assert [params for method, params, _ in machine.asked if method == "agent.spawn"] == [
        (nonce, connection_module._BASE) for nonce in met
    ]


def test_now_is_the_guest_s_clock():
    connection = Connection(None, Spoken(), Options())
    connection.open(print, ignore)
    assert connection.now() - time.monotonic_ns() == pytest.approx(10**12, abs=10**8)


def test_another_machine_of_the_same_sort(started):
    connection = Connection("6.1-series", None, Options(cpus=2))
    connection.open(print, ignore)
    assert connection.kernel == "6.1-series 1"
    connection.target_call("beacon")
    connection.end()
    connection.start()
    connection.open(print, ignore)
    assert connection.kernel == "6.1-series 2"
    assert connection.machine is started[1]
    connection.target_call("beacon")  # and so is its target
    assert [method for method, *_ in started[1].asked][-2:] == ["agent.spawn", "target.beacon"]
    assert [(machine.closed, machine.ears) for machine in started] == [(True, []), (False, [print])]


def test_a_machine_that_was_given_is_not_replaced():
    machine = Spoken()
    connection = Connection("mine", machine, Options())
    with pytest.raises(UsageError, match="make a new machine, and a new lab"):
        connection.end()
    assert (connection.kernel, machine.closed) == ("mine", False)


def test_a_closed_one_says_what_to_do():
    machine = Spoken()
    connection = Connection("mine", machine, Options())
    connection.open(print, ignore)
    connection.close()
    assert (machine.closed, machine.ears) == (True, [])
    for ask in (connection.must_answer, lambda: connection.call("agent.ping")):
        with pytest.raises(LabClosed, match=r"uffdlab\.Lab\('mine'\)"):
            ask()
