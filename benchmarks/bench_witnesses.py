"""How fast each witness reads: a million pages of 4 KiB, and 64."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from harness import Row, median_seconds

from uffdlab import Lab

KERNEL = "6.1-series"
MANY = 1 << 20
FEW = 64
RUNS = 9


def rows() -> Iterator[Row]:
    """Every page is mapped (to the zero page); the peer of physical is a plain copy of as many bytes on this host."""
    with Lab(KERNEL, memory_mib=6144) as lab:  # Linux refuses a mapping larger than its memory
        region = lab.map(pages=MANY, memory="anon")
        region.sweep("read").result(120)
        for witness in lab.witnesses:
            found = region.snapshot(witness)
            assert len(found) == MANY
            value = median_seconds(partial(region.snapshot, witness), runs=RUNS, warmup=1)
            if witness == "physical":
                peer, peer_value = "a copy of 8 MiB", _copy()
            else:
                peer = "pread of pagemap in the guest"
                peer_value = lab.target_call("pread_ns", region.start, MANY) / 1e9
            yield Row(f"{witness}_1m", value * 1e3, "ms", peer, peer_value * 1e3)
        for witness in lab.witnesses:
            value = median_seconds(partial(region[:FEW].snapshot, witness), runs=50, warmup=5)
            yield Row(f"snapshot_64, {witness}", value * 1e3, "ms")


def _copy() -> float:
    source = np.random.default_rng(1).integers(0, 1 << 60, MANY, dtype=np.uint64)
    return median_seconds(source.copy, runs=21, warmup=3)
