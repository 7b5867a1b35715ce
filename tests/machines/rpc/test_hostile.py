"""The client with agents that send wrong or malformed data."""

import contextlib
import socket
import threading

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from uffdlab import errors

from ..agents import HELLO, Agent, in_thread

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
    "a second hello": [2, "hello", [HELLO]],
    "a notification of another version": [2, "machine-lost", ["not an error"]],
    "a notification that lacks a parameter": [2, "message", [1, bytes(32), 5]],
    "a message of another size": [2, "message", [1, bytes(31), 5, 0]],
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
    pending = in_thread(agent.client.call, "m", (), 60)
    agent.receive()
    agent.send(MALFORMED[name])
    with pytest.raises(errors.ProtocolError, match="malformed"):
        pending.result(5)
    with pytest.raises(errors.ProtocolError):
        agent.client.call("m", (), 5)


@pytest.mark.parametrize(
    "error",
    [
        5,
        "no",
        [],
        {},
        {"kind": 1, "message": "x", "data": {}},
        {"kind": "x"},
        {"kind": "x", "message": "x", "data": []},
    ],
)
def test_a_malformed_error_is_a_protocol_error(agent, error):
    agent.hello()
    pending = in_thread(agent.client.call, "m", (), 60)
    agent.send([1, agent.receive()[1], error, None])
    with pytest.raises(errors.ProtocolError):
        pending.result(5)


def test_a_second_answer_to_one_request_ends_the_connection(agent):
    agent.hello()
    pending = in_thread(agent.client.call, "m", (), 5)
    number = agent.receive()[1]
    agent.send([1, number, None, 1], [1, number, None, 2])
    assert pending.result(5) == 1
    agent.client._reader.join(5)
    with pytest.raises(errors.ProtocolError):
        agent.client.call("m", (), 0.2)


def test_a_first_message_other_than_hello_is_a_protocol_error(agent):
    agent.send([2, "program-output", [1, 1, b""]])
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
def test_a_frame_that_is_too_large_is_a_protocol_error(agent, start, piece):
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
        pass  # the client closed the connection


VALUES = st.recursive(
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
@given(st.lists(st.binary(min_size=1, max_size=40) | VALUES.map(msgpack.packb), min_size=1, max_size=6))
@example([msgpack.packb([1, 0, None, None])])
def test_random_bytes_lead_to_an_answer_or_an_uffdlab_error(pieces):
    agent = Agent()
    try:
        agent.hello()
        pending = in_thread(agent.client.call, "m", (), 0.2)
        agent.receive()
        try:
            for piece in pieces:
                agent.send(piece)
            agent.stream.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the client closed the connection
        with contextlib.suppress(errors.UffdlabError):
            pending.result(5)
        assert not agent.client._reader.is_alive() or agent.client._reader.join(5) is None
    finally:
        agent.close()
