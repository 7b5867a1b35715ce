"""Each line of `uffdlab doctor`, on a host that has the thing, lacks it, or has it broken."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from tests.other_user import NOBODY, as_another_user, open_folder
from uffdlab import doctor
from uffdlab.cli.main import main
from uffdlab.doctor import kernels_here, machines_here, python_here, room, sources_here
from uffdlab.doctor.line import State
from uffdlab.kernels import apt
from uffdlab.kernels.images import Finished, Images, Kernel
from uffdlab.machines.qemu import accelerator

QEMU = "qemu-system-x86_64"
DEBIAN = {"ID": "debian", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}
FEDORA = {"ID": "fedora", "PRETTY_NAME": "Fedora Linux 41"}


@pytest.fixture(autouse=True)
def _debian(monkeypatch):
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: DEBIAN)


def check(function):
    line = function("x")
    assert line.name == "x"
    assert line.found
    assert (line.state is State.OK) <= (not line.todo)
    return line.state, line.found, line.todo


def a_kernel(folder):
    made = folder.parent / "made"
    made.mkdir(parents=True)
    (made / "vmlinux").write_bytes(b"x")
    return Images(folder).publish(made, Finished(Kernel("mine", made / "vmlinux", "6.1", "ab" * 32), imported=True))


# --- Python, Jupyter


def test_python_is_this_one():
    assert check(python_here.python) == (State.OK, f"{platform.python_version()}, {sys.executable}", "")


def test_native_parts_that_cannot_be_loaded_are_missing(monkeypatch):
    monkeypatch.setattr(python_here, "_EXTENSIONS", ("uffdlab.bulk.none",))
    state, found, todo = check(python_here.python)
    assert (state, todo) == (State.MISSING, "install uffdlab again for this Python")
    assert "uffdlab.bulk.none cannot be loaded" in found


def test_a_python_that_is_too_old_is_missing(monkeypatch):
    monkeypatch.setattr(python_here, "_LEAST", (3, 99))
    assert check(python_here.python)[0] is State.MISSING


def test_notebooks_are_optional(monkeypatch):
    assert "jupyterlab" in check(python_here.jupyter)[1]

    def none(name):
        raise python_here.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(python_here.importlib.metadata, "version", none)
    state, _, todo = check(python_here.jupyter)
    assert (state, todo) == (State.OPTIONAL, f"{sys.executable} -m pip install jupyterlab")


# --- QEMU, KVM, busybox, Vagrant


def test_qemu_is_run(program):
    path = program(QEMU, "echo QEMU emulator version 8.2.2; echo more")
    assert check(machines_here.qemu) == (State.OK, f"QEMU emulator version 8.2.2, {path}", "")


def test_without_qemu_in_path_the_package_of_the_distribution_is_named(monkeypatch):
    assert check(machines_here.qemu)[::2] == (State.MISSING, "apt-get install qemu-system-x86")
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: FEDORA)
    assert check(machines_here.qemu)[2] == "dnf install qemu-system-x86-core"


def test_a_qemu_that_does_not_run_or_hangs_is_missing(program, monkeypatch):
    program(QEMU, "echo libc.so.6: not found; exit 127")
    state, found, _ = check(machines_here.qemu)
    assert state is State.MISSING
    assert "does not run (127): libc.so.6: not found" in found
    program(QEMU, "exec /bin/sleep 60")
    monkeypatch.setattr(machines_here, "_DEADLINE", 0.3)
    assert "did not end within 0 s" in check(machines_here.qemu)[1]


def kvm(monkeypatch, tmp_path, program, script):
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(accelerator, "DEVICE", device)
    if script:
        program(QEMU, script)
    return check(machines_here.kvm)


def test_kvm_is_ok_if_a_guest_runs(monkeypatch, tmp_path, program):
    script = f"exit {machines_here._STATUS}"
    assert kvm(monkeypatch, tmp_path, program, script) == (State.OK, "a guest of one instruction ran", "")


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 'failed to set MSR 0x10a' >&2; kill -ABRT $$", "QEMU ended with -6: failed to set MSR 0x10a"),
        ("exit 0", "QEMU ended with 0: "),
        ("exec /bin/sleep 60", "a guest under it had not run one instruction after 0 s"),
        ("", "without QEMU it is unknown whether a guest runs"),
    ],
)
def test_a_kvm_that_opens_but_runs_no_guest_is_told(monkeypatch, tmp_path, program, script, found):
    monkeypatch.setattr(machines_here, "_KVM_DEADLINE", 60.0 if "sleep" not in script else 0.3)
    state, text, todo = kvm(monkeypatch, tmp_path, program, script)
    assert state is State.OPTIONAL
    assert found in text
    assert text.endswith("guests run under emulation, several times slower")
    assert todo
    monkeypatch.setenv("UFFDLAB_ACCEL", "kvm")
    state, text, todo = check(machines_here.kvm)
    assert state is State.MISSING
    assert "unset UFFDLAB_ACCEL" in todo
    monkeypatch.setenv("UFFDLAB_ACCEL", "tcg")
    assert check(machines_here.kvm) == (State.OK, "not used: UFFDLAB_ACCEL is tcg", "")


def test_the_result_of_a_lab_is_told_until_the_next_boot(monkeypatch, tmp_path, program):
    script = f"exit {machines_here._STATUS}"
    kvm(monkeypatch, tmp_path, program, script)
    path = tmp_path / "cache" / "accel" / "verdict.json"
    path.parent.mkdir(parents=True)
    accelerator._remember(path, str(shutil.which(QEMU)), "tcg", "a guest under KVM sent nothing within 10 s")
    assert "a guest under KVM sent nothing within 10 s: guests run under emulation" in check(machines_here.kvm)[1]
    accelerator._remember(path, str(shutil.which(QEMU)), "kvm", "a guest answered")
    assert check(machines_here.kvm)[:2] == (State.OK, "a guest of uffdlab has run since this host started")


def test_no_kvm_and_one_of_another_user_are_told(monkeypatch, tmp_path):
    monkeypatch.setattr(accelerator, "DEVICE", tmp_path / "none")
    assert "none does not exist: guests run under emulation" in check(machines_here.kvm)[1]
    with open_folder() as folder:
        (folder / "kvm").touch(mode=0o600)
        monkeypatch.setattr(accelerator, "DEVICE", folder / "kvm")
        monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
        state, found, todo = as_another_user(check, machines_here.kvm)
    assert state is State.OPTIONAL
    assert "kvm cannot be opened by this user" in found
    assert "usermod -aG kvm" in todo


def test_busybox_and_vagrant_are_optional(program):
    for function, package in ((machines_here.busybox, "busybox-static"), (machines_here.vagrant, "vagrant")):
        assert check(function)[::2] == (State.OPTIONAL, f"apt-get install {package}")
    program("busybox", "echo BusyBox v1.35")
    program("vagrant", "exit 1")
    assert check(machines_here.busybox)[0] is State.OK
    assert check(machines_here.vagrant)[0] is State.OK


# --- memory, disk, folders


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("MemAvailable: 100000 kB\n", State.MISSING),
        ("MemTotal: 1 kB\nMemAvailable: 8000000 kB\n", State.OK),
        ("", State.OK),
    ],
)
def test_memory_must_suffice_for_a_guest(monkeypatch, tmp_path, text, state):
    (tmp_path / "meminfo").write_text(text)
    monkeypatch.setattr(room, "_MEMINFO", tmp_path / "meminfo")
    assert check(room.memory)[0] is state


@pytest.mark.parametrize(("free", "state"), [(10**8, State.MISSING), (10**9, State.OPTIONAL), (10**10, State.OK)])
def test_the_disk_must_suffice_for_a_kernel(monkeypatch, tmp_path, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    found = check(room.disk)
    assert found[0] is state
    assert str(tmp_path) in found[1]


def test_the_cache_folder_must_be_writable(tmp_path, monkeypatch):
    root = tmp_path / "cache"
    assert check(room.cache) == (State.OK, f"{root}, which is made at the first use", "")
    assert not root.exists()
    root.mkdir()
    assert check(room.cache) == (State.OK, str(root), "")
    assert list(root.iterdir()) == []
    with open_folder() as folder:
        monkeypatch.setenv("UFFDLAB_CACHE", str(folder))
        state, found, todo = as_another_user(check, room.cache)
        assert (state, found) == (State.MISSING, f"{folder} cannot be written to: Permission denied")
        assert "UFFDLAB_IMAGES" in todo
        monkeypatch.setenv("UFFDLAB_CACHE", str(folder / "closed" / "cache"))
        (folder / "closed" / "cache").mkdir(parents=True)
        (folder / "closed").chmod(0o700)
        state, found, _ = as_another_user(check, room.cache)
        assert (state, found) == (State.MISSING, f"{folder / 'closed'} cannot be written to: Permission denied")
        assert str(folder) in as_another_user(check, room.disk)[1]
        monkeypatch.setenv("UFFDLAB_CACHE", str(folder))
        shutil.rmtree(folder / "closed")
        (folder / "images").mkdir(mode=0o700)
        os.chown(folder, NOBODY, NOBODY)
        state, found, _ = as_another_user(check, room.cache)
        assert (state, found) == (State.MISSING, f"{folder}: images cannot be written to by this user")


def test_shared_memory_is_optional(monkeypatch, tmp_path):
    assert check(room.shared_memory)[0] is State.OK
    monkeypatch.setattr(room, "_SHM", tmp_path / "none")
    assert check(room.shared_memory)[0] is State.OPTIONAL


# --- kernels


def test_the_shared_store_and_each_kernel_in_it_must_be_readable(monkeypatch):
    assert check(kernels_here.shared) == (State.OK, "none is set (UFFDLAB_IMAGES)", "")
    with open_folder() as folder:
        store = folder / "store"
        monkeypatch.setenv("UFFDLAB_IMAGES", str(store))
        assert check(kernels_here.shared)[:2] == (State.MISSING, f"{store} cannot be read: No such file or directory")
        store.mkdir()
        assert check(kernels_here.shared)[:2] == (State.OK, f"{store}: no kernels")
        kernel = a_kernel(store)
        assert as_another_user(check, kernels_here.shared)[:2] == (State.OK, f"{store}: mine")
        for closed, message in (
            (kernel.image, "the images of mine cannot be read"),
            (kernel.image.parent, f"this user cannot read {kernel.image.parent.name}"),
            (store, "cannot be read: Permission denied"),
        ):
            closed.chmod(0)
            state, found, _ = as_another_user(check, kernels_here.shared)
            assert state is State.MISSING
            assert message in found
            closed.chmod(0o755)


def test_the_kernels_that_are_there_are_listed(tmp_path):
    state, _, todo = check(kernels_here.kernels)
    assert state is State.OPTIONAL
    assert "uffdlab kernel build debian/trixie" in todo
    a_kernel(tmp_path / "cache" / "images")
    assert check(kernels_here.kernels) == (State.OK, "mine", "")


# --- Debian's archive, build tools


@pytest.fixture
def with_apt(program, tmp_path, monkeypatch):
    for name in ("apt-get", "apt-cache", "apt-config", "dpkg-deb"):
        program(name, "exit 0")
    (tmp_path / "keys.gpg").touch()
    monkeypatch.setattr(apt, "_KEYRINGS", (tmp_path / "keys.gpg",))


@pytest.mark.usefixtures("with_apt")
def test_the_archive_needs_a_mirror_and_keys(monkeypatch, tmp_path):
    state, found, todo = check(sources_here.archive)
    assert state is State.MISSING
    assert "no kernel is here, and none can be fetched" in found
    assert "set UFFDLAB_MIRROR" in todo
    assert "sources" not in todo.replace("sources stay as they are", "")
    monkeypatch.setenv("UFFDLAB_MIRROR", "http://mirror.example/debian")
    assert check(sources_here.archive) == (State.OK, f"http://mirror.example/debian, {tmp_path / 'keys.gpg'}", "")
    (tmp_path / "keys.gpg").unlink()
    assert "apt-get install debian-archive-keyring" in check(sources_here.archive)[2]


def test_without_apt_a_kernel_that_is_there_suffices(tmp_path, monkeypatch):
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: FEDORA)
    state, found, todo = check(sources_here.archive)
    assert state is State.MISSING
    assert "missing apt-get, apt-cache, apt-config, dpkg-deb" in found
    assert todo.startswith("dnf install apt dpkg; ")
    assert "uffdlab kernel import FILE" in todo
    a_kernel(tmp_path / "cache" / "images")
    assert check(sources_here.archive)[0] is State.OPTIONAL


def test_missing_build_tools_are_named_and_optional(monkeypatch):
    assert check(sources_here.build_tools)[2].startswith("apt-get install gcc binutils make bc flex bison patch tar")
    monkeypatch.undo()
    assert check(sources_here.build_tools)[0] is State.OK


# --- the command


@pytest.fixture
def only(monkeypatch):
    def make(**checks):
        monkeypatch.setattr(doctor, "CHECKS", checks)

    return make


def run(*arguments):
    result = CliRunner().invoke(main, ["doctor", *arguments])
    return result.exit_code, result.output


def line(state, todo=""):
    return lambda name: doctor.Line(name, state, "found it", todo)


def test_the_exit_status_says_whether_labs_can_run(only):
    only(a=line(State.OK), b=line(State.OPTIONAL, "do it"))
    status, output = run()
    assert status == 0
    assert output.splitlines() == [
        "ok        a                 found it",
        "optional  b                 found it",
        "                            → do it",
        "Labs can run here.",
    ]
    only(a=line(State.MISSING, "do it"), b=line(State.OK), c=line(State.MISSING))
    status, output = run()
    assert status == 1
    assert output.splitlines()[-1] == "Missing: a, c."


def test_json_has_the_same(only):
    only(a=line(State.OK), b=line(State.MISSING, "do it"))
    status, output = run("--json")
    assert status == 1
    assert json.loads(output) == {
        "ok": False,
        "lines": [
            {"name": "a", "state": "ok", "found": "found it", "todo": ""},
            {"name": "b", "state": "missing", "found": "found it", "todo": "do it"},
        ],
    }


def test_a_wrong_setting_is_a_line_and_no_end(monkeypatch):
    monkeypatch.setenv("UFFDLAB_ACCEL", "xen")
    monkeypatch.setenv("UFFDLAB_MIRROR", "somewhere")
    status, output = run("--json")
    assert status == 1
    found = {each["name"]: each for each in json.loads(output)["lines"]}
    assert found.keys() == doctor.CHECKS.keys()
    assert "UFFDLAB_ACCEL is xen" in found["KVM"]["found"]


def test_on_a_host_with_nothing_every_line_is_told_and_nothing_is_made(tmp_path):
    status, output = run()
    assert status == 1
    assert all(f" {name} " in output for name in doctor.CHECKS)
    assert not (tmp_path / "cache").exists()
