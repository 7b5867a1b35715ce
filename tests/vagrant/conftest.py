"""A VM for each provider, in a folder of the tests' own; Vagrant's boxes, the box and the kernels are the user's."""

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
    """A VM, and ways to look at it and to do it harm past Vagrant."""

    __test__ = False
    provider: str

    def guest(self, command, deadline=60):
        """Run a command in the guest by ssh; its status and what it said."""
        done = subprocess.run(
            self.ssh(command), capture_output=True, text=True, timeout=deadline, stdin=subprocess.DEVNULL, check=False
        )
        return done.returncode, done.stdout + done.stderr

    def by_hand(self, *arguments):
        """Run vagrant as a user does who knows nothing of our locks."""
        environment = {**os.environ, "VAGRANT_CWD": str(self.folder), "VAGRANT_DOTFILE_PATH": str(self.data)}
        return subprocess.run(["vagrant", *arguments], env=environment, capture_output=True, text=True, check=True)

    @property
    def prefix(self):
        """What the Vagrantfile lets the names of libvirt's machines begin with."""
        return f"uffdlab-{hashlib.sha256(str(self.data).encode()).hexdigest()[:8]}-"

    def pooled(self):
        """What libvirt keeps of it: the disk, and what boots it."""
        return sorted(path.name for path in Path("/var/lib/libvirt/images").glob(f"{self.prefix}*"))

    def processes(self):
        """Every process that works for it, as `PID COMMAND LINE`: vagrant, ssh, QEMU, what was started for it."""
        found = []
        for each in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                command = (each / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                ours = f"VAGRANT_DOTFILE_PATH={self.data}".encode() in (each / "environ").read_bytes()
                if command and (ours or f"guest={self.prefix}" in command):
                    found.append(f"{each.name} {command}")
        return found

    def left(self):
        """What there is of it on the host, beside Vagrant's notes: nothing if it is not created."""
        return self.processes() + self.pooled()

    def qemu(self):
        """The process ids of its QEMU: one or none."""
        return [int(each.split()[0]) for each in self.processes() if "qemu-system" in each.split()[1]]

    def boot_id(self):
        """Of the guest that was brought up last."""
        return self._booted()["boot_id"]


def _made(folder, provider, patch):
    patch.setenv("VAGRANT_DOTFILE_PATH", str(folder))
    patch.setenv("VAGRANT_DEFAULT_PROVIDER", provider)
    patch.setenv("UFFDLAB_BOX", "uffdlab/bookworm64")  # wherever the tests run; test_box.py has the choice
    made = TestedVm()
    made.provider = provider
    return made


@pytest.fixture(scope="module", params=PROVIDERS)
def vm(request, tmp_path_factory):
    """A VM of this module's own that is not there yet; destroyed in the end."""
    with pytest.MonkeyPatch.context() as patch:
        made = _made(tmp_path_factory.mktemp("vagrant"), request.param, patch)
        yield made
        made.destroy()
        assert made.left() == []


@pytest.fixture(params=PROVIDERS)
def alone(request, tmp_path, monkeypatch):
    """A VM of one test's own."""
    made = _made(tmp_path / "vagrant", request.param, monkeypatch)
    yield made
    with contextlib.suppress(errors.MachineError):  # without a provider there is nothing to destroy
        made.destroy()
    assert made.left() == []


@pytest.fixture
def wait_for():
    """Wait until something is true, and return what it is."""

    def wait(condition, seconds=120):
        until = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < until, "never came true"
            time.sleep(0.1)
        return found

    return wait
