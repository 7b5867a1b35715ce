"""What goes wrong before a VM is up, for real: no provider, interrupted, killed, two at once, a wrong kernel."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from uffdlab import errors, kernels
from uffdlab.lab import Lab
from uffdlab.machines.vagrant.machine import want

pytestmark = pytest.mark.timeout(3600)
UP = [sys.executable, "-m", "uffdlab", "vagrant", "up"]


@pytest.fixture
def start(alone):
    """Start what brings the VM up; it is killed before the VM is destroyed, should the test fail."""
    started = []

    def one():
        process = subprocess.Popen(UP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0)
        started.append(process)
        return process

    yield one
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def owner(alone, start, wait_for):
    """What brings the VM up, and has come as far as a QEMU that runs."""
    process = start()
    wait_for(alone.qemu, 600)
    return process


def path_without(name, folder):
    """A PATH with the system's programs but for those whose names begin so."""
    folder.mkdir()
    for place in ("/usr/sbin", "/usr/bin"):
        for program in Path(place).iterdir():
            if not program.name.startswith(name) and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program)
    return str(folder)


def test_without_vagrant(tmp_path, monkeypatch):
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path / "vagrant"))
    monkeypatch.setenv("PATH", path_without("vagrant", tmp_path / "bin"))
    expected = "vagrant is not in PATH; install it: .*/vm/install-packages vagrant"
    with pytest.raises(errors.HostUnsupported, match=f"^{expected}$"):
        Lab("6.1-series", machine="vagrant")
    for command in ("up", "status", "halt", "destroy"):
        done = subprocess.run([*UP[:-1], command], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (125, "", f"{expected}\n")
    assert not (tmp_path / "vagrant").exists()


@pytest.mark.parametrize("alone", ["uffdlab_qemu"], indirect=True)
def test_without_any_provider(alone, tmp_path, monkeypatch):
    wanted = want("6.1-series")[1]
    monkeypatch.setenv("PATH", path_without("qemu", tmp_path / "bin"))
    with pytest.raises(errors.MachineError, match="qemu-system-x86_64 and qemu-img not in PATH"):
        alone.bring_up(wanted)
    assert alone.left() == []


@pytest.mark.parametrize("alone", ["libvirt"], indirect=True)
def test_a_libvirt_that_is_not_running(alone, monkeypatch):
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "qemu+unix:///system?socket=/run/uffdlab-no-such-socket")
    with pytest.raises(errors.MachineError, match=r"(?s)vagrant \S+ .*ended with status.*No such file or directory"):
        Lab("6.1-series", machine="vagrant")
    assert alone.left() == []


def test_ctrl_c_while_it_comes_up(alone, owner):
    os.killpg(owner.pid, signal.SIGINT)
    output, _ = owner.communicate(timeout=300)
    assert owner.returncode == 130, output
    assert "interrupted: cleaning up" in output
    assert output.endswith("uffdlab: stopped\n")
    assert alone.left() == []
    assert alone.state() == "not_created"


def test_an_owner_that_is_killed_while_it_comes_up(alone, owner):
    owner.kill()
    owner.communicate()
    alone.halt()  # waits for Vagrant, which gets a signal from its supervisor and cleans up
    assert alone.left() == []
    assert alone.state() == "not_created"


def test_a_killed_vagrant_leaves_a_usable_vm(alone, owner):
    running = [each.split() for each in alone.processes()]
    (vagrant,) = [int(pid) for pid, program, *arguments in running if program.endswith("ruby") and "up" in arguments]
    os.kill(vagrant, signal.SIGKILL)
    output, _ = owner.communicate(timeout=60)
    assert owner.returncode == 125
    assert "vagrant up --provision ended with status -9" in output
    assert alone.state() == "running"  # a VM without a package, of which Vagrant knows
    with Lab("6.1-series", machine="vagrant") as lab:
        assert lab.release.endswith("-series-vagrant")
    alone.destroy()
    assert alone.left() == []


def test_two_labs_at_once_boot_one_vm(alone, start):
    owners = [start() for _ in range(2)]
    output = [owner.communicate(timeout=1800)[0] for owner in owners]
    assert [owner.returncode for owner in owners] == [0, 0], output
    assert sorted("vagrant up\n" in each for each in output) == [False, True]
    assert all("the VM runs 6.1-series" in each for each in output)
    assert len(alone.qemu()) == 1


@pytest.mark.parametrize("alone", ["uffdlab_qemu"], indirect=True)
def test_a_kernel_that_does_not_find_the_disk(alone):
    image = kernels.get("6.1-series").image  # for guests without disks
    with pytest.raises(errors.MachineError, match=r"(?s)vagrant up.*Kernel panic - not syncing"):
        Lab(image, machine="vagrant")
    assert alone.left() == []
    assert alone.state() == "not_created"
