"""The series on a kernel that checks itself: nothing that it is made to do may make it complain."""

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from uffdlab import kernels
from uffdlab.fuzz.run import play_randomly
from uffdlab.kernels import catalogue, kselftest
from uffdlab.lab import Lab
from uffdlab.machines.qemu import start
from uffdlab.scenarios.kselftest import ktap, plan, run
from uffdlab.uapi.protocol.agent import ReserveHugepages, TurnSwapOn

from ..vm import copy_retry
from .leaks import forget_objects, lost_objects, pages_of_fills

KERNEL = "6.1-series+debug"
SECONDS = float(os.environ.get("UFFDLAB_DEBUG_SECONDS", "600"))
MODEL_SECONDS = SECONDS / 5
KINDS = ["anon", "shmem", "shmem-private", "hugetlb", "hugetlb-private"]
SEED = int(os.environ.get("UFFDLAB_DEBUG_SEED", str(time.time_ns() % 1_000_000)))

OPTIONS = (
    *("KASAN", "DEBUG_VM", "DEBUG_VM_PGTABLE", "PAGE_TABLE_CHECK", "PROVE_LOCKING", "DEBUG_ATOMIC_SLEEP"),
    *("DEBUG_PAGEALLOC", "DEBUG_PAGEALLOC_ENABLE_DEFAULT", "PAGE_POISONING", "PAGE_OWNER", "DEBUG_KMEMLEAK"),
)

# What KASAN, lockdep, the page-table checks and plain assertions say first.
COMPLAINT = re.compile(
    r"BUG: |WARNING: |kernel BUG at|KASAN|Oops|general protection fault|inconsistent lock state|suspicious RCU usage|"
    r"sleeping function called|page_table_check|debug_vm_pgtable: .*(fail|bad)|Bad page|Bad rss|lockdep is turned off|"
    r"refcount_t: |unable to handle|hung_task|soft lockup|rcu.*stall|pagealloc: |kmemleak: .*(suspected|disabled)"
)


def complaints(log):
    return [line for line in log.splitlines() if COMPLAINT.search(line)]


@pytest.mark.parametrize(
    "line",
    [
        "[    1.2] BUG: KASAN: use-after-free in mfill_atomic_pte_copy+0x1/0x2",
        "[    1.2] WARNING: possible circular locking dependency detected",
        "[    1.2] BUG: sleeping function called from invalid context at mm/userfaultfd.c:1",
        "[    1.2] WARNING: CPU: 0 PID: 1 at mm/page_table_check.c:1 page_table_check_set+0x1/0x2",
        "[    1.2] kernel BUG at mm/hugetlb.c:1!",
        "[    1.2] pagealloc: memory corruption",
        "[    1.2] kmemleak: 1 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
    ],
)
def test_a_complaint_of_the_kernel_is_found(line):
    assert complaints(f"[    1.1] all is well\n{line}\n[    1.3] and again") == [line]


@contextlib.contextmanager
def started(kernel):
    # KASAN and lockdep take their time to come up.
    machine = start.start(kernels.get(kernel), cpus=2, memory_mib=2048, deadline=900)
    with Lab(kernel, machine=machine) as lab:
        lab.exec(["dmesg", "-n", "8"])  # all of the log on the console from here on
        yield lab


def complaints_in(lab):
    return complaints(lab.exec(["dmesg"]).text + lab.console)


def checks_locks(lab):
    # lockdep goes silent for good at its first complaint, and when it runs out of room.
    return bool(re.search(r"debug_locks: +1\b", lab.exec(["cat", "/proc/lockdep_stats"]).text))


@pytest.fixture(scope="module")
def lab():
    with started(KERNEL) as lab:
        forget_objects(lab)
        yield lab


@pytest.fixture
def silent(lab):
    yield
    assert complaints_in(lab) == []
    assert checks_locks(lab)


def compiled(source, folder, *options):
    program = folder / source.stem
    subprocess.run(["cc", "-Wall", "-Werror", "-O2", "-pthread", *options, source, "-o", program], check=True)
    return program


@pytest.mark.vm
@pytest.mark.timeout(1800)
def test_the_kernel_checks_itself(lab):
    config = lab.exec(["zcat", "/proc/config.gz"]).text
    for option in OPTIONS:
        assert f"CONFIG_{option}=y" in config.splitlines()
    assert {"page_poison=1", "page_owner=on"} <= set(lab.exec(["cat", "/proc/cmdline"]).text.split())
    assert complaints(lab.exec(["dmesg"]).text) == []


@pytest.mark.vm
@pytest.mark.timeout(4 * 3600)
def test_the_selftests_of_the_series(lab, silent):
    tests = kselftest.of_kernel(KERNEL)
    calls = plan(tests)
    lines = []

    def say(line):
        lines.append(line)
        sys.stdout.write(f"{line}\n")

    good = ktap(lab, tests, calls, run(lab, tests, calls, deadline=1800), say)
    assert good, "\n".join(lines)


@pytest.mark.vm
@pytest.mark.timeout(SECONDS + 900)
def test_random_ioctls_from_several_threads(lab, silent, tmp_path):
    program = compiled(Path(__file__).with_name("random_ioctls.c"), tmp_path)
    lab.ask(ReserveHugepages(2 << 20, 64))
    lab.ask(TurnSwapOn())
    sys.stdout.write(f"UFFDLAB_DEBUG_SEED={SEED}\n")
    done = lab.exec([program.name, f"{SECONDS:.0f}", str(SEED)], push=[program], deadline=SECONDS + 600)
    sys.stdout.write(done.text)
    assert (done.status, done.stderr) == (0, b"")
    assert [line.partition(":")[0] for line in done.text.splitlines()] == KINDS
    assert all(re.search(r" [1-9]\d* did something, [1-9]", line) for line in done.text.splitlines())


@pytest.mark.vm
@pytest.mark.timeout(MODEL_SECONDS + 600)
def test_random_calls_against_the_model(lab, silent):
    count = play_randomly(lab, MODEL_SECONDS, SEED)
    sys.stdout.write(f"{count.calls} calls on {count.regions} regions in {MODEL_SECONDS:.0f} s, seed {SEED}\n")
    assert count.calls > 0


@pytest.mark.vm
@pytest.mark.timeout(900)
def test_the_pte_reader(lab, silent, tmp_path):
    folder = catalogue.default_file().parent / "6.1" / "pte-reader"
    program = compiled(folder / "pte_reader_test.c", tmp_path, f"-I{folder / 'include' / 'uapi'}")
    lab.ask(ReserveHugepages(2 << 20, 8))
    lab.ask(TurnSwapOn())
    done = lab.exec([program.name, "60"], push=[program], deadline=800)
    sys.stdout.write(done.text)
    assert done.status == 0, done.text


@pytest.mark.vm
@pytest.mark.timeout(2400)
def test_copies_whose_destination_changes(lab, silent, tmp_path):
    starts = ("anon", "shmem", "hugetlb", "hugetlb-private")
    changes = ("nothing", "gone", "without-wp", "to-anon", "to-shmem", "to-hugetlb", "to-full-hugetlb")
    lab.ask(ReserveHugepages(2 << 20, 16))
    found = copy_retry.played(lab, copy_retry.compiled(tmp_path), starts, changes, 0, 0, rounds=2)
    # KASAN keeps what is freed for a while, so free pages tell nothing here; page_owner does.
    assert copy_retry.unexpected(found, copy_retry.SERIES, without=["loses"]) == {}


@pytest.mark.vm
@pytest.mark.timeout(3600)
def test_the_tests_before_leave_no_page_and_no_object(lab):
    """Needs the tests above; page_owner names the process that had a page allocated."""
    lab.restart_target()
    left = pages_of_fills(lab)
    assert left == [], "\n\n".join(left)
    lost = lost_objects(lab)
    assert lost == [], "\n\n".join(lost)


@pytest.mark.vm
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("flavour", ["debug", "unfixed"])
def test_page_owner_names_a_lost_page(flavour, tmp_path):
    """6.1 itself loses one each time that hugetlb takes the place of the destination; so page_owner is at work."""
    rounds = 4
    with started(f"6.1-base+{flavour}") as lab:
        lab.ask(ReserveHugepages(2 << 20, 16))
        program = copy_retry.compiled(tmp_path)
        copy_retry.played(lab, program, ["anon"], ["nothing", "gone", "to-shmem"], 0, 0, rounds)
        assert pages_of_fills(lab) == []
        copy_retry.played(lab, program, ["anon"], ["to-hugetlb"], 0, 0, rounds)
        found = pages_of_fills(lab)
    assert len(found) >= rounds
    assert all("copy_retry" in page and "mcopy_atomic" in page for page in found), found


# Bytes of a page that is free: mm/page_poison.c
POISON = 0xAAAA_AAAA_AAAA_AAAA


@pytest.mark.vm
@pytest.mark.timeout(3600)
def test_each_of_the_new_checks_notices_a_mistake():
    """Mistakes are made on demand (drivers/misc/lkdtm), and one from outside, in the guest's RAM."""
    with started(KERNEL) as lab:
        forget_objects(lab)
        assert complaints_in(lab) == []
        frames, _ = lab.machine.physical.ram()
        free = np.flatnonzero((frames[:, ::64] == POISON).all(axis=1))
        assert len(free) > 1000, "free pages hold no pattern"
        for frame in free[:: max(1, len(free) // 2000)]:
            os.pwrite(lab.machine._ram, b"\xab", int(frame) * 4096 + 64)
        # A sixth of what is free; to free it takes as long as to write it.
        lab.exec(["dd", "if=/dev/zero", "of=/tmp/much", "bs=1M", "count=256"], deadline=600)
        lab.exec(["rm", "-f", "/tmp/much"], deadline=600)
        assert any("pagealloc: " in line for line in complaints_in(lab))

        lab.exec(["sh", "-c", "echo 0 >/proc/sys/kernel/panic_on_oops"])
        # Who reads a free page dies of it, before it frees what it has allocated.  Twice, as the kernel keeps the
        # registers of its first oops (exec_summary_regs), and the address is in one of them.
        for _ in range(2):
            lab.exec(["sh", "-c", "echo READ_BUDDY_AFTER_FREE >/sys/kernel/debug/provoke-crash/DIRECT"])
        found = complaints_in(lab)
        assert any("KASAN: use-after-free" in line for line in found)
        assert any("unable to handle page fault" in line for line in found)
        assert any("lkdtm_READ_BUDDY_AFTER_FREE" in each for each in lost_objects(lab))


@pytest.mark.vm
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("flavour", "fixed"), [("unfixed", False), ("debug", True)])
def test_a_hugetlb_mapping_is_split_with_its_file_locked(flavour, fixed, tmp_path):
    # docs/findings/hugetlb-split.md: the complaint is Debian's kernel's own, and the fix ends it.
    program = compiled(Path(__file__).with_name("split_hugetlb.c"), tmp_path)
    with started(f"6.1-base+{flavour}") as lab:
        lab.ask(ReserveHugepages(2 << 20, 4))
        assert complaints_in(lab) == []
        assert lab.exec([program.name], push=[program]).status == 0
        found = complaints_in(lab)
        assert checks_locks(lab)
    assert bool(found) != fixed
    assert all("hugetlb_split" in line for line in found), found


@pytest.mark.vm
@pytest.mark.timeout(300)
def test_a_complaint_of_the_kernel_would_be_found(lab):
    lab.exec(["sh", "-c", "echo '<4>WARNING: said on purpose' >/dev/kmsg"])
    assert complaints(lab.exec(["dmesg"]).text) != []
    assert complaints(lab.console) != []
