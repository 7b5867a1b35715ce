"""What goes wrong with Vagrant, for real: no provider, an owner that is killed, a QEMU that is killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from uffdlab import errors
from uffdlab.lab import Lab
from uffdlab.machines.vagrant import want
from uffdlab.machines.vagrant_vm import VagrantVm

pytestmark = pytest.mark.timeout(3600)


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A VM under QEMU alone, of one test's own."""
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path / "vagrant"))
    monkeypatch.setenv("VAGRANT_DEFAULT_PROVIDER", "uffdlab_qemu")
    vm = VagrantVm()
    yield vm
    with contextlib.suppress(errors.MachineError):
        vm.destroy()


def of(vm):
    """Every process that works for a VM."""
    found = subprocess.run(["pgrep", "-af", str(vm.data)], capture_output=True, text=True, check=False)
    return found.stdout.splitlines()


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "never came true"
        time.sleep(0.1)
    return found


def test_without_any_provider(alone, tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in ("/usr/sbin", "/usr/bin"):
        for program in Path(folder).iterdir():
            if not program.name.startswith("qemu") and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    wanted = want("6.1-series")[1]
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(errors.MachineError, match="qemu-system-x86_64 and qemu-img not in PATH"):
        alone.bring_up(wanted)
    assert of(alone) == []


def test_an_owner_that_is_killed_while_the_vm_comes_up(alone):
    code = "from uffdlab.lab import Lab; Lab('6.1-series', machine='vagrant')"
    owner = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: [each for each in of(alone) if "qemu-system" in each])
    owner.kill()
    owner.wait()
    # Vagrant goes with its owner.  The VM stays, as one that was brought up does, and Vagrant knows of it.
    wait_for(lambda: len(of(alone)) == 1)
    assert "qemu-system" in of(alone)[0]
    assert alone.state() == "running"
    alone.destroy()
    assert of(alone) == []
    assert alone.state() == "not_created"


def test_a_qemu_that_is_killed(alone):
    lab = Lab("6.1-series", machine="vagrant")
    (qemu,) = [int(each.split()[0]) for each in of(alone) if "qemu-system" in each]
    os.kill(qemu, signal.SIGKILL)
    with pytest.raises(errors.MachineError):
        lab.call("agent.ping", deadline=90)
    lab.close()
    wait_for(lambda: of(alone) == [])
    assert alone.state() == "poweroff"
    with Lab("6.1-series", machine="vagrant") as lab:
        assert lab.release.endswith("-series-vagrant")
