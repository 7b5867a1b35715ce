"""Each number belongs to one touch; threads may withdraw it together; invalid requests are refused."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from uffdlab.errors import AgentError, UsageError
from uffdlab.uapi.protocol.target import StartTouch, TouchWaits


@pytest.mark.parametrize("times", [1000])
def test_one_touch_is_withdrawn_by_several_at_once(host_lab, times):
    """As by two threads of a program, or by a user and a deadline."""
    region = host_lab.map(pages=1, memory="anon")
    with host_lab.userfaultfd() as uffd, ThreadPoolExecutor(4) as threads:
        uffd.register(region, "missing")
        for _ in range(times):
            touch = region.read(0)
            for withdrawn in [threads.submit(touch.withdraw) for _ in range(4)]:
                assert withdrawn.result() is True
    region.unmap()


def test_a_number_is_one_touch_s_until_it_has_ended(host_lab):
    region = host_lab.map(pages=1, memory="anon")
    with host_lab.userfaultfd() as uffd:
        uffd.register(region, "missing")
        touch = region.read(0)
        with pytest.raises(UsageError, match="its own number"):
            host_lab.ask(StartTouch(touch.number, "read", region.start, 8, 8, 0, None, 0))
        uffd.zeropage(region)
        assert touch.result() == 0
    region.unmap()


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        (("sweep", 0, 4096, 0, 0), {"each": "read"}),
        (("fill", 0, 4096, 0, 0), None),
        (("read", -1, 8, 8, 0), None),
        (("read", 1 << 64, 8, 8, 0), None),
        (("write", 0, 8, 8, "7"), None),
        (("write", 0, 8, 8, -1), None),
        (("sweep", 0, 4096, 4096, 0), {"each": "fill"}),
        (("sweep", 0, 4096, 4096, 0), {"first": -1}),
        (("syscall", 0, 8, 8, 1 << 64), {"call": "file_read", "address": 0}),
        (("syscall", 0, 8, 8, 0), {"call": "file_read", "address": "here"}),
        (("syscall", 0, 8, 8, 0), {"call": "reboot"}),
        (("copy_out", 0, 1 << 30, 8, 0), None),
    ],
)
def test_a_touch_that_cannot_be_is_refused_and_kills_nobody(host_lab, arguments, more):
    with pytest.raises((UsageError, AgentError)):
        host_lab.ask(StartTouch(10**6, *arguments, more, 0))
    assert host_lab.ask(TouchWaits(10**6)) is False
