import errno
import threading
from types import SimpleNamespace

import pytest

from uffdlab.errors import IoctlError, LabClosed, UsageError
from uffdlab.target.timeline import Timeline
from uffdlab.uapi import Event, FaultFlag
from uffdlab.uapi.messages import Fault, Message
from uffdlab.widgets import FaultLog

START = 0x10_0000_0000


class Touch:
    def __init__(self, page, state="waiting", number=7):
        self.number = number
        self.address, self.what, self._state = START + page * 4096 + 8, f"write to page {page} of region-1", state

    @property
    def state(self):
        if isinstance(self._state, Exception):
            raise self._state
        return self._state


class Lab:
    def __init__(self):
        self.timeline = Timeline()
        self.touches = ()
        self.regions = (
            SimpleNamespace(name="region-1", page_size=4096, page_of=lambda address: (address - START) // 4096),
        )
        self.sent = []
        self.error = None

    def ioctl(self, name, values, *, source=None, where="", check=True):
        self.sent.append((name, values, source))
        if self.error:
            raise self.error
        return SimpleNamespace(call=f"{name}({where})")

    def fault(self, page, flags=FaultFlag.WRITE | FaultFlag.MINOR, at=1000):
        fault = Fault(page, "region-1", START + page * 4096, flags, 0, at)
        self.timeline.add("message", repr(fault), at, None, fault)


@pytest.fixture
def lab():
    return Lab()


@pytest.fixture
def log(lab):
    log = FaultLog(lab, lab)
    yield log
    log.close()


def test_new_messages_and_waiting_touches_are_shown(lab, log):
    lab.touches = (Touch(3),)
    lab.fault(3, at=1000)
    lab.fault(4, FaultFlag.WP | FaultFlag.WRITE, at=3500)
    removed = Message(Event.REMOVE, (0, 4096), 4000)
    lab.timeline.add("message", repr(removed), 4000, None, removed)
    assert log.shown == [
        (3.0, "Message(REMOVE, 0x0, 0x1000)"),
        (2.5, "Fault(page=4, write, wp)"),
        (0.0, "Fault(page=3, write, minor)"),
    ]
    assert b"Fault(page=4, write, wp)" in log._rows
    assert log.counts == {"minor, write": 1, "wp, write": 1, "REMOVE": 1}
    (waiting,) = log.waiting
    assert (waiting["id"], waiting["where"], waiting["kind"]) == (7, "page 3 of region-1", "minor, write")
    assert 0 <= waiting["age"] < 60
    lab.touches = ()
    lab.timeline.add("touch", "write to page 3: done", 5000)
    assert log.waiting == []


def test_messages_before_the_log_are_counted(lab):
    lab.fault(3)
    assert FaultLog(lab, lab).total == 1


def test_every_message_of_a_flood_is_counted_but_few_are_shown(lab, log):
    def flood():
        for number in range(10_000):
            lab.fault(number % 64, at=number)

    thread = threading.Thread(target=flood)
    thread.start()
    thread.join()
    lab.fault(1, at=10_000)
    log.refresh()
    assert log.total == 10_001
    assert len(log.shown) == 50
    assert len(log._rows) < 4096
    assert len(log._messages) <= 200
    assert len(log._faults) <= 201


def test_messages_that_arrive_in_another_order_than_their_numbers_are_all_counted(lab):
    def add_another(entry):
        # As another thread may: its entry has the next number, and reaches the log first.
        if entry.started_ns == 1000:
            lab.fault(2, at=2000)

    leave = lab.timeline.listen(add_another)
    log = FaultLog(lab, lab)
    lab.fault(1, at=1000)
    assert log.total == 2
    leave()
    log.close()


@pytest.mark.parametrize(
    ("action", "name", "mode"),
    [
        ("continue", "UFFDIO_CONTINUE", 0),
        ("continue WP", "UFFDIO_CONTINUE", 2),
        ("copy", "UFFDIO_COPY", 0),
        ("zeropage", "UFFDIO_ZEROPAGE", 0),
        ("unprotect", "UFFDIO_WRITEPROTECT", 0),
        ("poison", "UFFDIO_POISON", 0),
        ("wake", "UFFDIO_WAKE", None),
    ],
)
def test_each_action_calls_its_ioctl_for_the_selected_touch(lab, log, action, name, mode):
    lab.touches = (Touch(3), Touch(5, number=8))
    log._message(log, {"resolve": action, "touch": 8, "data": "hi"}, [])
    ((sent, values, source),) = lab.sent
    assert sent == name
    assert values.get("mode") == mode
    assert values.get("start", values.get("dst")) == START + 5 * 4096
    assert values["len"] == 4096
    assert source == (b"hi".ljust(4096, b"\0") if action == "copy" else None)
    assert log._status == f"{name}(page 5) → done"


def test_the_actions_are_in_the_order_of_the_faults_that_they_resolve(log):
    known = ["continue", "continue WP", "copy", "zeropage", "unprotect", "poison", "wake"]
    assert [action for action in log._actions if action in known] == known
    about = dict(zip(log._actions, log._about, strict=True))
    assert about["continue WP"] == "UFFDIO_CONTINUE: resolves a minor fault"
    assert about["wake"] == "UFFDIO_WAKE: wakes the thread, which tries again"


def test_a_failed_ioctl_is_reported(lab, log):
    lab.touches = (Touch(3),)
    lab.error = IoctlError("UFFDIO_CONTINUE(page 3)", errno.EFAULT, "there is no page in the page cache")
    assert log.resolve("continue") is lab.error
    assert log._status == "UFFDIO_CONTINUE(page 3) → EFAULT: there is no page in the page cache"
    lab.error = LabClosed("this lab is closed")
    assert log.resolve("continue") is None
    assert log._status == "this lab is closed"
    lab.touches = ()
    assert log.resolve("continue") is None
    assert log._status == "no touch waits any more"
    with pytest.raises(UsageError, match="no action 'repair'"):
        log.resolve("repair")


def test_a_closed_lab_is_shown(lab, log):
    lab.touches = (Touch(3, LabClosed("this lab is closed")),)
    log.refresh()
    assert log.waiting == []
    assert log._status == "this lab is closed"


def test_closing_leaves_no_listener(lab):
    log = FaultLog(lab, lab)
    assert lab.timeline._listeners
    log.close()
    assert lab.timeline._listeners == []


def test_an_unknown_keyword_is_refused(lab):
    with pytest.raises(TypeError, match="no keyword 'layoutt'; did you mean 'layout'"):
        FaultLog(lab, lab, layoutt={})


def test_the_static_forms_have_the_messages(lab, log, tmp_path):
    lab.fault(3, at=1000)
    data, _ = log._repr_mimebundle_()
    assert "Fault(page=3, write, minor)" in data["text/html"]
    assert "1 message: 1 minor, write" in data["text/html"]
    log.to_csv(tmp_path / "log.csv")
    assert (tmp_path / "log.csv").read_text() == 'time_ns,message\n1000,"Fault(page=3, write, minor)"\n'
