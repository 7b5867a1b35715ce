"""Faults of a real VM that is up.  The tests of one provider share a VM."""

import contextlib
import json
import os
import signal
import subprocess

import pytest

from uffdlab import errors
from uffdlab.lab import Lab
from uffdlab.uapi.protocol.agent import Ping

pytestmark = pytest.mark.timeout(3600)
KERNEL = "6.1-series"


def assert_lab_works():
    with Lab(KERNEL, machine="vagrant") as lab:
        region = lab.map(pages=4)
        region.alias.fill()
        assert lab.cross_examine(region).agree
        assert lab.release.endswith("-series-vagrant")


@pytest.fixture(autouse=True)
def _up(vm):
    assert_lab_works()


def test_a_vm_of_another_box_version_is_refused(vm):
    (box_meta,) = (vm.data / "machines" / "default").glob("*/box_meta")
    before = box_meta.read_text()
    box_meta.write_text(json.dumps({**json.loads(before), "version": "12.1"}))
    try:
        with pytest.raises(errors.MachineError, match=r"from version 12\.1 of the box .* \(uffdlab vagrant destroy\)"):
            Lab(KERNEL, machine="vagrant")
    finally:
        box_meta.write_text(before)
    assert_lab_works()


def test_a_vm_without_ssh_is_booted_again(vm):
    booted = vm.boot_id()
    vm.guest("sudo systemctl stop ssh.service ssh.socket")
    status, output = vm.guest("true")
    assert (status, "Connection re" in output) == (255, True)  # reset, or refused
    assert_lab_works()  # boots the VM again, since it does not answer
    assert vm.boot_id() != booted


def test_a_changed_host_key_is_refused(vm):
    booted = vm.boot_id()
    change = "rm /etc/ssh/ssh_host_*; ssh-keygen -A; systemctl restart ssh"
    assert vm.guest(f'sudo sh -c "{change}"')[0] == 0
    with pytest.raises(errors.MachineError, match=r"host key is not the one .* remove .*known_hosts"):
        Lab(KERNEL, machine="vagrant")
    (vm.data / "known_hosts").unlink()
    assert_lab_works()
    assert vm.boot_id() == booted


def test_a_python_that_is_too_old_is_refused(vm):
    # Python imports this module at its start.  It makes Python report another version.
    old = "import sys; sys.version_info = (3, 9, 2, 'final', 0)"
    customize = "/usr/lib/python3/dist-packages/usercustomize.py"
    assert vm.guest(f'echo "{old}" | sudo tee {customize}; sudo rm -r /opt/uffdlab')[0] == 0
    try:
        with pytest.raises(errors.MachineError, match=r"python3 of this box is 3\.9\.2; the agent needs Python 3\.11"):
            Lab(KERNEL, machine="vagrant")
    finally:
        vm.guest(f"sudo rm {customize}")
    assert_lab_works()


@contextlib.contextmanager
def disconnected(vm):
    if vm.provider == "libvirt":
        arguments = ["virsh", "-q", "-c", "qemu:///system", "domiflist", f"{vm.prefix}default"]
        link = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()[0]
        subprocess.run(["ip", "link", "set", link, "down"], check=True)
        try:
            yield
        finally:
            subprocess.run(["ip", "link", "set", link, "up"], check=True)
        return
    (qemu,) = vm.qemu()  # a stopped QEMU passes nothing to the guest
    os.kill(qemu, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(qemu, signal.SIGCONT)


def test_a_lost_network_is_reported_and_ends_the_agent(vm, wait_for):
    booted = vm.boot_id()
    with Lab(KERNEL, machine="vagrant") as lab:
        agent = lab.machine.hello.pid
        with disconnected(vm):
            with pytest.raises(errors.MachineTimeout, match="hangs, or this host is too busy"):
                lab.ask(Ping(), deadline=2)
            with pytest.raises(errors.MachineLost, match="not responding"):
                lab.ask(Ping(), deadline=180)
    wait_for(lambda: vm.guest(f"test -d /proc/{agent}")[0] == 1)  # the agent in the guest has ended too
    assert_lab_works()
    assert vm.boot_id() == booted


def test_a_lab_can_be_reset_after_its_vm_was_killed(vm, wait_for):
    with Lab(KERNEL, machine="vagrant") as lab:
        region = lab.map(pages=4)
        (qemu,) = vm.qemu()
        os.kill(qemu, signal.SIGKILL)
        with pytest.raises(errors.MachineError):
            lab.ask(Ping(), deadline=120)
        wait_for(lambda: vm.processes() == [])
        assert vm.state() in {"poweroff", "shutoff"}
        lab.reset()
        with pytest.raises(errors.UffdlabError):
            region.snapshot()
        assert lab.map(pages=4).snapshot() is not None


def test_a_lab_can_be_reset_after_its_vm_was_halted(vm):
    with Lab(KERNEL, machine="vagrant") as lab:
        vm.run_vagrant("halt")
        with pytest.raises(errors.MachineLost, match="machine is gone: ssh ended with status"):
            lab.ask(Ping(), deadline=120)
        lab.reset()
        assert lab.ask(Ping(1)) == 1


def test_a_lab_can_be_reset_after_its_guest_crashed(vm):
    with Lab(KERNEL, machine="vagrant") as lab:
        vm.guest("sudo sh -c 'echo c >/proc/sysrq-trigger'", deadline=180)
        # under libvirt there is no console to read
        expected = errors.GuestPanic if vm.provider == "uffdlab_qemu" else errors.MachineError
        with pytest.raises(expected):
            lab.ask(Ping(), deadline=180)
        lab.reset()
        assert lab.ask(Ping(1)) == 1


def test_a_vm_that_another_program_created_again_is_used(vm):
    vm.run_vagrant("destroy", "--force")
    vm.run_vagrant("up")  # another disk, another host key, perhaps at the same address
    assert_lab_works()
