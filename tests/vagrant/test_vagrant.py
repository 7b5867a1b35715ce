"""A lab in a real Vagrant VM, with the libvirt provider and with our own.  The tests of one provider share a VM."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from uffdlab import errors
from uffdlab.lab import Lab
from uffdlab.scenarios import minor_wp
from uffdlab.uapi.protocol.agent import Ping

pytestmark = pytest.mark.timeout(3600)
KERNEL, OTHER = "6.1-series", "6.1-base"


def agent_has_ended(vm, seconds=60):
    # [a]: do not match the shell that runs this command
    until = time.monotonic() + seconds
    while (found := vm.guest("pgrep -fa '[a]gent.stdio'"))[0] == 0 and time.monotonic() < until:
        time.sleep(0.5)
    return found == (1, "")


def test_a_vm_is_created_and_booted(vm):
    assert vm.state() == "not_created"
    with Lab(KERNEL, machine="vagrant") as lab:
        assert lab.release.startswith("6.1.")
        assert lab.release.endswith("-series-vagrant")
        assert repr(lab) == f"<Lab {KERNEL}: Linux {lab.release} in vagrant>"
    assert vm.state() == "running"  # a Vagrant machine stays up


def test_the_kernel_witness_reads_the_scenario_minor_wp(vm):
    with Lab(KERNEL, machine="vagrant") as lab:
        assert lab.witnesses[0] == "kernel"
        result = minor_wp(lab)
        assert result.witness == "kernel"
        assert result.ok, [check for check in result.checks if not check.ok]
        region = lab.map(pages=16)
        region.alias.fill()
        assert lab.cross_examine(region).agree
        with pytest.raises(errors.WitnessError, match="cannot read the memory of this vagrant machine"):
            lab.walk(region.start)


def test_a_running_vm_is_used_as_it_is(vm):
    booted = (vm.data / "booted.json").read_text()
    with Lab(KERNEL, machine="vagrant") as first, Lab(KERNEL, machine="vagrant") as second:
        assert first.ask(Ping(1)) == second.ask(Ping(1)) == 1
        with pytest.raises(errors.MachineError, match=f"runs {KERNEL} for a lab that is open"):
            Lab(OTHER, machine="vagrant")
    assert (vm.data / "booted.json").read_text() == booted


def test_closing_a_lab_ends_its_agent(vm):
    with Lab(KERNEL, machine="vagrant") as lab:
        assert vm.guest(f"test -d /proc/{lab.machine.hello.pid}")[0] == 0
    assert agent_has_ended(vm)


def test_an_owner_that_is_killed_leaves_no_agent(vm):
    code = f"from uffdlab.lab import Lab; lab = Lab('{KERNEL}', machine='vagrant'); print('up', flush=True); input()"
    owner = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout.readline() == b"up\n"
    assert vm.guest("pgrep -f '[a]gent.stdio'")[0] == 0
    owner.kill()
    owner.communicate()
    assert agent_has_ended(vm)
    assert vm.state() == "running"


def test_a_killed_ssh_is_reported(vm):
    with Lab(KERNEL, machine="vagrant") as lab:
        pattern = f"^[^ ]*/ssh -F {vm.data}/ssh-config"  # does not match the supervisor
        ssh = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=True)
        os.kill(int(ssh.stdout), signal.SIGKILL)
        with pytest.raises(errors.MachineLost, match="ssh was killed by signal 9"):
            lab.ask(Ping())


def test_the_guest_cannot_reach_the_host(vm):
    """Mounts, the ssh port (on the loopback interface only), and a server on the host."""
    assert "/vagrant" not in vm.guest("cat /proc/mounts")[1]
    kinds = {line.split()[2] for line in vm.guest("cat /proc/mounts")[1].splitlines()}
    assert not kinds & {"9p", "virtiofs", "nfs", "nfs4", "cifs", "vboxsf"}
    config = (vm.data / "ssh-config").read_text()
    if vm.provider != "uffdlab_qemu":
        assert "HostName 192.168.197." in config  # a bridge of the host without any other network
        listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
        assert f"pid={vm.qemu()[0]}," not in listening  # QEMU forwards no port of the host
        return
    assert "HostName 127.0.0.1\n" in config
    pid = int((vm.data / "machines" / "default" / vm.provider / "qemu.pid").read_text())
    assert re.search(r"Max file size +4294967296 ", Path(f"/proc/{pid}/limits").read_text())
    assert "\nSeccomp:\t2\n" in Path(f"/proc/{pid}/status").read_text()
    port = next(line.split()[1] for line in config.splitlines() if line.strip().startswith("Port "))
    listening = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    assert {line.split()[3] for line in listening.splitlines()} == {f"127.0.0.1:{port}"}
    for address in _own_addresses():  # the addresses that another machine would use
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, int(port)), timeout=10)
    with socket.create_server(("0.0.0.0", 0)) as server:
        reached = []
        server.settimeout(60)
        waiting = threading.Thread(target=lambda: reached.append(_accepted(server)))
        waiting.start()
        port = server.getsockname()[1]
        status, _ = vm.guest(f"timeout 10 bash -c 'exec 3<>/dev/tcp/10.0.2.2/{port}'")
        assert status != 0
        socket.create_connection(("127.0.0.1", port)).close()  # the server works
        waiting.join()
        assert reached == ["127.0.0.1"]


def _own_addresses():
    shown = subprocess.run(["ip", "-4", "-j", "address"], capture_output=True, text=True, check=True).stdout
    found = [entry["local"] for link in json.loads(shown) for entry in link.get("addr_info", [])]
    return [address for address in found if not address.startswith("127.")]


def _accepted(server):
    connection, address = server.accept()
    connection.close()
    return address[0]


def test_vagrants_public_default_key_is_refused(vm):
    keys = subprocess.run(["find", "/usr/share/rubygems-integration", "-path", "*/keys/vagrant"],
                          capture_output=True, text=True, check=True).stdout.split()  # fmt: skip
    assert keys
    key = vm.data / "well-known"
    key.write_bytes(Path(keys[0]).read_bytes())
    key.chmod(0o600)  # ssh refuses a key that others can read
    lines = [line for line in (vm.data / "ssh-config").read_text().splitlines() if "File " not in line]
    config = vm.data / "well-known-config"
    config.write_text("\n".join([*lines, f"  IdentityFile {key}\n"]))
    options = ["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", f"UserKnownHostsFile={vm.data / 'known_hosts'}"]
    done = subprocess.run(["ssh", "-F", config, *options, "default", "true"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 255
    assert "Permission denied" in done.stderr


def test_a_lab_with_another_kernel_reloads_the_vm(vm):
    with Lab(OTHER, machine="vagrant") as lab:
        assert lab.release.endswith("-base-vagrant")
        region = lab.map(pages=4)
        region.alias.fill()
        uffd = lab.userfaultfd()
        uffd.register(region, "minor", "wp")
        with pytest.raises(errors.IoctlError, match="EINVAL"):
            uffd.continue_(region[0], wp=True)


def test_a_halted_vm_is_started(vm):
    vm.halt()
    assert vm.state() in {"poweroff", "shutoff"}
    with Lab(OTHER, machine="vagrant") as lab:
        assert lab.release.endswith("-base-vagrant")


def test_vagrant_forgets_a_destroyed_vm(vm):
    vm.destroy()
    assert vm.state() == "not_created"
    with pytest.raises(errors.MachineError):
        vm._vagrant("ssh-config")
