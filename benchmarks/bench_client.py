"""The client compared with the same loops in C, and the round trip of one ioctl to the guest."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness import Row

from uffdlab import Lab
from uffdlab.uapi import ContinueMode
from uffdlab.uapi.protocol.agent import Ping

KERNEL = "6.1-series"
PAGES = 100_000
ROUNDS, ROUNDS_IN_A_GUEST = 7, 5  # odd, so that one pair is the median
BLOCKS, CALLS = 8, 50  # blocks of calls, of ours and the peer in turn
PEER = Path(__file__).resolve().parent / "peers" / "uffd_loops.c"


def rows() -> Iterator[Row]:
    """Measure ours and the peer in turn, on this host's kernel and in a guest.

    Each round measures a pair, one right after the other.  The row is the pair with the median ratio, so that no
    unusually slow or fast round decides.
    """
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "uffd_loops"
        subprocess.run(["cc", "-O2", "-pthread", "-o", program, PEER], check=True)

        def on_host(mode: str) -> str:
            return subprocess.run([program, mode, str(PAGES)], check=True, capture_output=True, text=True).stdout

        with Lab(machine="local") as lab:
            yield from _against_c(lab, on_host, ROUNDS, "")
        with Lab(KERNEL) as lab:

            def in_guest(mode: str) -> str:
                done = lab.exec(["./uffd_loops", mode, str(PAGES)], push=[program], deadline=300)
                if done.status:
                    raise RuntimeError(f"uffd_loops {mode} in the guest ended with {done.status}: {done.text}")
                return done.text

            yield _one_ioctl(lab)
            yield from _against_c(lab, in_guest, ROUNDS_IN_A_GUEST, ", in the VM")


def _one_ioctl(lab: Lab) -> Row:
    """Measure an ioctl in the target.  The peer is a call that the agent itself answers; both are called in turn."""
    region = lab.map(pages=1)
    ours: list[float] = []
    peers: list[float] = []
    with lab.userfaultfd() as uffd:
        uffd.register(region, "missing")
        for _ in range(BLOCKS):
            peers += _seconds(lambda: lab.ask(Ping(1)))
            ours += _seconds(lambda: uffd.wake(region))
    region.unmap()
    value, peer = (statistics.median(times) * 1e3 for times in (ours, peers))
    return Row("rpc_ioctl", value, "ms", "a call that the agent answers itself", peer)


def _seconds(call: Callable[[], object]) -> list[float]:
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def _against_c(lab: Lab, peer: Callable[[str], str], rounds: int, where: str) -> Iterator[Row]:
    for name, mode, ours, what in (
        ("continue_wp_batch", "batch", _batch, "the same loop in C"),
        ("handler_faults", "handler", _handler, "a handler in C"),
    ):
        pairs = []
        for turn in range(rounds):
            if turn % 2:  # they take turns in coming first
                value = ours(lab)
                other = int(peer(mode)) / 1e6
            else:
                other = int(peer(mode)) / 1e6
                value = ours(lab)
            pairs.append((value, other))
        value, other = _median_pair(pairs)
        yield Row(f"{name}{where}", value, "ms", what, other)


def _median_pair(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    ordered = sorted(pairs, key=lambda pair: pair[0] / pair[1])
    return ordered[len(ordered) // 2]


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
