"""The target keeps nothing of touches, children and requests that ended or were refused."""

from pathlib import Path

import pytest

from uffdlab.errors import UffdlabError
from uffdlab.target.userfaultfd import Fork
from uffdlab.uapi import Feature
from uffdlab.uapi.protocol.target import CallIoctl, MapMemory, OpenUserfaultfd, StartHandler, StartTouch
from uffdlab.uapi.protocol.witnesses import DescribeTarget

TIMES = 20  # more than a count may grow by for other reasons, such as a thread's stack that is kept


@pytest.fixture
def held(mortal_lab):
    """How many descriptors and mappings the target has."""
    lab = mortal_lab
    folder = Path(f"/proc/{lab.ask(DescribeTarget()).pid}")

    def count():
        return len(list((folder / "fd").iterdir())), len((folder / "maps").read_text().splitlines())

    def before_and_after(once):
        for _ in range(3):
            once()
        before = count()
        for _ in range(TIMES):
            once()
        return before, count()

    return before_and_after


def nothing_more(counts):
    (fds, maps), (fds_after, maps_after) = counts
    assert fds_after == fds
    assert maps_after < maps + TIMES // 2


def test_of_children_that_have_ended(mortal_lab, held):
    region = mortal_lab.map(pages=1, memory="anon")
    region.fill()

    def once():
        with mortal_lab.fork() as child:
            region.read(0, by=child).result()

    nothing_more(held(once))


def test_of_touches_that_a_busy_child_cannot_make(mortal_lab, held):
    region = mortal_lab.map(pages=2, memory="anon")
    with mortal_lab.userfaultfd(Feature.EVENT_FORK) as uffd:
        uffd.register(region, "missing")
        with mortal_lab.fork() as child:
            region.read(0, by=child)

            def once():
                with pytest.raises(UffdlabError, match="one at a time"):
                    region.kernel_write(1, 9, by=child)

            nothing_more(held(once))


@pytest.mark.parametrize(
    "asked",
    [
        StartTouch(10**6, "syscall", 0, 8, 8, -1, {"call": "file_read", "address": 0}, 0),
        StartTouch(10**6, "syscall", 0, 8, 8, 0, {"call": "file_read", "address": "here"}, 0),
        OpenUserfaultfd(0, 1 << 64),
        MapMemory("shmem", -1, 4096),
        MapMemory("shmem", 1, 1 << 70),
        MapMemory("shmem", 1 << 50, 4096),
        CallIoctl(1, "UFFDIO_COPY", {}, "text"),
        StartHandler(1, {"missing": "zeropage"}, 4096, "text"),
        StartHandler(1, {"missing": "zeropage"}, 0, b""),
        StartHandler(1, {"missing": "zeropage"}, 4097, b""),
        StartHandler(1, {"missing": "nothing"}, 4096, b""),
        StartHandler(1, {"missing": []}, 4096, b""),
    ],
)
def test_of_what_was_refused(mortal_lab, held, asked):
    mortal_lab.userfaultfd()

    def once():
        with pytest.raises(UffdlabError):
            mortal_lab.ask(asked)

    nothing_more(held(once))


@pytest.mark.parametrize(
    ("kind", "address", "more"),
    [("read", -1, None), ("syscall", 0, {"call": "no such"}), ("syscall", 0, {"call": "file_read", "address": []})],
)
def test_a_child_can_make_a_touch_after_one_that_was_refused(mortal_lab, kind, address, more):
    region = mortal_lab.map(pages=1, memory="anon")
    region.fill(3)
    with mortal_lab.fork() as child:
        with pytest.raises(UffdlabError):
            mortal_lab.ask(StartTouch(10**6, kind, address, 8, 8, 0, more, child.pid))
        assert region.read(0, by=child).result() == 3


def test_a_refused_touch_keeps_the_value_of_the_one_in_progress(mortal_lab):
    """The touches of a child share a file for their value."""
    region = mortal_lab.map(pages=2, memory="anon")
    with mortal_lab.userfaultfd(Feature.EVENT_FORK) as uffd:
        uffd.register(region, "missing")
        with mortal_lab.fork() as child:
            forked = uffd.wait_for(Fork).userfaultfd
            touch = region.kernel_write(0, 7, by=child)
            with pytest.raises(UffdlabError, match="one at a time"):
                region.kernel_write(1, 9, by=child)
            forked.zeropage(region[0])
            touch.result()
            assert region.read(0, by=child).result() == 7
