import errno
import threading

import pytest

from uffdlab import uapi
from uffdlab.errors import IoctlError, LabClosed, NoMessage, TargetLost, UsageError
from uffdlab.target.region import Region
from uffdlab.target.registry import Registry
from uffdlab.target.timeline import Timeline
from uffdlab.target.userfaultfd import Userfaultfd
from uffdlab.uapi import Feature
from uffdlab.uapi.messages import Fault, Message
from uffdlab.uapi.protocol.target import (
    BatchAnswer,
    CallIoctl,
    CloseUserfaultfd,
    IoctlAnswer,
    OpenedUserfaultfd,
    OpenUserfaultfd,
    RunBatch,
)

PAGE = 4096
START = 0x10_0000_0000


class ScriptedTarget:
    """A target that answers each ioctl from `answers`, and every other ioctl with success."""

    def __init__(self):
        self.timeline = Timeline()
        self.registry = Registry()
        self.known_capabilities = None
        self.sent = []
        self.answers = {}
        self.offered = int(Feature.MINOR_SHMEM)
        self.closed = []

    def ask(self, request):
        if isinstance(request, OpenUserfaultfd):
            asked = request.wanted & self.offered | request.required
            bad = errno.EINVAL if asked & ~self.offered else 0
            opened = {"number": 0 if bad else 1, "way": "userfaultfd(2)", "offered": self.offered, "asked": asked}
            return OpenedUserfaultfd(errno=bad, fields={}, started_ns=0, ended_ns=0, **opened)
        if isinstance(request, CloseUserfaultfd):
            self.closed.append(request.number)
            return None
        assert isinstance(request, CallIoctl)
        name, values, source = request.name, request.values, request.source
        self.sent.append((name, values, source))
        error, output = self.answers.get(name, (0, values.get("len", 0)))
        fields = dict.fromkeys(uapi.IOCTLS[name].fields, 0) | values
        if uapi.IOCTLS[name].output:
            fields[uapi.IOCTLS[name].output] = output
        return IoctlAnswer(errno=error, fields=fields, started_ns=1000, ended_ns=3500)

    @staticmethod
    def memory_at(_address):
        return "shmem"

    @staticmethod
    def page_size_at(_address):
        return PAGE

    @staticmethod
    def locate(address):
        page = (address - START) // PAGE
        return ("region-1", page) if 0 <= page < 64 else ("", None)


@pytest.fixture
def target():
    return ScriptedTarget()


@pytest.fixture
def region(target):
    return Region(target, 1, "shmem", START, 0, 64, PAGE)


@pytest.fixture
def uffd(target):
    return Userfaultfd.open(target, None)


def fault_message(flags, address):
    return bytes([0x12]) + bytes(7) + flags.to_bytes(8, "little") + address.to_bytes(8, "little") + bytes(8)


def test_without_features_given_only_those_the_kernel_offers_are_enabled(uffd):
    assert uffd.features == Feature.MINOR_SHMEM


def test_a_requested_feature_that_is_missing_is_named(target):
    with pytest.raises(IoctlError, match="this kernel lacks POISON"):
        Userfaultfd.open(target, Feature.POISON)


@pytest.mark.parametrize(
    ("wp", "dontwake", "mode"), [(False, False, 0), (False, True, 1), (True, False, 2), (True, True, 3)]
)
def test_continue_sends_exactly_its_flags(target, uffd, region, wp, dontwake, mode):
    result = uffd.continue_(region[8:16], wp=wp, dontwake=dontwake)
    assert target.sent == [("UFFDIO_CONTINUE", {"start": START + 8 * PAGE, "len": 8 * PAGE, "mode": mode}, None)]
    assert (result.ok, result.done, result.took_ns) == (True, 8 * PAGE, 2500)


def test_writeprotect_has_other_values_for_wp_and_dontwake(target, uffd, region):
    uffd.writeprotect(region[0], wp=True)
    uffd.writeprotect(region[0], wp=False, dontwake=True)
    assert [values["mode"] for _, values, _ in target.sent] == [1, 2]


def test_copy_pads_with_zeroes(target, uffd, region):
    uffd.copy(region[:2], b"abc", wp=True)
    name, values, source = target.sent[0]
    assert (name, values) == ("UFFDIO_COPY", {"dst": START, "len": 2 * PAGE, "mode": 2})
    assert source == b"abc" + bytes(2 * PAGE - 3)
    with pytest.raises(UsageError, match="do not fit into page 0"):
        uffd.copy(region[0], bytes(PAGE + 1))


def test_an_errno_raises_an_error_with_the_call_and_the_reason(target, uffd, region):
    uffd.register(region, "minor", "wp")
    target.answers["UFFDIO_CONTINUE"] = (errno.EINVAL, 0)
    with pytest.raises(IoctlError) as caught:
        uffd.continue_(region[3], wp=True)
    assert str(caught.value).startswith("UFFDIO_CONTINUE(page 3, WP) → EINVAL: this kernel does not know")
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    "fail",
    [
        lambda uffd, region: uffd.continue_(region[3], wp=True),
        lambda uffd, region: uffd.poison(region[3]),
        lambda uffd, region: uffd.ioctl("UFFDIO_COPY", {"dst": 1, "len": 8}),
        lambda uffd, region: uffd.batch("UFFDIO_CONTINUE", region),
        lambda uffd, region: uffd.resume(uffd.wake(region, check=False)),
    ],
    ids=["continue", "poison", "raw", "batch", "resume"],
)
@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOTTY, errno.EEXIST])
def test_the_text_of_an_error_needs_no_call_to_the_target(target, uffd, region, monkeypatch, fail, error):
    asked = []

    def ask(request, **_keywords):
        asked.append(request)
        times = {"started_ns": 0, "ended_ns": 0}
        if isinstance(request, RunBatch):
            return BatchAnswer(errno=error, done=0, **times)
        if isinstance(request, CallIoctl):
            return IoctlAnswer(errno=error, fields=dict.fromkeys(("copy", "mapped", "updated"), 0), **times)
        raise TargetLost(f"{request.method} is not answered")

    monkeypatch.setattr(target, "ask", ask)
    with pytest.raises(IoctlError) as caught:
        fail(uffd, region)
    assert caught.value.errno == error
    assert caught.value.__context__ is None
    assert len(asked) == 1


def test_an_ioctl_whose_feature_is_not_offered_is_unknown_to_this_kernel(target, uffd, region):
    target.answers["UFFDIO_POISON"] = (errno.EINVAL, 0)
    uffd.register(region, "minor")
    with pytest.raises(IoctlError, match=r"this kernel does not know UFFDIO_POISON, which Linux 6\.6 introduced"):
        uffd.poison(region)
    target.offered |= int(Feature.POISON)
    other = Userfaultfd.open(target, None)
    other.register(region, "minor")
    with pytest.raises(IoctlError, match="more than one mapping"):
        other.poison(region)


def test_without_check_an_errno_is_returned_in_the_result(target, uffd, region):
    target.answers["UFFDIO_CONTINUE"] = (errno.EAGAIN, 3 * PAGE)
    result = uffd.continue_(region, check=False)
    assert (result.ok, result.errno, result.done, result.output) == (False, errno.EAGAIN, 3 * PAGE, 3 * PAGE)
    target.answers["UFFDIO_CONTINUE"] = (errno.EEXIST, -errno.EEXIST)
    assert uffd.continue_(region, check=False).done == 0
    assert "→ EEXIST" in str(target.timeline)


def test_the_reason_depends_on_the_registered_modes_of_the_range(target, uffd, region):
    target.answers["UFFDIO_CONTINUE"] = (errno.EINVAL, 0)
    with pytest.raises(IoctlError, match="not registered with this userfaultfd"):
        uffd.continue_(region[0])
    uffd.register(region, "minor")
    with pytest.raises(IoctlError, match="needs a range that is registered for WP"):
        uffd.continue_(region[0], wp=True)
    uffd.unregister(region)
    with pytest.raises(IoctlError, match="not registered with this userfaultfd"):
        uffd.continue_(region[0])


@pytest.mark.parametrize(("modes", "mode"), [(["minor"], 4), (["MINOR", "wp"], 6), ([uapi.RegisterMode.MISSING], 1)])
def test_register_takes_names_and_flags(target, uffd, region, modes, mode):
    uffd.register(region, *modes)
    assert target.sent[0][1]["mode"] == mode


@pytest.mark.parametrize("modes", [[], ["write"]])
def test_register_refuses_no_mode_and_an_unknown_mode(uffd, region, modes):
    with pytest.raises(UsageError, match=r"minor|missing"):
        uffd.register(region, *modes)


def test_a_bare_page_number_is_refused(uffd):
    with pytest.raises(UsageError, match=r"region\[3\]"):
        uffd.wake(3)


def test_a_raw_ioctl_takes_invalid_values_but_no_unknown_fields(target, uffd):
    uffd.ioctl("UFFDIO_CONTINUE", {"start": 1, "len": 1, "mode": 0xFF00}, check=False)
    assert target.sent[0][1] == {"start": 1, "len": 1, "mode": 0xFF00}
    with pytest.raises(UsageError, match="is no ioctl of a userfaultfd"):
        uffd.ioctl("UFFDIO_CONTIUE", {})
    with pytest.raises(UsageError, match="has no field length"):
        uffd.ioctl("UFFDIO_WAKE", {"length": 1})


def test_messages_are_read_in_order_and_read_fault_skips_other_events(uffd):
    uffd._deliver(bytes([0x15]) + bytes(31), 1)
    uffd._deliver(fault_message(3, START + 5 * PAGE), 2)
    fault = uffd.read_fault(timeout=1)
    assert isinstance(fault, Fault)
    assert (fault.page, fault.write, fault.wp) == (5, True, True)
    event = uffd.read_message(timeout=1)
    assert isinstance(event, Message)
    assert event.event == uapi.Event.REMOVE


def test_a_read_without_a_message_before_its_deadline_is_an_error(uffd):
    with pytest.raises(NoMessage, match=r"no page fault .* 0\.01 s"):
        uffd.read_fault(timeout=0.01)
    with pytest.raises(TimeoutError):
        uffd.read_message(timeout=0.01)


def test_a_closed_userfaultfd_refuses_every_call(target, uffd, region):
    uffd.close()
    uffd.close()
    assert target.closed == [1]
    assert target.registry.userfaultfds == ()
    with pytest.raises(LabClosed, match="closed"):
        uffd.wake(region)
    with pytest.raises(LabClosed, match="closed"):
        uffd.read_fault(timeout=60)


def test_closing_ends_a_wait_for_a_message(uffd):
    uffd._deliver(fault_message(0, START), 1)
    threading.Timer(0.05, uffd._lose, ["the target has ended"]).start()
    assert uffd.read_fault(timeout=60).page == 0
    with pytest.raises(TargetLost, match="has ended"):
        uffd.read_fault(timeout=60)
    with pytest.raises(TargetLost, match="has ended"):
        uffd.ioctl("UFFDIO_WAKE", {})


def test_pages_of_an_unmapped_region_are_refused(target, uffd, region):
    region._lose("it was unmapped", UsageError)
    for where in (region, region[3], region.alias[3]):
        with pytest.raises(UsageError, match="was unmapped"):
            uffd.wake(where)
    assert target.sent == []
