"""Errors of the native parts are reported; tests/native/sanitized.py runs these tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from uffdlab.lab import Lab

REPORTS = os.environ.get("UFFDLAB_SANITIZER_REPORTS")
pytestmark = pytest.mark.skipif(not REPORTS, reason="the native parts are not sanitized; `make test-long` does that")

INSERTED = {
    # The buffer has eight bytes.
    "heap-buffer-overflow": "from uffdlab.bulk._bulk import ffi, lib; lib.bulk_sum(1, ffi.new('char[8]'), 64)",
    # A joined touch has no thread, so a member of a null pointer is accessed, which is undefined behaviour.
    "ILL": """
from uffdlab.agent._native import ffi, lib
import os, select
touch = ffi.new("struct lab_touch *")
touch.done_fd = os.eventfd(0)
touch.address = int(ffi.cast("uintptr_t", touch))
assert lib.lab_touch_start(touch) == 0
select.select([touch.done_fd], [], [])
lib.lab_touch_join(touch)
lib.lab_touch_withdraw(touch)
""",
    # A fault that is not of a touch.
    "SEGV": """
from uffdlab.agent._native import ffi, lib
import os, select
touch = ffi.new("struct lab_touch *")
touch.done_fd = os.eventfd(0)
touch.address = int(ffi.cast("uintptr_t", touch))
assert lib.lab_touch_start(touch) == 0  # this installs the handler for SIGSEGV
select.select([touch.done_fd], [], [])
lib.lab_poke(8, b"x", 1)
""",
}


@pytest.mark.parametrize("error", INSERTED)
def test_an_inserted_error_is_reported(error):
    before = set(Path(REPORTS).iterdir())
    done = subprocess.run([sys.executable, "-c", INSERTED[error]], stderr=subprocess.PIPE, text=True, check=False)
    (report,) = set(Path(REPORTS).iterdir()) - before
    text = report.read_text()
    report.unlink()
    assert done.returncode == 77
    assert error in text


def test_agent_and_target_are_sanitized():
    with Lab(machine="local") as lab:
        for pid in (lab.machine.hello.pid, lab.target_pid):
            maps = Path(f"/proc/{pid}/maps").read_text()
            assert "libasan" in maps
            assert "build/sanitized/lib/uffdlab/agent/_native" in maps
