import os
import select
import socket

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uffdlab.agent.rpc import Channel, MarkedChannel, PatientChannel, Refusal

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=10,
)


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(5)
        yield ours, Channel(theirs.fileno(), theirs.fileno())


@settings(max_examples=50)
@given(st.lists(st.tuples(st.text(), st.lists(values, max_size=3)), min_size=1, max_size=5), st.integers(1, 40))
def test_frames_arrive_whole_however_they_are_cut(frames, cut):
    read, write = os.pipe()
    channel = Channel(read, write)
    data = b"".join(msgpack.packb([2, method, params]) for method, params in frames)
    got = []
    for at in range(0, len(data), cut):
        os.write(write, data[at : at + cut])
        got += channel.receive()
    os.close(read)
    os.close(write)
    assert got == [[2, method, params] for method, params in frames]


def test_a_closed_peer_is_an_end_of_file(pair):
    ours, channel = pair
    ours.close()
    with pytest.raises(EOFError):
        list(channel.receive())


def test_responses_and_notifications_have_the_form_of_the_specification(pair):
    ours, channel = pair
    channel.respond(7, None, {"a": b"\0"})
    channel.notify("touch", 1, "x")
    unpacker = msgpack.Unpacker()
    frames = []
    while len(frames) < 2:
        unpacker.feed(ours.recv(4096))
        frames += list(unpacker)
    assert frames == [[1, 7, None, {"a": b"\0"}], [2, "touch", [1, "x"]]]


def test_a_refusal_travels_as_a_map():
    assert Refusal("usage", "no", address=3).as_map() == {"kind": "usage", "message": "no", "data": {"address": 3}}


@settings(max_examples=50)
@given(before=st.binary(max_size=100), cut=st.integers(1, 50))
def test_what_was_sent_to_the_last_target_is_dropped(before, cut):
    marker = bytes(range(32))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        channel = MarkedChannel(theirs.fileno(), marker)
        data = before + marker + msgpack.packb([0, 1, "target.map", []])
        got = []
        for at in range(0, len(data), cut):
            ours.sendall(data[at : at + cut])
            got += channel.receive()
        assert got == [[0, 1, "target.map", []]]
        assert ours.recv(100) == marker


def test_a_patient_channel_keeps_what_the_other_side_does_not_take(pair):
    ours, channel = pair
    patient = PatientChannel(channel.fileno())
    sent = [[0, number, "target.ioctl", [bytes(1 << 20)]] for number in range(3)]
    for _, number, method, params in sent:
        patient.request(number, method, params)
    unpacker = msgpack.Unpacker(max_buffer_size=8 << 20)
    received = []
    while patient.events & select.POLLOUT:
        unpacker.feed(ours.recv(1 << 16))
        received += unpacker
        patient.flush()
    while len(received) < len(sent):
        unpacker.feed(ours.recv(1 << 16))
        received += unpacker
    assert received == sent


def test_a_request_to_a_target_that_has_just_ended_is_answered_once_when_its_end_is_read(pair):
    ours, channel = pair
    patient = PatientChannel(channel.fileno())
    ours.close()
    patient.request(1, "target.ioctl", [])
    assert not patient.events & select.POLLOUT
    with pytest.raises(EOFError):
        list(patient.receive())
