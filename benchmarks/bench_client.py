"""The client against the same loops in C, and one ioctl from here to the guest and back."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from harness import Row, median_seconds

from uffdlab import Lab
from uffdlab.uapi import ContinueMode

KERNEL = "6.1-series"
PAGES = 100_000
ROUNDS = 5
PEER = Path(__file__).resolve().parent / "peers" / "uffd_loops.c"


def rows() -> Iterator[Row]:
    """Measure ours and the peer in turn, and give the medians."""
    with tempfile.TemporaryDirectory() as folder, Lab(machine="local") as lab:
        program = Path(folder) / "uffd_loops"
        subprocess.run(["cc", "-O2", "-pthread", "-o", program, PEER], check=True)
        yield _against(program, "continue_wp_batch", "batch", lambda: _batch(lab), "the same loop in C")
        yield _against(program, "handler_faults", "handler", lambda: _handler(lab), "a handler in C")
    with Lab(KERNEL) as lab:
        region = lab.map(pages=1)
        uffd = lab.userfaultfd()
        uffd.register(region, "missing")
        value = median_seconds(lambda: uffd.wake(region), runs=300, warmup=20)
    yield Row("rpc_ioctl", value * 1e3, "ms")


def _against(program: Path, name: str, mode: str, ours: Callable[[], float], peer: str) -> Row:
    values, peers = [], []
    for _ in range(ROUNDS):
        values.append(ours())
        said = subprocess.run([program, mode, str(PAGES)], check=True, capture_output=True, text=True).stdout
        peers.append(int(said) / 1e6)
    return Row(name, statistics.median(values), "ms", peer, statistics.median(peers))


def _batch(lab: Lab) -> float:
    region = lab.map(pages=PAGES)
    region.alias.fill()
    with lab.userfaultfd() as uffd:
        uffd.register(region, "minor", "wp")
        took = uffd.batch("UFFDIO_CONTINUE", region, mode=int(ContinueMode.WP)).took_ns
    region.unmap()
    return took / 1e6


def _handler(lab: Lab) -> float:
    region = lab.map(pages=PAGES)
    region.alias.fill()
    with lab.userfaultfd() as uffd:
        uffd.register(region, "minor", "wp")
        with uffd.handle_natively(minor="continue") as handler:
            took = region.sweep().outcome(120).took_ns
        assert handler.stop().total == PAGES
    region.unmap()
    return took / 1e6
