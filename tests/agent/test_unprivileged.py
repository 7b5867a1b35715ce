"""This host's own kernel as somebody who may do nothing: user-mode faults only, where the host allows no more."""

import errno
import logging
import os
from pathlib import Path

import pytest

from uffdlab.errors import AgentError, IoctlError, UsageError
from uffdlab.lab import Lab
from uffdlab.target.open_userfaultfd import DEFAULT_FEATURES
from uffdlab.uapi import Feature
from uffdlab.uapi.protocol.agent import Ping, TriggerSysrq

from ..unprivileged import SYSCTL, unprivileged_lab

DEVICE = Path("/dev/userfaultfd")
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
SWAPS = Path("/proc/swaps")


# With `error` as the errno of userfaultfd(2), number 323 on x86-64, and everything else allowed: linux/filter.h,
# linux/seccomp.h. 38 is PR_SET_NO_NEW_PRIVS, 22 and 2 are PR_SET_SECCOMP and SECCOMP_MODE_FILTER.
FORBID = """
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
code = b"".join(struct.pack("HBBI", *one) for one in (
    (0x20, 0, 0, 0), (0x15, 0, 1, 323), (0x06, 0, 0, 0x50000 | {error}), (0x06, 0, 0, 0x7FFF0000)))
buffer = ctypes.create_string_buffer(code, len(code))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(buffer)), 16)
assert not libc.prctl(38, 1, 0, 0, 0) and not libc.prctl(22, 2, program, 0, 0), ctypes.get_errno()
"""


@pytest.fixture
def nobodys():
    """Return a lab whose agent is an unprivileged user's."""
    with unprivileged_lab() as lab:
        yield lab


def test_what_user_mode_does_can_be_followed(nobodys):
    assert nobodys.ask(Ping(1)) == 1
    assert nobodys.machine.hello.uid != 0
    region = nobodys.map(pages=4)
    region.alias.fill(5)
    with nobodys.userfaultfd() as uffd:
        if SYSCTL.read_text().strip() == "0":
            assert uffd.way == "userfaultfd(2) with UFFD_USER_MODE_ONLY"
        uffd.register(region, "minor", "wp")
        touch = region.read(2)
        assert uffd.read_fault().page == 2
        uffd.continue_(region[2], wp=True)
        assert touch.result() == 7
        assert region.snapshot("pagemap").entries.size == 4
        if "USER_MODE_ONLY" in uffd.way:
            assert region.kernel_read(1).outcome().returned == -14  # EFAULT: the kernel's own faults are not handed on


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_where_no_way_works_the_order_and_each_errno_are_told(error):
    with unprivileged_lab(FORBID.format(error=int(error))) as lab:
        if DEVICE.exists() and DEVICE.stat().st_mode & 0o6:
            pytest.skip(f"everybody may open {DEVICE} here")
        with pytest.raises(AgentError) as caught:
            lab.userfaultfd()
        first, *ways, advice = str(caught.value).splitlines()
        assert "tried in this order" in first
        assert [way.partition(" (")[0] for way in ways] == [
            "1. userfaultfd(2)",
            f"2. {DEVICE}",
            "3. userfaultfd(2) with UFFD_USER_MODE_ONLY",
        ]
        device = errno.EACCES if DEVICE.exists() else errno.ENOENT
        for way, number in zip(ways, (error, device, error), strict=True):
            assert way.endswith(f"→ {errno.errorcode[number]}: {os.strerror(number)}")
        assert "seccomp" in advice
        with pytest.raises(AgentError, match="tried in this order"):
            _ = lab.capabilities
        assert lab.map(pages=1).read(0).result() == 0


def test_what_needs_root_says_so(nobodys):
    free = POOL / "free_hugepages"
    if not free.exists():
        pytest.skip("no huge pages here")
    with pytest.raises(UsageError, match="only root can reserve them"):
        nobodys.map(pages=int(free.read_text()) + 1, memory="hugetlb")


def test_what_the_kernel_keeps_for_root_says_so_too(nobodys):
    if os.geteuid() == 0:
        with pytest.raises(AgentError, match=r"a tmpfs needs CAP_SYS_ADMIN, which root has; use memory='shmem'"):
            nobodys.map(pages=1, memory="tmpfs")
        with pytest.raises(IoctlError, match="EPERM: EVENT_FORK needs CAP_SYS_PTRACE, which root has; leave it out"):
            nobodys.userfaultfd(DEFAULT_FEATURES & nobodys.capabilities.features | Feature.EVENT_FORK)
    assert nobodys.map(pages=1, memory="shmem").alias.read(0).result() == 0


def test_it_says_what_it_cannot_do_and_what_can_happen(caplog):
    with caplog.at_level(logging.WARNING, "uffdlab.machines"), Lab(machine="local") as lab:
        assert "physical" not in lab.witnesses
    (record,) = caplog.records
    assert "can crash it" in record.getMessage()
    assert "PTE reader" in record.getMessage()


def test_huge_pages_are_put_back():
    pool = POOL / "nr_hugepages"
    if os.geteuid() or not pool.exists():
        pytest.skip("only root can set huge pages aside")
    before = pool.read_text()
    try:
        with Lab(machine="local") as lab:
            lab.map(pages=int(before) + 3, memory="hugetlb").alias.fill(1)
            assert int(pool.read_text()) > int(before)
    except UsageError as error:
        pytest.skip(str(error))
    assert pool.read_text() == before


def test_two_labs_put_back_what_each_has_set_aside():
    pool = POOL / "nr_hugepages"
    if os.geteuid() or not pool.exists():
        pytest.skip("only root can set huge pages aside")
    before = int(pool.read_text())
    try:
        with Lab(machine="local") as one:
            one.map(pages=before + 3, memory="hugetlb").alias.fill(1)
            with Lab(machine="local") as other:
                other.map(pages=2, memory="hugetlb").alias.fill(1)
                one.close()
    except UsageError as error:
        pytest.skip(str(error))
    assert int(pool.read_text()) == before


def test_what_would_hit_the_host_is_refused():
    with Lab(machine="local") as lab, pytest.raises(UsageError, match="only possible in a guest of the lab"):
        lab.ask(TriggerSysrq("c"))


def test_the_hosts_swap_is_used_and_none_is_turned_on():
    before = SWAPS.read_text() if SWAPS.exists() else ""
    with Lab(machine="local") as lab:
        region = lab.map(pages=1)
        if len(before.splitlines()) > 1:
            region.page_out()
        else:
            with pytest.raises(UsageError, match=r"nothing to swap to|has no swap"):
                region.page_out()
    assert len((SWAPS.read_text() if SWAPS.exists() else "").splitlines()) == len(before.splitlines())
