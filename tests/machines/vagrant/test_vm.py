"""The VM of a Vagrantfile, with scripts in place of vagrant and ssh; tests/vagrant has the real ones."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from uffdlab import errors
from uffdlab.machines import clock
from uffdlab.machines.vagrant.machine import pack_agent, start, want
from uffdlab.machines.vagrant.vm import VagrantVm
from uffdlab.uapi.protocol.agent import Ping

from ..vagrants import WANTED, bring_up


def test_a_running_vm_is_not_brought_up_again(vagrant):
    bring_up(vagrant.vm)
    assert vagrant.commands() == ["up --provision"]
    assert json.loads((vagrant.folder / "vm" / ".vagrant" / "lab.json").read_text())["kernel"] == WANTED.kernel
    bring_up(VagrantVm(vagrant.folder / "vm"))
    assert vagrant.commands() == []
    assert vagrant.vm.kernel_name == "6.1-series"


@pytest.mark.parametrize(
    "change", [{"kernel_key": "b" * 64}, {"memory_mib": 2048}, {"cpus": 2}, {"accelerator": "kvm"}]
)
def test_another_kernel_or_machine_needs_a_boot(vagrant, change):
    bring_up(vagrant.vm)
    vagrant.commands()
    bring_up(vagrant.vm, replace(WANTED, **change))
    assert vagrant.commands() == ["reload --provision"]


def test_another_version_of_the_agent_needs_no_boot(vagrant):
    bring_up(vagrant.vm)
    vagrant.commands()
    bring_up(vagrant.vm, replace(WANTED, agent_key="4567"))
    assert vagrant.commands() == ["provision"]


def test_a_vm_booted_by_another_program_is_booted_again(vagrant):
    bring_up(vagrant.vm)
    vagrant.commands()
    vagrant.write("boot", "another")
    bring_up(vagrant.vm)
    assert vagrant.commands() == ["reload --provision"]


def test_a_halted_vm_is_started_and_a_destroyed_one_is_created(vagrant):
    bring_up(vagrant.vm)
    (vagrant.vm.data / "known_hosts").write_text("a key\n")
    vagrant.vm.halt()
    assert vagrant.vm.state() == "poweroff"
    bring_up(vagrant.vm)
    assert vagrant.commands() == ["up --provision", "halt", "up --provision"]
    assert (vagrant.vm.data / "known_hosts").exists()
    vagrant.vm.destroy()
    vagrant.vm.destroy()
    assert vagrant.commands() == ["destroy --force"] * 2
    assert vagrant.vm.kernel_name == ""
    assert not (vagrant.vm.data / "known_hosts").exists()  # the next VM has another host key


def test_a_vm_in_use_by_a_lab_is_refused_to_others(vagrant):
    labs = [vagrant.vm.bring_up(WANTED) for _ in range(2)]
    other = replace(WANTED, kernel_name="6.1-base", kernel_key="b" * 64)
    while labs:
        for call in (lambda: bring_up(vagrant.vm, other), vagrant.vm.halt, vagrant.vm.destroy):
            with pytest.raises(errors.MachineError, match=r"runs 6\.1-series for a lab that is open: close that to "):
                call()
        os.close(labs.pop())
    bring_up(vagrant.vm, other)
    assert vagrant.commands() == ["up --provision", "reload --provision"]


def test_a_killed_lab_releases_the_vm(vagrant):
    code = "import os, sys, time; os.close(0); print(flush=True); time.sleep(60)"
    in_use = vagrant.vm.bring_up(WANTED)
    owner = subprocess.Popen([sys.executable, "-c", code], pass_fds=[in_use], stdout=subprocess.PIPE)
    owner.stdout.readline()
    os.close(in_use)
    with pytest.raises(errors.MachineError, match="for a lab that is open"):
        vagrant.vm.halt()
    owner.kill()
    owner.communicate()
    vagrant.vm.halt()


def test_a_vm_that_runs_another_kernel_than_requested_is_an_error(vagrant):
    vagrant.write("release-next", "6.1.0-50-cloud-amd64")
    with pytest.raises(errors.MachineError, match=r"runs Linux 6\.1\.0-50-cloud-amd64, not 6\.1\.0-series"):
        bring_up(vagrant.vm)
    vagrant.write("release-next", "6.1.0-series")
    bring_up(vagrant.vm)
    assert vagrant.commands() == ["up --provision", "reload --provision"]


def test_the_output_of_vagrant_is_in_the_error(vagrant):
    vagrant.write("fail-up")
    with pytest.raises(errors.MachineError, match=r"vagrant up --provision ended with status 3") as caught:
        bring_up(vagrant.vm)
    assert str(caught.value).endswith("no luck\nwith it")
    assert "no luck" in (vagrant.vm.data / "vagrant.log").read_text()


def test_the_backtrace_of_ruby_is_not_in_the_error(vagrant):
    steps = "".join(f"\tfrom /usr/lib/ruby/warden.rb:{line}:in `call'\n" for line in range(60))
    vagrant.write("fail-up", f"vm_action.rb:7:in `create': could not open the disk (Libvirt::Error)\n{steps}")
    with pytest.raises(errors.MachineError) as caught:
        bring_up(vagrant.vm)
    assert str(caught.value).endswith("with it\nvm_action.rb:7:in `create': could not open the disk (Libvirt::Error)")
    assert "warden.rb:59" in (vagrant.vm.data / "vagrant.log").read_text()


def test_the_last_lines_of_the_console_are_in_the_error(vagrant):
    machine = vagrant.vm.data / "machines" / "default" / "uffdlab_qemu"
    machine.mkdir(parents=True)
    (machine / "console.log").write_bytes(b"\xff\n" * 300_000 + b"Kernel panic - not syncing: no init found\r\n")
    vagrant.write("fail-up")
    with pytest.raises(errors.MachineError) as caught:
        bring_up(vagrant.vm)
    assert caught.value.console.endswith("\nKernel panic - not syncing: no init found")
    assert len(vagrant.vm.console()) == 256 << 10


def test_a_changed_host_key_is_an_error_and_not_a_reason_to_boot(vagrant):
    bring_up(vagrant.vm)
    vagrant.commands()
    vagrant.write("fail-ssh", "@  WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!  @")
    with pytest.raises(errors.MachineError, match=r"host key is not the one .* remove \S+/known_hosts; if not, make"):
        bring_up(vagrant.vm)
    assert vagrant.commands() == []


def test_a_failed_ssh_login_is_reported_after_another_boot(vagrant):
    bring_up(vagrant.vm)
    vagrant.commands()
    vagrant.write("fail-ssh", "ssh: connect to host 127.0.0.1 port 2222: Connection refused")
    with pytest.raises(
        errors.MachineError, match=r"started the VM, but ssh does not connect: .*Connection refused; see"
    ):
        bring_up(vagrant.vm)
    assert vagrant.commands() == ["halt --force", "up --provision"]  # the VM did not answer, so it was booted again


def test_the_host_key_belongs_to_the_vm(vagrant):
    assert "HostKeyAlias=vagrant-none" in vagrant.vm.ssh()
    machine = vagrant.vm.data / "machines" / "default" / "libvirt"
    machine.mkdir(parents=True)
    (machine / "id").write_text("36d64b09\n")
    assert "HostKeyAlias=vagrant-36d64b09" in vagrant.vm.ssh()


@pytest.fixture
def owner(vagrant):
    """Another process that brings the VM up; its vagrant hangs already."""
    vagrant.write("hang-up")
    code = (
        "import sys; from pathlib import Path; from tests.machines.vagrants import WANTED\n"
        "from uffdlab.machines.vagrant.vm import VagrantVm; VagrantVm(Path(sys.argv[1])).bring_up(WANTED, print)"
    )
    with subprocess.Popen(
        [sys.executable, "-uc", code, vagrant.folder / "vm"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "vagrant up\n"
        while not vagrant.commands():
            time.sleep(0.05)
        yield process
        process.kill()


def test_after_ctrl_c_vagrant_has_time_to_clean_up(vagrant, owner):
    owner.send_signal(signal.SIGINT)
    output, traceback = owner.communicate(timeout=30)
    assert output == "interrupted: cleaning up\n"
    assert traceback.rstrip().endswith("KeyboardInterrupt")
    assert vagrant.commands() == ["interrupted"]


def test_the_remains_of_a_killed_vagrant_are_removed_first(vagrant, owner):
    owner.kill()
    (vagrant.folder / "files" / "hang-up").unlink()
    bring_up(vagrant.vm)
    assert vagrant.commands() == ["interrupted", "up --provision"]


def test_a_vagrant_that_hangs_is_ended(vagrant, monkeypatch):
    monkeypatch.setattr("uffdlab.machines.vagrant.vm._UP", 0.5)
    vagrant.write("hang-up")
    with pytest.raises(errors.MachineTimeout, match="vagrant up --provision had not finished after 0 s"):
        vagrant.vm._vagrant("up", "--provision", deadline=0.4)
    until = time.monotonic() + 30  # processes that the script has killed may need time to end
    while remaining := [path for path in Path("/proc").glob("[0-9]*/environ") if _mentions(path, vagrant.vm.data)]:
        assert time.monotonic() < until, remaining
        time.sleep(0.1)


def _mentions(environ, folder):
    try:
        return f"VAGRANT_DOTFILE_PATH={folder}".encode() in environ.read_bytes()
    except OSError:
        return False


@pytest.mark.parametrize("program", ["vagrant", "ssh"])
def test_a_missing_vagrant_or_ssh_is_reported(vagrant, monkeypatch, program):
    (vagrant.folder / "bin" / program).unlink()
    monkeypatch.setenv("PATH", str(vagrant.folder / "bin"))
    with pytest.raises(
        errors.HostUnsupported, match=f"{program} is not in PATH; install it: .*/vm/install-packages vagrant"
    ) as caught:
        VagrantVm(vagrant.folder / "vm")
    assert caught.value.missing == program


def test_a_folder_without_a_vagrantfile_is_refused(tmp_path):
    with pytest.raises(errors.HostUnsupported, match="Vagrantfile is not there: install uffdlab again"):
        VagrantVm(tmp_path)


@pytest.fixture
def local_vm(vagrant, monkeypatch):
    """A VM whose guest is this host: ssh runs the agent here, with the Python of the tests."""
    vagrant.program("bin/python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    monkeypatch.setattr("uffdlab.machines.vagrant.machine.want", lambda _kernel, **_options: ("6.1-series", WANTED))
    return vagrant.vm


def test_closing_the_agent_releases_the_vm(local_vm):
    name, machine = start("6.1-series", vm=local_vm)
    assert name == "6.1-series"
    assert machine.ask(Ping(7)) == 7
    assert machine.physical is None
    child = os.fork()  # it inherits the descriptor of the lock, and must not hold the lock
    if child == 0:
        time.sleep(30)
        os._exit(0)
    with pytest.raises(errors.MachineError, match="for a lab that is open"):
        local_vm.halt()
    machine.close()
    machine.close()
    local_vm.halt()
    os.kill(child, 9)
    os.waitpid(child, 0)


def test_only_long_steps_show_progress(local_vm, capfd):
    for _ in range(2):
        start("6.1-series", vm=local_vm)[1].close()
    first, last = capfd.readouterr().err.splitlines()
    assert first == "6.1-series: vagrant up"
    assert re.fullmatch(r"6\.1-series: Linux \S+ runs in the VM, \d+ s", last)


def test_an_unreachable_machine_releases_the_vm(local_vm):
    _name, machine = start("6.1-series", vm=local_vm)
    del machine
    local_vm.halt()


def test_a_clock_at_another_rate_is_reported(local_vm, monkeypatch):
    monkeypatch.setattr(clock, "rate", lambda _ask: 39.2)
    with pytest.raises(errors.MachineError, match=r"clock runs 39\.2 times as fast as the host's, .* vagrant halt"):
        start("6.1-series", vm=local_vm)
    local_vm.halt()


@pytest.mark.parametrize("name", ["debian/trixie", "6.1-series+debug"])
def test_a_kernel_without_the_drivers_for_the_vm_is_refused(name):
    with pytest.raises(errors.KernelError, match=r"cannot be built with the drivers .* choose 6\.1-base, "):
        want(name)
    with pytest.raises(errors.UnknownKernel, match=r"no kernel is called '6\.1-serie': did you mean 6\.1-series"):
        want("6.1-serie")


@pytest.mark.parametrize("options", [{"cpus": 0}, {"memory_mib": 128}])
def test_too_few_cpus_or_too_little_memory_for_debian_is_refused(local_vm, options):
    with pytest.raises(errors.UsageError, match="a Debian needs at least one CPU and 256 MiB"):
        start("6.1-series", vm=local_vm, **options)


def test_state_files_are_readable_by_their_owner_only(vagrant):
    bring_up(vagrant.vm)
    assert stat.S_IMODE(vagrant.vm.data.stat().st_mode) == 0o700


def test_the_same_package_gives_the_same_archive(vagrant):
    path, key = pack_agent()
    assert pack_agent() == (path, key)
    time.sleep(0.01)
    os.utime(Path(sys.modules["uffdlab"].__file__))
    assert pack_agent() == (path, key)
    listed = subprocess.run(["tar", "-tf", path], capture_output=True, text=True, check=True).stdout.splitlines()
    assert {"uffdlab/__init__.py", "uffdlab/agent/server.py", "uffdlab/agent/_native.abi3.so"} <= set(listed)
    assert not [name for name in listed if "__pycache__" in name]
    folder = "host_modules/"
    bundled = {name.removeprefix(folder).partition(".")[0] for name in listed if name.startswith(folder)}
    assert {"msgpack/__init__", "msgpack/fallback", "_cffi_backend"} <= bundled
