"""The patch series on a kernel with debug checks: no test may make the kernel report an error."""

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

# How the reports of KASAN, lockdep, the page-table checks and assertions begin.
REPORT = re.compile(
    r"BUG: |WARNING: |kernel BUG at|KASAN|Oops|general protection fault|inconsistent lock state|suspicious RCU usage|"
    r"sleeping function called|page_table_check|debug_vm_pgtable: .*(fail|bad)|Bad page|Bad rss|lockdep is turned off|"
    r"refcount_t: |unable to handle|hung_task|soft lockup|rcu.*stall|pagealloc: |kmemleak: .*(suspected|disabled)"
)


def error_lines(log):
    return [line for line in log.splitlines() if REPORT.search(line)]


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
def test_an_error_report_of_the_kernel_is_found(line):
    assert error_lines(f"[    1.1] all is well\n{line}\n[    1.3] and again") == [line]


@contextlib.contextmanager
def started(kernel):
    # A kernel with KASAN and lockdep boots slowly.
    machine = start.start(kernels.get(kernel), cpus=2, memory_mib=2048, deadline=900)
    with Lab(kernel, machine=machine) as lab:
        lab.exec(["dmesg", "-n", "8"])  # from here on, the whole log goes to the console
        yield lab


def reported_errors(lab):
    return error_lines(lab.exec(["dmesg"]).text + lab.console)


def lockdep_is_on(lab):
    # lockdep turns itself off at its first report, and when its tables are full.
    return bool(re.search(r"debug_locks: +1\b", lab.exec(["cat", "/proc/lockdep_stats"]).text))


@pytest.fixture(scope="module")
def lab():
    with started(KERNEL) as lab:
        forget_objects(lab)
        yield lab


@pytest.fixture
def no_reports(lab):
    yield
    assert reported_errors(lab) == []
    assert lockdep_is_on(lab)


def compiled(source, folder, *options):
    program = folder / source.stem
    subprocess.run(["cc", "-Wall", "-Werror", "-O2", "-pthread", *options, source, "-o", program], check=True)
    return program


@pytest.mark.vm
@pytest.mark.timeout(1800)
def test_the_kernel_has_its_debug_options_on(lab):
    config = lab.exec(["zcat", "/proc/config.gz"]).text
    for option in OPTIONS:
        assert f"CONFIG_{option}=y" in config.splitlines()
    assert {"page_poison=1", "page_owner=on"} <= set(lab.exec(["cat", "/proc/cmdline"]).text.split())
    assert error_lines(lab.exec(["dmesg"]).text) == []


@pytest.mark.vm
@pytest.mark.timeout(4 * 3600)
def test_the_selftests_of_the_series_pass(lab, no_reports):
    tests = kselftest.of_kernel(KERNEL)
    calls = plan(tests)
    lines = []

    def record(line):
        lines.append(line)
        sys.stdout.write(f"{line}\n")

    good = ktap(lab, tests, calls, run(lab, tests, calls, deadline=1800), record)
    assert good, "\n".join(lines)


@pytest.mark.vm
@pytest.mark.timeout(SECONDS + 900)
def test_random_ioctls_of_several_threads_cause_no_report(lab, no_reports, tmp_path):
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
def test_random_calls_agree_with_the_model(lab, no_reports):
    count = play_randomly(lab, MODEL_SECONDS, SEED)
    sys.stdout.write(f"{count.calls} calls on {count.regions} regions in {MODEL_SECONDS:.0f} s, seed {SEED}\n")
    assert count.calls > 0


@pytest.mark.vm
@pytest.mark.timeout(900)
def test_the_test_program_of_the_pte_reader_passes(lab, no_reports, tmp_path):
    folder = catalogue.default_file().parent / "6.1" / "pte-reader"
    program = compiled(folder / "pte_reader_test.c", tmp_path, f"-I{folder / 'include' / 'uapi'}")
    lab.ask(ReserveHugepages(2 << 20, 8))
    lab.ask(TurnSwapOn())
    done = lab.exec([program.name, "60"], push=[program], deadline=800)
    sys.stdout.write(done.text)
    assert done.status == 0, done.text


@pytest.mark.vm
@pytest.mark.timeout(2400)
def test_copies_whose_destination_changes_end_as_expected(lab, no_reports, tmp_path):
    starts = ("anon", "shmem", "hugetlb", "hugetlb-private")
    changes = ("nothing", "gone", "without-wp", "to-anon", "to-shmem", "to-hugetlb", "to-full-hugetlb")
    lab.ask(ReserveHugepages(2 << 20, 16))
    found = copy_retry.run_cases(lab, copy_retry.compile_program(tmp_path), starts, changes, 0, 0, rounds=2)
    # KASAN delays each free, so the number of free pages proves nothing here.  page_owner does.
    assert copy_retry.unexpected(found, copy_retry.SERIES, without=["leaks_pages"]) == {}


@pytest.mark.vm
@pytest.mark.timeout(3600)
def test_the_tests_above_leak_no_page_and_no_object(lab):
    """Run this after the tests above.  page_owner names the process that allocated a page."""
    lab.restart_target()
    left = pages_of_fills(lab)
    assert left == [], "\n\n".join(left)
    lost = lost_objects(lab)
    assert lost == [], "\n\n".join(lost)


@pytest.mark.vm
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("flavour", ["debug", "unfixed"])
def test_page_owner_names_a_lost_page(flavour, tmp_path):
    """6.1 leaks a page each time that a hugetlb mapping replaces the destination.  page_owner must find each."""
    rounds = 4
    with started(f"6.1-base+{flavour}") as lab:
        lab.ask(ReserveHugepages(2 << 20, 16))
        program = copy_retry.compile_program(tmp_path)
        copy_retry.run_cases(lab, program, ["anon"], ["nothing", "gone", "to-shmem"], 0, 0, rounds)
        assert pages_of_fills(lab) == []
        copy_retry.run_cases(lab, program, ["anon"], ["to-hugetlb"], 0, 0, rounds)
        found = pages_of_fills(lab)
    assert len(found) >= rounds
    assert all("copy_retry" in page and "mcopy_atomic" in page for page in found), found


# Content of a free page: mm/page_poison.c
POISON = 0xAAAA_AAAA_AAAA_AAAA


@pytest.mark.vm
@pytest.mark.timeout(3600)
def test_each_debug_check_reports_a_provoked_error():
    """The kernel makes most errors itself, on request (drivers/misc/lkdtm).  The host makes one in the guest's RAM."""
    with started(KERNEL) as lab:
        forget_objects(lab)
        assert reported_errors(lab) == []
        frames, _ = lab.machine.physical.ram()
        free = np.flatnonzero((frames[:, ::64] == POISON).all(axis=1))
        assert len(free) > 1000, "free pages hold no pattern"
        for frame in free[:: max(1, len(free) // 2000)]:
            os.pwrite(lab.machine._ram, b"\xab", int(frame) * 4096 + 64)
        # A sixth of the free memory.  Freeing it takes as long as writing it.
        lab.exec(["dd", "if=/dev/zero", "of=/tmp/much", "bs=1M", "count=256"], deadline=600)
        lab.exec(["rm", "-f", "/tmp/much"], deadline=600)
        assert any("pagealloc: " in line for line in reported_errors(lab))

        lab.exec(["sh", "-c", "echo 0 >/proc/sys/kernel/panic_on_oops"])
        # A process that reads a free page is killed before it frees what it has allocated.  Do it several times:
        # kmemleak does not report an object whose address is still anywhere.  It may be in the registers that the
        # kernel keeps of its first oops (exec_summary_regs), or on the stack of an ended process.
        for _ in range(12):
            lab.exec(["sh", "-c", "echo READ_BUDDY_AFTER_FREE >/sys/kernel/debug/provoke-crash/DIRECT"])
        found = reported_errors(lab)
        assert any("KASAN: use-after-free" in line for line in found)
        assert any("unable to handle page fault" in line for line in found)
        assert any("lkdtm_READ_BUDDY_AFTER_FREE" in leak for leak in lost_objects(lab))


@pytest.mark.vm
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("flavour", "fixed"), [("unfixed", False), ("debug", True)])
def test_a_hugetlb_mapping_is_split_with_its_file_locked(flavour, fixed, tmp_path):
    # docs/findings/hugetlb-split.md: Debian's kernel has this error, and the fix ends it.
    program = compiled(Path(__file__).with_name("split_hugetlb.c"), tmp_path)
    with started(f"6.1-base+{flavour}") as lab:
        lab.ask(ReserveHugepages(2 << 20, 4))
        assert reported_errors(lab) == []
        assert lab.exec([program.name], push=[program]).status == 0
        found = reported_errors(lab)
        assert lockdep_is_on(lab)
    assert bool(found) != fixed
    assert all("hugetlb_split" in line for line in found), found


@pytest.mark.vm
@pytest.mark.timeout(300)
def test_an_error_in_the_guest_is_found_in_its_log_and_console(lab):
    lab.exec(["sh", "-c", "echo '<4>WARNING: made on purpose' >/dev/kmsg"])
    assert error_lines(lab.exec(["dmesg"]).text) != []
    assert error_lines(lab.console) != []
