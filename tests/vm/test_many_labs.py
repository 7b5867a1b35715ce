"""A thousand labs, one after the other, leave nothing, and the last ones start as fast as the first.

``UFFDLAB_LABS`` sets another number of labs, for a busy machine.  ``pytest -rP`` shows the measured values.
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
MAX_GROWTH_MIB = 4  # of the process, after a thousand machines of 1 GiB each


def test_a_thousand_labs_leave_nothing(tmp_path):
    kernel = kernels.get("6.1-series").image
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, Path(__file__).with_name("many_labs.py"), str(LABS), str(PART), kernel]
    environment = {**os.environ, "UFFDLAB_CACHE": str(tmp_path / "cache"), "TMPDIR": str(scratch)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=9000)
    report = json.loads(done.stdout)
    before, after, first, last = (report[key] for key in ("before", "after", "first", "last"))
    for clock in first:
        ratio = last[clock] / first[clock]
        print(f"{clock}: {first[clock]:.4f} s each for the first {PART} of {LABS}, "  # noqa: T201
              f"{last[clock]:.4f} s for the last {PART}: {ratio:.3f}")  # fmt: skip
    for name in before.keys() - {"named"}:
        print(f"{name}: {before[name]} before, {after[name]} after")  # noqa: T201
    # Only anonymous memory counts: which pages of libraries are in memory depends on other processes.
    memory_before, memory_after = before.pop("memory"), after.pop("memory")
    assert after == before
    assert memory_after["Anonymous"] - memory_before["Anonymous"] < MAX_GROWTH_MIB
    # Wall-clock time would include other load on this machine.
    assert last["cpu"] < 1.2 * first["cpu"]
