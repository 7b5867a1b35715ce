"""Many labs at once on one machine, each of a user of their own: memory of each, of all, and time.

``python benchmarks/classroom.py [LABS] [KERNEL]``: each lab is a process with a cache of its own, and kernels are read
from a shared store.  All start at once: first with empty caches, so that each boots; then again, so that each restores
its saved guest.  Prints two rows of a Markdown table.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from uffdlab import kernels
from uffdlab.kernels import shared_store

_DEADLINE = 1800.0  # s, for all labs to be there
_USER = """
import json, sys, time
from uffdlab import Lab
began = time.monotonic()
with Lab(sys.argv[1]) as lab:
    region = lab.map(pages=64)
    region.alias.fill(1)
    uffd = lab.userfaultfd()
    uffd.register(region, "minor", "wp")
    uffd.continue_(region[:32], wp=True)
    region.snapshot()
    print(json.dumps([time.monotonic() - began, lab.machine.restored]), flush=True)
    sys.stdin.read()
"""


def main(count: int, kernel: str) -> None:
    """Measure both starts and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder, "store")
        shared_store.share(kernels.Supply().finished(kernel), store)
        print(f"| {count} labs of {kernel} | ready, each | all ready | memory each: Python | QEMU | all |")
        print("|---|---|---|---|---|---|")
        for name in ("first start", "next start"):
            print(_row(name, _start_all(count, kernel, Path(folder), store)))


def _start_all(count: int, kernel: str, folder: Path, store: Path) -> dict[str, float]:
    before, began = _available(), time.monotonic()
    running = []
    for number in range(count):
        environment = {**os.environ, "UFFDLAB_CACHE": str(folder / f"user{number}"), "UFFDLAB_IMAGES": str(store)}
        command = [sys.executable, "-c", _USER, kernel]
        running.append(
            subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        )
    try:
        answers = []
        for process in running:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                assert process.stderr is not None
                raise SystemExit(process.stderr.read().decode())
            answers.append(json.loads(line))
        whole = time.monotonic() - began
        python = [_pss([process.pid]) for process in running]
        machines = [_pss(_descendants(process.pid)) for process in running]
        return {
            "least": min(answer[0] for answer in answers),
            "median": statistics.median(answer[0] for answer in answers),
            "most": max(answer[0] for answer in answers),
            "restored": sum(answer[1] for answer in answers),
            "whole": whole,
            "python": statistics.median(python),
            "qemu": statistics.median(machines),
            "all": before - _available(),
        }
    finally:
        for process in running:
            assert process.stdin is not None
            process.stdin.close()
        for process in running:
            process.wait(_DEADLINE)


def _row(name: str, found: dict[str, float]) -> str:
    return (
        f"| {name} ({found['restored']:.0f} restored) | {found['least']:.1f} to {found['most']:.1f} s, median "
        f"{found['median']:.1f} s | {found['whole']:.0f} s | {found['python']:.0f} MiB | {found['qemu']:.0f} MiB | "
        f"{found['all'] / 1024:.1f} GiB |"
    )


def _descendants(pid: int) -> list[int]:
    children = [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    for thread in Path(f"/proc/{pid}/task").iterdir():
        if thread.name != str(pid):
            children += [int(text) for text in (thread / "children").read_text().split()]
    return [each for child in children for each in [child, *_descendants(child)]]


def _pss(pids: list[int]) -> float:
    # The memory of processes in MiB, with their share of what they have in common with others.
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def _available() -> float:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("MemAvailable:"))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30, sys.argv[2] if len(sys.argv) > 2 else "debian/trixie")
