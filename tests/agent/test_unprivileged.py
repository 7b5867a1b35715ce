"""This host's own kernel as somebody who may do nothing: user-mode faults only, where the host allows no more."""

import logging
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from uffdlab.errors import UsageError
from uffdlab.lab import Lab
from uffdlab.machines import ssh
from uffdlab.machines.interpreter import modules
from uffdlab.machines.stream import StreamMachine

NOBODY = "65534"
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
SWAPS = Path("/proc/swaps")
SYSCTL = Path("/proc/sys/vm/unprivileged_userfaultfd")
# Of the system: one below /root cannot be used by others.
PYTHON = "/usr/bin/python3"


@pytest.fixture
def nobodys():
    """Give a lab whose agent is an unprivileged user's."""
    if not SYSCTL.exists() or not Path(PYTHON).exists() or not shutil.which("setpriv"):
        pytest.skip("no userfaultfd, no python3 of the system, or no setpriv here")
    folder = Path(tempfile.mkdtemp())
    try:
        for name, origin, package in modules("uffdlab.agent.stdio"):
            if name.partition(".")[0] not in ssh._OURS:
                continue
            place = folder / name.replace(".", "/")
            place = place / "__init__.py" if package else place.parent / origin.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(origin, place)
        folder.chmod(0o755)
        program = f"import sys; sys.path.insert(0, {str(folder)!r}); from uffdlab.agent.stdio import main; main()"
        who = [] if os.geteuid() else ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        with Lab(machine=StreamMachine([*who, PYTHON, "-IB", "-c", program], "local").up()) as lab:
            yield lab
    finally:
        shutil.rmtree(folder)


def test_what_user_mode_does_can_be_followed(nobodys):
    assert nobodys.call("agent.ping", 1) == 1
    assert nobodys.machine.hello["uid"] != 0
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
        assert region.snapshot("pagemap").words.size == 4
        if "USER_MODE_ONLY" in uffd.way:
            assert region.kernel_read(1).outcome().returned == -14  # EFAULT: the kernel's own faults are not handed on


def test_what_needs_root_says_so(nobodys):
    free = POOL / "free_hugepages"
    if not free.exists():
        pytest.skip("no huge pages here")
    with pytest.raises(UsageError, match="only root can set them aside"):
        nobodys.map(pages=int(free.read_text()) + 1, memory="hugetlb")


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


def test_what_would_hit_the_host_is_refused():
    with Lab(machine="local") as lab, pytest.raises(UsageError, match="in a guest of the lab's own only"):
        lab.call("agent.sysrq", "c")


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
