"""Wrong input raises a clear error at once, and the lab stays usable."""

import time
from pathlib import Path

import pytest

from uffdlab.errors import (
    AgentError,
    IoctlError,
    LabClosed,
    NoMessage,
    TargetLost,
    TouchFailed,
    UsageError,
    WitnessError,
)
from uffdlab.lab import Lab
from uffdlab.uapi import ContinueMode, CopyMode, Feature
from uffdlab.uapi.layout import UFFD_API
from uffdlab.uapi.protocol.agent import KillTarget

from ..unprivileged import UNPRIVILEGED
from .lab_fixtures import LOCAL, on_each

pytestmark = [pytest.mark.vm, pytest.mark.long]

lab = on_each("6.1-series", LOCAL, UNPRIVILEGED)

UNMAPPED = 0x7000_0000_0000
BILLION = 10**9


@pytest.fixture
def registered(lab):
    """Four pages in the page cache, registered for MINOR and WP."""
    region = lab.map(pages=4)
    region.alias.fill(1)
    with lab.userfaultfd() as uffd:
        uffd.register(region, "minor", "wp")
        yield region, uffd
    region.unmap()


@pytest.fixture(autouse=True)
def usable(lab):
    """After each test a minor fault is resolved normally, and the test was not slow."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 60
    region = lab.map(pages=1)
    region.alias.fill(9)
    with lab.userfaultfd() as uffd:
        uffd.register(region, "minor")
        touch = region.read(0)
        assert uffd.read_fault().minor
        uffd.continue_(region)
        assert touch.result() == 9
    region.unmap()


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("UFFDIO_CONTINUE", {"start": 8, "len": 4096}, "EINVAL: start .*8 is unaligned"),
        ("UFFDIO_CONTINUE", {"start": 0, "len": 100}, "EINVAL: len 0x64 is unaligned"),
        ("UFFDIO_CONTINUE", {"start": 0, "len": 0}, "EINVAL: the range is empty"),
        ("UFFDIO_REGISTER", {"start": 8, "len": 4096, "mode": 1}, "EINVAL: .*unaligned"),
        ("UFFDIO_REGISTER", {"start": 0, "len": 4096, "mode": 0}, "EINVAL: .*needs a mode"),
        ("UFFDIO_REGISTER", {"start": 0, "len": 4096, "mode": 1 << 20}, "EINVAL: .*no mode bits 0x100000"),
        ("UFFDIO_REGISTER", {"start": UNMAPPED, "len": 4096, "mode": 1}, "EINVAL: .*not mapped"),
        ("UFFDIO_CONTINUE", {"start": UNMAPPED, "len": 4096}, "ENOENT: .*not registered"),
        ("UFFDIO_COPY", {"dst": UNMAPPED, "len": 4096}, "E(NOENT|FAULT): "),
        ("UFFDIO_COPY", {"dst": 0, "len": 4096, "src": 0}, "E(EXIST|FAULT): "),
        ("UFFDIO_CONTINUE", {"start": 0, "len": 4096 * BILLION}, "ENOENT: .*spans"),
        ("UFFDIO_CONTINUE", {"start": 0, "len": (1 << 64) - 4096}, "EINVAL: .*beyond the addresses"),
        ("UFFDIO_CONTINUE", {"start": -(1 << 40), "len": 4096}, "EINVAL: .*beyond the addresses"),
        ("UFFDIO_CONTINUE", {"start": 0, "len": 4096 * 6}, "ENOENT: .*spans"),
        ("UFFDIO_CONTINUE", {"start": 0, "len": 4096, "mode": 1 << 9}, "EINVAL: .*no mode bits 0x200"),
        ("UFFDIO_WRITEPROTECT", {"start": 0, "len": 4096, "mode": 3}, "EINVAL: .*refuses DONTWAKE"),
        ("UFFDIO_WRITEPROTECT", {"start": 0, "len": 4096, "mode": 1 << 4}, "EINVAL: .*no mode bits 0x10"),
        ("UFFDIO_ZEROPAGE", {"start": 0, "len": 4096, "mode": int(CopyMode.WP)}, "EINVAL: .*no mode bits 0x2"),
        ("UFFDIO_API", {"api": UFFD_API}, "EINVAL: it works once"),
        ("UFFDIO_API", {"api": UFFD_API, "features": 1}, "EINVAL: it works once"),
        ("UFFDIO_API", {"api": 7}, "EINVAL: it works once"),
    ],
)
def test_wrong_fields_are_refused_by_the_kernel_and_explained(registered, name, values, message):
    """A non-negative address below UNMAPPED is an offset in the region."""
    region, uffd = registered
    address = next((field for field in ("start", "dst") if field in values), None)
    if address and 0 <= values[address] < UNMAPPED:
        values = {**values, address: values[address] + region.start}
    with pytest.raises(IoctlError, match=message):
        uffd.ioctl(name, values)


@pytest.mark.parametrize("call", ["copy", "zeropage", "continue_", "writeprotect"])
def test_an_ioctl_on_memory_that_is_not_registered_is_refused(lab, call):
    region = lab.map(pages=2)
    with lab.userfaultfd() as uffd, pytest.raises(IoctlError, match=r"ENOENT: .*uffd\.register"):
        getattr(uffd, call)(region)
    region.unmap()


def test_overlapping_ranges_are_refused(lab, registered):
    region, uffd = registered
    uffd.continue_(region[:2])
    with pytest.raises(IoctlError, match=r"EEXIST: .*mapped already"):
        uffd.continue_(region[1:3])
    assert uffd.register(region[1:3], "minor", "wp").ok  # registering again is no error
    with (
        lab.userfaultfd() as another,
        pytest.raises(IoctlError, match=r"EBUSY: lab\.userfaultfds\[\d+\] has this range"),
    ):
        another.register(region[2:], "minor")
    with pytest.raises(UsageError, match="cannot be moved"):
        uffd.move(region[:2], region[1:2])
    with pytest.raises(UsageError, match=r"pages 1–2 begins within pages 0–1: .* pages one by one.*uffd\.ioctl\("):
        uffd.move(region[1:3], region[:2])
    with pytest.raises(IoctlError, match=r"ENOENT: .*not registered"):  # the alias is another mapping
        uffd.continue_(region.alias[3])


def test_minor_and_continue_refuse_anonymous_memory(lab):
    region = lab.map(pages=1, memory="anon")
    with lab.userfaultfd() as uffd:
        with pytest.raises(IoctlError, match=r"EINVAL: MINOR needs memory in the page cache .* anon is not"):
            uffd.register(region, "minor")
        uffd.register(region, "wp")
        with pytest.raises(IoctlError, match=r"EINVAL: it maps pages of the page cache, and anon has none there"):
            uffd.continue_(region)
    region.unmap()


def test_writeprotect_refuses_the_mode_bit_of_continue(registered):
    region, uffd = registered
    with pytest.raises(IoctlError, match="refuses DONTWAKE"):  # CONTINUE's WP is WRITEPROTECT's DONTWAKE
        uffd.writeprotect(region[0], mode=int(ContinueMode.WP))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda lab, region, uffd: lab.map(pages=10**15), "more than the address space"),
        (lambda lab, region, uffd: lab.map(pages=10**30), "more than the address space"),
        (lambda lab, region, uffd: lab.map(pages=1.5), "pages is an integer, not float"),
        (lambda lab, region, uffd: lab.map(pages=True), "is no number"),
        (lambda lab, region, uffd: lab.map(size="1 MiB"), "size is an integer, not text"),
        (lambda lab, region, uffd: lab.map(pages=1, memory=None), "memory is text, not None"),
        (lambda lab, region, uffd: lab.map(pages=10**6, memory="hugetlb"), "huge pages of 2 MiB are needed"),
        (lambda lab, region, uffd: uffd.ioctl("UFFDIO_CONTNUE", {}), "did you mean UFFDIO_CONTINUE"),
        (lambda lab, region, uffd: uffd.ioctl("UFFDIO_CONTINUE", {"dst": 1}), "has no field dst; it has start"),
        (lambda lab, region, uffd: uffd.ioctl("UFFDIO_CONTINUE", {"start": 1 << 64}), "a number of 64 bits"),
        (lambda lab, region, uffd: uffd.ioctl("UFFDIO_CONTINUE", {"start": "0"}), "a number of 64 bits"),
        (lambda lab, region, uffd: uffd.continue_(3), "3 has no pages"),
        (lambda lab, region, uffd: uffd.copy(region[0], b"x" * 5000), "do not fit"),
        (lambda lab, region, uffd: uffd.register(region, "mnor"), "no mode of UFFDIO_REGISTER"),
        (lambda lab, region, uffd: uffd.register(region), "needs a mode"),
        (lambda lab, region, uffd: uffd.batch("UFFDIO_REGISTER", region), "cannot be made page by page"),
        (lambda lab, region, uffd: uffd.handle_natively(minor="copy"), "there is forward, continue"),
        (lambda lab, region, uffd: region.write(0, "7"), "value is an integer, not text; without quotes: 7"),
        (lambda lab, region, uffd: region.write(0, 1 << 64), "is not an integer of 64 bits"),
        (lambda lab, region, uffd: region.fill(1.5), "value is an integer, not float"),
        (lambda lab, region, uffd: region.sweep("write", value=None), "value is an integer, not None"),
        (lambda lab, region, uffd: region.read(BILLION), "it has pages 0 to 3"),
        (lambda lab, region, uffd: region[2:BILLION], "not a range of its 4 pages"),
        (lambda lab, region, uffd: region.read(0, offset=4095), "not a multiple of 8 within a page"),
        (lambda lab, region, uffd: region.madvise("dontned"), "no advice of madvise"),
        (lambda lab, region, uffd: region.mprotect("rwz"), "r, w and x only"),
        (lambda lab, region, uffd: region.sweep("execute"), "read, write or modify"),
        (lambda lab, region, uffd: region.sweep(order="backwards"), "the orders are ascending"),
        (lambda lab, region, uffd: region.sweep_threads(BILLION), "1 to 256"),
    ],
)  # fmt: skip
def test_an_invalid_argument_is_refused_before_any_system_call(lab, registered, wrong, message):
    with pytest.raises(UsageError, match=message):
        wrong(lab, *registered)


def test_a_feature_that_no_kernel_has_is_refused(lab):
    with pytest.raises(IoctlError, match="this kernel lacks 0x10000000000"):
        lab.userfaultfd(Feature(1 << 40))


def test_a_billion_pages_can_be_mapped_but_a_snapshot_is_refused(lab):
    """4 TB of addresses need no memory; a snapshot of them all would need 16 GB of the host."""
    region = lab.map(pages=BILLION)
    for witness in (None, *lab.witnesses):
        with pytest.raises(UsageError, match=r"1000000000 pages .* part of them"):
            region.snapshot(witness)
    with pytest.raises(UsageError, match=r"filling 1000000000 pages .* takes 3906250 MiB, and this machine has"):
        region.fill()
    assert region.read(BILLION - 1).result() == 0
    with lab.userfaultfd() as uffd:
        assert uffd.register(region, "minor", "wp").ok
        assert len(region[BILLION - 1].snapshot()) == 1
    region.unmap()


def test_private_memory_beyond_the_overcommit_limit_is_refused(lab):
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "1" and lab.machine.name == LOCAL:
        pytest.skip("this host allows any overcommit (vm.overcommit_memory=1)")
    with pytest.raises(AgentError, match=r"Cannot allocate memory: .*vm\.overcommit_memory.* memory='shmem'"):
        lab.map(pages=BILLION, memory="anon")


def test_touching_an_unmapped_region_fails(lab):
    region = lab.map(pages=1)
    region.munmap()
    with pytest.raises(TouchFailed, match="SIGSEGV"):
        region.read(0).result()
    region.unmap()
    with pytest.raises(UsageError, match="it was unmapped"):
        region.unmap()


@pytest.mark.parametrize(
    "attempt",
    [
        lambda uffd, region: uffd.wake(region),
        lambda uffd, region: uffd.register(region, "minor"),
        lambda uffd, region: uffd.batch("UFFDIO_WAKE", region),
        lambda uffd, region: uffd.start("UFFDIO_WAKE", {"start": region.start, "len": 4096}),
        lambda uffd, region: uffd.handle(print),
        lambda uffd, region: uffd.handle_natively(minor="continue"),
        lambda uffd, region: uffd.unread().__enter__(),
        lambda uffd, region: uffd.read_fault(timeout=30),
    ],
)
def test_a_closed_userfaultfd_is_reported_at_once(lab, registered, attempt):
    region, _ = registered
    uffd = lab.userfaultfd()
    uffd.close()
    uffd.close()
    with pytest.raises(LabClosed, match=r"this userfaultfd is closed; lab\.userfaultfd\(\) opens a new one"):
        attempt(uffd, region)
    assert list(uffd.messages()) == []


def test_the_end_of_the_target_ends_a_wait_for_a_message(lab):
    uffd = lab.userfaultfd()
    with pytest.raises(NoMessage):
        uffd.read_fault(timeout=0.05)
    lab.ask(KillTarget())
    with pytest.raises(TargetLost, match=r"lab\.userfaultfd\(\)"):
        uffd.read_fault(timeout=30)
    lab.restart_target()


@pytest.mark.parametrize("restarted", [False, True], ids=["dead", "restarted"])
def test_a_dead_target_is_reported_at_once(restarted):
    """Its regions and userfaultfds are not taken for those of the next target, with the same addresses and numbers."""
    with Lab("6.1-series") as lab:
        region = lab.map(pages=2)
        uffd = lab.userfaultfd()
        uffd.register(region, "minor", "wp")
        lab.ask(KillTarget())
        new = []
        if restarted:
            lab.restart_target()
            new = [lab.map(pages=2), lab.userfaultfd()]
            assert (new[0].start, new[1].number) == (region.start, 1)
        for attempt in (
            lambda: uffd.wake(region),
            lambda: uffd.batch("UFFDIO_WAKE", region),
            lambda: uffd.handle_natively(minor="continue"),
            lambda: region.read(0),
            lambda: region.alias.write(0),
            lambda: region[1].madvise("dontneed"),
            lambda: region.mremap(),
            *(() if restarted else (lab.fork, lab.userfaultfd, lambda: lab.map(pages=1))),
            *((lambda: new[1].register(region, "minor"),) if restarted else ()),
        ):
            with pytest.raises(TargetLost, match=r"lab\.(restart_target|map|userfaultfd)\("):
                attempt()
        with pytest.raises(WitnessError):
            region.snapshot()
        uffd.close()
        if not restarted:
            lab.restart_target()
        fresh = lab.map(pages=1)
        fresh.alias.fill(3)
        assert fresh.read(0).result() == 3
