"""Calls on the client's second stream, which leads directly to the target."""

import queue
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import msgpack
import pytest

from uffdlab import errors
from uffdlab.machines.rpc import client
from uffdlab.uapi.protocol.notifications import TargetEnded


def test_calls_go_through_the_agent_until_the_target_has_answered_its_marker(agent_and_target):
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(agent_and_target.client.call, "target.map", (10.0, "shmem"), 15)
        _, number, method, params = agent_and_target.receive()
        assert (method, params) == ("target.map", [10.0, "shmem"])
        agent_and_target.send([1, number, None, "relayed"])
        assert pending.result(5) == "relayed"
        agent_and_target.spawn(b"m" * 32)
        pending = pool.submit(agent_and_target.client.call, "target.map", (10.0, "shmem"), 15)
        _, number, method, params = agent_and_target.receive_from_target()
        assert (method, params) == ("target.map", ["shmem"])  # the client itself enforces this deadline
        agent_and_target.target.sendall(msgpack.packb([1, number, None, "direct"]))
        assert pending.result(5) == "direct"


def test_the_end_of_the_target_ends_waits_on_its_own_stream(agent_and_target):
    agent_and_target.spawn(b"m" * 32)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(agent_and_target.client.call, "target.ioctl", (10.0, 1), 15)
        agent_and_target.receive_from_target()
        agent_and_target.lose_target(b"o" * 32)  # of another target
        agent_and_target.lose_target(b"m" * 32)
        with pytest.raises(errors.TargetLost, match=r"^target\.ioctl: it ended") as lost:
            pending.result(5)
        assert lost.value.data == {"status": 9}
        # The next call goes to the agent, which knows that there is no target.
        pending = pool.submit(agent_and_target.client.call, "target.ioctl", (10.0, 1), 15)
        _, number, _, _ = agent_and_target.receive()
        agent_and_target.send(
            [1, number, {"kind": "target-lost", "message": "there is no target process", "data": {}}, None]
        )
        with pytest.raises(errors.TargetLost, match="no target"):
            pending.result(5)


def test_a_target_lost_just_before_a_call_is_reported_by_the_agent(agent_and_target, monkeypatch):
    agent_and_target.spawn(b"m" * 32)
    expect = agent_and_target.client._expect_answer

    def expect_after_loss(pending=None):
        if pending is not None:
            agent_and_target.client._fail_target_requests(TargetEnded(1, "it ended", "target-lost", 9, b"m" * 32))
        return expect(pending)

    monkeypatch.setattr(agent_and_target.client, "_expect_answer", expect_after_loss)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(agent_and_target.client.call, "target.ioctl", (10.0, 1), 15)
        _, number, method, _ = agent_and_target.receive()
        assert method == "target.ioctl"
        agent_and_target.send(
            [1, number, {"kind": "target-lost", "message": "there is no target process", "data": {}}, None]
        )
        with pytest.raises(errors.TargetLost, match="no target"):
            pending.result(5)


def test_the_agent_ends_a_target_that_is_late(agent_and_target):
    agent_and_target.spawn(b"m" * 32)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(agent_and_target.client.call, "target.ioctl", (0.05, 1), 5)
        agent_and_target.receive_from_target()
        _, number, method, params = agent_and_target.receive()
        assert (method, params) == ("agent.late", [b"m" * 32, ["target.ioctl"]])
        agent_and_target.lose_target(b"m" * 32, "fault-unresolved")
        agent_and_target.send([1, number, None, None])
        with pytest.raises(errors.FaultUnresolved, match=r"target\.ioctl: it ended"):
            pending.result(5)


def test_the_error_names_the_call_if_the_agent_does_not_answer_either(agent_and_target, monkeypatch):
    monkeypatch.setattr(client, "_LATE_ANSWER", 0.1)
    agent_and_target.spawn(b"m" * 32)
    with pytest.raises(errors.MachineTimeout) as caught:
        agent_and_target.client.call("target.ioctl", (0.1, 1), 0.15)
    text = r"target\.ioctl: no answer within 0\.1 s, and none of the agent, which was to end it, within \d+\.\d s"
    assert re.fullmatch(text, str(caught.value))


def test_the_agent_ends_a_target_that_reads_no_request(agent_and_target):
    agent_and_target.spawn(b"m" * 32)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(agent_and_target.client.call, "target.ioctl", (0.1, bytes(1 << 24)), 5)
        _, number, method, _ = agent_and_target.receive()
        assert method == "agent.late"
        agent_and_target.lose_target(b"m" * 32, "fault-unresolved")
        agent_and_target.send([1, number, None, None])
        with pytest.raises(errors.FaultUnresolved):
            pending.result(5)


def test_an_answer_of_an_ended_target_is_dropped(agent_and_target):
    agent_and_target.spawn(b"m" * 32)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(agent_and_target.client.call, "target.ioctl", (10.0, 1), 15)
        _, number, _, _ = agent_and_target.receive_from_target()
        agent_and_target.lose_target(b"m" * 32)
        with pytest.raises(errors.TargetLost):
            pending.result(5)
        agent_and_target.target.sendall(msgpack.packb([1, number, None, "late"]))
        agent_and_target.spawn(b"o" * 32)
        pending = pool.submit(agent_and_target.client.call, "target.ioctl", (10.0, 1), 15)
        _, number, _, _ = agent_and_target.receive_from_target()
        agent_and_target.target.sendall(msgpack.packb([1, number, None, "of the new target"]))
        assert pending.result(5) == "of the new target"


def test_the_last_frames_of_a_target_are_delivered_before_its_end(agent_and_target):
    agent_and_target.spawn(b"m" * 32)
    received = queue.Queue()
    agent_and_target.client.subscribe(lambda notification: received.put(notification.method))
    released = threading.Event()
    unsubscribe = agent_and_target.client.subscribe(lambda *_: released.wait(5))
    agent_and_target.send([2, "program-output", [1, 1, b"output"]])
    assert received.get(timeout=5) == "program-output"
    agent_and_target.target.sendall(msgpack.packb([2, "message", [1, bytes(32), 5, 0]]))
    agent_and_target.lose_target(b"m" * 32)
    released.set()
    assert [received.get(timeout=5) for _ in range(2)] == ["message", "target-lost"]
    unsubscribe()


@pytest.mark.parametrize("params", [[], [7, "it ended"], [7, "it ended", "target-lost", 9, "no bytes"]])
def test_a_malformed_notification_of_the_target_s_end_is_a_protocol_error(agent_and_target, params):
    agent_and_target.send([2, "target-lost", params])
    with pytest.raises(errors.ProtocolError, match="target-lost"):
        agent_and_target.client.call("agent.ping", (), 5)
