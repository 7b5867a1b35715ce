"""The behaviour that the kernel's uffd-unit-tests check, through the client, and in addition the page-table bits."""

import errno
import itertools

import pytest

from uffdlab.errors import FaultUnresolved, NoMessage, UsageError
from uffdlab.pte import State
from uffdlab.target.userfaultfd import Fork
from uffdlab.uapi import IOCTLS, Feature
from uffdlab.uapi.messages import Remap, Remove, Unmap

from ..unprivileged import UNPRIVILEGED
from .lab_fixtures import LINES, LOCAL, on_each, sees_entries, with_swap

pytestmark = [pytest.mark.vm, pytest.mark.long]

lab = on_each(*LINES, LOCAL, UNPRIVILEGED)

ALL = ("anon", "anon-shared", "shmem", "shmem-private", "tmpfs", "hugetlb", "hugetlb-private")
WITH_A_PAGE_CACHE = ("anon-shared", "shmem", "tmpfs", "hugetlb")
EVENTS = Feature.EVENT_FORK | Feature.EVENT_REMAP | Feature.EVENT_REMOVE | Feature.EVENT_UNMAP
PAGES = 4
EHWPOISON = 133


@pytest.fixture
def region(region_of):
    return region_of(PAGES)


def bits(snapshot):
    return [
        (bool(present), bool(wp))
        for present, wp in zip(snapshot.has(State.PRESENT), snapshot.has(State.UFFD_WP), strict=True)
    ]


@pytest.mark.parametrize("memory", ALL)
def test_register_ioctls(lab, region, memory):
    """REGISTER returns the ioctls that the range supports, for each combination of modes."""
    combinations = [modes for count in (1, 2, 3) for modes in itertools.combinations(("missing", "wp", "minor"), count)]
    with lab.userfaultfd() as uffd:
        none = {"start": region.start, "len": region.length, "mode": 0}
        assert uffd.ioctl("UFFDIO_REGISTER", none, check=False).errno == errno.EINVAL
        for modes in combinations:
            result = uffd.register(region, *modes, check=False)
            if "minor" in modes and memory == "anon":
                assert result.errno == errno.EINVAL, modes
                continue
            offered = {name for name, ioctl in IOCTLS.items() if result.fields["ioctls"] >> ioctl.nr & 1}
            assert {"UFFDIO_COPY", "UFFDIO_WAKE"} <= offered, modes
            assert ("UFFDIO_WRITEPROTECT" in offered) is ("wp" in modes), modes
            assert ("UFFDIO_CONTINUE" in offered) is ("minor" in modes), modes
            assert ("UFFDIO_ZEROPAGE" in offered) is ("hugetlb" not in memory), modes
            uffd.unregister(region)


@pytest.mark.parametrize("memory", ALL)
def test_zeropage(lab, region, memory):
    with lab.userfaultfd() as uffd:
        uffd.register(region, "missing")
        touch = region.read(1)
        uffd.read_fault()
        result = uffd.zeropage(region[1], check=False)
        if "hugetlb" in memory:
            assert result.errno == errno.EINVAL
            uffd.copy(region[1])
        else:
            assert result.ok
            assert uffd.zeropage(region[1], check=False).errno == errno.EEXIST
        assert touch.result() == 0
        assert region[1].snapshot().has(State.PRESENT).all()


@pytest.mark.parametrize("memory", ["anon"])
def test_move(lab, region, needs):
    needs("UFFDIO_MOVE")
    source = lab.map(pages=PAGES, memory="anon")
    source.fill(70)
    frame = source.snapshot().frames()[2]
    with lab.userfaultfd() as uffd:
        uffd.register(region, "missing")
        touch = region.read(2)
        uffd.read_fault()
        uffd.move(region[2], source[2])
        assert touch.result() == 72
        after = region.snapshot()
        assert after.frames()[2] == frame  # moved, not copied
        assert source.snapshot().lacks(State.PRESENT).tolist() == [False, False, True, False]
        assert uffd.move(region[1:4], source[1:4], check=False).errno in (errno.ENOENT, errno.EEXIST, errno.EAGAIN)
        assert uffd.move(region[0], source[2], allow_src_holes=True).ok
    source.unmap()


@pytest.mark.parametrize("memory", ["anon"])
def test_move_to_an_overlapping_range(lab, region, needs, memory):
    """The kernel moves page after page.  Downwards that is memmove(3); upwards the first page ends up last."""
    needs("UFFDIO_MOVE")
    region[1:].fill(70)
    with lab.userfaultfd() as uffd:
        uffd.register(region, "missing")
        assert uffd.move(region[:3], region[1:]).done == 3 * region.page_size
        assert region.snapshot("pagemap").has(State.PRESENT).tolist() == [True, True, True, False]
        assert [region.read(page).result() for page in range(3)] == [70, 71, 72]
        region[1:].madvise("dontneed")
        upwards = {"dst": region[1].start, "src": region.start, "len": 3 * region.page_size}
        with pytest.raises(UsageError, match="begins within"):
            uffd.move(region[1:], region[:3])
        assert uffd.ioctl("UFFDIO_MOVE", upwards).done == 3 * region.page_size
        assert region.snapshot("pagemap").has(State.PRESENT).tolist() == [False, False, False, True]
        assert region.read(3).result() == 70


@pytest.mark.parametrize("memory", ["thp"])
@pytest.mark.parametrize("split", [False, True], ids=["move-pmd", "move-pmd-split"])
def test_move_pmd(lab, needs, memory, split):
    needs("UFFDIO_MOVE")
    region, source = lab.map(pages=1024, memory=memory), lab.map(pages=1024, memory=memory)
    source.fill(5)
    if set(source.snapshot().levels) != {2}:
        pytest.skip("the guest has no free huge page")
    with lab.userfaultfd() as uffd:
        uffd.register(region, "missing")
        count = 16 if split else 1024
        uffd.resume(uffd.move(region[:count], source[:count], check=False))
        after = region.snapshot()
        assert after.has(State.PRESENT).sum() == count
        assert set(after.levels[:count]) == {1 if split else 2}
        assert region.read(count - 1).result() == 4 + count
        assert source.snapshot().has(State.PRESENT).sum() == 1024 - count
    source.unmap()
    region.unmap()


@pytest.mark.parametrize("memory", ALL)
@pytest.mark.parametrize("events", [False, True], ids=["wp-fork", "wp-fork-with-event"])
def test_wp_fork(lab, region, events, features):
    """The child keeps uffd-wp only if a FORK event gave it its own userfaultfd."""
    region.fill(1)
    with lab.userfaultfd(features(Feature.EVENT_FORK if events else Feature(0))) as uffd:
        uffd.register(region, "wp")
        uffd.writeprotect(region)
        assert bits(region.snapshot("pagemap")) == [(True, True)] * PAGES
        # 6.1 does not clear the mark of private hugetlb pages; see docs/findings/hugetlb-fork.md
        marked = events or (lab.kernel == "6.1-series" and region.memory == "hugetlb-private")
        with lab.fork() as child:
            assert child.snapshot(region).has(State.UFFD_WP).tolist() == [marked] * PAGES
            if events:
                forked = uffd.wait_for(Fork).userfaultfd
                touch = region.write(1, 9, by=child)
                assert forked.read_fault().wp
                forked.writeprotect(region[1], wp=False)
                touch.result()
                forked.close()
            elif marked:  # then a write of the child faults again and again
                touch = region.write(1, 9, by=child)
                with pytest.raises(FaultUnresolved):
                    touch.outcome(1)
                assert touch.withdraw()
            else:
                region.write(1, 9, by=child).result()
        assert region.snapshot("pagemap").has(State.UFFD_WP).all()
        uffd.writeprotect(region, wp=False)
        assert region.snapshot("pagemap").lacks(State.UFFD_WP).all()


@pytest.mark.parametrize("memory", ALL)
def test_wp_marks_of_a_range_that_is_registered_again_without_wp(lab, region):
    """Newer kernels refuse the registration; older ones keep the marks (docs/findings/hugetlb-register.md)."""
    region.fill(1)
    with lab.userfaultfd() as uffd:
        uffd.register(region, "wp")
        uffd.writeprotect(region)
        if uffd.register(region, "missing", check=False).errno == errno.EBUSY:
            return
        uffd.unregister(region)
        assert bits(region.snapshot("pagemap")) == [(True, True)] * PAGES
        touch = region.write(1, 9)
        if "hugetlb" in region.memory:  # the write faults again and again
            with pytest.raises(FaultUnresolved):
                touch.outcome(1)
            assert touch.withdraw()
        else:
            touch.result()
        uffd.register(region, "wp")
        uffd.unregister(region)
        assert region.snapshot("pagemap").lacks(State.UFFD_WP).all()
        region.write(1, 9).result()


@pytest.mark.parametrize("memory", ALL)
@pytest.mark.parametrize("events", [False, True], ids=["wp-fork", "wp-fork-with-event"])
def test_wp_fork_of_pages_that_are_not_mapped(lab, region, events, features):
    """The mark survives swap-out and MADV_DONTNEED of a file's page.  The child gets it as for mapped pages."""
    region.fill(1)
    dropped = region.memory not in {"anon", "shmem-private"}
    if not dropped:
        with_swap(lab)
    with lab.userfaultfd(features(Feature.EVENT_FORK if events else Feature(0))) as uffd:
        uffd.register(region, "wp")
        uffd.writeprotect(region)
        region.madvise("dontneed" if dropped else "pageout")
        before = region.snapshot("pagemap")
        assert before.has(State.UFFD_WP).all()
        assert before.lacks(State.PRESENT).all()
        with lab.fork() as child:
            assert child.snapshot(region).has(State.UFFD_WP).tolist() == [events] * PAGES
            if events:
                uffd.wait_for(Fork).userfaultfd.close()
        assert region.snapshot("pagemap").has(State.UFFD_WP).all()
        uffd.writeprotect(region, wp=False)
        assert region.snapshot("pagemap").lacks(State.UFFD_WP).all()
        region.write(1, 9).result()
        assert bits(region.snapshot("pagemap"))[1] == (True, False)
        if region.memory != "hugetlb-private":  # there MADV_DONTNEED has discarded the content
            assert [region.read(page).result() for page in range(PAGES)] == [1, 9, 3, 4]


@pytest.mark.parametrize("memory", ALL)
@pytest.mark.parametrize("events", [False, True], ids=["wp-fork-pin", "wp-fork-pin-with-event"])
def test_wp_fork_pin(lab, region, features, events, pinned):
    """fork copies a pinned page of private memory at once.  The copy gets the mark as other pages do."""
    private = region.memory == "anon" or region.memory.endswith("private")
    region.fill(1)
    with lab.userfaultfd(features(Feature.EVENT_FORK if events else Feature(0))) as uffd:
        uffd.register(region, "wp")
        uffd.writeprotect(region)
        # 6.1 keeps the marks of private hugetlb pages where it should clear them, and loses the marks of pages that it
        # copies for a pin: docs/findings/hugetlb-fork.md and hugetlb-pin.md
        wrong = lab.kernel == "6.1-series" and region.memory == "hugetlb-private"
        marks = [events or wrong] * PAGES
        with pinned(region[0]), lab.fork() as child:
            seen = child.snapshot(region)
            assert seen.has(State.UFFD_WP).tolist() == [marks[0] and not wrong, *marks[1:]]
            if private:
                same = region.snapshot("pagemap").frames() == seen.frames()
                assert same.tolist() == [False] + [True] * (PAGES - 1)
            assert region.read(0, by=child).result() == 1
            if events:
                uffd.wait_for(Fork).userfaultfd.close()
        assert region.snapshot("pagemap").has(State.UFFD_WP).all()
        with lab.fork() as child:
            # In the other order: the page is shared with the child, and a pin for reading copies it.
            assert region.gup_read(1).result() == 2
            lost = [page == 1 and wrong for page in range(PAGES)]
            assert region.snapshot("pagemap").lacks(State.UFFD_WP).tolist() == lost
            assert child.snapshot(region).has(State.UFFD_WP).tolist() == marks
            if private:
                assert region[1].snapshot("pagemap").frames()[0] != child.snapshot(region[1]).frames()[0]
            if events:
                uffd.wait_for(Fork).userfaultfd.close()


@pytest.mark.parametrize("memory", ALL)
def test_wp_unpopulated(lab, region, needs, memory, features):
    """Markers of pages that do not exist: set, cleared, dropped, read and written."""
    needs("WP_UNPOPULATED")
    with lab.userfaultfd(features(Feature.WP_UNPOPULATED)) as uffd:
        uffd.register(region, "wp")
        uffd.writeprotect(region)
        assert bits(region.snapshot("pagemap")) == [(False, True)] * PAGES
        uffd.writeprotect(region[3], wp=False)
        region[2].madvise("dontneed")
        stays = memory != "anon"  # in a file mapping the marker stays after MADV_DONTNEED
        assert bits(region.snapshot("pagemap")) == [(False, True)] * 2 + [(False, stays), (False, False)]
        region.write(3, 5).result()
        if not stays:
            region.write(2, 5).result()
            assert bits(region[2].snapshot("pagemap")) == [(True, False)]
        assert region.read(0).result() == 0
        assert bits(region[0].snapshot()) == [(True, True)]
        if sees_entries(lab):
            assert region[0].snapshot().lacks(State.WRITABLE).all()
        for page in (0, 1):  # page 0 is a page of zeroes, page 1 is absent
            touch = region.write(page, 5)
            fault = uffd.read_fault()
            assert (fault.page, fault.wp, fault.write) == (page, True, True)
            uffd.writeprotect(region[page], wp=False)
            touch.result()
        assert [region.read(page).result() for page in (0, 1, 3)] == [5, 5, 5]
        assert region.snapshot("pagemap").has(State.UFFD_WP).sum() == (1 if stays else 0)


@pytest.mark.parametrize("memory", WITH_A_PAGE_CACHE)
@pytest.mark.parametrize("wp", [False, True], ids=["minor", "minor-wp"])
def test_minor(lab, region, wp, needs):
    if wp:
        needs("UFFDIO_CONTINUE WP")
    region.alias.fill(30)
    with lab.userfaultfd() as uffd:
        uffd.register(region, "minor", "wp")
        touches = [region.read(page) for page in range(PAGES)]
        assert {(uffd.read_fault().minor) for _ in touches} == {True}
        uffd.continue_(region, wp=wp)
        assert [touch.result() for touch in touches] == [30, 31, 32, 33]
        state = region.snapshot()
        assert state.has(State.PRESENT).all()
        assert state.has(State.UFFD_WP).tolist() == [wp] * PAGES
        if sees_entries(lab):
            assert state.has(State.WRITABLE).tolist() == [not wp] * PAGES
        write = region.write(2, 8)
        if wp:
            assert uffd.read_fault().wp
            uffd.writeprotect(region[2], wp=False)
        write.result()
        with pytest.raises(NoMessage):
            uffd.read_fault(timeout=0.05)


@pytest.mark.parametrize("memory", ["shmem", "shmem-thp"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_minor_collapse(lab, memory, when):
    """MADV_COLLAPSE maps nothing without a fault message, and keeps what CONTINUE has mapped."""
    region = lab.map(pages=512, memory=memory)
    region.alias.fill(1)
    with lab.userfaultfd() as uffd:
        uffd.register(region, "minor")
        if when == "after":
            uffd.continue_(region)
        collapsed = (region.alias if when == "before" else region).madvise("collapse", check=False)
        if not collapsed.ok:
            region.unmap()
            pytest.skip(f"{lab.kernel}: MADV_COLLAPSE returned errno {collapsed.errno}")
        if when == "before":
            touch = region.read(100)
            assert uffd.read_fault().minor
            assert region.snapshot().lacks(State.PRESENT).all()
            uffd.continue_(region)
            assert touch.result() == 101
        assert region.sweep().result() == sum(range(1, 513))
        assert region.snapshot().has(State.PRESENT).all()
        collapsed_in = region.alias if when == "before" else region
        if sees_entries(lab):
            assert set(collapsed_in.snapshot().levels) == {2}
        if "scan" in lab.witnesses:
            assert collapsed_in.snapshot("scan").has(State.HUGE).all()
        with pytest.raises(NoMessage):
            uffd.read_fault(timeout=0.05)
    region.unmap()


def assert_sigbus_at(touch, region, page):
    outcome = touch.outcome()
    assert (outcome.signal, outcome.signal_code) == ("SIGBUS", 2)
    assert outcome.signal_address - region[page].start in range(region.page_size)


@pytest.mark.parametrize("memory", ALL)
@pytest.mark.parametrize("wp", [False, True], ids=["sigbus", "sigbus-wp"])
def test_sigbus(lab, region, wp, features):
    """Each fault raises SIGBUS, in a child too, and sends no message.  It can be resolved like any other fault."""
    with lab.userfaultfd(features(Feature.SIGBUS, Feature.EVENT_FORK)) as uffd:
        uffd.register(region, "missing", *(["wp"] if wp else []))
        assert_sigbus_at(region.write(1), region, 1)
        uffd.copy(region[1], b"\x07", wp=wp)
        assert region.read(1).result() == 7
        assert bits(region[1].snapshot("pagemap")) == [(True, wp)]
        if wp:
            assert_sigbus_at(region.write(1), region, 1)
            uffd.writeprotect(region[1], wp=False)
        region.write(1, 8).result()
        with lab.fork() as child:
            forked = uffd.wait_for(Fork).userfaultfd
            assert_sigbus_at(region.write(2, by=child), region, 2)
            forked.copy(region[2], b"\x05")
            assert region.read(2, by=child).result() == 5
            with pytest.raises(NoMessage):
                forked.read_fault(timeout=0.05)
            forked.close()
        with pytest.raises(NoMessage):
            uffd.read_fault(timeout=0.05)


@pytest.mark.parametrize("memory", ALL)
@pytest.mark.parametrize("wp", [False, True], ids=["events", "events-wp"])
def test_events(lab, memory, wp, features):
    region = lab.map(pages=PAGES, memory=memory)
    uffd = lab.userfaultfd(features(EVENTS))
    uffd.register(region, "missing", *(["wp"] if wp else []))
    uffd.copy(region, wp=wp)
    with lab.fork():
        assert uffd.wait_for(Fork).userfaultfd.number
    region[1].madvise("dontneed")
    removed = uffd.wait_for(Remove)
    assert (removed.first, removed.count) == (1, 1)
    before = region.start
    region.mremap()
    moved = uffd.wait_for(Remap)
    assert (moved.start, moved.to) == (before, region.start)
    state = region.snapshot("pagemap")
    assert state.has(State.UFFD_WP)[[0, 2, 3]].tolist() == [wp] * 3
    region.unmap()
    assert uffd.wait_for(Unmap).start in (before, moved.to)
    uffd.close()


@pytest.mark.parametrize("memory", ALL)
@pytest.mark.parametrize("wp", [False, True], ids=["events", "events-wp"])
def test_events_with_faults_of_a_child(lab, region, wp, features):
    """Each page of a child faults once at the userfaultfd of the FORK event, and again if it is protected."""
    with lab.userfaultfd(features(EVENTS)) as uffd:
        uffd.register(region, "missing", *(["wp"] if wp else []))
        with lab.fork() as child:
            forked = uffd.wait_for(Fork).userfaultfd
            for page in range(PAGES):
                touch = region.write(page, 9, by=child)
                fault = forked.read_fault()
                assert (fault.page, fault.missing, fault.write) == (page, True, True)
                forked.copy(region[page], bytes([page]), wp=wp)
                if wp:
                    assert forked.read_fault().wp
                    assert child.snapshot(region[page]).has(State.UFFD_WP).all()
                    forked.writeprotect(region[page], wp=False)
                touch.result()
                assert region.read(page, by=child).result() == 9
            with pytest.raises(NoMessage):
                forked.read_fault(timeout=0.05)
            forked.close()
        assert region.snapshot("pagemap").lacks(State.PRESENT).all()  # the child has other page tables
        with pytest.raises(NoMessage):
            uffd.read_fault(timeout=0.05)


@pytest.mark.parametrize("memory", ALL)
def test_poison(lab, region, needs):
    needs("UFFDIO_POISON")
    with lab.userfaultfd() as uffd:
        uffd.register(region, "missing")
        touch = region.read(1)
        uffd.read_fault()
        uffd.poison(region[1])
        outcome = touch.outcome()
        assert outcome.signal == "SIGBUS"
        # BUS_MCEERR_AR; BUS_ADRERR if the host's kernel is built without CONFIG_MEMORY_FAILURE
        assert outcome.signal_code in ((4,) if sees_entries(lab) else (4, 2))
        assert region[1].snapshot("pagemap").lacks(State.PRESENT).all()
        # A system call returns an errno; no signal is raised.
        assert region.kernel_read(1).outcome().returned in (-errno.EFAULT, -EHWPOISON)
        assert uffd.poison(region[1], check=False).errno == errno.EEXIST
        uffd.copy(region[2])
        assert region.read(2).result() == 0


@pytest.mark.parametrize("memory", ALL)
def test_faults_of_every_kind_of_access(lab, region):
    """Faults from user mode, from a system call and through get_user_pages wait for the same COPY."""
    with lab.userfaultfd() as uffd:
        uffd.register(region, "missing")
        for start, write in (
            (region.read, False), (region.write, True), (region.kernel_read, False), (region.kernel_write, True),
            # An emulated CPU reads first and then writes; a real CPU faults for the write at once.
            (region.modify, None), (region.gup_read, False), (region.gup_write, True),
        ):  # fmt: skip
            touch = start(3)
            if touch.state != "waiting" and "USER_MODE_ONLY" in uffd.way:
                assert touch.outcome().returned == -errno.EFAULT, touch.what
                continue
            if touch.state != "waiting":
                assert touch.outcome().returned == -errno.ENOSYS  # a kernel without CONFIG_CROSS_MEMORY_ATTACH
                assert "get_user_pages" in touch.what
                continue
            fault = uffd.read_fault()
            assert (fault.page, fault.thread > 0) == (3, True), touch.what
            assert write is None or fault.write is write, touch.what
            assert touch.state == "waiting"
            uffd.copy(region[3])
            assert touch.outcome().ok, touch.what
            region[3].madvise("dontneed")
            if region.has_alias:
                region.alias[3].madvise("remove")
        touch = region[0:2].populate(write=True)
        if "USER_MODE_ONLY" in uffd.way:
            assert touch.outcome().returned == -errno.EFAULT
            return
        uffd.read_fault()
        uffd.copy(region[0:2])
        assert touch.outcome().ok
