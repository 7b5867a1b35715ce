"""What runs a guest: QEMU, KVM, busybox, Vagrant."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from uffdlab import settings
from uffdlab.doctor.line import Line, State
from uffdlab.errors import HostUnsupported
from uffdlab.machines.qemu import accelerator, start
from uffdlab.processes import system_packages
from uffdlab.processes.job import JobTimeout, run

_DEADLINE = 10.0  # s, of a program that prints its version
_KVM_DEADLINE = 10.0  # s; a guest under KVM ends in less than one
_ROM = 1 << 16  # bytes
_RESET_VECTOR = 0xFFF0  # in the ROM, where an x86 CPU begins
_PORT, _VALUE = 0xF4, 0x2A
_WRITE = bytes([0xB0, _VALUE, 0xE6, _PORT, 0xF4])  # mov al, VALUE; out PORT, al; hlt
_STATUS = _VALUE << 1 | 1  # what isa-debug-exit makes of the value


def qemu(name: str) -> Line:
    """Check whether QEMU is in PATH and runs."""
    program = shutil.which(start.PROGRAM)
    if program is None:
        todo = system_packages.how_to_install(start.PROGRAM)
        return Line(name, State.MISSING, f"{start.PROGRAM} is not in PATH ({os.environ.get('PATH', '')})", todo)
    return _version(name, [program, "--version"], State.MISSING)


def kvm(name: str) -> Line:
    """Check whether guests run under KVM.  A device that opens proves nothing, so a guest of one instruction runs."""
    wanted = settings.accelerator()
    if wanted == "tcg":
        return Line(name, State.OK, f"not used: {settings.ACCEL.variable} is tcg")
    why, todo = _no_kvm()
    if not why:
        return Line(name, State.OK, todo)
    if wanted == "kvm":
        return Line(name, State.MISSING, why, f"{todo}, or unset {settings.ACCEL.variable}")
    return Line(name, State.OPTIONAL, f"{why}: guests run under emulation, several times slower", todo)


def _no_kvm() -> tuple[str, str]:
    # Returns why guests do not run under KVM and what to do, or an empty string and how it is known that they do.
    device = accelerator.DEVICE
    if not device.exists():
        return f"{device} does not exist", "enable virtualization in the firmware, or nested virtualization of the VM"
    if not os.access(device, os.R_OK | os.W_OK):
        return f"{device} cannot be opened by this user", "as root: usermod -aG kvm USER; then log in again"
    try:
        program = start.find_program()
    except HostUnsupported:
        return f"{device} can be opened; without QEMU it is unknown whether a guest runs", "install QEMU"
    known = accelerator.verdict(program)
    if known == ("kvm", ""):
        return "", "a guest of uffdlab has run since this host started"
    if why := known[1] if known else _runs_under_kvm(program):
        return f"{device} can be opened, but {why}", "nothing; uffdlab tries again after the next start of this host"
    return "", "a guest of one instruction ran"


def busybox(name: str) -> Line:
    """Check for the guest's shell and tools."""
    program = shutil.which("busybox")
    if program is None:
        return Line(
            name,
            State.OPTIONAL,
            "not in PATH: guests have no shell and no tools for `uffdlab exec`",
            system_packages.how_to_install("busybox"),
        )
    return _version(name, [program, "--help"], State.OPTIONAL)


def vagrant(name: str) -> Line:
    """Check for Vagrant, which only ``machine="vagrant"`` needs."""
    program = shutil.which("vagrant")
    if program is None:
        return Line(
            name,
            State.OPTIONAL,
            'not in PATH; only machine="vagrant" needs it',
            system_packages.how_to_install("vagrant"),
        )
    return Line(name, State.OK, program)  # it takes seconds to print its version


def _version(name: str, command: list[str], otherwise: State) -> Line:
    # The line with the first line that a program prints, or with its error.
    try:
        status, output = run(command, deadline=_DEADLINE)
    except JobTimeout:
        status, output = -1, f"{command[0]} did not end within {_DEADLINE:.0f} s"
    except OSError as error:
        status, output = -1, f"{command[0]}: {error.strerror}"
    first = re.sub(r"[^ -~]", "?", (output.splitlines() or [""])[0])
    if status:
        return Line(name, otherwise, f"{command[0]} does not run ({status}): {first}", "install it again")
    return Line(name, State.OK, f"{first}, {command[0]}")


def _runs_under_kvm(program: str) -> str:
    # Returns why a guest does not run under KVM, or an empty string.  Its firmware is the one instruction.
    rom = bytearray(_ROM)
    rom[_RESET_VECTOR : _RESET_VECTOR + len(_WRITE)] = _WRITE
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rom")
        path.write_bytes(rom)
        machine = [
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-nic",
            "none",
            "-machine",
            "q35",
        ]
        device = ["-device", f"isa-debug-exit,iobase={_PORT:#x},iosize=0x4", "-bios", str(path)]
        try:
            done = subprocess.run(
                [program, *machine, "-accel", "kvm", "-cpu", "host,la57=off", "-m", "16M", *device],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_KVM_DEADLINE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"a guest under it had not run one instruction after {_KVM_DEADLINE:.0f} s"
        except OSError as error:
            return f"QEMU did not start ({error.strerror})"
    if done.returncode == _STATUS:
        return ""
    message = re.sub(r"[^ -~]", "?", (done.stderr.strip().splitlines() or [""])[0])
    return f"a guest under it did not run (QEMU ended with {done.returncode}: {message})"
