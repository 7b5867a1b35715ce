"""The host's side of the target process."""

from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from uffdlab.errors import AgentError, LabClosed, TargetLost, UsageError
from uffdlab.target.process import TargetProcess
from uffdlab.target.region import Region
from uffdlab.target.timeline import Timeline
from uffdlab.uapi.protocol.agent import SpawnTarget
from uffdlab.uapi.protocol.notifications import TouchEnded
from uffdlab.uapi.protocol.target import KernelProbe, MapMemory, MappedMemory, ProbeKernel, StartTouch, WithdrawTouch
from uffdlab.uapi.protocol.witnesses import DescribeTarget, ReaderFacts, ScanFacts, TargetFacts

from .touch_results import touch_result

PAGE = 4096
PROBED = KernelProbe(0, 0, {}, {}, {}, continue_wp=True)
FACTS = TargetFacts(0x800000000, 77, True, ScanFacts(0), ReaderFacts("no device"))


class AnsweringConnection:
    """A connection to a machine that answers each type of request from `answers`."""

    kernel = "some-kernel"

    def __init__(self):
        self.machine = SimpleNamespace(name="test", physical=None)
        self.closed = False
        self.asked = []
        self.dispatch = None
        self.answers = {DescribeTarget: FACTS, ProbeKernel: PROBED, MapMemory: MappedMemory(1, 0x10000, 0)}

    def open(self, dispatch):
        self.dispatch = dispatch

    def must_be_open(self):
        if self.closed:
            raise LabClosed("this lab is closed")

    def now(self):
        return 1000

    def ask(self, request, *, deadline):
        assert deadline > 0
        self.asked.append(request)
        answer = self.answers.get(type(request))
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def connection():
    return AnsweringConnection()


@pytest.fixture
def target(connection):
    process = TargetProcess(connection, Timeline())
    process.open()
    return process


def requests(connection, method):
    return [request for request in connection.asked if isinstance(request, method)]


def test_each_new_target_is_started_with_a_new_nonce(connection, target):
    target.restart()
    first, second = requests(connection, SpawnTarget)
    assert len(first.nonce) == len(second.nonce) == 32
    assert first.nonce != second.nonce
    assert first.base % (1 << 30) == 0


def test_regions_of_the_old_target_are_lost_with_it(target):
    region = Region(target, 1, "anon", 0x10000, 0, 4, PAGE)
    target.registry.add_region(region)
    touch = region.read(0)
    target.restart()
    with pytest.raises(TargetLost, match="replaced by a new one"):
        region.read(0)
    with pytest.raises(TargetLost, match="replaced by a new one"):
        touch.result()


def test_a_notification_reaches_the_touch_that_it_names(connection, target):
    touch = Region(target, 1, "anon", 0x10000, 0, 4, PAGE).read(3)
    connection.dispatch(TouchEnded(touch.number, touch_result(value=7)))
    assert touch.result(0) == 7
    assert target.registry.touches == ()


def test_a_request_has_the_number_of_the_touch_and_the_pid_of_its_process(connection, target):
    region = Region(target, 1, "anon", 0x10000, 0, 4, PAGE)
    region.read(1)
    region.write(2, 5, by=SimpleNamespace(pid=99))
    assert requests(connection, StartTouch) == [
        StartTouch(1, "read", 0x10000 + PAGE, 8, 8, 0, None, 0),
        StartTouch(2, "write", 0x10000 + 2 * PAGE, 8, 8, 5, None, 99),
    ]


def test_a_touch_by_an_ended_child_is_refused(connection, target):
    with pytest.raises(UsageError, match="this child has ended"):
        target.touch("read", 0x10000, "a read", length=8, by=SimpleNamespace(pid=0))
    assert requests(connection, StartTouch) == []


def test_a_touch_that_did_not_start_is_forgotten(connection, target):
    connection.answers[StartTouch] = AgentError("no memory for a thread")
    with pytest.raises(AgentError):
        target.touch("read", 0x10000, "a read", length=8)
    assert target.registry.touches == ()


def test_a_touch_whose_start_ctrl_c_interrupts_is_withdrawn(connection, target):
    connection.answers[StartTouch] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        target.touch("read", 0x10000, "a read", length=8)
    (started,) = requests(connection, StartTouch)
    assert connection.asked[-1] == WithdrawTouch(started.number)
    assert target.registry.touches == ()


def test_the_kernel_is_probed_once_and_again_on_another_machine(connection, target):
    assert target.capabilities is target.capabilities
    assert len(requests(connection, ProbeKernel)) == 1
    target.open()
    assert target.capabilities.kernel == "some-kernel"
    assert len(requests(connection, ProbeKernel)) == 2


def test_the_pid_is_that_of_the_new_target(connection, target):
    assert target.pid == 77
    connection.answers[DescribeTarget] = replace(FACTS, pid=78)
    assert target.pid == 77
    target.restart()
    assert target.pid == 78


def test_a_closed_lab_takes_no_snapshot(connection, target):
    connection.closed = True
    with pytest.raises(LabClosed):
        target.snapshot(Region(target, 1, "anon", 0x10000, 0, 4, PAGE)[:])


def test_a_region_that_is_mapped_is_found_by_its_address(target):
    assert target.locate(0x12345) == ("", None)
    target.registry.add_region(Region(target, 1, "anon", 0x10000, 0, 4, PAGE))
    assert target.locate(0x12345) == ("region-1", 2)
    assert target.memory_at(0x12345) == "anon"
