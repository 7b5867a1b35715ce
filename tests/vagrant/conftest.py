"""A VM for each provider, in a folder of its own.  The tests use the user's Vagrant boxes and kernels."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from uffdlab import errors
from uffdlab.machines.vagrant.vm import VagrantVm

PROVIDERS = ("uffdlab_qemu", "libvirt")


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/vagrant/" in str(item.path):
            item.add_marker(pytest.mark.vagrant)


@pytest.fixture(scope="session", autouse=True)
def _tools():
    missing = [program for program in ("vagrant", "qemu-img", "mmdebstrap") if shutil.which(program) is None]
    if missing:
        pytest.fail(f"{', '.join(missing)} missing: run `make test-vagrant`, which installs them")


class TestedVm(VagrantVm):
    """A VM, with methods that inspect and disturb it without our use of Vagrant."""

    __test__ = False
    provider: str

    def guest(self, command, deadline=60):
        """Run a command in the guest by ssh; return its exit status and output."""
        done = subprocess.run(
            self.ssh(command), capture_output=True, text=True, timeout=deadline, stdin=subprocess.DEVNULL, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def run_vagrant(self, *arguments):
        """Run vagrant directly, without our locks."""
        environment = {**os.environ, "VAGRANT_CWD": str(self.folder), "VAGRANT_DOTFILE_PATH": str(self.data)}
        return subprocess.run(["vagrant", *arguments], env=environment, capture_output=True, text=True, check=True)

    @property
    def prefix(self):
        """Prefix that the Vagrantfile gives to the names of libvirt machines."""
        return f"uffdlab-{hashlib.sha256(str(self.data).encode()).hexdigest()[:8]}-"

    def pool_files(self):
        """Return the names of its files in libvirt's storage pool: the disk, kernel and initramfs."""
        return sorted(path.name for path in Path("/var/lib/libvirt/images").glob(f"{self.prefix}*"))

    def processes(self):
        """Return each process that belongs to it (vagrant, ssh, QEMU, their children) as `PID COMMAND LINE`."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                ours = f"VAGRANT_DOTFILE_PATH={self.data}".encode() in (process / "environ").read_bytes()
                if command and (ours or f"guest={self.prefix}" in command):
                    found.append(f"{process.name} {command}")
        return found

    def host_resources(self):
        """Return its processes and pool files on this host; an empty list if it is not created."""
        return self.processes() + self.pool_files()

    def qemu(self):
        """Return the PIDs of its QEMU: a list of one or none."""
        return [int(line.split()[0]) for line in self.processes() if "qemu-system" in line.split()[1]]

    def boot_id(self):
        """Return the boot ID of the guest that was brought up last."""
        return self._booted()["boot_id"]


def _make(folder, provider, patch):
    patch.setenv("VAGRANT_DOTFILE_PATH", str(folder))
    patch.setenv("VAGRANT_DEFAULT_PROVIDER", provider)
    patch.setenv("UFFDLAB_BOX", "uffdlab/bookworm64")  # always the same box; test_box.py tests how one is chosen
    made = TestedVm()
    made.provider = provider
    return made


@pytest.fixture(scope="module", params=PROVIDERS)
def vm(request, tmp_path_factory):
    """A VM of this module, not yet created; it is destroyed after the module's tests."""
    with pytest.MonkeyPatch.context() as patch:
        made = _make(tmp_path_factory.mktemp("vagrant"), request.param, patch)
        yield made
        made.destroy()
        assert made.host_resources() == []


@pytest.fixture(params=PROVIDERS)
def own_vm(request, tmp_path, monkeypatch):
    """A VM of this test only, not yet created."""
    made = _make(tmp_path / "vagrant", request.param, monkeypatch)
    yield made
    with contextlib.suppress(errors.MachineError):  # without a provider there is nothing to destroy
        made.destroy()
    assert made.host_resources() == []


@pytest.fixture
def wait_for():
    """Return a function that waits until a condition is true and returns its value."""

    def wait(condition, seconds=120):
        until = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < until, "the condition did not become true"
            time.sleep(0.1)
        return found

    return wait
