"""The client with agents that answer, are late, or end."""

import logging
import queue
import threading
import time

import msgpack
import pytest
from msgspec.structs import asdict

from uffdlab import errors
from uffdlab.machines.rpc.client import MachineGone
from uffdlab.uapi.protocol.notifications import ProgramOutput

from ..agents import HELLO, in_thread


def test_an_agent_that_ended_before_hello_fails_hello_and_every_call(agent):
    agent.stream.close()
    with pytest.raises(errors.MachineLost):
        agent.client.hello(5)
    agent.client.greeted()
    with pytest.raises(errors.MachineLost):
        agent.client.call("agent.ping", (), 1)


def test_hello_returns_the_facts_of_the_agent(agent):
    assert asdict(agent.hello()) == HELLO


def test_a_missing_hello_is_an_error_at_the_deadline(agent):
    with pytest.raises(errors.MachineTimeout, match="sent nothing"):
        agent.client.hello(0.05)


def test_a_call_returns_its_answer(agent):
    agent.hello()
    pending = in_thread(agent.client.call, "target.map", ("shmem", 64, b"\0\1", 1.5, None, [1], {"a": 1}), 5)
    kind, number, method, params = agent.receive()
    assert (kind, method, params) == (0, "target.map", ["shmem", 64, b"\0\1", 1.5, None, [1], {"a": 1}])
    agent.send([1, number, None, {"start": 1 << 44, "bytes": b"\xff"}])
    assert pending.result(5) == {"start": 1 << 44, "bytes": b"\xff"}


def test_answers_may_come_in_any_order(agent):
    agent.hello()
    pending = [in_thread(agent.client.call, f"m{i}", (), 5) for i in range(8)]
    for frame in reversed([agent.receive() for _ in pending]):
        agent.send([1, frame[1], None, frame[2]])
    assert [future.result(5) for future in pending] == [f"m{i}" for i in range(8)]


def test_a_frame_may_arrive_in_pieces(agent):
    agent.hello()
    pending = in_thread(agent.client.call, "m", (), 5)
    frame = msgpack.packb([1, agent.receive()[1], None, bytes(300)])
    for at in range(len(frame)):
        agent.stream.sendall(frame[at : at + 1])
    assert pending.result(5) == bytes(300)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("usage", errors.UsageError),
        ("closed", errors.LabClosed),
        ("target-lost", errors.TargetLost),
        ("fault-unresolved", errors.FaultUnresolved),
        ("KeyError", errors.AgentError),
    ],
)
def test_an_error_is_raised_as_the_class_of_its_kind(agent, kind, expected):
    agent.hello()
    pending = in_thread(agent.client.call, "m", (), 5)
    agent.send([1, agent.receive()[1], {"kind": kind, "message": "no", "data": {"address": 4096}}, None])
    with pytest.raises(expected, match="no") as caught:
        pending.result(5)
    assert type(caught.value) is expected
    if isinstance(caught.value, errors.AgentError):
        assert caught.value.kind == kind
        assert caught.value.data == {"address": 4096}
    if expected is errors.FaultUnresolved:
        assert caught.value.address == 4096


def test_a_late_answer_is_dropped(agent):
    agent.hello()
    with pytest.raises(errors.MachineTimeout, match=r"slow: no answer within \d+\.\d s"):
        agent.client.call("slow", (), 0.1)
    number = agent.receive()[1]
    pending = in_thread(agent.client.call, "next", (), 5)
    second = agent.receive()[1]
    agent.send([1, number, None, "late"], [1, second, None, "in time"])
    assert pending.result(5) == "in time"


def test_an_agent_that_reads_nothing_is_an_error_at_the_deadline(agent):
    agent.hello()
    started = time.monotonic()
    with pytest.raises(errors.MachineTimeout, match="takes no request"):
        agent.client.call("m", (bytes(8 << 20),), 0.3)
    assert time.monotonic() - started < 60
    with pytest.raises(errors.MachineTimeout):  # half a request was sent, so no other can follow
        agent.client.call("m", (), 5)


def test_the_end_of_the_agent_ends_every_wait_at_once(agent):
    agent.hello()
    pending = [in_thread(agent.client.call, "m", (), 60) for _ in range(3)]
    for _ in pending:
        agent.receive()
    agent.stream.close()
    for future in pending:
        with pytest.raises(errors.MachineLost):
            future.result(5)
    with pytest.raises(errors.MachineLost):
        agent.client.call("m", (), 5)


def test_closing_ends_every_wait(agent):
    agent.hello()
    pending = in_thread(agent.client.call, "m", (), 60)
    agent.receive()
    agent.client.close(errors.LabClosed("closed"))
    with pytest.raises(errors.LabClosed):
        pending.result(5)


def test_parameters_that_cannot_be_encoded_are_refused(agent):
    agent.hello()
    for value in (object(), 1 << 70, {1, 2}):
        with pytest.raises(errors.UsageError, match="do not go over the wire"):
            agent.client.call("m", (value,), 5)
    pending = in_thread(agent.client.call, "m", (), 5)
    agent.send([1, agent.receive()[1], None, 1])
    assert pending.result(5) == 1


# --- notifications


def test_notifications_reach_every_subscriber_until_it_unsubscribes(agent):
    agent.hello()
    first, second, barrier = [], [], threading.Barrier(2)
    unsubscribe = agent.client.subscribe(first.append)
    agent.client.subscribe(lambda notification: (second.append(notification), barrier.wait(5)))
    agent.send([2, "program-output", [7, 1, b"one"]])
    barrier.wait(5)
    unsubscribe()
    unsubscribe()
    agent.send([2, "program-output", [7, 2, b"two"]])
    barrier.wait(5)
    assert first == [ProgramOutput(7, 1, b"one")]
    assert second == [ProgramOutput(7, 1, b"one"), ProgramOutput(7, 2, b"two")]


def test_a_subscriber_that_raises_does_not_disturb_the_others(agent, caplog):
    agent.hello()
    received = threading.Event()

    def fail(_notification):
        raise RuntimeError("a fault of the subscriber")

    agent.client.subscribe(fail)
    agent.client.subscribe(lambda *_: received.set())
    with caplog.at_level(logging.ERROR):
        agent.send([2, "program-output", [7, 1, b""]])
        assert received.wait(5)
    assert "a fault of the subscriber" in caplog.text


def test_a_call_made_in_a_subscriber_is_refused(agent):
    agent.hello()
    refusals = []

    def call(_notification):
        try:
            agent.client.call("m", (), 5)
        except errors.UsageError as error:
            refusals.append(error)

    agent.client.subscribe(call)
    agent.send([2, "program-output", [7, 1, b""]])
    until = time.monotonic() + 5
    while not refusals and time.monotonic() < until:
        time.sleep(0.01)
    assert "subscriber" in str(refusals[0])


def test_subscribers_are_notified_once_that_the_machine_is_gone(agent):
    received = queue.Queue()
    agent.client.subscribe(received.put)
    agent.hello()
    agent.stream.close()
    gone = received.get(timeout=5)
    assert isinstance(gone, MachineGone)
    assert isinstance(gone.error, errors.MachineLost)
    agent.client.fail(errors.MachineLost("again"))
    agent.close()
    assert received.empty()


def test_closing_does_not_notify_the_subscribers(agent):
    received = []
    agent.client.subscribe(received.append)
    agent.hello()
    agent.close()
    assert received == []
