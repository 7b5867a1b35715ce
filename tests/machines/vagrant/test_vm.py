"""The VM of a Vagrantfile, with a vagrant and an ssh that only take notes; tests/vagrant has the real ones."""

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


def test_brought_up_once_and_found_running_after_that(world):
    bring_up(world.vm)
    assert world.notes() == ["up --provision"]
    assert json.loads((world.folder / "vm" / ".vagrant" / "lab.json").read_text())["kernel"] == WANTED.kernel
    bring_up(VagrantVm(world.folder / "vm"))
    assert world.notes() == []
    assert world.vm.kernel_name == "6.1-series"


@pytest.mark.parametrize(
    "change", [{"kernel_key": "b" * 64}, {"memory_mib": 2048}, {"cpus": 2}, {"accelerator": "kvm"}]
)
def test_what_a_boot_is_needed_for(world, change):
    bring_up(world.vm)
    world.notes()
    bring_up(world.vm, replace(WANTED, **change))
    assert world.notes() == ["reload --provision"]


def test_another_package_needs_no_boot(world):
    bring_up(world.vm)
    world.notes()
    bring_up(world.vm, replace(WANTED, agent_key="4567"))
    assert world.notes() == ["provision"]


def test_a_vm_booted_by_another_program_is_booted_again(world):
    bring_up(world.vm)
    world.notes()
    world.put("boot", "another")
    bring_up(world.vm)
    assert world.notes() == ["reload --provision"]


def test_a_halted_vm_is_started_and_a_destroyed_one_is_created(world):
    bring_up(world.vm)
    (world.vm.data / "known_hosts").write_text("a key\n")
    world.vm.halt()
    assert world.vm.state() == "poweroff"
    bring_up(world.vm)
    assert world.notes() == ["up --provision", "halt", "up --provision"]
    assert (world.vm.data / "known_hosts").exists()
    world.vm.destroy()
    world.vm.destroy()
    assert world.notes() == ["destroy --force"] * 2
    assert world.vm.kernel_name == ""
    assert not (world.vm.data / "known_hosts").exists()  # the next one has a key of its own


def test_a_vm_in_use_by_a_lab_is_refused_to_others(world):
    labs = [world.vm.bring_up(WANTED) for _ in range(2)]
    other = replace(WANTED, kernel_name="6.1-base", kernel_key="b" * 64)
    while labs:
        for act in (lambda: bring_up(world.vm, other), world.vm.halt, world.vm.destroy):
            with pytest.raises(errors.MachineError, match=r"runs 6\.1-series for a lab that is open: close that to "):
                act()
        os.close(labs.pop())
    bring_up(world.vm, other)
    assert world.notes() == ["up --provision", "reload --provision"]


def test_a_killed_lab_releases_the_vm(world):
    code = "import os, sys, time; os.close(0); print(flush=True); time.sleep(60)"
    in_use = world.vm.bring_up(WANTED)
    owner = subprocess.Popen([sys.executable, "-c", code], pass_fds=[in_use], stdout=subprocess.PIPE)
    owner.stdout.readline()
    os.close(in_use)
    with pytest.raises(errors.MachineError, match="for a lab that is open"):
        world.vm.halt()
    owner.kill()
    owner.communicate()
    world.vm.halt()


def test_the_kernel_that_came_up_must_be_the_one_that_was_asked_for(world):
    world.put("release-next", "6.1.0-50-cloud-amd64")
    with pytest.raises(errors.MachineError, match=r"runs Linux 6\.1\.0-50-cloud-amd64, not 6\.1\.0-series"):
        bring_up(world.vm)
    world.put("release-next", "6.1.0-series")
    bring_up(world.vm)
    assert world.notes() == ["up --provision", "reload --provision"]


def test_the_output_of_vagrant_is_in_the_error(world):
    world.put("fail-up")
    with pytest.raises(errors.MachineError, match=r"vagrant up --provision ended with status 3") as caught:
        bring_up(world.vm)
    assert str(caught.value).endswith("no luck\nwith it")
    assert "no luck" in (world.vm.data / "vagrant.log").read_text()


def test_the_backtrace_of_ruby_is_not_in_the_error(world):
    steps = "".join(f"\tfrom /usr/lib/ruby/warden.rb:{line}:in `call'\n" for line in range(60))
    world.put("fail-up", f"vm_action.rb:7:in `create': could not open the disk (Libvirt::Error)\n{steps}")
    with pytest.raises(errors.MachineError) as caught:
        bring_up(world.vm)
    assert str(caught.value).endswith("with it\nvm_action.rb:7:in `create': could not open the disk (Libvirt::Error)")
    assert "warden.rb:59" in (world.vm.data / "vagrant.log").read_text()


def test_the_last_lines_of_the_console_are_in_the_error(world):
    machine = world.vm.data / "machines" / "default" / "uffdlab_qemu"
    machine.mkdir(parents=True)
    (machine / "console.log").write_bytes(b"\xff\n" * 300_000 + b"Kernel panic - not syncing: no init found\r\n")
    world.put("fail-up")
    with pytest.raises(errors.MachineError) as caught:
        bring_up(world.vm)
    assert caught.value.console.endswith("\nKernel panic - not syncing: no init found")
    assert len(world.vm.console()) == 256 << 10


def test_a_host_key_that_has_changed_is_no_reason_to_boot(world):
    bring_up(world.vm)
    world.notes()
    world.put("fail-ssh", "@  WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!  @")
    with pytest.raises(errors.MachineError, match=r"host key is not the one .* remove \S+/known_hosts; if not, make"):
        bring_up(world.vm)
    assert world.notes() == []


def test_an_ssh_login_that_fails(world):
    bring_up(world.vm)
    world.notes()
    world.put("fail-ssh", "ssh: connect to host 127.0.0.1 port 2222: Connection refused")
    with pytest.raises(
        errors.MachineError, match=r"started the VM, but ssh does not connect: .*Connection refused; see"
    ):
        bring_up(world.vm)
    assert world.notes() == ["halt --force", "up --provision"]  # it was taken for dead


def test_the_host_key_belongs_to_the_vm(world):
    assert "HostKeyAlias=vagrant-none" in world.vm.ssh()
    machine = world.vm.data / "machines" / "default" / "libvirt"
    machine.mkdir(parents=True)
    (machine / "id").write_text("36d64b09\n")
    assert "HostKeyAlias=vagrant-36d64b09" in world.vm.ssh()


@pytest.fixture
def owner(world):
    """Another process that brings it up, with a vagrant that hangs by now."""
    world.put("hang-up")
    code = (
        "import sys; from pathlib import Path; from tests.machines.vagrants import WANTED\n"
        "from uffdlab.machines.vagrant.vm import VagrantVm; VagrantVm(Path(sys.argv[1])).bring_up(WANTED, print)"
    )
    with subprocess.Popen(
        [sys.executable, "-uc", code, world.folder / "vm"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "vagrant up\n"
        while not world.notes():
            time.sleep(0.05)
        yield process
        process.kill()


def test_after_ctrl_c_vagrant_may_clean_up(world, owner):
    owner.send_signal(signal.SIGINT)
    output, complaint = owner.communicate(timeout=30)
    assert output == "interrupted: cleaning up\n"
    assert complaint.rstrip().endswith("KeyboardInterrupt")
    assert world.notes() == ["interrupted"]


def test_the_remains_of_a_killed_vagrant_are_removed_first(world, owner):
    owner.kill()
    (world.folder / "world" / "hang-up").unlink()
    bring_up(world.vm)
    assert world.notes() == ["interrupted", "up --provision"]


def test_a_vagrant_that_hangs_is_ended(world, monkeypatch):
    monkeypatch.setattr("uffdlab.machines.vagrant.vm._UP", 0.5)
    world.put("hang-up")
    with pytest.raises(errors.MachineTimeout, match="vagrant up --provision had not finished after 0 s"):
        world.vm._vagrant("up", "--provision", deadline=0.4)
    until = time.monotonic() + 30  # what the stand-in has killed may still be on its way out
    while left := [path for path in Path("/proc").glob("[0-9]*/environ") if _mentions(path, world.vm.data)]:
        assert time.monotonic() < until, left
        time.sleep(0.1)


def _mentions(environ, folder):
    try:
        return f"VAGRANT_DOTFILE_PATH={folder}".encode() in environ.read_bytes()
    except OSError:
        return False


@pytest.mark.parametrize("program", ["vagrant", "ssh"])
def test_without_vagrant_or_ssh(world, monkeypatch, program):
    (world.folder / "bin" / program).unlink()
    monkeypatch.setenv("PATH", str(world.folder / "bin"))
    with pytest.raises(
        errors.HostUnsupported, match=f"{program} is not in PATH; install it: .*/vm/install-packages vagrant"
    ) as caught:
        VagrantVm(world.folder / "vm")
    assert caught.value.missing == program


def test_a_folder_without_a_vagrantfile(tmp_path):
    with pytest.raises(errors.HostUnsupported, match="Vagrantfile is not there: install uffdlab again"):
        VagrantVm(tmp_path)


@pytest.fixture
def here(world, monkeypatch):
    """A guest that is this host: ssh runs the agent itself, with the Python of the tests."""
    world.program("bin/python3", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    monkeypatch.setattr("uffdlab.machines.vagrant.machine.want", lambda _kernel, **_options: ("6.1-series", WANTED))
    return world.vm


def test_closing_the_agent_releases_the_vm(here):
    name, machine = start("6.1-series", vm=here)
    assert name == "6.1-series"
    assert machine.ask(Ping(7)) == 7
    assert machine.physical is None
    child = os.fork()  # has the lock's descriptor too, and must not keep it
    if child == 0:
        time.sleep(30)
        os._exit(0)
    with pytest.raises(errors.MachineError, match="for a lab that is open"):
        here.halt()
    machine.close()
    machine.close()
    here.halt()
    os.kill(child, 9)
    os.waitpid(child, 0)


def test_only_long_steps_show_progress(here, capfd):
    for _ in range(2):
        start("6.1-series", vm=here)[1].close()
    first, last = capfd.readouterr().err.splitlines()
    assert first == "6.1-series: vagrant up"
    assert re.fullmatch(r"6\.1-series: Linux \S+ runs in the VM, \d+ s", last)


def test_an_unreachable_machine_releases_the_vm(here):
    _name, machine = start("6.1-series", vm=here)
    del machine
    here.halt()


def test_a_clock_that_runs_wrong_is_reported(here, monkeypatch):
    monkeypatch.setattr(clock, "rate", lambda _ask: 39.2)
    with pytest.raises(errors.MachineError, match=r"clock runs 39\.2 times as fast as the host's, .* vagrant halt"):
        start("6.1-series", vm=here)
    here.halt()


@pytest.mark.parametrize("name", ["debian/trixie", "6.1-series+debug"])
def test_a_kernel_without_the_drivers_for_the_vm(name):
    with pytest.raises(errors.KernelError, match=r"cannot be built with the drivers .* choose 6\.1-base, "):
        want(name)
    with pytest.raises(errors.UnknownKernel, match=r"no kernel is called '6\.1-serie': did you mean 6\.1-series"):
        want("6.1-serie")


@pytest.mark.parametrize("options", [{"cpus": 0}, {"memory_mib": 128}])
def test_too_little_memory_for_debian(here, options):
    with pytest.raises(errors.UsageError, match="a Debian needs at least one CPU and 256 MiB"):
        start("6.1-series", vm=here, **options)


def test_state_files_are_readable_by_their_owner_only(world):
    bring_up(world.vm)
    assert stat.S_IMODE(world.vm.data.stat().st_mode) == 0o700


def test_the_same_package_gives_the_same_archive(world):
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
