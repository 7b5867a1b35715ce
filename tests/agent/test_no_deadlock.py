"""Deadlock: a thread touches memory whose faults it must resolve itself.  Each public name is tried.

An exception could not end such a deadlock: a Python thread that touches registered memory keeps the interpreter lock.
So a watchdog in C ends this process if it happens.
"""

import faulthandler
import queue
import sys
import threading
import time

import pytest

from uffdlab.errors import FaultUnresolved, LabClosed, NoMessage, TargetLost, TouchFailed, UffdlabError, UsageError
from uffdlab.target.child import Child
from uffdlab.target.region import PageRange, Region
from uffdlab.target.touch import Touch
from uffdlab.uapi.messages import Unmap
from uffdlab.uapi.protocol.target import CallIoctl

PAGES = 4
_MOST = 60  # seconds until the watchdog ends this process


@pytest.fixture(autouse=True)
def watched():
    """End everything if Python stands still."""
    faulthandler.dump_traceback_later(_MOST, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def waiting(host_lab):
    """A region with a touch that waits on each page, and nobody who resolves anything."""
    region = host_lab.map(pages=PAGES)
    uffd = host_lab.userfaultfd()
    uffd.register(region, "missing", "minor")
    touches = [region.read(page) for page in range(PAGES)]
    assert {touch.state for touch in touches} == {"waiting"}
    yield uffd, region, touches
    # All of it can still be used, and each touch ends when its fault is resolved.  A touch that waits in a mapping that
    # was moved or unmapped ends when the userfaultfd is closed.
    host_lab._connection.must_answer()
    if region in host_lab.regions and uffd.number:
        resolve_all(uffd, region)
    uffd.close()
    for touch in touches:
        touch.outcome(5)
    if region in host_lab.regions:
        region.unmap()
    until = time.monotonic() + 10
    while host_lab.touches and time.monotonic() < until:
        time.sleep(0.01)
    assert not host_lab.touches


def resolve_all(uffd, region):
    for page in range(PAGES):
        uffd.zeropage(region[page], check=False)
        uffd.continue_(region[page], check=False)
    uffd.wake(region, check=False)


def ticket(touch):
    """It waits, as a ticket, and so does whoever asks for its end, but not for ever."""
    assert isinstance(touch, Touch)
    with pytest.raises(FaultUnresolved):
        touch.result(0.05)


def refused(error, call):
    with pytest.raises(error):
        call()


# Each name that a region offers, and what becomes of it while all of its pages wait.
REGION = {
    "read": lambda region: ticket(region.read(1)),
    "write": lambda region: ticket(region.write(1)),
    "modify": lambda region: ticket(region.modify(1)),
    "kernel_read": lambda region: ticket(region.kernel_read(1)),
    "kernel_write": lambda region: ticket(region.kernel_write(1)),
    "gup_read": lambda region: ticket(region.gup_read(1)),
    "gup_write": lambda region: ticket(region.gup_write(1)),
    "populate": lambda region: ticket(region.populate()),
    "sweep": lambda region: ticket(region.sweep("write")),
    "sweep_threads": lambda region: [ticket(touch) for touch in region.sweep_threads(3)],
    "copy_out": lambda region: refused(FaultUnresolved, lambda: region.copy_out(1, deadline=0.1)),
    "fill": lambda region: refused(FaultUnresolved, lambda: region.fill(deadline=0.1)),
    "probe": lambda region: region.probe(1),
    "snapshot": lambda region: region.snapshot("pagemap"),
    "walk": lambda region: refused(UffdlabError, lambda: region.walk(1)),
    "alias": lambda region: (region.alias.fill(7), region.alias.copy_out(1), region.alias.read(2).result()),
    "madvise": lambda region: region.madvise("dontneed"),
    "start_madvise": lambda region: region.start_madvise("dontneed").outcome(),
    "mprotect": lambda region: (region.mprotect("r"), region.mprotect("rw")),
    "guard": lambda region: region.guard(check=False),
    "page_out": lambda region: region[0].madvise("pageout", check=False),
    "mremap": lambda region: region.mremap(),
    "munmap": lambda region: region[3].munmap(),
    "unmap": lambda region: region.unmap(),
}
# What only tells of itself, or is the lab's own.
_QUIET = {"count", "first", "mapping", "length", "lose", "must_be_there", "page_of", "start"}


def public(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


def test_every_public_name_is_tried():
    """A new one has to be thought of here."""
    assert set(REGION) == (public(Region) | public(PageRange)) - _QUIET
    assert public(Child) == {"end", "snapshot"}


@pytest.mark.parametrize("name", REGION)
def test_whatever_is_asked_of_a_region_whose_pages_all_wait(waiting, name):
    _, region, _ = waiting
    started = time.monotonic()
    REGION[name](region)
    assert time.monotonic() - started < _MOST / 2


def test_nothing_gives_a_view_of_registered_memory(waiting):
    """What is given is bytes of our own, which no fault can come of."""
    uffd, region, _ = waiting
    resolve_all(uffd, region)
    content = region.copy_out(0)
    assert type(content) is bytes
    for name in public(Region) - {"unmap", "munmap", "lose"}:
        assert not isinstance(getattr(region, name), memoryview | bytearray)
    with pytest.raises(TypeError):
        memoryview(region)
    with pytest.raises(TypeError):
        bytes(region[0])


def test_the_lab_can_be_asked_while_faults_wait(host_lab, waiting):
    uffd, region, touches = waiting
    assert len(host_lab.touches) == PAGES
    assert host_lab.cross_examine(region).snapshots
    with host_lab.fork() as child:
        assert child.snapshot(region).counts()
        touch = region.read(1, by=child)
        assert touch.result() == 0  # the child's mapping belongs to no userfaultfd
    with pytest.raises(UffdlabError):
        host_lab._target.touch("read", 0x1000, "a read of nothing", length=8).result()
    assert [uffd.read_fault().page for _ in touches] == list(range(PAGES))
    for look in (lambda: uffd.read_message(0.05), lambda: uffd.wait_for(object, 0.05)):
        refused(NoMessage, look)
    assert list(uffd.messages(0.05)) == []
    with uffd.unread():
        ticket(region.write(0))


def test_a_handler_touches_what_it_has_to_resolve(waiting):
    """With and without a deadline.  Other faults are served only after it."""
    uffd, region, touches = waiting
    other = []

    def resolve(fault):
        if not other:
            other.append(region.write(fault.page))
            other[0].result(0.1)
        uffd.copy(region[fault.page], b"\x05", check=False)

    with uffd.handle(resolve) as handler:
        for touch in touches[1:]:
            assert touch.result() == 5
        uffd.wake(region[0])
        assert touches[0].outcome(5).ok
        assert other[0].outcome(5).ok
    assert isinstance(handler.errors[0], FaultUnresolved)


@pytest.mark.parametrize(
    "touch",
    [
        lambda region: region.copy_out(3, deadline=0.1),
        lambda region: region.fill(deadline=0.1),
        lambda region: region.kernel_write(3).result(0.1),
        lambda region: region.gup_read(3).result(0.1),
        lambda region: region.populate(write=True).result(0.1),
        lambda region: region.sweep().result(0.1),
    ],
)
def test_every_touch_from_within_a_handler(waiting, touch):
    uffd, region, touches = waiting

    began = queue.Queue()

    def resolve(fault):
        # At the first fault, of whichever page, none is resolved yet.
        if not resolve.tried:
            resolve.tried = True
            began.put(fault.page)
            touch(region)
        uffd.copy(region[fault.page], b"\x05", check=False)

    resolve.tried = False
    with uffd.handle(resolve) as handler:
        first = began.get(timeout=10)
        for page, each in enumerate(touches):
            if page != first:
                each.outcome(10)
    assert handler.errors
    assert isinstance(handler.errors[0], FaultUnresolved)


def test_a_handler_that_raises_or_compares(waiting):
    """An exception leaves its fault waiting and nothing else; looking at the pages from within is no touch."""
    from uffdlab import compare

    uffd, region, touches = waiting
    before = region.snapshot("pagemap")
    str(compare(before, before))  # what that takes is imported now, not while the touches wait
    seen = []

    def resolve(fault):
        if fault.page == 0:
            raise RuntimeError("on purpose")
        uffd.copy(region[fault.page], b"\x06")
        seen.append(str(compare(before, region.snapshot("pagemap"))))

    with uffd.handle(resolve) as handler:
        assert [touch.result(30) for touch in touches[1:]] == [6] * (PAGES - 1)
    assert touches[0].state == "waiting"
    assert [str(error) for error in handler.errors] == ["on purpose"]
    assert len(seen) == PAGES - 1


def test_subscribers_that_block_raise_or_touch(waiting):
    uffd, region, touches = waiting
    let_go, tried = threading.Event(), []

    def blocks(_):
        let_go.wait(30)

    def raises(_):
        raise RuntimeError("on purpose")

    def touches_it(message):
        try:
            region.read(message.page).result(0.05)
        except FaultUnresolved:
            tried.append(message.page)

    stops = [uffd.subscribe(each) for each in (blocks, raises, touches_it)]
    fresh = region.read(2)
    until = time.monotonic() + 10
    while not tried and time.monotonic() < until:
        time.sleep(0.01)
    assert tried[0] in range(PAGES)
    assert fresh.state == "waiting"
    for stop in stops:
        stop()
    let_go.set()
    assert touches[0].state == "waiting"


def test_a_handler_is_stopped_by_itself_and_while_faults_wait(waiting):
    uffd, _, touches = waiting
    handler = uffd.handle(lambda _: handler.stop())
    until = time.monotonic() + 5
    while handler.served < 1 and time.monotonic() < until:
        time.sleep(0.01)
    handler.stop()
    assert handler.served >= 1
    with uffd.handle_natively(missing="forward"):
        pass
    assert touches[0].state == "waiting"


def test_everything_can_be_closed_while_faults_wait(mortal_lab):
    """The userfaultfd, the target, the lab: who waits is told, at once."""
    lab = mortal_lab
    region, uffd = lab.map(pages=PAGES), lab.userfaultfd()
    uffd.register(region, "missing")
    touch = region.read(0)
    assert touch.state == "waiting"
    uffd.close()
    assert touch.outcome(5).ok  # it goes on, and reads a page of zeroes
    uffd = lab.userfaultfd()
    uffd.register(region, "missing")
    touch, in_kernel = region.read(1), region.kernel_read(2)
    assert {touch.state, in_kernel.state} == {"waiting"}
    lab.restart_target()
    for each in (touch, in_kernel):
        refused(TargetLost, lambda each=each: each.result(5))
    region, uffd = lab.map(pages=PAGES), lab.userfaultfd()
    uffd.register(region, "missing")
    raised = []

    def waits(what):
        try:
            what()
        except UffdlabError as error:
            raised.append(type(error))

    touch = region.write(0)
    waiters = [
        threading.Thread(target=waits, args=(what,))
        for what in (lambda: touch.result(90), lambda: region.copy_out(1, 90), lambda: uffd.wait_for(Unmap, 90))
    ]
    for waiter in waiters:
        waiter.start()
    until = time.monotonic() + 60
    while len(lab.touches) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    started = time.monotonic()
    lab.close()
    for waiter in waiters:
        waiter.join(60)
    assert time.monotonic() - started < 60
    assert raised == [LabClosed] * 3


def copy_that_waits(lab):
    """Return destination, source, userfaultfd and fields of a UFFDIO_COPY whose source has no page yet."""
    region, source, uffd = lab.map(pages=1, memory="anon"), lab.map(pages=1, memory="anon"), lab.userfaultfd()
    uffd.register(region, "missing")
    uffd.register(source, "missing")
    return region, source, uffd, {"dst": region.start, "src": source.start, "len": region.length}


def test_an_ioctl_that_faults_itself_costs_the_target_and_no_more(mortal_lab):
    """UFFDIO_COPY out of a page that waits for somebody: who asked for it is told why, and a new target does."""
    lab = mortal_lab
    region, source, uffd, fields = copy_that_waits(lab)
    pending = uffd.start("UFFDIO_COPY", fields)
    refused(FaultUnresolved, lambda: pending.result(0.1))  # on a thread of its own it is a ticket
    uffd.zeropage(source)
    assert pending.result().ok
    source[0].madvise("dontneed")
    region[0].madvise("dontneed")
    with pytest.raises((FaultUnresolved, TargetLost)):
        lab.ask(CallIoctl(uffd.number, "UFFDIO_COPY", fields, None), deadline=1.0)  # as uffd.ioctl() does, but sooner
    lab.restart_target()
    assert lab.map(pages=1).read(0).result() == 0
    refused((UsageError, TargetLost, TouchFailed), lambda: region.read(0).result())


def test_a_large_request_does_not_wait_for_a_target_that_waits(mortal_lab):
    """The agent keeps what the target does not read; else nobody would end a call that is late."""
    lab = mortal_lab
    *_, uffd, fields = copy_that_waits(lab)
    raised = []

    def waits():
        try:
            lab.ask(CallIoctl(uffd.number, "UFFDIO_COPY", fields, None), deadline=1.0)
        except UffdlabError as error:
            raised.append(type(error))

    waiter = threading.Thread(target=waits)
    waiter.start()
    uffd.read_fault()
    with pytest.raises((FaultUnresolved, TargetLost)):
        lab.ask(CallIoctl(uffd.number, "UFFDIO_COPY", fields, bytes(8 << 20)))
    waiter.join(_MOST)
    assert raised == [FaultUnresolved]
    lab.restart_target()


def test_a_large_answer_and_a_large_request_pass_each_other(mortal_lab):
    lab = mortal_lab
    region, small, uffd = lab.map(pages=1 << 20, memory="anon"), lab.map(pages=256, memory="anon"), lab.userfaultfd()
    reader = threading.Thread(target=lambda: [region.snapshot("pagemap") for _ in range(3)])
    reader.start()
    for _ in range(30):
        uffd.copy(small, bytes(small.length), check=False)
    reader.join(_MOST)
    assert not reader.is_alive()
