"""One stream to the guest, and the one that its targets have one after the other."""

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
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def received(line):
    return list(line.receive())


def test_frames_are_whole_and_an_empty_read_yields_none(ends):
    ours, theirs = ends
    line = Line(ours)
    assert received(line) == []
    data = msgpack.packb([1, 2, None, "answer"])
    theirs.sendall(data[:3])
    assert received(line) == []
    theirs.sendall(data[3:] + data)
    assert received(line) == [[1, 2, None, "answer"]] * 2
    theirs.close()
    with pytest.raises(EOFError):
        received(line)


def test_a_write_that_wrote_nothing_is_distinguished_from_a_partial_one(ends):
    ours, _ = ends
    line = Line(ours)
    with pytest.raises(Full) as full:
        line.send(bytes(1 << 24), time.monotonic() + 0.05)
    assert full.value.begun
    with pytest.raises(Full) as full:
        line.send(b"more", time.monotonic() + 0.05)
    assert not full.value.begun


@given(before=st.binary(max_size=100), cut=st.integers(1, 50))
def test_what_comes_before_the_marker_is_dropped(before, cut):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = TargetLine(ours)
        line.expect(MARKER)
        data = before + MARKER + msgpack.packb([2, "notification", []])
        got = []
        for at in range(0, len(data), cut):
            theirs.sendall(data[at : at + cut])
            got += received(line)
        assert got == [[2, "notification", []]]
        assert line.up


def test_without_a_target_no_frame_is_read(ends):
    ours, theirs = ends
    line = TargetLine(ours)
    theirs.sendall(msgpack.packb([2, "notification", []]))
    assert received(line) == []
    line.expect(MARKER)
    theirs.sendall(MARKER)
    assert received(line) == []
    assert line.up
    line.drop(OTHER)  # the notification that the last target has ended
    assert line.up
    line.drop(MARKER)
    theirs.sendall(msgpack.packb([2, "notification", []]))
    assert (line.up, received(line)) == (False, [])


def test_a_partial_frame_of_the_last_target_is_dropped(ends):
    ours, theirs = ends
    line = TargetLine(ours)
    line.expect(MARKER)
    theirs.sendall(MARKER + msgpack.packb([1, 2, None, bytes(1000)])[:500])
    assert received(line) == []
    line.expect(OTHER)
    assert not line.up
    theirs.sendall(bytes(77) + OTHER + msgpack.packb([1, 3, None, 4]))
    assert received(line) == [[1, 3, None, 4]]
