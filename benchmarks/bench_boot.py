"""From starting a machine to the agent's hello, and from starting a program to its guest's first answer."""

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

from uffdlab import Lab, MachineError, kernels
from uffdlab.machines.qemu import accelerator, cpio, start
from uffdlab.machines.qemu.machine import QemuMachine
from uffdlab.uapi.protocol.agent import TriggerSysrq

KERNEL = "6.1-series"
FOR_BOTH = "6.1-series+virtme"  # one image, which boots with virtme-ng too
RUNS = 5
PROGRAMS = str(Path(sys.executable).parent)
# Processes of their own: interpreter, imports, machine, and a program in the guest that says what only the guest knows.
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
    """The peer is QEMU started by hand with the same kernel, whose init does nothing but power off."""
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
    with Lab(KERNEL) as at_rest:
        time.sleep(1)
        yield Row("lab_at_rest_pss", _held_mib(at_rest), "MiB")
    yield from _against_virtme_ng()


def _against_virtme_ng() -> Iterator[Row]:
    # In turns, so that what else the machine does is shared out among them all.
    kernel = kernels.get(FOR_BOTH)
    if shutil.which("vng", path=PROGRAMS) is None:
        raise SystemExit("bench_boot: virtme-ng is not in this environment: make setup-bench")
    # --verbose: where the host has no udev the answer comes over the console, which is to be shown.
    vng = ["vng", "--run", str(kernel.image), "--disable-kvm", "--verbose"]
    # What makes it faster: it does not try virtiofs first, has no more CPUs than ours, and a quiet console.
    helped = ["--force-9p", "--cpus", "1", "--memory", "1G", "--append", "loglevel=1"]
    uname = ["--", "uname", "-r"]
    commands = {
        "virtme-ng": [*vng, *uname],
        "virtme-ng, helped": [*vng, *helped, *uname],
        "boot_cold": [sys.executable, "-c", COLD, FOR_BOTH],
        "boot_restored": [sys.executable, "-c", RESTORED, FOR_BOTH],
    }
    with _emulated():
        start.start(kernel).close()  # saved once
        for name in ("boot_cold", "boot_restored"):
            _first_answer(commands[name], kernel.release)  # compiled once
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
    # For both alike.
    before = os.environ.get(accelerator.VARIABLE)
    os.environ[accelerator.VARIABLE] = "tcg"
    try:
        yield
    finally:
        if before is None:
            del os.environ[accelerator.VARIABLE]
        else:
            os.environ[accelerator.VARIABLE] = before


def _first_answer(command: list[str], release: str) -> float:
    # From the start of the process to the line with the answer; what it does after that does not count.
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
        late = threading.Timer(120, process.kill)
        late.start()
        assert process.stdout
        seconds = None
        for line in process.stdout:
            lines.append(line)
            if seconds is None and line.strip() == release:
                seconds = time.perf_counter() - started
        late.cancel()
    if seconds is None:
        raise SystemExit(f"bench_boot: {command} did not say {release}: {''.join(lines)}")
    return seconds


def _reset(kernel: str) -> float:
    with Lab(kernel) as crashed:
        with contextlib.suppress(MachineError):
            crashed.ask(TriggerSysrq("c"))
        started = time.perf_counter()
        crashed.reset()
        return time.perf_counter() - started


def _held_mib(lab: Lab) -> float:
    # What the host has less of: what QEMU and its supervisor have mapped, each page divided by those who share it, and
    # of the guest's RAM, a file, every page that exists, whether it is mapped or not.
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
