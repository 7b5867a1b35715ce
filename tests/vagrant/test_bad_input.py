"""Errors before a real VM is up: no provider, interrupted, killed, two at once, a wrong kernel."""

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
def start(own_vm):
    """Return a function that starts `vagrant up` in a process.  The process is killed before the VM is destroyed."""
    started = []

    def start_process():
        process = subprocess.Popen(UP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0)
        started.append(process)
        return process

    yield start_process
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def owner(own_vm, start, wait_for):
    """The process that brings the VM up, at a time when QEMU already runs."""
    process = start()
    wait_for(own_vm.qemu, 600)
    return process


def path_without(name, folder):
    """Return a PATH with the system's programs, except those whose names begin with `name`."""
    folder.mkdir()
    for place in ("/usr/sbin", "/usr/bin"):
        for program in Path(place).iterdir():
            if not program.name.startswith(name) and not (folder / program.name).exists():
                (folder / program.name).symlink_to(program)
    return str(folder)


def test_without_vagrant_each_command_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setenv("VAGRANT_DOTFILE_PATH", str(tmp_path / "vagrant"))
    monkeypatch.setenv("PATH", path_without("vagrant", tmp_path / "bin"))
    expected = "vagrant is not in PATH; install it: .*/vm/install-packages vagrant"
    with pytest.raises(errors.HostUnsupported, match=f"^{expected}$"):
        Lab("6.1-series", machine="vagrant")
    for command in ("up", "status", "halt", "destroy"):
        done = subprocess.run([*UP[:-1], command], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (125, "", f"{expected}\n")
    assert not (tmp_path / "vagrant").exists()


@pytest.mark.parametrize("own_vm", ["uffdlab_qemu"], indirect=True)
def test_without_qemu_the_error_names_the_missing_programs(own_vm, tmp_path, monkeypatch):
    wanted = want("6.1-series")[1]
    monkeypatch.setenv("PATH", path_without("qemu", tmp_path / "bin"))
    with pytest.raises(errors.MachineError, match="qemu-system-x86_64 and qemu-img not in PATH"):
        own_vm.bring_up(wanted)
    assert own_vm.host_resources() == []


@pytest.mark.parametrize("own_vm", ["libvirt"], indirect=True)
def test_a_libvirt_that_is_not_running_is_an_error(own_vm, monkeypatch):
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "qemu+unix:///system?socket=/run/uffdlab-no-such-socket")
    with pytest.raises(errors.MachineError, match=r"(?s)vagrant \S+ .*ended with status.*No such file or directory"):
        Lab("6.1-series", machine="vagrant")
    assert own_vm.host_resources() == []


def test_ctrl_c_while_the_vm_comes_up_leaves_nothing(own_vm, owner):
    os.killpg(owner.pid, signal.SIGINT)
    output, _ = owner.communicate(timeout=300)
    assert owner.returncode == 130, output
    assert "interrupted: cleaning up" in output
    assert output.endswith("uffdlab: stopped\n")
    assert own_vm.host_resources() == []
    assert own_vm.state() == "not_created"


def test_an_owner_killed_while_the_vm_comes_up_leaves_nothing(own_vm, owner):
    owner.kill()
    owner.communicate()
    own_vm.halt()  # waits for Vagrant, which gets a signal from its supervisor and cleans up
    assert own_vm.host_resources() == []
    assert own_vm.state() == "not_created"


def test_a_killed_vagrant_leaves_a_usable_vm(own_vm, owner):
    running = [line.split() for line in own_vm.processes()]
    (vagrant,) = [int(pid) for pid, program, *arguments in running if program.endswith("ruby") and "up" in arguments]
    os.kill(vagrant, signal.SIGKILL)
    output, _ = owner.communicate(timeout=60)
    assert owner.returncode == 125
    assert "vagrant up --provision ended with status -9" in output
    assert own_vm.state() == "running"  # Vagrant knows the VM; our packages are not installed in it
    with Lab("6.1-series", machine="vagrant") as lab:
        assert lab.release.endswith("-series-vagrant")
    own_vm.destroy()
    assert own_vm.host_resources() == []


def test_two_labs_at_once_boot_one_vm(own_vm, start):
    owners = [start() for _ in range(2)]
    output = [owner.communicate(timeout=1800)[0] for owner in owners]
    assert [owner.returncode for owner in owners] == [0, 0], output
    assert sorted("vagrant up\n" in text for text in output) == [False, True]
    assert all("the VM runs 6.1-series" in text for text in output)
    assert len(own_vm.qemu()) == 1


@pytest.mark.parametrize("own_vm", ["uffdlab_qemu"], indirect=True)
def test_a_kernel_without_a_disk_driver_is_an_error(own_vm):
    image = kernels.get("6.1-series").image  # for guests without disks
    with pytest.raises(errors.MachineError, match=r"(?s)vagrant up.*Kernel panic - not syncing"):
        Lab(image, machine="vagrant")
    assert own_vm.host_resources() == []
    assert own_vm.state() == "not_created"
