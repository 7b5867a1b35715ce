"""A machine that cannot be started: the error says why, and nothing is left."""

import os
import platform
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from uffdlab import errors
from uffdlab.kernels import Kernel
from uffdlab.machines.qemu import saved_state, start
from uffdlab.machines.qemu.command import Settings
from uffdlab.machines.qemu.initramfs import Initramfs
from uffdlab.machines.qemu.machine import _ram_file

from ...leftovers import nothing_left, open_resources


@pytest.fixture(autouse=True)
def _emulated(monkeypatch, tmp_path):
    monkeypatch.setenv("UFFDLAB_ACCEL", "tcg")
    monkeypatch.setenv("UFFDLAB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def kernel(tmp_path):
    image = tmp_path / "vmlinux"
    image.touch()
    return Kernel("a kernel", image, "", "key")


@pytest.fixture
def program(tmp_path, monkeypatch):
    # Put a shell script in place of QEMU.
    def make(script):
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / start.PROGRAM).write_text(f"#!/bin/sh\n{script}\n")
        (folder / start.PROGRAM).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return make


@pytest.fixture
def before():
    return open_resources()


def test_without_qemu_the_error_says_how_to_install_it(kernel, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.HostUnsupported, match="apt-get install qemu-system-x86") as caught:
        start.start(kernel)
    assert caught.value.missing == "qemu"


@pytest.mark.parametrize(("system", "machine"), [("linux", "aarch64"), ("darwin", "x86_64")])
def test_a_host_other_than_x86_64_linux_is_refused(kernel, monkeypatch, system, machine):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    with pytest.raises(errors.HostUnsupported, match="x86-64 Linux"):
        start.start(kernel)


def test_the_first_start_reports_that_it_makes_the_initramfs(kernel, program, capsys):
    program("exit 4")
    printed = []
    for _ in range(2):
        with pytest.raises(errors.MachineLost):
            start.start(kernel)
        printed.append(capsys.readouterr().err)
    assert re.search(
        r"^a kernel: makes the guest's initramfs .*\na kernel: initramfs made in [\d.]+ s\na kernel: boots under tcg",
        printed[0],
    )
    assert "initramfs" not in printed[1]


def test_qemu_that_ends_at_once_is_reported_with_its_output(kernel, program, before):
    program("echo 'no such device' >&2; exit 4")
    with pytest.raises(errors.MachineLost, match="ended with status 4: no such device"):
        start.start(kernel)
    assert nothing_left(before)


def test_qemu_that_sends_nothing_is_an_error_at_the_deadline(kernel, program, before):
    program("exec sleep 100")
    with pytest.raises(errors.MachineTimeout, match=r"did not start.*within \d+\.\d s"):
        start.start(kernel, deadline=0.5)
    assert nothing_left(before)


def test_invalid_data_from_qemu_is_an_error(kernel, program, before):
    # It writes invalid bytes to every descriptor that it has.
    program(
        "for fd in 4 5 6 7 8 9 10 11 12 13 14 15 16; do printf '\\301\\301' >&$fd; done 2>/dev/null; exec sleep 100"
    )
    with pytest.raises(errors.MachineError):
        start.start(kernel, deadline=10)
    assert nothing_left(before)


@pytest.mark.parametrize(
    "options",
    [
        {"cpus": 0},
        {"cpus": 65},
        {"memory_mib": 0},
        {"memory_mib": 100},
        {"memory_mib": 1 << 30},
        {"append": "quiet -- sh"},
        {"append": "a\nb"},
    ],
)
def test_invalid_options_are_refused(kernel, options):
    with pytest.raises(errors.UsageError, match=next(iter(options))):
        start.start(kernel, **options)


def test_a_missing_image_is_an_error(tmp_path):
    with pytest.raises(errors.KernelError, match="there is no image"):
        start.start(Kernel("gone", tmp_path / "gone", "", "key"))


def test_too_little_available_memory_is_reported(kernel, monkeypatch, before):
    monkeypatch.setattr("uffdlab.machines.qemu.machine._available_mib", lambda: 20)
    with pytest.raises(errors.HostUnsupported, match="20 MiB of memory are available") as caught:
        start.start(kernel)
    assert caught.value.missing == "memory"
    assert nothing_left(before)


def test_a_failed_allocation_of_memory_is_reported(kernel, monkeypatch, before):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(errors.HostUnsupported, match="No space left"):
        _ram_file(1024)
    assert nothing_left(before)


def test_the_options_of_the_user_come_last_on_the_command_line():
    settings = Settings("qemu", Path("k"), "", Initramfs(Path("i"), ""), "tcg", 1, 1024, "loglevel=7")
    assert settings.command_line.endswith(" loglevel=7")


@pytest.mark.parametrize(
    "change",
    [
        {"kernel_key": "other"},
        {"initramfs": Initramfs(Path("i"), "other")},
        {"accelerator": "kvm"},  # and with it the CPU model
        {"cpus": 2},
        {"memory_mib": 512},
        {"append": "quiet"},
        "another image at its path",
        "another QEMU at its path",
        "the CPU model",
        "the host's CPU",
    ],
    ids=str,
)
def test_every_option_of_a_machine_is_in_the_key_of_its_saved_state(tmp_path, monkeypatch, change):
    image, program = tmp_path / "vmlinux", tmp_path / "qemu"
    image.write_text("a kernel")
    program.write_text("an emulator")
    settings = Settings(str(program), image, "key", Initramfs(Path("i"), "key"), "tcg", 1, 1024, "")
    before = start._state_key(settings)
    assert start._state_key(replace(settings)) == before
    match change:
        case "another image at its path":
            image.write_text("another kernel")
        case "another QEMU at its path":
            program.write_text("another emulator")
        case "the CPU model":
            monkeypatch.setattr(Settings, "cpu", "qemu64")
        case "the host's CPU":
            monkeypatch.setattr(start, "_host_cpu", lambda: "another")
        case _:
            settings = replace(settings, **change)
    assert start._state_key(settings) != before


def test_a_saved_state_of_another_format_has_another_key(monkeypatch):
    before = saved_state.key("a")
    monkeypatch.setattr(saved_state, "_MAGIC", b"uffdlab-state-1\n")
    assert saved_state.key("a") != before
