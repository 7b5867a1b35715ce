import errno
import threading

import pytest

from uffdlab.errors import FaultUnresolved, MachineTimeout, TargetLost, TouchFailed
from uffdlab.target import syscalls
from uffdlab.target.pending_ioctl import PendingIoctl
from uffdlab.target.touch import Touch
from uffdlab.uapi import IOCTLS
from uffdlab.uapi.protocol.target import StartTouch, TouchWaits, WithdrawTouch

from .touch_results import touch_result

DONE = touch_result()


class WaitingConnection:
    """A connection to a target in which every touch waits until it is withdrawn."""

    def __init__(self):
        self.waits = True
        self.touch = None
        self.hangs = False

    def must_answer(self):
        if self.hangs:
            raise MachineTimeout("agent.ping: no answer within 4.0 s")

    def ask(self, request):
        if isinstance(request, WithdrawTouch):
            self.touch._finish(touch_result(state="withdrawn"))
            return None
        assert isinstance(request, TouchWaits)
        return self.waits


@pytest.fixture
def touch():
    connection = WaitingConnection()
    connection.touch = Touch(connection, StartTouch(1, "read", 0x1000003000, 3, 8, 0), "read of page 3 of region-1")
    return connection.touch


def test_a_touch_that_waits_at_the_deadline_can_still_finish(touch):
    assert touch.state == "waiting"
    with pytest.raises(FaultUnresolved, match=r"page 3 .*0x1000003000.* 0\.01 s") as caught:
        touch.result(timeout=0.01)
    assert caught.value.address == 0x1000003000
    assert touch.state == "waiting"
    touch._finish(DONE)
    assert touch.result() == 7
    assert touch.state == "done"
    assert touch.waited_ns == 250


def test_a_machine_that_hangs_is_not_reported_as_an_unresolved_fault(touch):
    touch._connection.hangs = True
    with pytest.raises(MachineTimeout):
        touch.result(timeout=0.01)


def test_a_touch_that_neither_waits_nor_ended_is_running(touch):
    touch._connection.waits = False
    assert touch.state == "running"
    assert touch.waited_ns is None


def test_result_waits_for_another_thread_to_finish_the_touch(touch):
    threading.Timer(0.02, touch._finish, [DONE]).start()
    assert touch.result(timeout=5) == 7


def test_a_write_returns_none_and_a_copy_returns_its_bytes():
    write = Touch(WaitingConnection(), StartTouch(1, "write", 0, 3, 8, 0), "write")
    write._finish(DONE)
    assert write.result() is None
    copy = Touch(WaitingConnection(), StartTouch(2, "copy_out", 0, 3, 8, 0), "copy")
    copy._finish(touch_result(bytes=b"abc"))
    assert copy.result() == b"abc"


def test_a_touch_that_ended_by_a_signal_has_failed_and_names_the_address(touch):
    touch._finish(touch_result(state="signal", signal=7, signal_address=0xABC000))
    assert touch.state == "failed"
    with pytest.raises(TouchFailed, match="SIGBUS at 0xabc000"):
        touch.result()


def test_a_withdrawn_access_was_not_made(touch):
    assert touch.withdraw() is True
    assert touch.state == "withdrawn"
    with pytest.raises(TouchFailed, match="withdrawn"):
        touch.result()


def test_a_running_touch_is_not_reported_as_waiting_for_a_page_fault(touch):
    touch._connection.waits = False
    with pytest.raises(FaultUnresolved, match="still runs"):
        touch.result(timeout=0.01)


@pytest.mark.parametrize(
    ("kind", "end", "message"),
    [
        ("write", {}, "the access was not made"),
        ("sweep", {"progress": 3}, "3 of its accesses were made before"),
        ("syscall", {"returned": -errno.EINTR}, "its call returned EINTR"),
    ],
)
def test_the_error_of_a_withdrawn_touch_says_which_accesses_were_made(kind, end, message):
    touch = Touch(WaitingConnection(), StartTouch(1, kind, 0, 3, 8, 0), "access")
    touch._finish(touch_result(state="withdrawn", **end))
    with pytest.raises(TouchFailed, match=message):
        touch.result()


def test_the_error_of_a_touch_by_an_ended_child_names_the_child():
    touch = Touch(WaitingConnection(), StartTouch(1, "read", 0, 3, 8, 0), "read")
    touch._finish(touch_result(state="lost", why="child 5 has ended with status 1"))
    assert touch.state == "failed"
    with pytest.raises(TouchFailed, match=r"child 5 .* not known"):
        touch.result()


def test_a_touch_that_ends_during_its_withdrawal_returns_its_result(touch):
    touch.withdraw = lambda: (touch._finish(DONE), False)[1]
    assert touch._result_or_withdraw(0.01) == 7


def test_a_lost_target_fails_the_touch_once(touch):
    touch._fail(TargetLost("gone"))
    touch._fail(TargetLost("gone again"))
    assert touch.state == "failed"
    with pytest.raises(TargetLost, match=r"^gone$"):
        touch.result()


@pytest.mark.parametrize("end", [{"state": "signal", "signal": 7}, {"state": "withdrawn"}, {"state": "lost"}])
def test_a_system_call_that_did_not_return_has_not_succeeded(end):
    """Also for calls whose errno is returned as a result."""
    touch = Touch(WaitingConnection(), StartTouch(1, "syscall", 0, 3, 8, 0), "UFFDIO_WAKE of 1 page")
    touch._finish(touch_result(**end))
    with pytest.raises(TouchFailed):
        PendingIoctl(touch, IOCTLS["UFFDIO_WAKE"], {}).result()
    with pytest.raises(TouchFailed):
        syscalls.result(touch, "madvise", check=False, deadline=1)
