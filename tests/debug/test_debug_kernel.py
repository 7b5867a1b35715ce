"""The series on a kernel that checks itself: nothing that it is made to do may make it complain."""

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uffdlab import kernels
from uffdlab.fuzz.run import play_randomly
from uffdlab.kernels import catalogue, kselftest
from uffdlab.lab import Lab
from uffdlab.machines.qemu import start
from uffdlab.scenarios.kselftest import ktap, plan, run
from uffdlab.uapi.protocol import ReserveHugepages, TurnSwapOn

KERNEL = "6.1-series+debug"
SECONDS = float(os.environ.get("UFFDLAB_DEBUG_SECONDS", "600"))
MODEL_SECONDS = SECONDS / 5
KINDS = ["anon", "shmem", "shmem-private", "hugetlb", "hugetlb-private"]
SEED = int(os.environ.get("UFFDLAB_DEBUG_SEED", str(time.time_ns() % 1_000_000)))

# What KASAN, lockdep, the page-table checks and plain assertions say first.
COMPLAINT = re.compile(
    r"BUG: |WARNING: |kernel BUG at|KASAN|Oops|general protection fault|inconsistent lock state|suspicious RCU usage|"
    r"sleeping function called|page_table_check|debug_vm_pgtable: .*(fail|bad)|Bad page|Bad rss|lockdep is turned off|"
    r"refcount_t: |unable to handle|hung_task|soft lockup|rcu.*stall"
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
    ],
)
def test_a_complaint_is_seen(line):
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
    for option in ("KASAN", "DEBUG_VM", "DEBUG_VM_PGTABLE", "PAGE_TABLE_CHECK", "PROVE_LOCKING", "DEBUG_ATOMIC_SLEEP"):
        assert f"CONFIG_{option}=y" in config.splitlines()
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
