"""EAGAIN from a real kernel: ioctls while the mappings change, their progress, and how to resume them."""

import errno

import pytest

from uffdlab.errors import IoctlError, UsageError
from uffdlab.pte import State
from uffdlab.target.open_userfaultfd import DEFAULT_FEATURES
from uffdlab.target.userfaultfd import Fork
from uffdlab.uapi import IOCTLS, Feature
from uffdlab.uapi.messages import Remap, Remove, Unmap
from uffdlab.uapi.protocol.target import FindFreePlace, NoteMoved

from ..unprivileged import UNPRIVILEGED
from .lab_fixtures import LINES, LOCAL, on_each

pytestmark = [pytest.mark.vm, pytest.mark.long]

lab = on_each(*LINES, LOCAL, UNPRIVILEGED)

PAGES = 8
EVENTS = Feature.EVENT_FORK | Feature.EVENT_REMAP | Feature.EVENT_REMOVE | Feature.EVENT_UNMAP


@pytest.fixture
def uffd(lab):
    with lab.userfaultfd(DEFAULT_FEATURES & lab.capabilities.features | EVENTS) as uffd:
        yield uffd


@pytest.fixture
def region(lab, uffd):
    region = lab.map(pages=PAGES)
    region.alias.fill(10)
    yield region
    if region in lab.regions:
        uffd.unregister(region, check=False)
        region.unmap()


def start_change(region):
    """Start a call that changes a mapping; it waits until its event is read."""
    touch = region[PAGES - 1].start_madvise("dontneed")
    assert touch.state == "waiting"
    return touch


def test_every_resolving_ioctl_returns_eagain_while_an_event_is_unread(lab, uffd, region):
    """Like the kernel's mmap-changing test, and with WRITEPROTECT.  Each ioctl succeeds once the event is read."""
    empty, source = lab.map(pages=PAGES, memory="anon"), lab.map(pages=PAGES, memory="anon")
    source.fill(3)
    uffd.register(region, "minor", "wp")
    uffd.register(empty, "missing", "wp")
    ioctls = {
        "UFFDIO_CONTINUE": lambda: uffd.continue_(region[0], check=False),
        "UFFDIO_WRITEPROTECT": lambda: uffd.writeprotect(region[1], check=False),
        "UFFDIO_COPY": lambda: uffd.copy(empty[0], b"x", check=False),
        "UFFDIO_ZEROPAGE": lambda: uffd.zeropage(empty[1], check=False),
        "UFFDIO_MOVE": lambda: uffd.move(empty[2], source[2], check=False),
        "UFFDIO_POISON": lambda: uffd.poison(empty[3], check=False),
    }
    supported = [name for name in ioctls if not lab.capabilities.missing(name)]
    with uffd.unread():
        changing = start_change(region)
        for name in supported:
            result = ioctls[name]()
            assert (result.errno, result.done) == (errno.EAGAIN, 0), name
            assert result.output in (None, -errno.EAGAIN, 0), name
        with pytest.raises(IoctlError, match=r"EAGAIN: .*mappings are changing"):
            uffd.continue_(region[0])
        assert changing.state == "waiting"
    assert uffd.wait_for(Remove).first == PAGES - 1
    assert changing.outcome().ok
    for name in supported:
        assert ioctls[name]().ok, name
    for mapping in (empty, source):
        uffd.unregister(mapping, check=False)
        mapping.unmap()


def test_a_copy_that_was_interrupted_is_resumed(lab, uffd, region):
    """The source of page 3 faults.  While the copy waits, the mapping changes, so the copy ends after 3 pages."""
    empty, source = lab.map(pages=PAGES, memory="anon"), lab.map(pages=PAGES, memory="anon")
    source[:3].fill(70)
    uffd.register(empty, "missing", "wp")
    with lab.userfaultfd() as of_source:
        of_source.register(source, "missing")
        fields = {"dst": empty.start, "src": source.start, "len": empty.length}
        copying = uffd.start("UFFDIO_COPY", fields)
        assert of_source.read_fault().page == 3
        assert copying.touch.state == "waiting"
        with uffd.unread():
            changing = empty[PAGES - 1].start_madvise("dontneed")
            assert changing.state == "waiting"
            rest = b"".join((73 + page).to_bytes(8, "little").ljust(4096, b"\0") for page in range(5))
            of_source.copy(source[3:], rest)
            result = copying.result()
        assert changing.outcome().ok
        assert result.errno == errno.EAGAIN
        assert (result.done, result.output) == (3 * 4096, 3 * 4096)
        assert empty.snapshot().has(State.PRESENT).tolist() == [True] * 3 + [False] * 5
        whole = uffd.resume(result)
        assert (whole.errno, whole.done) == (0, empty.length)
        assert [empty.read(page).result() for page in range(PAGES)] == [70 + page for page in range(PAGES)]
        of_source.unregister(source)
    uffd.unregister(empty)
    for mapping in (empty, source):
        mapping.unmap()


def test_resume_waits_until_the_mappings_no_longer_change(lab, uffd, region):
    uffd.register(region, "minor")
    with uffd.unread():
        changing = start_change(region)
        result = uffd.continue_(region[:4], check=False)
        with pytest.raises(IoctlError, match="EAGAIN"):
            uffd.resume(result, deadline=0.2)
    assert uffd.resume(result).done == 4 * 4096
    assert changing.outcome().ok
    assert region.snapshot().has(State.PRESENT).tolist() == [True] * 4 + [False] * 4


@pytest.mark.parametrize("event", [Remove, Remap, Unmap, Fork])
def test_a_call_waits_for_its_event_to_be_read(lab, uffd, region, event):
    """The calls are made on threads of their own, because they would block the target's main thread."""
    uffd.register(region, "minor")
    if event is Fork:  # the target calls fork(2) on its main thread, so its event must be read at once
        with lab.fork() as child:
            assert uffd.wait_for(Fork).userfaultfd.number
            assert child.took_ns > 0
        return
    start = {
        Remove: lambda: region[2].start_madvise("dontneed"),
        Remap: lambda: region._start("mremap", [region.start, region.length, region.length, 3, free_address], "away"),
        Unmap: lambda: region[6:]._start("munmap", [region[6].start, 2 * 4096], ""),
    }[event]
    free_address = lab.ask(FindFreePlace(region.length))
    with uffd.unread():
        touch = start()
        assert touch.state == "waiting"
        assert len(list(uffd.messages(0.1))) == 0
    message = uffd.wait_for(event)
    assert touch.outcome().ok
    assert message.start == {Remove: region[2].start, Remap: region.start, Unmap: region[6].start}[event]
    if event is Remap:
        assert message.to == free_address
        region.start = free_address
        lab.ask(NoteMoved(region.number, free_address))


def test_a_handler_and_unread_messages_exclude_each_other(uffd, region):
    uffd.register(region, "minor")
    with uffd.unread(), pytest.raises(UsageError, match="left unread"):
        uffd.handle_natively(minor="continue")
    with uffd.handle_natively(minor="continue"), pytest.raises(UsageError, match="stop it first"), uffd.unread():
        pass


def test_the_list_of_ioctls_with_an_output_field_is_complete():
    """They and WRITEPROTECT can return EAGAIN.  A new one must be added to the first test above."""
    with_output = {name for name, ioctl in IOCTLS.items() if ioctl.output}
    assert with_output == {"UFFDIO_COPY", "UFFDIO_ZEROPAGE", "UFFDIO_MOVE", "UFFDIO_CONTINUE", "UFFDIO_POISON"}
