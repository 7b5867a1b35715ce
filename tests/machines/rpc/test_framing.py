"""Frames on the agent's stream, and on the stream that one target after the other uses."""

import socket
import time

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uffdlab.machines.rpc.framing import Full, Line, TargetLine

MARKER, OTHER = bytes(range(32)), b"other" + bytes(range(27))


@pytest.fixture
def ends():
    host_end, guest_end = socket.socketpair()
    with host_end, guest_end:
        yield host_end, guest_end


def frames(line):
    return list(line.receive())


def test_only_complete_frames_are_returned(ends):
    host_end, guest_end = ends
    line = Line(host_end)
    assert frames(line) == []
    data = msgpack.packb([1, 2, None, "answer"])
    guest_end.sendall(data[:3])
    assert frames(line) == []
    guest_end.sendall(data[3:] + data)
    assert frames(line) == [[1, 2, None, "answer"]] * 2
    guest_end.close()
    with pytest.raises(EOFError):
        frames(line)


def test_a_write_that_wrote_nothing_is_distinguished_from_a_partial_one(ends):
    host_end, _ = ends
    line = Line(host_end)
    with pytest.raises(Full) as full:
        line.send(bytes(1 << 24), time.monotonic() + 0.05)
    assert full.value.begun
    with pytest.raises(Full) as full:
        line.send(b"more", time.monotonic() + 0.05)
    assert not full.value.begun


@given(before=st.binary(max_size=100), cut=st.integers(1, 50))
def test_data_before_the_marker_is_dropped(before, cut):
    host_end, guest_end = socket.socketpair()
    with host_end, guest_end:
        line = TargetLine(host_end)
        line.expect(MARKER)
        data = before + MARKER + msgpack.packb([2, "notification", []])
        received = []
        for at in range(0, len(data), cut):
            guest_end.sendall(data[at : at + cut])
            received += frames(line)
        assert received == [[2, "notification", []]]
        assert line.marker_returned


def test_without_a_target_no_frame_is_read(ends):
    host_end, guest_end = ends
    line = TargetLine(host_end)
    guest_end.sendall(msgpack.packb([2, "notification", []]))
    assert frames(line) == []
    line.expect(MARKER)
    guest_end.sendall(MARKER)
    assert frames(line) == []
    assert line.marker_returned
    line.drop(OTHER)  # the notification that the last target has ended
    assert line.marker_returned
    line.drop(MARKER)
    guest_end.sendall(msgpack.packb([2, "notification", []]))
    assert (line.marker_returned, frames(line)) == (False, [])


def test_a_partial_frame_of_the_last_target_is_dropped(ends):
    host_end, guest_end = ends
    line = TargetLine(host_end)
    line.expect(MARKER)
    guest_end.sendall(MARKER + msgpack.packb([1, 2, None, bytes(1000)])[:500])
    assert frames(line) == []
    line.expect(OTHER)
    assert not line.marker_returned
    guest_end.sendall(bytes(77) + OTHER + msgpack.packb([1, 3, None, 4]))
    assert frames(line) == [[1, 3, None, 4]]
