"""Notifications of the agent are passed to the touch or userfaultfd that they name."""

import struct

import pytest

from uffdlab.errors import MachineLost, TargetLost
from uffdlab.machines.rpc.client import MachineGone
from uffdlab.target.notifications import Notifications
from uffdlab.target.timeline import Timeline
from uffdlab.uapi.protocol.notifications import MessageRead, ProgramOutput, TargetEnded, TouchEnded

from .touch_results import touch_result


class Recorder:
    """A registry with one touch and one userfaultfd; this object is both."""

    number, what = 1, "read of page 0"

    def __init__(self):
        self.received = []

    def userfaultfd(self, number):
        return self if number == 1 else None

    def pop_touch(self, number):
        return self if number == 1 else None

    def _deliver(self, *message):
        self.received.append(message)

    def _finish(self, result):
        self.received.append(result)

    def lose(self, why):
        self.received.append(why)

    def machine_lost(self, error):
        self.received.append(error)


@pytest.fixture
def received():
    return Recorder()


@pytest.fixture
def timeline():
    return Timeline()


@pytest.fixture
def notifications(received, timeline):
    return Notifications(received, timeline, lambda: 1000)


def test_a_message_is_delivered_to_its_userfaultfd(notifications, received):
    data = struct.pack("<B31x", 0x12)
    notifications.dispatch(MessageRead(1, data, 5, 0))
    notifications.dispatch(MessageRead(2, data, 5, 0))  # userfaultfd 2 was closed meanwhile
    assert received.received == [(data, 5, 0)]


def test_the_result_of_a_touch_reaches_it_and_the_timeline(notifications, received, timeline):
    result = touch_result(started_ns=3, ended_ns=9)
    notifications.dispatch(TouchEnded(1, result))
    notifications.dispatch(TouchEnded(2, result))
    assert received.received == [result]
    assert [(entry.text, entry.started_ns, entry.ended_ns) for entry in timeline] == [("read of page 0: done", 3, 9)]


def test_a_lost_target_is_reported_and_put_on_the_timeline(notifications, received, timeline):
    notifications.dispatch(TargetEnded(77, "it ended by SIGKILL", "target-lost", 9, b"nonce"))
    assert received.received == ["it ended by SIGKILL"]
    (entry,) = timeline
    assert entry.text == "the target is lost: it ended by SIGKILL"
    assert isinstance(entry.what, TargetLost)


def test_a_lost_machine_is_put_on_the_timeline_without_its_console(notifications, received, timeline):
    error = MachineLost("the machine is gone", console="much\nmore")
    notifications.dispatch(MachineGone(error))
    assert received.received == [error]
    (entry,) = timeline
    assert (entry.text, entry.what) == ("the machine is lost: the machine is gone", error)


def test_notifications_of_other_kinds_are_ignored(notifications, received, timeline):
    notifications.dispatch(ProgramOutput(1, 1, b"hello"))
    assert (received.received, len(timeline)) == ([], 0)
