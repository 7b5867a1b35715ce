"""The client against agents that answer, dawdle, die and lie."""

import contextlib
import logging
import queue
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from uffdlab import errors
from uffdlab.machines import rpc


class Agent:
    """The other end, in the test's hands."""

    def __init__(self):
        ours, self.stream = socket.socketpair()
        self.stream.settimeout(5)
        self._unpacker = msgpack.Unpacker()
        self.client = rpc.Client(
            ours, lost=errors.MachineLost, late=errors.MachineTimeout, malformed=errors.ProtocolError
        )

    def send(self, *frames):
        for frame in frames:
            self.stream.sendall(frame if isinstance(frame, bytes) else msgpack.packb(frame))

    def receive(self):
        while True:
            for frame in self._unpacker:
                return frame
            data = self.stream.recv(1 << 16)
            assert data
            self._unpacker.feed(data)

    def hello(self):
        self.send([2, "hello", [{"release": "6.1"}]])
        return self.client.hello(5)

    def close(self):
        self.client.close(errors.LabClosed("closed"))
        self.stream.close()


@pytest.fixture
def agent():
    before = threading.active_count()
    agent = Agent()
    yield agent
    agent.close()
    assert threading.active_count() == before


def in_thread(function, *args):
    pool = ThreadPoolExecutor(1)
    future = pool.submit(function, *args)
    pool.shutdown(wait=False)
    return future


def test_one_that_is_gone_before_it_is_greeted_says_so_when_asked(agent):
    agent.stream.close()
    with pytest.raises(errors.MachineLost):
        agent.client.hello(5)
    agent.client.greeted()
    with pytest.raises(errors.MachineLost):
        agent.client.call("agent.ping", (), 1)


def test_hello(agent):
    assert agent.hello() == {"release": "6.1"}


def test_no_hello(agent):
    with pytest.raises(errors.MachineTimeout, match="said nothing"):
        agent.client.hello(0.05)


def test_a_call_and_its_answer(agent):
    agent.hello()
    asked = in_thread(agent.client.call, "target.map", ("shmem", 64, b"\0\1", 1.5, None, [1], {"a": 1}), 5)
    kind, number, method, params = agent.receive()
    assert (kind, method, params) == (0, "target.map", ["shmem", 64, b"\0\1", 1.5, None, [1], {"a": 1}])
    agent.send([1, number, None, {"start": 1 << 44, "bytes": b"\xff"}])
    assert asked.result(5) == {"start": 1 << 44, "bytes": b"\xff"}


def test_answers_may_come_in_any_order(agent):
    agent.hello()
    asked = [in_thread(agent.client.call, f"m{i}", (), 5) for i in range(8)]
    for frame in reversed([agent.receive() for _ in asked]):
        agent.send([1, frame[1], None, frame[2]])
    assert [future.result(5) for future in asked] == [f"m{i}" for i in range(8)]


def test_a_frame_in_pieces(agent):
    agent.hello()
    asked = in_thread(agent.client.call, "m", (), 5)
    frame = msgpack.packb([1, agent.receive()[1], None, bytes(300)])
    for at in range(len(frame)):
        agent.stream.sendall(frame[at : at + 1])
    assert asked.result(5) == bytes(300)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("usage", errors.UsageError),
        ("closed", errors.LabClosed),
        ("target-lost", errors.TargetLost),
        ("fault-unresolved", errors.FaultUnresolved),
        ("touch-failed", errors.TouchFailed),
        ("KeyError", errors.AgentError),
    ],
)
def test_errors_by_kind(agent, kind, expected):
    agent.hello()
    asked = in_thread(agent.client.call, "m", (), 5)
    agent.send([1, agent.receive()[1], {"kind": kind, "message": "no", "data": {"address": 4096}}, None])
    with pytest.raises(expected, match="no") as caught:
        asked.result(5)
    assert type(caught.value) is expected
    if isinstance(caught.value, errors.AgentError):
        assert caught.value.kind == kind
        assert caught.value.data == {"address": 4096}
    if expected in {errors.FaultUnresolved, errors.TouchFailed}:
        assert caught.value.address == 4096


def test_a_late_answer_is_dropped(agent):
    agent.hello()
    with pytest.raises(errors.MachineTimeout, match=r"slow: no answer within 0\.1 s"):
        agent.client.call("slow", (), 0.1)
    number = agent.receive()[1]
    asked = in_thread(agent.client.call, "next", (), 5)
    second = agent.receive()[1]
    agent.send([1, number, None, "late"], [1, second, None, "in time"])
    assert asked.result(5) == "in time"


def test_an_agent_that_reads_nothing(agent):
    agent.hello()
    started = time.monotonic()
    with pytest.raises(errors.MachineTimeout, match="takes no request"):
        agent.client.call("m", (bytes(8 << 20),), 0.3)
    assert time.monotonic() - started < 3
    with pytest.raises(errors.MachineTimeout):  # half a request is out: there is no going on
        agent.client.call("m", (), 5)


def test_everybody_hears_of_the_end_at_once(agent):
    agent.hello()
    asked = [in_thread(agent.client.call, "m", (), 60) for _ in range(3)]
    for _ in asked:
        agent.receive()
    agent.stream.close()
    for future in asked:
        with pytest.raises(errors.MachineLost):
            future.result(5)
    with pytest.raises(errors.MachineLost):
        agent.client.call("m", (), 5)


def test_closing_ends_what_waits(agent):
    agent.hello()
    asked = in_thread(agent.client.call, "m", (), 60)
    agent.receive()
    agent.client.close(errors.LabClosed("closed"))
    with pytest.raises(errors.LabClosed):
        asked.result(5)


def test_parameters_that_do_not_go_over_the_wire(agent):
    agent.hello()
    for value in (object(), 1 << 70, {1, 2}):
        with pytest.raises(errors.UsageError, match="do not go over the wire"):
            agent.client.call("m", (value,), 5)
    asked = in_thread(agent.client.call, "m", (), 5)
    agent.send([1, agent.receive()[1], None, 1])
    assert asked.result(5) == 1


# --- notifications


def test_notifications_go_to_every_subscriber_until_it_leaves(agent):
    agent.hello()
    one, two, both = [], [], threading.Barrier(2)
    leave = agent.client.subscribe(lambda method, params: one.append((method, params)))
    agent.client.subscribe(lambda method, params: (two.append((method, params)), both.wait(5)))
    agent.send([2, "fault", [1]])
    both.wait(5)
    leave()
    leave()
    agent.send([2, "fault", [2]])
    both.wait(5)
    assert one == [("fault", [1])]
    assert two == [("fault", [1]), ("fault", [2])]


def test_a_subscriber_that_fails_harms_nobody(agent, caplog):
    agent.hello()
    heard = threading.Event()

    def fails(_method, _params):
        raise RuntimeError("oh dear")

    agent.client.subscribe(fails)
    agent.client.subscribe(lambda *_: heard.set())
    with caplog.at_level(logging.ERROR):
        agent.send([2, "fault", []])
        assert heard.wait(5)
    assert "oh dear" in caplog.text


def test_a_subscriber_that_calls_is_told_not_to(agent):
    agent.hello()
    told = []

    def calls(_method, _params):
        try:
            agent.client.call("m", (), 5)
        except errors.UsageError as error:
            told.append(error)

    agent.client.subscribe(calls)
    agent.send([2, "fault", []])
    until = time.monotonic() + 5
    while not told and time.monotonic() < until:
        time.sleep(0.01)
    assert "subscriber" in str(told[0])


# --- hostile agents

MALFORMED = {
    "not an array": 5,
    "empty": [],
    "a request": [0, 1, "m", []],
    "an unknown kind": [3, 1, None, None],
    "a response to nothing": [1, 99, None, None],
    "a response with a name": [1, "0", None, None],
    "a notification without a list": [2, "fault", 5],
    "a notification without a name": [2, 5, []],
    "a second hello that is no map": [2, "hello", 5],
    "a map": {"a": 1},
    "never used": b"\xc1",
    "bad UTF-8": b"\xa2\xff\xfe",
    "an unhashable key": b"\x81\x90\x01",
    "an extension": msgpack.packb(msgpack.ExtType(7, b"x")),
    "a huge array": b"\xdd\xff\xff\xff\xff",
    "a huge map": b"\xdf\xff\xff\xff\xff",
    "very deep": b"\x91" * 100_000,
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_frame_ends_the_connection(agent, name):
    agent.hello()
    asked = in_thread(agent.client.call, "m", (), 60)
    agent.receive()
    agent.send(MALFORMED[name])
    with pytest.raises(errors.ProtocolError, match="malformed"):
        asked.result(5)
    with pytest.raises(errors.ProtocolError):
        agent.client.call("m", (), 5)


@pytest.mark.parametrize("error", [5, "no", [], {}, {"kind": 1, "message": "x"}, {"kind": "x"}])
def test_an_error_that_is_no_map_of_one(agent, error):
    agent.hello()
    asked = in_thread(agent.client.call, "m", (), 60)
    agent.send([1, agent.receive()[1], error, None])
    with pytest.raises(errors.ProtocolError):
        asked.result(5)


def test_an_answer_given_twice(agent):
    agent.hello()
    asked = in_thread(agent.client.call, "m", (), 5)
    number = agent.receive()[1]
    agent.send([1, number, None, 1], [1, number, None, 2])
    assert asked.result(5) == 1
    agent.client._reader.join(5)
    with pytest.raises(errors.ProtocolError):
        agent.client.call("m", (), 0.2)


def test_something_other_than_hello_first(agent):
    agent.send([2, "fault", []])
    with pytest.raises(errors.ProtocolError):
        agent.client.hello(5)


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"\xdc\xff\xff", b"\xc6\x00\x10\x00\x00" + bytes(1 << 20)),  # an array of 65,535 binaries of 1 MiB
        (b"\xc6\xff\xff\xff\xff", bytes(1 << 20)),  # one binary of 4 GiB
        (b"\xdb\xff\xff\xff\xff", bytes(1 << 20)),  # one string of 4 GiB
    ],
)
def test_more_than_a_frame_may_have(agent, start, piece):
    agent.hello()
    flood = threading.Thread(target=_flood, args=(agent.stream, start, piece))
    flood.start()
    with pytest.raises(errors.ProtocolError):
        agent.client.call("m", (), 30)
    flood.join(10)


def _flood(stream, start, piece):
    try:
        stream.sendall(start)
        for _ in range(70):
            stream.sendall(piece)
    except OSError:
        pass  # it was hung up on


JSONISH = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40) | JSONISH.map(msgpack.packb), min_size=1, max_size=6))
@example([msgpack.packb([1, 0, None, None])])
def test_random_bytes_give_an_answer_or_one_of_our_errors(pieces):
    agent = Agent()
    try:
        agent.hello()
        asked = in_thread(agent.client.call, "m", (), 0.2)
        agent.receive()
        try:
            for piece in pieces:
                agent.send(piece)
            agent.stream.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it hung up
        with contextlib.suppress(errors.UffdlabError):
            asked.result(5)
        assert not agent.client._reader.is_alive() or agent.client._reader.join(5) is None
    finally:
        agent.close()


def test_subscribers_hear_of_the_end_once(agent):
    heard = queue.Queue()
    agent.client.subscribe(lambda *what: heard.put(what))
    agent.hello()
    agent.stream.close()
    method, (error,) = heard.get(timeout=5)
    assert method == rpc.LOST
    assert isinstance(error, errors.MachineLost)
    agent.client.fail(errors.MachineLost("again"))
    agent.close()
    assert heard.empty()


def test_who_closes_it_is_not_told(agent):
    heard = []
    agent.client.subscribe(lambda *what: heard.append(what))
    agent.hello()
    agent.close()
    assert heard == []


def test_an_agent_cannot_say_that_it_is_lost(agent):
    agent.hello()
    agent.send([2, rpc.LOST, ["not an error"]])
    with pytest.raises(errors.ProtocolError, match="neither a response nor a notification"):
        agent.client.call("x", (), 5)


# --- a line straight to the target


class AgentAndTarget(Agent):
    """The other ends of both streams."""

    def __init__(self):
        ours, self.stream = socket.socketpair()
        line, self.target = socket.socketpair()
        for end in (self.stream, self.target):
            end.settimeout(5)
        self._unpacker = msgpack.Unpacker()
        self._of_target = msgpack.Unpacker()
        self.client = rpc.Client(
            ours, lost=errors.MachineLost, late=errors.MachineTimeout, malformed=errors.ProtocolError, target=line
        )

    def spawn(self, marker):
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(self.client.call, "agent.spawn", (marker, 0), 5)
            self.send([1, self.receive()[1], None, {"pid": 7}])
            asked.result(5)
        while marker not in (seen := self.target.recv(4096)):
            assert seen
        self.target.sendall(b"old stuff" + marker)
        until = time.monotonic() + 5
        while not self.client._target.up:
            assert time.monotonic() < until
            time.sleep(0.001)

    def asked_of_target(self):
        while True:
            for frame in self._of_target:
                return frame
            self._of_target.feed(self.target.recv(1 << 16))

    def lose_target(self, marker, kind="target-lost"):
        self.send([2, "target-lost", [7, "it ended", kind, 9, marker]])

    def close(self):
        super().close()
        self.target.close()


@pytest.fixture
def both():
    before = threading.active_count()
    both = AgentAndTarget()
    both.hello()
    yield both
    both.close()
    assert threading.active_count() == before


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
        assert (method, params) == ("target.map", ["shmem"])  # the deadline is kept here
        both.target.sendall(msgpack.packb([1, number, None, "direct"]))
        assert asked.result(5) == "direct"


def test_the_target_s_end_is_told_to_who_waits_at_its_own_line(both):
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
        both.send([1, number, {"kind": "target-lost", "message": "there is no target process"}, None])
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


def test_when_the_agent_is_deaf_too_the_call_is_named(both, monkeypatch):
    monkeypatch.setattr(rpc, "_LATE_ANSWER", 0.1)
    both.spawn(b"m" * 32)
    with pytest.raises(errors.MachineTimeout) as caught:
        both.client.call("target.ioctl", (0.1, 1), 0.15)
    words = "target.ioctl: no answer within 0.1 s, and none of the agent, which was to end it, within 0.1 s"
    assert str(caught.value) == words


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


def test_what_the_target_said_is_heard_before_the_news_of_its_end(both):
    both.spawn(b"m" * 32)
    heard = queue.Queue()
    both.client.subscribe(lambda method, _: heard.put(method))
    held = threading.Event()
    stop = both.client.subscribe(lambda *_: held.wait(5))
    both.send([2, "held", []])
    assert heard.get(timeout=5) == "held"
    both.target.sendall(msgpack.packb([2, "last-words", []]))
    both.lose_target(b"m" * 32)
    held.set()
    assert [heard.get(timeout=5) for _ in range(2)] == ["last-words", "target-lost"]
    stop()


@pytest.mark.parametrize("params", [[], [7, "it ended"], [7, "it ended", "target-lost", 9, "no bytes"]])
def test_an_end_that_does_not_say_whose_is_malformed(both, params):
    both.send([2, "target-lost", params])
    with pytest.raises(errors.ProtocolError, match="target-lost"):
        both.client.call("agent.ping", (), 5)
