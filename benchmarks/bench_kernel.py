"""Time to get a kernel: built from nothing, built as a second variant, and from the cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness import Row, median_seconds

from uffdlab import kernels

SCRATCH = Path(__file__).resolve().parent.parent / "build" / "bench"
FIRST, SECOND = "6.1-base", "6.1-series"


def rows() -> Iterator[Row]:
    """Build two variants in a cache of their own, so that the user's cache is neither used nor changed."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=SCRATCH, prefix="cache-") as cache:
        first = _build(FIRST, cache)
        variant = _build(SECOND, cache)
    yield Row(f"kernel {FIRST} from nothing", first, "s")
    yield Row(f"kernel {SECOND} after {FIRST}", variant, "s", f"{FIRST} from nothing", first)
    kernels.get(SECOND)
    cached = median_seconds(lambda: kernels.get(SECOND), runs=10)
    yield Row(f"kernel {SECOND} from the cache", cached, "s", f"{SECOND} after {FIRST}", variant)


def _build(name: str, cache: str) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-m", "uffdlab", "kernel", "build", name]
    subprocess.run(command, env=os.environ | {"UFFDLAB_CACHE": cache}, check=True, timeout=3600)
    return time.perf_counter() - start
