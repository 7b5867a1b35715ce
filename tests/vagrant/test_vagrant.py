"""A lab in a Vagrant VM, for real, under libvirt and with QEMU alone.  The tests of a provider share one VM."""

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


def no_agent_left(vm, seconds=60):
    # [a]: not the shell that runs this
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
    assert vm.state() == "running"  # it stays, as Vagrant's machines do


def test_the_kernel_witness_sees_the_experiment(vm):
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


def test_closing_leaves_nothing_in_the_guest(vm):
    with Lab(KERNEL, machine="vagrant") as lab:
        assert vm.guest(f"test -d /proc/{lab.machine.hello.pid}")[0] == 0
    assert no_agent_left(vm)


def test_an_owner_that_is_killed_leaves_no_agent(vm):
    code = f"from uffdlab.lab import Lab; lab = Lab('{KERNEL}', machine='vagrant'); print('up', flush=True); input()"
    owner = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert owner.stdout.readline() == b"up\n"
    assert vm.guest("pgrep -f '[a]gent.stdio'")[0] == 0
    owner.kill()
    owner.communicate()
    assert no_agent_left(vm)
    assert vm.state() == "running"


def test_a_killed_ssh_is_reported(vm):
    with Lab(KERNEL, machine="vagrant") as lab:
        pattern = f"^[^ ]*/ssh -F {vm.data}/ssh-config"  # not its supervisor
        ssh = subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True, check=True)
        os.kill(int(ssh.stdout), signal.SIGKILL)
        with pytest.raises(errors.MachineLost, match="ssh was killed by signal 9"):
            lab.ask(Ping())


def test_the_guest_cannot_reach_the_host(vm):
    """Nothing of the host is mounted; ssh is on the loopback alone; a server on the host is not reached."""
    assert "/vagrant" not in vm.guest("cat /proc/mounts")[1]
    kinds = {line.split()[2] for line in vm.guest("cat /proc/mounts")[1].splitlines()}
    assert not kinds & {"9p", "virtiofs", "nfs", "nfs4", "cifs", "vboxsf"}
    config = (vm.data / "ssh-config").read_text()
    if vm.provider != "uffdlab_qemu":
        assert "HostName 192.168.197." in config  # the host's own bridge, which leads nowhere
        listening = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
        assert f"pid={vm.qemu()[0]}," not in listening  # no port of the host leads in
        return
    assert "HostName 127.0.0.1\n" in config
    pid = int((vm.data / "machines" / "default" / vm.provider / "qemu.pid").read_text())
    assert re.search(r"Max file size +4294967296 ", Path(f"/proc/{pid}/limits").read_text())
    assert "\nSeccomp:\t2\n" in Path(f"/proc/{pid}/status").read_text()
    port = next(line.split()[1] for line in config.splitlines() if line.strip().startswith("Port "))
    listening = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    assert {line.split()[3] for line in listening.splitlines()} == {f"127.0.0.1:{port}"}
    for address in _own_addresses():  # as from another machine
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, int(port)), timeout=10)
    with socket.create_server(("0.0.0.0", 0)) as server:
        reached = []
        server.settimeout(60)
        waiting = threading.Thread(target=lambda: reached.append(_accepted(server)))
        waiting.start()
        at = server.getsockname()[1]
        status, _ = vm.guest(f"timeout 10 bash -c 'exec 3<>/dev/tcp/10.0.2.2/{at}'")
        assert status != 0
        socket.create_connection(("127.0.0.1", at)).close()  # the server does answer
        waiting.join()
        assert reached == ["127.0.0.1"]


def _own_addresses():
    shown = subprocess.run(["ip", "-4", "-j", "address"], capture_output=True, text=True, check=True).stdout
    found = [entry["local"] for link in json.loads(shown) for entry in link.get("addr_info", [])]
    return [each for each in found if not each.startswith("127.")]


def _accepted(server):
    connection, address = server.accept()
    connection.close()
    return address[0]


def test_vagrants_well_known_key_is_refused(vm):
    keys = subprocess.run(["find", "/usr/share/rubygems-integration", "-path", "*/keys/vagrant"],
                          capture_output=True, text=True, check=True).stdout.split()  # fmt: skip
    assert keys
    key = vm.data / "well-known"
    key.write_bytes(Path(keys[0]).read_bytes())
    key.chmod(0o600)  # else ssh does not take it
    lines = [line for line in (vm.data / "ssh-config").read_text().splitlines() if "File " not in line]
    config = vm.data / "well-known-config"
    config.write_text("\n".join([*lines, f"  IdentityFile {key}\n"]))
    options = ["-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", f"UserKnownHostsFile={vm.data / 'known_hosts'}"]
    done = subprocess.run(["ssh", "-F", config, *options, "default", "true"],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 255
    assert "Permission denied" in done.stderr


def test_another_kernel_is_a_reload(vm):
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
