"""From starting a machine to the agent's hello."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness import Row, median_seconds

from uffdlab import Lab, kernels
from uffdlab.machines import cpio, qemu
from uffdlab.machines.guest import QemuMachine

KERNEL = "6.1-series"
RUNS = 5
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
    cold = median_seconds(lambda: qemu.start(kernel, cold=True).close(), runs=RUNS)
    restored = median_seconds(lambda: qemu.start(kernel).close(), runs=RUNS)
    yield Row("boot to hello", cold, "s", "bare boot, then power-off", bare)
    yield Row("restored to hello", restored, "s", "boot to hello", cold)
    lab = median_seconds(lambda: Lab(KERNEL).close(), runs=RUNS)
    yield Row("Lab made and closed", lab, "s", "bare boot, then power-off", bare)
    with Lab(KERNEL) as at_rest:
        time.sleep(1)
        yield Row("lab_at_rest_pss", _held_mib(at_rest), "MiB")


def _held_mib(lab: Lab) -> float:
    # What the host has less of: what QEMU and its keeper have mapped, each page divided by those who share it, and of
    # the guest's RAM, a file, every page that exists, whether it is mapped or not.
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
