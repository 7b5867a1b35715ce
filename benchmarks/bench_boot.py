"""Time from the start of a machine to the agent's hello, and from the start of a program to its guest's answer."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from harness import Row, median_seconds

from uffdlab import Lab, MachineError, kernels, settings
from uffdlab.machines.qemu import cpio, start
from uffdlab.machines.qemu.machine import QemuMachine
from uffdlab.uapi.protocol.agent import TriggerSysrq

KERNEL = "6.1-series"
FOR_BOTH = "6.1-series+virtme"  # an image that virtme-ng can boot too
RUNS = 5
PROGRAMS = str(Path(sys.executable).parent)
# Run in new processes: interpreter, imports, machine, and a program in the guest that prints the guest's release.
RESTORED = """
import sys
from uffdlab import Lab
with Lab(sys.argv[1]) as lab:
    assert lab.machine.restored
    print(lab.exec(["uname", "-r"]).text, end="", flush=True)
"""
COLD = """
import sys
from uffdlab import Lab, kernels
from uffdlab.machines.qemu import start
with Lab(machine=start.start(kernels.get(sys.argv[1]), cold=True)) as lab:
    print(lab.exec(["uname", "-r"]).text, end="", flush=True)
"""
# reboot(2) with LINUX_REBOOT_CMD_POWER_OFF: the least that a user space can do.
INIT = """
void _start(void)
{
	long ret = 169;

	__asm__ volatile("syscall" : "+a"(ret) : "D"(0xfee1deadL), "S"(672274793L), "d"(0x4321fedcL) : "rcx", "r11");
	for (;;)
		;
}
"""


def rows() -> Iterator[Row]:
    """Measure boots.  The peer is QEMU with the same kernel and an init that only powers off."""
    kernel = kernels.get(KERNEL)
    with tempfile.TemporaryDirectory() as scratch:
        initramfs = _poweroff(Path(scratch))
        bare = median_seconds(lambda: _bare_boot(kernel.image, initramfs), runs=RUNS)
    cold = median_seconds(lambda: start.start(kernel, cold=True).close(), runs=RUNS)
    restored = median_seconds(lambda: start.start(kernel).close(), runs=RUNS)
    yield Row("boot to hello", cold, "s", "bare boot, then power-off", bare)
    yield Row("restored to hello", restored, "s", "boot to hello", cold)
    lab = median_seconds(lambda: Lab(KERNEL).close(), runs=RUNS)
    yield Row("Lab made and closed", lab, "s", "bare boot, then power-off", bare)
    yield Row(
        "reset after a panic", statistics.median(_reset(KERNEL) for _ in range(RUNS)), "s", "Lab made and closed", lab
    )
    with Lab(KERNEL) as idle_lab:
        time.sleep(1)
        yield Row("lab_at_rest_pss", _memory_mib(idle_lab), "MiB")
    yield from _against_virtme_ng()


def _against_virtme_ng() -> Iterator[Row]:
    # In turn, so that other load on the machine affects all alike.
    kernel = kernels.get(FOR_BOTH)
    if shutil.which("vng", path=PROGRAMS) is None:
        raise SystemExit("bench_boot: virtme-ng is not in this environment: make setup-bench")
    # --verbose shows the console: without udev on the host, the answer comes there.
    vng = ["vng", "--run", str(kernel.image), "--disable-kvm", "--verbose"]
    # Options that make it faster: no attempt with virtiofs, as many CPUs as our guest, fewer console messages.
    faster = ["--force-9p", "--cpus", "1", "--memory", "1G", "--append", "loglevel=1"]
    uname = ["--", "uname", "-r"]
    commands = {
        "virtme-ng": [*vng, *uname],
        "virtme-ng, helped": [*vng, *faster, *uname],
        "boot_cold": [sys.executable, "-c", COLD, FOR_BOTH],
        "boot_restored": [sys.executable, "-c", RESTORED, FOR_BOTH],
    }
    with _emulated():
        start.start(kernel).close()  # saves the state once
        for name in ("boot_cold", "boot_restored"):
            _first_answer(commands[name], kernel.release)  # compiles to bytecode once
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(RUNS):
            for name, command in commands.items():
                times[name].append(_first_answer(command, kernel.release))
    for name in ("boot_restored", "boot_cold"):
        for peer in ("virtme-ng", "virtme-ng, helped"):
            seconds = statistics.median(times[name])
            yield Row(name, seconds, "s", f"{peer}: uname -r", statistics.median(times[peer]))


@contextlib.contextmanager
def _emulated() -> Iterator[None]:
    # Without KVM, for both alike.
    before = os.environ.get(settings.ACCEL.variable)
    os.environ[settings.ACCEL.variable] = "tcg"
    try:
        yield
    finally:
        if before is None:
            del os.environ[settings.ACCEL.variable]
        else:
            os.environ[settings.ACCEL.variable] = before


def _first_answer(command: list[str], release: str) -> float:
    # Seconds from the start of the process to the line with the answer.
    environment = os.environ | {"PATH": f"{PROGRAMS}:{os.environ['PATH']}"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # pip has compiled virtme-ng; ours is compiled at the first import
    started, lines = time.perf_counter(), list[str]()
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,  # virtme-ng shows the console there
        text=True,
    ) as process:
        watchdog = threading.Timer(120, process.kill)
        watchdog.start()
        assert process.stdout
        seconds = None
        for line in process.stdout:
            lines.append(line)
            if seconds is None and line.strip() == release:
                seconds = time.perf_counter() - started
        watchdog.cancel()
    if seconds is None:
        raise SystemExit(f"bench_boot: {command} did not print {release}: {''.join(lines)}")
    return seconds


def _reset(kernel: str) -> float:
    with Lab(kernel) as crashed:
        with contextlib.suppress(MachineError):
            crashed.ask(TriggerSysrq("c"))
        started = time.perf_counter()
        crashed.reset()
        return time.perf_counter() - started


def _memory_mib(lab: Lab) -> float:
    # Memory of the host in use: the proportional set size of QEMU and its supervisor, and each page that exists of the
    # file with the guest's RAM, mapped or not.
    machine = lab.machine
    assert isinstance(machine, QemuMachine)
    kib = 0
    for process in machine.pids:
        rows = dict(line.split(":", 1) for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:])
        kib += int(rows["Pss"].split()[0]) - int(rows["Pss_Shmem"].split()[0])
    return kib / 1024 + machine.ram_bytes / (1 << 20)


def _poweroff(folder: Path) -> Path:
    source, binary, archive = folder / "init.c", folder / "init", folder / "initramfs"
    source.write_text(INIT)
    subprocess.run(["cc", "-static", "-nostdlib", "-O2", "-o", binary, source], check=True)
    archive.write_bytes(cpio.pack({"init": cpio.file(binary.read_bytes(), executable=True)}))
    return archive


def _bare_boot(image: Path, initramfs: Path) -> None:
    qemu = shutil.which("qemu-system-x86_64")
    assert qemu
    command = [qemu, "-machine", "q35,accel=tcg", "-cpu", "max", "-m", "1024", "-nodefaults", "-display", "none"]
    command += ["-no-reboot", "-nic", "none", "-kernel", str(image), "-initrd", str(initramfs), "-append", "quiet"]
    subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)
