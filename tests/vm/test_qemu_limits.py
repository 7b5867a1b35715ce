"""A host that lacks a resource for a guest: the error names it, and nothing is left."""

import resource
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from uffdlab import cachedir, errors
from uffdlab.lab import Lab
from uffdlab.machines.qemu import start

from ..leftovers import nothing_left, open_resources

pytestmark = pytest.mark.vm


@pytest.fixture(autouse=True)
def _emulated(monkeypatch):
    monkeypatch.setenv("UFFDLAB_ACCEL", "tcg")


@contextmanager
def limited(resource_kind, number):
    before = resource.getrlimit(resource_kind)
    resource.setrlimit(resource_kind, (number, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource_kind, before)


@pytest.fixture
def emulator(monkeypatch):
    """Return a function that puts a script before QEMU in PATH, which QEMU's own user can run too."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)

        def put(script):
            program = folder / start.PROGRAM
            program.write_text(script.replace("QEMU", shutil.which(start.PROGRAM)))
            program.chmod(0o755)
            monkeypatch.setenv("PATH", str(folder), prepend=":")
            return folder

        yield put


def expect_refusal(message, error=errors.HostUnsupported):
    before = open_resources()
    with pytest.raises(error, match=message) as caught:
        Lab("6.1-series")
    assert nothing_left(before)
    return caught.value


def test_the_error_says_that_the_guests_memory_does_not_fit():
    Lab("6.1-series").close()
    with limited(resource.RLIMIT_FSIZE, 500 << 20):
        assert expect_refusal("1024 MiB for the guest's memory: File too large. Ask for less").missing == "memory"
    Lab("6.1-series").close()


def test_the_error_says_that_qemu_lacks_address_space(emulator):
    emulator('#!/bin/sh\nulimit -v 900000\nexec QEMU "$@"\n')
    error = expect_refusal(r"Cannot allocate memory\. This host does not give QEMU 1024 MiB")
    assert error.missing == "memory"


def states():
    """Return the names of the saved states, with their inode numbers."""
    return {path.name: path.stat().st_ino for path in cachedir.folder("machines").glob("*.state")}


def test_running_out_of_descriptors_keeps_the_saved_state():
    """At whichever step they run out."""
    Lab("6.1-series").close()
    before, saved, refusals = open_resources(), states(), []
    for spare in range(30):
        with limited(resource.RLIMIT_NOFILE, before.descriptors + spare):
            try:
                Lab("6.1-series").close()
            except errors.HostUnsupported as error:
                refusals.append(error)
        assert nothing_left(before)
        assert states() == saved
    assert 10 < len(refusals) < 30
    assert {error.missing for error in refusals} == {"files"}
    assert all("Too many open files. Close other labs, or raise the limit (ulimit -n)" in str(e) for e in refusals)
    with Lab("6.1-series") as lab:
        assert lab.machine.restored


@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [
        ("ulimit -v 900000", errors.HostUnsupported, "Cannot allocate memory"),
        ("ulimit -n 9", errors.HostUnsupported, "Too many open files.*ulimit -n"),
        (
            "kill -KILL $$",
            errors.MachineLost,
            "killed by signal 9, by another process or because the host was out of memory",
        ),
    ],
)
def test_a_qemu_that_lacks_resources_keeps_the_saved_state(emulator, failure, error, message):
    flag = emulator(f'#!/bin/sh\ntest -e "${{0%/*}}/flag" && {failure}\nexec QEMU "$@"\n') / "flag"
    Lab("6.1-series").close()
    saved = states()
    flag.touch()
    expect_refusal(message, error)
    assert states() == saved
    flag.unlink()
    with Lab("6.1-series") as lab:
        assert lab.machine.restored


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("this is no program\n", "Exec format error"),
        ("#!/no/such/interpreter\n", "No such file or directory"),
        ('#!/bin/sh\nexec QEMU -no-such-option "$@"\n', "no-such-option: invalid option"),
        ('#!/bin/sh\nexec QEMU -device no-such-device "$@"\n', "'no-such-device' is not a valid device model name"),
        ("#!/bin/sh\nkill -ABRT $$\n", "killed by signal 6"),
    ],
)
def test_a_qemu_that_cannot_run_is_reported(emulator, script, message):
    emulator(script)
    expect_refusal(message, errors.MachineLost)


def test_a_guest_out_of_memory_is_reported_and_stays_usable():
    with Lab("6.1-series", memory_mib=256) as lab:
        region = lab.map(pages=10**6)
        with pytest.raises(
            errors.TargetLost, match=r"by SIGKILL: out of memory, or killed by another process.*restart_target"
        ):
            region.alias.sweep("write").result(60)
        assert lab.console.search("Out of memory: Killed process")
        lab.restart_target()
        lab.map(pages=4).alias.fill(3)


# The owner, its supervisor, QEMU and the guest's RAM are in one cgroup.
OWNER = """
import sys
from uffdlab import errors
from uffdlab.lab import Lab
with Lab("6.1-series", memory_mib=2048) as lab:
    region = lab.map(pages=400_000)
    print("running", flush=True)
    try:
        region.alias.fill(deadline=100)
    except errors.UffdlabError as error:
        print(type(error).__name__, error)
"""


def test_a_host_out_of_memory_is_reported_as_the_end_of_qemu():
    group = cgroup()
    if group is None:
        pytest.skip("this user may not limit the memory of a cgroup")
    try:
        (group / limit_name(group)).write_text(str(400 << 20))
        code = f"import os\nwith open({str(group / 'cgroup.procs')!r}, 'w') as file: file.write(str(os.getpid()))\n"
        done = subprocess.run(
            [sys.executable, "-c", code + OWNER], capture_output=True, text=True, timeout=200, check=False
        )
        assert "running" in done.stdout, done.stderr
        assert "MachineLost the machine is gone: QEMU was killed by signal 9" in done.stdout, done
    finally:
        group.rmdir()  # fails while a process is in it


def limit_name(group):
    return "memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes"


def cgroup():
    for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/memory"):
        group = Path(top) / "uffdlab-test"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / limit_name(group)).exists():
            return group
        group.rmdir()
    return None
