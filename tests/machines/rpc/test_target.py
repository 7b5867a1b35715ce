"""The client's second line, straight to the target."""

import queue
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import msgpack
import pytest

from uffdlab import errors
from uffdlab.machines.rpc import client
from uffdlab.uapi.protocol.notifications import TargetEnded


def test_calls_go_through_the_agent_until_the_target_has_answered_its_marker(both):
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(both.client.call, "target.map", (10.0, "shmem"), 15)
        _, number, method, params = both.receive()
        assert (method, params) == ("target.map", [10.0, "shmem"])
        both.send([1, number, None, "relayed"])
        assert asked.result(5) == "relayed"
        both.spawn(b"m" * 32)
        asked = pool.submit(both.client.call, "target.map", (10.0, "shmem"), 15)
        _, number, method, params = both.asked_of_target()
        assert (method, params) == ("target.map", ["shmem"])  # the client itself enforces this deadline
        both.target.sendall(msgpack.packb([1, number, None, "direct"]))
        assert asked.result(5) == "direct"


def test_the_end_of_the_target_ends_waits_on_its_own_stream(both):
    both.spawn(b"m" * 32)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(both.client.call, "target.ioctl", (10.0, 1), 15)
        both.asked_of_target()
        both.lose_target(b"o" * 32)  # another one
        both.lose_target(b"m" * 32)
        with pytest.raises(errors.TargetLost, match=r"^target\.ioctl: it ended") as lost:
            asked.result(5)
        assert lost.value.data == {"status": 9}
        # The next call is for the agent, which knows that there is none.
        asked = pool.submit(both.client.call, "target.ioctl", (10.0, 1), 15)
        _, number, _, _ = both.receive()
        both.send([1, number, {"kind": "target-lost", "message": "there is no target process", "data": {}}, None])
        with pytest.raises(errors.TargetLost, match="no target"):
            asked.result(5)


def test_a_target_lost_just_before_a_call_is_reported_by_the_agent(both, monkeypatch):
    both.spawn(b"m" * 32)
    expect = both.client._expect_answer

    def late(asked=None):
        if asked is not None:
            both.client._fail_target_requests(TargetEnded(1, "it ended", "target-lost", 9, b"m" * 32))
        return expect(asked)

    monkeypatch.setattr(both.client, "_expect_answer", late)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(both.client.call, "target.ioctl", (10.0, 1), 15)
        _, number, method, _ = both.receive()
        assert method == "target.ioctl"
        both.send([1, number, {"kind": "target-lost", "message": "there is no target process", "data": {}}, None])
        with pytest.raises(errors.TargetLost, match="no target"):
            asked.result(5)


def test_a_target_that_is_late_is_ended_by_the_agent(both):
    both.spawn(b"m" * 32)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(both.client.call, "target.ioctl", (0.05, 1), 5)
        both.asked_of_target()
        _, number, method, params = both.receive()
        assert (method, params) == ("agent.late", [b"m" * 32, ["target.ioctl"]])
        both.lose_target(b"m" * 32, "fault-unresolved")
        both.send([1, number, None, None])
        with pytest.raises(errors.FaultUnresolved, match=r"target\.ioctl: it ended"):
            asked.result(5)


def test_when_the_agent_does_not_answer_either_the_call_is_named(both, monkeypatch):
    monkeypatch.setattr(client, "_LATE_ANSWER", 0.1)
    both.spawn(b"m" * 32)
    with pytest.raises(errors.MachineTimeout) as caught:
        both.client.call("target.ioctl", (0.1, 1), 0.15)
    text = r"target\.ioctl: no answer within 0\.1 s, and none of the agent, which was to end it, within \d+\.\d s"
    assert re.fullmatch(text, str(caught.value))


def test_a_target_that_takes_no_request_is_late_too(both):
    both.spawn(b"m" * 32)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(both.client.call, "target.ioctl", (0.1, bytes(1 << 24)), 5)
        _, number, method, _ = both.receive()
        assert method == "agent.late"
        both.lose_target(b"m" * 32, "fault-unresolved")
        both.send([1, number, None, None])
        with pytest.raises(errors.FaultUnresolved):
            asked.result(5)


def test_an_answer_of_a_target_that_is_gone_is_dropped(both):
    both.spawn(b"m" * 32)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(both.client.call, "target.ioctl", (10.0, 1), 15)
        _, number, _, _ = both.asked_of_target()
        both.lose_target(b"m" * 32)
        with pytest.raises(errors.TargetLost):
            asked.result(5)
        both.target.sendall(msgpack.packb([1, number, None, "late"]))
        both.spawn(b"o" * 32)
        asked = pool.submit(both.client.call, "target.ioctl", (10.0, 1), 15)
        _, number, _, _ = both.asked_of_target()
        both.target.sendall(msgpack.packb([1, number, None, "of the new one"]))
        assert asked.result(5) == "of the new one"


def test_the_last_frames_of_the_target_come_before_its_end(both):
    both.spawn(b"m" * 32)
    received = queue.Queue()
    both.client.subscribe(lambda notification: received.put(notification.method))
    held = threading.Event()
    stop = both.client.subscribe(lambda *_: held.wait(5))
    both.send([2, "program-output", [1, 1, b"held"]])
    assert received.get(timeout=5) == "program-output"
    both.target.sendall(msgpack.packb([2, "message", [1, bytes(32), 5, 0]]))
    both.lose_target(b"m" * 32)
    held.set()
    assert [received.get(timeout=5) for _ in range(2)] == ["message", "target-lost"]
    stop()


@pytest.mark.parametrize("params", [[], [7, "it ended"], [7, "it ended", "target-lost", 9, "no bytes"]])
def test_an_end_without_a_target_is_malformed(both, params):
    both.send([2, "target-lost", params])
    with pytest.raises(errors.ProtocolError, match="target-lost"):
        both.client.call("agent.ping", (), 5)
