"""A thousand labs, one after the other, leave nothing, and the last comes up as fast as the first.

``UFFDLAB_LABS`` is another number of them, for a busy machine; ``pytest -rP`` shows what was measured.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from uffdlab import kernels

pytestmark = [pytest.mark.vm, pytest.mark.long, pytest.mark.timeout(10_000)]

LABS = int(os.environ.get("UFFDLAB_LABS", "1000"))
PART = max(5, LABS // 10)
GROWTH = 4  # MiB that the process may have grown by, of a thousand machines of 1 GiB each


def test_a_thousand_labs_leave_nothing(tmp_path):
    kernel = kernels.get("6.1-series").image
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, Path(__file__).with_name("many_labs.py"), str(LABS), str(PART), kernel]
    around = {**os.environ, "UFFDLAB_CACHE": str(tmp_path / "cache"), "TMPDIR": str(scratch)}
    done = subprocess.run(command, env=around, stdout=subprocess.PIPE, text=True, check=True, timeout=9000)
    report = json.loads(done.stdout)
    before, after, first, last = (report[what] for what in ("before", "after", "first", "last"))
    for what in first:
        print(f"{what}: the first {PART} of {LABS} took {first[what]:.4f} s each, the last {PART} {last[what]:.4f} s: "  # noqa: T201
              f"{last[what] / first[what]:.3f}")  # fmt: skip
    for what in before.keys() - {"named"}:
        print(f"{what}: {before[what]} before, {after[what]} after")  # noqa: T201
    # What is its own; how much of a library is in memory, and shared with whom, is the machine's doing.
    memory, now = before.pop("memory"), after.pop("memory")
    assert after == before
    assert now["Anonymous"] - memory["Anonymous"] < GROWTH
    # By the clock others on this machine count too.
    assert last["cpu"] < 1.2 * first["cpu"]
